"""The lines of the READMEs for a night without anybody, in the environment that cron gives."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import pytest

from jobs.sandbox.world import Place
from tests.helpers.job import PROJECT
from tests.helpers.waiting import wait_until


def section(file, title):
    return (PROJECT / file).read_text(encoding="utf-8").split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


NIGHT = section("README.md", "Tonight, by cron") + section("config/README.md", "A night without cron")


def cron_command():
    """The command of the crontab line, as cron hands it to the shell."""
    (line,) = re.findall(r"^\d+ \d+ \d+ \d+ \* (.+)$", NIGHT, re.MULTILINE)
    command, *rest = re.split(r"(?<!\\)%", line)
    assert not rest, "cron makes a newline of each % without a backslash"
    return command.replace(r"\%", "%")


@pytest.fixture
def night(play, tmp_path):
    """A checkout as a user has it, with its credentials in `.env`, and cron's own environment around it."""

    def start(**world):
        job = play(**world)
        checkout = tmp_path / "a checkout"
        checkout.mkdir()
        for name in ("jobs", "config", "data"):
            shutil.copytree(PROJECT / name, checkout / name)
        recover = checkout / ".venv" / "bin" / "recover"
        recover.parent.mkdir(parents=True)
        main = f"import sys; sys.path.insert(0, {str(checkout)!r}); from jobs.cli import main; main()"
        recover.write_text(f'#!/bin/sh\nexec {sys.executable} -P -c {_quoted(main)} "$@"\n')
        recover.chmod(0o755)
        keys = {name: value for name, value in job.environment.items() if name.startswith(("HIGHLEVEL_", "RECOVERY_"))}
        env = checkout / ".env"
        env.write_text("".join(f"{name}='{value}'\n" for name, value in keys.items()))
        env.chmod(0o600)
        home = tmp_path / "home"
        home.mkdir()
        return job, checkout, home

    return start


def _quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def cron(command, home):
    """Run a command as cron does: /bin/sh, nothing of the user's environment, no terminal, at home."""
    environment = {"HOME": str(home), "LOGNAME": "root", "PATH": "/usr/bin:/bin", "SHELL": "/bin/sh"}
    return subprocess.Popen(
        ["/bin/sh", "-c", command],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_the_crontab_line_runs_in_crons_bare_environment_and_leaves_a_log(night):
    job, checkout, home = night(installs={"LocB": Place("not_installed")})
    (checkout / "affected.csv").write_text("location_id,name\nLocA,Zoë\nLocB,y\n")
    command = cron_command().replace("/path/to/this/folder", f"'{checkout}'")
    process = cron(command, home)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (1, "", "")  # Nothing to mail: all of it is in the log.
    log = (checkout / "data" / "recovery.log").read_text()
    assert "\x1b" not in log
    assert "run_started" in log.splitlines()[0]
    assert log.splitlines()[-1] == "exit 1: finished; some installs failed"
    assert (checkout / "data" / "affected" / "results.csv").exists()
    assert (checkout / "data" / "recovery.log").stat().st_mode & 0o077 == 0
    assert {seen.account_id for seen in job.sandbox.seen} == {"LocA", "LocB"}


def test_a_second_cron_job_on_the_same_list_ends_at_once_with_11(night):
    job, checkout, home = night(latency_seconds=0.2)
    (checkout / "installs.csv").write_text("location_id\n" + "".join(f"Loc{n}\n" for n in range(500)))
    command = f"cd '{checkout}' && .venv/bin/recover run installs.csv --workers 1 --quiet"
    first = cron(command, home)
    wait_until(lambda: len(job.sandbox.seen) >= 2)
    second = cron(command, home)
    out, err = second.communicate(timeout=30)
    os.killpg(first.pid, 9)
    first.communicate()
    assert (second.returncode, out) == (11, "")
    assert err.splitlines()[-1] == "exit 11: another run is under way"


def test_a_quiet_run_where_all_is_well_gives_cron_nothing_to_mail(night):
    _, checkout, home = night()
    (checkout / "installs.csv").write_text("location_id\nLocA\n")
    process = cron(f"'{checkout}/.venv/bin/recover' run '{checkout}/installs.csv' --quiet", home)
    assert (process.communicate(timeout=60), process.returncode) == (("", ""), 0)
    assert (checkout / "data" / "installs" / "results.csv").exists()  # The project's folder, not cron's.


@pytest.mark.parametrize("word", re.findall(r"--[a-z-]+", NIGHT))
def test_every_option_of_the_night_is_one(word):
    assert word in {"--on-calendar", "--working-directory", "--user", "--unit", "--max-duration", "--quiet"}


def test_systemd_and_at_take_the_documented_times():
    if shutil.which("systemd-analyze"):
        (when,) = re.findall(r"--on-calendar='([^']+)'", NIGHT)
        subprocess.run(["systemd-analyze", "calendar", when], check=True, capture_output=True)
