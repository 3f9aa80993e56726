"""Canary secrets: echoed in every place of an answer, at every log level, in a bug's own words; found nowhere."""

from __future__ import annotations

import base64
import html
import json
import re
import threading
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from jobs.ledger.opening import open_ledger
from jobs.ledger.sqlite import open_memory
from tests.helpers.bad_server import KEEP, Bad, http, serving
from tests.helpers.job import SECRET
from tests.helpers.waiting import wait_until
from tests.helpers.workbook_parts import parts_of

CODE = "canary-of-a-code/+0123456789abcdef"
ACCESS, REFRESH = "canary-access.of+a/pair", "canary-refresh.of+a/pair"
ALWAYS = [SECRET, CODE, ACCESS, REFRESH]
REPORTS_WITHOUT_TOKENS = ["failures.csv", "failures.html", "summary.json"]


def forms(secret):
    """Every way in which one may write a secret, except encodings that nobody would undo."""
    encoded = {
        secret,
        quote(secret),
        quote(secret, safe=""),
        quote_plus(secret),
        html.escape(secret),
        json.dumps(secret)[1:-1],
    }
    return encoded | {secret.replace("/", "\\/"), base64.b64encode(secret.encode()).decode()}


def echoes(secrets):
    """Answers that hold every secret in every form, each in another place: (status line, headers, body)."""
    told = " ".join(form for secret in secrets for form in sorted(forms(secret)))
    shapes = [
        {"message": told}, {"message": [told, told]}, {"error": told}, {"error": {"message": told, "code": told}},
        {"error": {"details": [told]}}, {"error": "invalid_request", "error_description": told}, {"message": {"deep": told}},
        {"traceId": secrets[0][:60], "message": told}, {told: told},
    ]  # fmt: skip
    for status in ("400 Bad Request", "401 Unauthorized", "500 No", "200 OK"):
        for shape in shapes:
            yield status, "", json.dumps(shape)
        yield status, "", f"<html><title>{html.escape(told)}</title><p>{told}</p></html>"
    plain = secrets[0].replace("\n", "")
    for headers in (
        f"X-Trace-Id: {plain}\r\n",
        f"X-{plain.translate({47: None, 43: None})}: {plain}\r\n",
        f"Retry-After: {plain}\r\n",
    ):
        yield "400 Bad Request", headers, "{}"
    yield f"400 {plain}", "", "{}"
    yield "302 Found", f"Location: https://elsewhere.example/{quote(plain)}?secret={plain}\r\n", ""
    yield "429 Slow", f"Retry-After: 0\r\nDate: {plain}\r\n", json.dumps({"message": told})


def hidden(text):
    """What of the canaries is in a text."""
    return [form for secret in ALWAYS for form in forms(secret) if form in text] + re.findall(
        r"canary[\w\-./+%]*", text
    )


@pytest.mark.parametrize("call", ["reconnect", "exchange"])
@pytest.mark.parametrize(
    ("level", "log_format"), [("debug", "console"), ("debug", "json"), ("info", "json"), ("error", "console")]
)
def test_secrets_and_codes_that_the_server_echoes_anywhere_are_found_nowhere(stage, call, level, log_format):
    job = stage.job
    job.environment |= {
        "RECOVERY_LOG__LEVEL": level,
        "RECOVERY_RETRY__ATTEMPTS": "1",
        "RECOVERY_STOP__TRANSIENT_INSTALLS": "500",
    }
    answers = list(echoes([SECRET, CODE] if call == "exchange" else [SECRET]))
    good = {"authorizationCode": CODE}
    turns = iter(answers * 3)

    def answer(_, request):
        if call == "exchange" and b"POST /oauth/reconnect" in request:
            return Bad(lambda body: [http(body)], None, KEEP), json.dumps(good).encode()
        status, headers, body = next(turns)
        return Bad(lambda _: [http(body.encode(), status, headers)], None, KEEP), b""

    with serving(answer) as server:
        job.environment["HIGHLEVEL_BASE_URL"] = server.url
        rows = "".join(f"Loc{n}\n" for n in range(len(answers) - 2))
        # Refusals would stop the run: these are the same answers all the same.
        ended = stage.run(job.manifest("location_id\n" + rows), job.output, "--log-format", log_format)
    assert ended["code"] in {1, 3}
    said = stage.said()
    assert "Traceback" not in said
    said += "".join(parts_of(job.output / "failures.xlsx").values())
    for name in REPORTS_WITHOUT_TOKENS:
        said += (job.output / name).read_text(encoding="utf-8-sig")
    said += (job.output / "results.csv").read_text() + (job.output / "ledger.sqlite3").read_bytes().decode("latin-1")
    assert len(said) > 1_000
    assert hidden(said) == []


def pair(**more):
    return {
        "access_token": ACCESS, "refresh_token": REFRESH, "userType": "Location", "locationId": "LocA", "token_type": "Bearer",
        **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    "body",
    [
        pair(), pair(traceId=ACCESS), pair(locationId="Other", traceId=REFRESH), pair(userType=ACCESS), pair(userType="Company"),
        pair(refresh_token=None), pair(refresh_token=f"{REFRESH}\x1b"), pair(message=ACCESS, error=REFRESH),
        pair(scope=ACCESS, userId=REFRESH, token_type=ACCESS),
    ],
)  # fmt: skip
def test_a_pair_is_found_in_the_results_alone_and_one_of_another_account_nowhere(stage, body):
    job = stage.job
    job.environment |= {"RECOVERY_LOG__LEVEL": "debug", "RECOVERY_RETRY__ATTEMPTS": "1"}
    fine = Bad(lambda good: [http(good)], None, KEEP)

    def answer(_, request):
        return fine, json.dumps({"authorizationCode": CODE} if b"POST /oauth/reconnect" in request else body).encode()

    with serving(answer) as server:
        job.environment["HIGHLEVEL_BASE_URL"] = server.url
        code = stage.run(job.manifest("location_id\nLocA\n"), job.output)["code"]
    said = stage.said()
    said += "".join(parts_of(job.output / "failures.xlsx").values())
    for name in REPORTS_WITHOUT_TOKENS:
        said += (job.output / name).read_text(encoding="utf-8-sig")
    assert hidden(said) == []
    kept = (job.output / "results.csv").read_text() + (job.output / "ledger.sqlite3").read_bytes().decode("latin-1")
    assert (ACCESS in kept) == (code == 0)
    assert CODE not in kept


BUGS = {
    "in a worker": "jobs.recovery.attempt.by_reconnect",
    "where outcomes are written": "jobs.ledger.ledger.Ledger.record",
    "in the terminal": "jobs.terminal.terminal.Terminal.ended",
    "in the plan": "jobs.recover.plan_of",
    "in the reports": "jobs.reports.tables.write_results",
}


@pytest.mark.parametrize("where", BUGS)
def test_a_bug_that_prints_a_secret_shows_stars_keeps_its_traceback_and_what_was_in_flight_is_recorded(stage, where):
    job = stage.job
    said = f"a bug of ours: {SECRET} and {' '.join(sorted(forms(SECRET)))} \x1b[2J"
    ended = stage.run(
        job.manifest("location_id\n" + "".join(f"Loc{n}\n" for n in range(20))), job.output,
        bug={"where": BUGS[where], "said": said, "at": 4 if where in {"in a worker", "in the terminal"} else 1},
    )  # fmt: skip
    text = stage.said()
    assert ended["code"] == 70
    assert "Traceback" in text
    assert "a bug of ours" in text
    assert "exit 70" in text.splitlines()[-1]
    assert hidden(text) == []
    assert "\x1b" not in text
    for file in job.output.iterdir():
        if file.name in REPORTS_WITHOUT_TOKENS:
            assert hidden(file.read_text(encoding="utf-8-sig")) == []
    if where in {"in a worker", "in the terminal"}:
        from tests.helpers.job import pairs

        assert pairs(job.output) == dict(job.sandbox.codes.issued)
        assert pairs(job.output)


@pytest.mark.parametrize(
    "opened", [lambda folder: open_ledger(folder, "https://api.example.test").engine, lambda _: open_memory()]
)
def test_what_goes_wrong_in_the_ledger_shows_no_value_of_the_write(tmp_path, opened):
    with pytest.raises(OperationalError) as refused, opened(tmp_path).begin() as connection:
        connection.execute(text("INSERT INTO nowhere VALUES (:token)"), {"token": "short-1"})
    assert "short-1" not in str(refused.value)


def test_a_process_list_shows_no_secret_and_a_core_dump_holds_none(play):
    job = play(latency_seconds=0.1)
    manifest = job.manifest("location_id\n" + "".join(f"Loc{n}\n" for n in range(100)))
    process = job.process("run", manifest, "--output", job.output)
    try:
        wait_until(lambda: len(job.sandbox.seen) >= 2)
        own = Path(f"/proc/{process.pid}")
        assert SECRET not in (own / "cmdline").read_text()
        assert SECRET not in (own / "comm").read_text()
        assert re.search(r"Max core file size\s+0\s+0", (own / "limits").read_text())
    finally:
        process.kill()
        process.communicate()


def test_every_file_is_private_from_its_first_byte(stage):
    job = stage.job
    found, over = {}, threading.Event()

    def watch():
        while not over.is_set():
            for path in [*job.folder.glob("out"), *job.folder.glob("out/*"), *job.folder.glob("state/**/*")]:
                try:
                    found.setdefault(path.stat().st_mode & 0o077, set()).add(path.name)
                except OSError:
                    continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for _ in range(3):
            stage.run(
                job.manifest("location_id\n" + "".join(f"Loc{n}\n" for n in range(20))), job.output, "--force", umask=0
            )
    finally:
        over.set()
        watcher.join()
    assert found.keys() == {0}
    assert {"out", "ledger.sqlite3", "ledger.sqlite3-wal", "results.csv", ".reserve"} <= found[0]


def test_terminal_escapes_markup_and_formulas_of_a_server_reach_nobody(stage):
    job = stage.job
    evil = "=cmd|' /C calc'!A0 <script>alert(1)</script> \x1b]0;owned\x07\x1b[31m \u202e javascript:alert(1)"
    job.environment |= {"RECOVERY_LOG__LEVEL": "debug", "RECOVERY_RETRY__ATTEMPTS": "1"}
    error = Bad(lambda _: [http(json.dumps({"message": evil}).encode(), "400 Bad Request")], None, KEEP)
    with serving(lambda *_: (error, b"")) as server:
        job.environment["HIGHLEVEL_BASE_URL"] = server.url
        rows = 'location_id,note,"=cmd()"\nLocA,"=1+1","<img src=x onerror=alert(1)>"\n'
        assert stage.run(job.manifest(rows), job.output)["code"] == 1
    said = stage.said()
    page = (job.output / "failures.html").read_text()
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", said + page)
    assert "<script>alert" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    (row,) = job.table("failures.csv")
    assert not [cell for cell in (*row.values(), *row) if re.match(r"[=+\-@\t\r\n＝＋－＠]", cell)]
    assert row["note"] == "'=1+1"
