"""One message when a run ends: to a command, to an address, or to nobody; it never changes how the run ended."""

from __future__ import annotations

import json
import re
import shlex
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from jobs.config.settings import NotifySettings, load_section_or_defaults, load_settings
from jobs.core.errors import Exit, UserError
from jobs.outgoing.notify import News, text, wanted
from jobs.reports.files import REPORTS
from jobs.sandbox.world import Place
from tests.helpers.job import CLIENT_ID, SECRET
from tests.helpers.mail import Mail

LOCATIONS = ["ve9EPM428h8vShlRW1KT", "ve9EPM428h8vShlRW2KT"]
LISTING = "location_id,name\n" + "".join(f"{account},A name\n" for account in LOCATIONS)


# More than a pipe holds, on each, before it reads what it is given.
TALKS = """
import sys
sys.stderr.write("the first words\\n" + "x" * 300_000)
sys.stdout.write("y" * 300_000)
sys.exit(5 if "HighLevel" in sys.stdin.read() else 6)
"""


@contextmanager
def hook(status=200, location="", hang=0.0):
    """A web address that keeps what is posted to it."""
    posted = []
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            over.wait(hang)
            self.send_response(status)
            if location:
                self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", posted
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_mail_tells_of_a_run_with_problems_in_plain_text_without_ids_and_secrets(play):
    job = play({LOCATIONS[1]: Place("not_installed")})
    mail = Mail(job.folder)
    job.environment["RECOVERY_NOTIFY__COMMAND"] = mail.command
    manifest = job.manifest(LISTING)
    assert job.run(manifest).returncode == 1
    (said,) = mail.mails
    lines = said.splitlines()
    assert lines[0] == "HighLevel recovery: 1 of 2 installs are back, 1 failed, 0 pending (exit 1)"
    assert "not_installed  1  customer" in said
    assert str(job.output) in said
    assert lines[-1] == "exit 1: finished; some installs failed"
    assert "\x1b" not in said
    assert not [secret for secret in (SECRET, CLIENT_ID, *LOCATIONS) if secret in said]
    job.sandbox.world.installs.clear()
    assert job.run(manifest).returncode == 0
    assert len(mail.mails) == 1  # All is well: `problems` has nothing to tell.


def test_an_address_gets_counts_causes_owners_and_paths_as_json(play):
    job = play({LOCATIONS[1]: Place("echo_secrets")})
    with hook() as (url, posted):
        job.environment["RECOVERY_NOTIFY__URL"] = f"{url}/services/T0/very-secret-hook"
        done = job.run(job.manifest(LISTING))
    ((path, told),) = posted
    assert path == "/services/T0/very-secret-hook"
    assert told["exit_code"] == 1
    assert told["counts"] == job.summary()["counts"]
    assert told["failures_by_cause"] == {"request_refused": 1}
    assert told["failures_by_owner"] == {"developer": 1}
    assert told["files"] == {name: str(job.output / name) for name in REPORTS}
    seen = json.dumps(told)
    assert not [secret for secret in (SECRET, CLIENT_ID, *LOCATIONS) if secret in seen]
    assert "very-secret-hook" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [(["missing.csv"], 2, "missing.csv"), (["--no-such-option", "x.csv"], 2, "no-such-option")],
)
def test_a_run_that_could_not_start_is_told_of_too(play, arguments, code, says):
    job = play()
    mail = Mail(job.folder)
    job.environment |= {"RECOVERY_NOTIFY__COMMAND": mail.command, "RECOVERY_PACE__REQUESTS_PER_SECOND": "fast"}
    assert job("run", *arguments).returncode == code
    (said,) = mail.mails
    assert said.startswith(f"HighLevel recovery could not start (exit {code})\n")
    assert says in said


def test_a_problem_is_told_without_the_tokens_that_it_holds(play):
    job = play()
    mail = Mail(job.folder)
    job.environment["RECOVERY_NOTIFY__COMMAND"] = mail.command
    tokens = "eyJhbGciOiJIUzI1NiJ9.eyJsb2MiOiJMIn0.signature", "9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c"
    manifest = job.manifest(",".join(["company_id", *tokens]) + "\n")
    assert job.run(manifest, "--column", "location_id=nowhere").returncode == 2
    (said,) = mail.mails
    assert "choose one of its columns: company_id, ****, ****" in said


def test_a_file_whose_name_is_not_utf_8_is_told_of_too(play):
    job = play()
    mail = Mail(job.folder)
    job.environment["RECOVERY_NOTIFY__COMMAND"] = mail.command
    done = job("run", job.folder / "miss\udcff.csv")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "miss\\udcff.csv: does not exist" in mail.mails[0]


def test_changes_tells_when_other_installs_are_failed_than_before_and_not_again(play):
    job = play({LOCATIONS[1]: Place("not_installed")})
    mail = Mail(job.folder)
    job.environment |= {"RECOVERY_NOTIFY__COMMAND": mail.command, "RECOVERY_NOTIFY__LEVEL": "changes"}
    manifest = job.manifest(LISTING)
    told = []
    for world in (
        {LOCATIONS[1]: Place("not_installed")},  # the first failure: told
        {LOCATIONS[1]: Place("location_inactive")},  # the same install, another cause: not told
        {},  # it is back: told
        {},  # still all is well: not told
    ):
        job.sandbox.world.installs.clear()
        job.sandbox.world.installs.update(world)
        job.run(manifest)
        told.append(len(mail.mails))
    assert told == [1, 1, 2, 2]


def test_changes_compares_with_the_run_before_whatever_that_one_told(play):
    job = play({LOCATIONS[1]: Place("not_installed")})
    mail = Mail(job.folder)
    job.environment |= {"RECOVERY_NOTIFY__COMMAND": mail.command, "RECOVERY_NOTIFY__LEVEL": "always"}
    manifest = job.manifest(LISTING)
    job.run(manifest)
    job.environment["RECOVERY_NOTIFY__LEVEL"] = "changes"
    job.run(manifest)  # The same install has failed: told before, and no news.
    assert len(mail.mails) == 1
    job.environment |= {"RECOVERY_NOTIFY__COMMAND": "", "RECOVERY_NOTIFY__LEVEL": "problems"}
    job.sandbox.world.installs.clear()
    job.run(manifest)  # Nobody is told that it is back.
    job.environment |= {"RECOVERY_NOTIFY__COMMAND": mail.command, "RECOVERY_NOTIFY__LEVEL": "changes"}
    job.run(manifest)
    assert len(mail.mails) == 1


def test_always_tells_of_a_good_end_too(play):
    job = play()
    mail = Mail(job.folder)
    job.environment |= {"RECOVERY_NOTIFY__COMMAND": mail.command, "RECOVERY_NOTIFY__LEVEL": "always"}
    done = job.run(job.manifest(LISTING), "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert mail.mails[0].startswith("HighLevel recovery: 2 of 2 installs are back")


@pytest.mark.parametrize(
    ("command", "seconds", "says"),
    [
        ("no-such-program --now", 10, "no-such-program): cannot run (No such file or directory)"),
        ("sh -c 'echo the mail server is away >&2; exit 3'", 10, "sh): ended with 3: the mail server is away"),
        ("sleep 60", 0.5, "sleep): did not end within 0.5 s"),
        ("sh -c 'echo it went wrong; exit 3'", 10, "sh): ended with 3: it went wrong"),
        (shlex.join([sys.executable, "-c", TALKS]), 20, f"{sys.executable}): ended with 5: the first words"),
        # Its own child keeps the pipe open: that must not keep the run waiting.
        ("sh -c 'sleep 20 & exit 4'", 10, "sh): ended with 4: it said nothing"),
    ],
)
def test_a_command_that_fails_or_hangs_is_a_warning_and_no_other_exit_code(play, command, seconds, says):
    job = play({LOCATIONS[1]: Place("not_installed")})
    job.environment |= {"RECOVERY_NOTIFY__COMMAND": command, "RECOVERY_NOTIFY__TIMEOUT_SECONDS": str(seconds)}
    done = job.run(job.manifest(LISTING))
    assert done.returncode == 1
    assert f"notify.command ({says}" in done.stderr
    assert done.stdout.splitlines()[-1] == "exit 1: finished; some installs failed"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"status": 500}, "answered 500"),
        ({"status": 302, "location": "/elsewhere"}, "answered 302; redirects are not followed"),
        ({"hang": 30.0}, "no answer"),
    ],
)
def test_an_address_that_fails_or_hangs_is_a_warning_and_no_other_exit_code(play, answer, says):
    job = play({LOCATIONS[1]: Place("not_installed")})
    with hook(**answer) as (url, posted):
        seconds = "0.5" if "hang" in answer else "10"
        job.environment |= {"RECOVERY_NOTIFY__URL": f"{url}/a-secret", "RECOVERY_NOTIFY__TIMEOUT_SECONDS": seconds}
        done = job.run(job.manifest(LISTING), "--log-format", "json")
    assert done.returncode == 1
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in told[-2:]] == ["warning", "run_finished"]
    assert re.fullmatch(rf"notify\.url \(127\.0\.0\.1\): {says}.*", told[-2]["message"])
    assert "a-secret" not in done.stdout + done.stderr
    assert len(posted) == 1


def test_the_command_gets_no_credentials_and_no_shell(play):
    job = play({LOCATIONS[1]: Place("not_installed")})
    seen = job.folder / "seen"
    code = f"import json, os, sys; json.dump([dict(os.environ), sys.argv[1:]], open({str(seen)!r}, 'w'))"
    passed_on = {"LANG": "C.UTF-8", "TZ": "Asia/Tokyo", "USER": "cron", "LOGNAME": "cron"}
    job.environment |= passed_on | {"SECRET_OF_MY_APP": "canary-of-another-app", "PYTHONCOERCECLOCALE": "0"}
    job.environment["RECOVERY_NOTIFY__COMMAND"] = shlex.join([sys.executable, "-c", code, "$HOME; *"])
    job.run(job.manifest(LISTING))
    environment, arguments = json.loads(seen.read_text())
    assert arguments == ["$HOME; *"]
    assert environment.keys() <= {"PATH", "HOME", "LC_CTYPE", *passed_on}
    assert passed_on.items() <= environment.items()
    assert SECRET not in json.dumps(environment)


@pytest.mark.parametrize("url", ["http://example.com/hook-secret", "ftp://example.com/hook-secret", "hook-secret"])
def test_an_address_that_is_not_encrypted_is_refused_by_name_and_not_shown(play, url):
    job = play()
    job.environment["RECOVERY_NOTIFY__URL"] = url
    done = job.run(job.manifest(LISTING))
    assert done.returncode == 2
    assert "RECOVERY_NOTIFY__URL" in done.stderr
    assert "hook-secret" not in done.stderr
    assert job.sandbox.seen == []


@pytest.mark.parametrize(
    ("level", "news", "told"),
    [
        ("problems", News(Exit.OK, "i"), False),
        ("problems", News(Exit.SOME_FAILED, "i"), True),
        ("problems", News(Exit.HELD, "i"), True),
        ("changes", News(Exit.SOME_FAILED, "i", changed=False), False),
        ("changes", News(Exit.OK, "i", changed=True), True),
        ("changes", News(Exit.HELD, "i"), False),
        ("changes", News(Exit.CANNOT_START, "i"), True),
        ("changes", News(Exit.BUG, "i"), True),
        ("changes", News(Exit.SIGTERM, "i"), True),
        ("changes", News(Exit.STOPPED_EARLY, "i"), True),
        ("always", News(Exit.OK, "i"), True),
    ],
)
def test_the_level_decides_which_ends_are_told(level, news, told):
    assert wanted(level, news) is told


def test_a_command_is_a_text_or_a_list_and_other_sections_do_not_matter(tmp_path):
    file = tmp_path / "recovery.toml"
    file.write_text('[pace]\nrequests_per_second = "fast"\n[notify]\ncommand = ["mail", "-s", "two words", "me"]\n')
    assert load_section_or_defaults(NotifySettings, file, {}).command == ("mail", "-s", "two words", "me")
    given = {"RECOVERY_NOTIFY__COMMAND": "mail -s 'two words' me", "RECOVERY_WRONG": "x"}
    assert load_section_or_defaults(NotifySettings, file, given).command == ("mail", "-s", "two words", "me")
    assert (
        load_section_or_defaults(NotifySettings, tmp_path / "none.toml", {"RECOVERY_NOTIFY__LEVEL": "loud"})
        == NotifySettings()
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('["mail", "-s", "two words", "me"]', ("mail", "-s", "two words", "me")),
        (' [ "mail" ]\n', ("mail",)),
        ("[]", ()),
        ("", ()),
        ("mail '[x]' [y]", ("mail", "[x]", "[y]")),
    ],
)
def test_a_command_in_the_environment_is_a_json_list_or_a_shells_words(tmp_path, text, words):
    assert load_settings(tmp_path / "none", {"RECOVERY_NOTIFY__COMMAND": text}, {}).notify.command == words


@pytest.mark.parametrize(
    "text", ['["mail", "se-cret"', '["mail", 3]', '[["mail"]]', "mail 'open", '[""]', '["m\\u0000"]']
)
def test_a_command_that_is_neither_is_refused_by_name(tmp_path, text):
    with pytest.raises(UserError) as refused:
        load_settings(tmp_path / "none", {"RECOVERY_NOTIFY__COMMAND": text}, {})
    (problem,) = refused.value.problems
    assert problem.where == "RECOVERY_NOTIFY__COMMAND"
    assert "se-cret" not in str(problem)


def test_the_ids_in_a_problem_are_left_out():
    problem = f"the app {CLIENT_ID}: is held by the run on /data/{LOCATIONS[0]}/in.csv: wait for it"
    said = text(News(Exit.HELD, "/in.csv", problems=[problem]))
    assert CLIENT_ID not in said
    assert f"the run on /data/{LOCATIONS[0]}/in.csv" in said
