"""The Makefile: what it says where it cannot set up, and what it hands to the command."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from .conftest import PROJECT


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
        ('case "$*" in *version_info*) exit 1;; -V) echo Python 3.9.2;; esac', "is Python 3.9.2 and 3.11 or newer"),
        ('case "$*" in *venv*) exit 1;; esac', "has no venv module"),
        (None, "is not there"),
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
