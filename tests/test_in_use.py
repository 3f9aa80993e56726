"""The tests run the job in this project, so they refuse to run in one that somebody uses."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from tests.helpers.in_use import why_not_here
from tests.helpers.job import KEPT, PROJECT


def test_a_project_as_it_comes_may_be_tested(tmp_path):
    shutil.copytree(PROJECT / "config", tmp_path / "config")
    assert why_not_here(tmp_path) == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".env", "RECOVERY_PING__URL=https://hc-ping.com/key\n"),
        ("config/apps.toml", "[[apps]]\n"),
        ("config/recovery.toml", "[notify]\ncommand = 'mail me'\n"),
        ("config/recovery.toml", "[seal]\nrecipients = []\n[metrics]\ntextfile = '/srv/recover.prom'\n"),
        ("config/recovery.toml", "[pace]\nwrong = 1\n[deliver]\ncommand = ['store']\n"),
    ],
)
def test_a_file_of_the_users_own_keeps_the_tests_away(tmp_path, name, text):
    (tmp_path / "config").mkdir()
    (tmp_path / name).write_text(text)
    assert f"would send to what its {name} name: run them in a fresh clone" in why_not_here(tmp_path)


@pytest.fixture(scope="module")
def in_use(tmp_path_factory):
    """A copy of the project, with a `.env`."""
    project = tmp_path_factory.mktemp("project")
    for folder in ("jobs", "tests", "config"):
        shutil.copytree(PROJECT / folder, project / folder, ignore=shutil.ignore_patterns("__pycache__"))
    (project / ".env").touch()
    return project


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["pytest", "-q", "tests/core/test_causes.py"], 4),
        (["tests.bench", "--help"], 1),
        (["tests.bench.scale", "1"], 1),
        (["tests.pictures.terminal"], 1),
    ],
    ids=["tests", "benchmark", "scale", "pictures"],
)
def test_beside_a_dotenv_nothing_that_runs_the_job_begins_and_one_line_says_why(in_use, command, code):
    words = [sys.executable, "-m", *command]
    done = subprocess.run(words, cwd=in_use, env=KEPT, capture_output=True, text=True, check=False, timeout=60)
    (said,) = (done.stdout + done.stderr).strip().splitlines()
    assert said.endswith("its .env name: run them in a fresh clone")
    assert done.returncode == code
