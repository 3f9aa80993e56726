"""The command from outside: wrong options, and what the job says about them."""

from __future__ import annotations

import csv
import shlex
import signal
from urllib.parse import urlsplit

import pytest

from jobs.sandbox.world import load_world
from tests.helpers.identities import AGE
from tests.helpers.job import PROJECT


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "Usage"),
        (("run",), "INPUT"),
        (("run", "x.csv", "--frob"), "--frob"),
        (("run", "x.csv", "--rate", "nan"), "--rate"),
        (("run", "x.csv", "--max-duration", f"{'9' * 400}h"), "--max-duration"),
        (("run", "x.csv", "--max-duration", "999999999h"), "from 0s to 8760h"),
        (("run", "x.csv", "--limit", "1" + "0" * 30), "1<=x<=1000000000"),
        (("run", "x.csv", "--rate", "1e300"), "give a number from 0.001 to 100,000"),
        (("run", "x.csv", "--rate", "inf"), "give a number from 0.001 to 100,000"),
        (("run", "x.csv", "--workers", "1000000000"), "give a whole number from 0 to 256"),
        (("sandbox", "--port", "99999999999"), "0<=x<=65535"),
        (("run", ""), "'INPUT': it is empty"),
        (("run", "x.csv", "--output", ""), "'--output': it is empty"),
        (("plan", "x.csv", "--output", ""), "'--output': it is empty"),
        (("check", "x.csv", "--output", ""), "'--output': it is empty"),
        (("discover", "--company", "CoA", "--from", ""), "'--from': it is empty"),
        (("report", ""), "'DIR': it is empty"),
        (("deliver", ""), "'DIR': it is empty"),
        (("purge", ""), "'DIR': it is empty"),
        (("sandbox", "--world", ""), "'--world': it is empty"),
    ],
)
def test_a_wrong_call_is_named_and_the_last_line_has_the_code_in_words(play, arguments, named):
    done = play()(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == "exit 2: could not start; nothing was sent"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("run", "KEY"), "'INPUT'"),
        (("check", "KEY"), "'INPUT'"),
        (("open", "KEY", "--identity", "key.txt"), "'DIR'"),
        (("run", "x.csv", "--output", "KEY"), "'--output'"),
        (("open", "x", "--identity", "KEY"), "'--identity'"),
    ],
)
@pytest.mark.parametrize(
    "key",
    [AGE, f"# created: today\n{AGE.lower()}\n", "\n-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n"],
    ids=["of age", "of a file", "of SSH"],
)
def test_a_secret_key_instead_of_a_path_is_refused_and_never_shown(play, arguments, named, key):
    done = play()(*(key if word == "KEY" else word for word in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"Invalid value for {named}: it is a secret key" in done.stderr
    assert key.split()[-1][-6:] not in done.stderr


TABLES = {"pandas", "numpy", "python_calamine", "xlrd"}
HEAVY = {
    "pyrage", "sqlalchemy", "requests", "urllib3", "tenacity", "structlog", "rich", "jinja2", "prometheus_client", "xlsxwriter",
    *TABLES,
}  # fmt: skip


def imported(job, *arguments):
    """The libraries among `HEAVY` that a command loads."""
    job.environment["PYTHONPROFILEIMPORTTIME"] = "1"
    done = job.alone(*arguments)
    assert done.returncode == 0, done.stderr
    modules = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    # A library that was refused leaves its name there, but none of its parts.
    return {module.split(".")[0] for module in modules if "." in module} & HEAVY


def test_a_command_loads_nothing_heavy_that_it_does_not_need(play):
    job = play()
    manifest = job.manifest("location_id\nLocA\n")
    assert imported(job, "--help") == set()
    needed = {"sqlalchemy", "jinja2"}  # For the ledger, and for the texts of messages, which are judged at the start.
    assert imported(job, "plan", manifest, "--output", job.output) == needed
    in_a_run = imported(job, "run", manifest, "--output", job.output)
    assert {"requests", "tenacity"} <= in_a_run
    assert in_a_run & TABLES == set()
    assert imported(job, "run", manifest, "--output", job.output) <= needed | {
        "structlog",
        "rich",
        "xlsxwriter",
    }  # Nothing to do but the reports; structlog brings rich.


CLIENTS = '"clients": [{"client_id": "a", "client_secret": "b"}]'


@pytest.mark.parametrize(
    ("world", "says"),
    [
        ("{", "is not a valid world"),
        ("[]", "is not a valid world \\(it is not an object"),
        ('{"clients": []}', "has no clients"),
        ('{"clients": {"a": "b"}}', "clients is not a list of objects with client_id and client_secret"),
        ('{"clients": [{"client_id": "a"}]}', "clients is not a list of objects with client_id and client_secret"),
        ("{}", "clients is not a list of objects with client_id and client_secret"),
        (f'{{{CLIENTS}, "instals": {{}}}}', "instals"),
        (f'{{{CLIENTS}, "default": "odd"}}', "unknown behaviour odd"),
        (f'{{{CLIENTS}, "installs": {{"LocA": {{"heals_after": "2"}}}}}}', "heals_after"),
        (f'{{{CLIENTS}, "installs": {{"LocA": {{"level": "Agency"}}}}}}', "level"),
        (f'{{{CLIENTS}, "limit": {{"requests": 1, "seconds": "x"}}}}', "seconds"),
    ],
)
def test_a_world_that_the_sandbox_does_not_understand_is_refused_in_a_line(tmp_path, world, says):
    file = tmp_path / "world.json"
    file.write_text(world, encoding="utf-8")
    with pytest.raises(ValueError, match=says) as error:
        load_world(file)
    assert "\n" not in str(error.value)


def test_a_sandbox_that_cannot_start_says_why_in_one_line_and_what_to_do(play):
    job = play()
    port = urlsplit(job.sandbox.url).port
    done = job("sandbox", "--port", port)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == f"error: port {port} is taken: use a different --port"
    done = job("sandbox", "--world", job.folder / "none.json")
    said = f"error: {job.folder / 'none.json'}: cannot be read (No such file or directory): use a world file"
    assert done.stderr.splitlines()[0] == said


def test_the_example_world_knows_every_install_of_the_example_list():
    world = load_world(PROJECT / "data" / "sandbox.example.json")
    with (PROJECT / "data" / "installs.example.csv").open(encoding="utf-8", newline="") as file:
        listed = {row["location_id"] or row["company_id"] for row in csv.DictReader(file)}
    # Left out are one that is gone, one of another app, and one that a spreadsheet spoiled.
    assert len(listed - world.installs.keys()) == 3
    assert world.installs.keys() <= listed


def test_a_sandbox_with_a_receiver_says_how_to_rehearse_a_delivery_which_reaches_nothing_else(play):
    job = play()
    real = job.folder / "real.prom"
    own = {"DELIVER__COMMAND": "false", "METRICS__TEXTFILE": str(real), "LEDGER__URL": "postgresql://127.0.0.1:1/real"}
    job.environment |= {f"RECOVERY_{name}": value for name, value in own.items()}
    served = job.start("sandbox", "--receiver", "--port", "0")
    try:
        told = ""
        for line in served.stdout:
            told += line
            if "whsec_" in line:  # the last one
                break
        job.environment |= dict(word.split("=", 1) for word in shlex.split(told, comments=True) if word != "export")
        done = job.run(job.manifest("location_id\nLocHarborYoga0000001\n"))
        assert (done.returncode, job.summary()["counts"]["delivered"]) == (0, 1), done.stdout + done.stderr
        assert not real.exists()
    finally:
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=10)
    assert served.returncode == 0
