"""The Makefile: what it says where it cannot set up, and what it hands to the command."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.helpers.job import PROJECT


@pytest.fixture
def folder(tmp_path):
    """A project with the Makefile alone, in a folder with a space; its command shows its arguments."""
    project = tmp_path / "my project"
    (project / "config").mkdir(parents=True)
    shutil.copy(PROJECT / "Makefile", project)
    for name in ("pyproject.toml", "config/requirements.lock"):
        (project / name).touch()
    return project


def make(project, *arguments):
    environment = {"PATH": os.environ["PATH"], "HOME": str(project)}
    command = ["make", "-C", project, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=60)


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("python", "says"),
    [
        (
            'case "$*" in *version_info*) exit 1;; -V) echo Python 3.9.2;; esac',
            "is Python 3.9.2, but the job needs 3.11 or newer",
        ),
        ('case "$*" in *venv*) exit 1;; esac', "has no venv module"),
        (None, "was not found"),
    ],
)
def test_where_python_will_not_do_one_line_says_so(folder, tmp_path, python, says):
    path = script(tmp_path / "python", python) if python else tmp_path / "none"
    done = make(folder, "demo", f"PYTHON={path}")
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[0]
    assert done.stderr.splitlines()[1].startswith("make: ***")
    assert not (folder / ".venv").exists()


def test_the_command_gets_input_as_it_was_given_and_the_options(folder):
    script(folder / ".venv" / "bin" / "recover", 'for one; do echo "<$one>"; done')
    (folder / ".venv" / ".run-stamp").touch()
    done = make(
        folder, "-s", "recover", "INPUT=my $list.csv", "OUTPUT=out dir", "RATE=3", "WORKERS=2", "ARGS=--limit 5"
    )
    given = ["run", "--output", "out dir", "--rate", "3", "--workers", "2", "--limit", "5", "--", "my $list.csv"]
    assert [line for line in done.stdout.splitlines() if "<" in line] == [f"<{word}>" for word in given]
    done = make(folder, "-s", "plan", "INPUT=-x.csv")
    assert "<plan>\n<-->\n<-x.csv>" in done.stdout
    done = make(folder, "recover")
    assert "INPUT is not set" in done.stderr
    assert "make demo" in done.stderr


# A Python whose environments have no pip but this one: it installs a command that imports something late.
PIP = """
import os, pathlib, sys
if os.environ.get("WORD") == "torn":
    sys.exit("no network")
site = pathlib.Path(__file__).parent.parent
(site / "late.py").write_text(f"WORD = {os.environ.get('WORD', 'one')!r}")
command = pathlib.Path(sys.executable).with_name("recover")
command.write_text(f"#!{sys.executable}\\nprint('ready', flush=True)\\ninput()\\nimport late\\nprint(late.WORD)\\n")
command.chmod(0o755)
"""


@pytest.fixture
def python(tmp_path):
    return script(
        tmp_path / "python",
        f"""set -e
case "$*" in
-m\\ venv*)
  {sys.executable} -m venv --without-pip "$3"
  for site in "$3"/lib/python*/site-packages; do mkdir "$site/pip"; cp {tmp_path}/pip.py "$site/pip/__main__.py"; done;;
*) exec {sys.executable} "$@";;
esac""",
    )


@pytest.fixture
def updated(tmp_path, python):
    """A project with an environment, in a folder without a space; `updated(word)` sets it up again as an update would."""
    (tmp_path / "pip.py").write_text(PIP)
    project = tmp_path / "project"
    (project / "config").mkdir(parents=True)
    shutil.copy(PROJECT / "Makefile", project)

    def set_up(word):
        for name in ("pyproject.toml", "config/requirements.lock"):
            (project / name).touch()
            ahead = time.time() + 1  # Newer than any stamp, however coarse the file system's clock.
            os.utime(project / name, (ahead, ahead))
        environment = {"PATH": os.environ["PATH"], "HOME": str(project), "WORD": word}
        command = ["make", "-C", project, "setup", f"PYTHON={python}"]
        return project, subprocess.run(
            command, capture_output=True, text=True, env=environment, check=False, timeout=60
        )

    return set_up


def job(project):
    """A job under way that has not imported everything yet."""
    pipe = subprocess.PIPE
    process = subprocess.Popen([project / ".venv" / "bin" / "recover"], stdin=pipe, stdout=pipe, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def age(project):
    for environment in (project / ".venvs").iterdir():
        os.utime(environment, (1_700_000_000, 1_700_000_000))


def test_an_update_leaves_a_running_job_the_environment_that_it_began_in(updated):
    project, done = updated("one")
    assert done.returncode == 0, done.stderr
    began = job(project)
    age(project)
    _, done = updated("two")
    assert done.returncode == 0, done.stderr
    assert began.communicate("\n", timeout=30)[0] == "one\n"
    assert job(project).communicate("\n", timeout=30)[0] == "two\n"
    assert len(list((project / ".venvs").iterdir())) == 2
    age(project)
    updated("three")  # Nobody uses the first any more, nor the second.
    assert [one.name for one in (project / ".venvs").iterdir()] == [(project / ".venv").readlink().name]
    assert job(project).communicate("\n", timeout=30)[0] == "three\n"


def test_a_setup_that_fails_leaves_the_environment_that_was_there(updated):
    project, _ = updated("one")
    _, done = updated("torn")
    assert done.returncode == 2
    assert "no network" in done.stderr
    assert job(project).communicate("\n", timeout=30)[0] == "one\n"
    assert len(list((project / ".venvs").iterdir())) == 1


def test_an_environment_of_an_earlier_version_is_replaced_where_no_job_runs_from_it(updated, tmp_path):
    project = tmp_path / "project"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / ".venv"], check=True)
    script(project / ".venv" / "bin" / "recover", "echo ready; read line; echo old").write_text(
        f"#!{project}/.venv/bin/python\nprint('ready', flush=True)\ninput()\nprint('old')\n"
    )
    began = job(project)
    _, done = updated("new")
    assert done.returncode == 2
    assert "error: a job is running from .venv" in done.stderr
    assert began.communicate("\n", timeout=30)[0] == "old\n"
    _, done = updated("new")
    assert done.returncode == 0, done.stderr
    assert job(project).communicate("\n", timeout=30)[0] == "new\n"
