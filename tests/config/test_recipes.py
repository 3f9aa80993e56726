"""Each recipe of `config/recipes`, as it is written there, in a run that delivers to the real thing."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import pytest
import requests
from standardwebhooks import Webhook

from jobs.config.settings import load_settings
from jobs.sandbox.receiver import new_secret
from jobs.sandbox.world import Place
from tests.helpers.job import CLIENT_ID, PROJECT
from tests.helpers.sockets import free_port
from tests.helpers.waiting import wait_until

RECIPES = PROJECT / "config" / "recipes"
README = (RECIPES / "README.md").read_text(encoding="utf-8")
AGENCY, OTHERS = "CoAgency00000000001", ["LocOther00000000001", "LocOther00000000002"]
REFRESHED = "LocRefreshed00000001"
IDS = [AGENCY, REFRESHED, *OTHERS]
LIST = f"location_id,company_id\n,{AGENCY}\n{REFRESHED},{AGENCY}\n" + "".join(f"{one},{AGENCY}\n" for one in OTHERS)
OLD, FAR_OFF = "2026-01-01T00:00:00Z", "2066-01-01T00:00:00Z"


def as_ms(moment):
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


@pytest.fixture
def job(play):
    return play({AGENCY: Place(level="Company"), **{one: Place(company_id=AGENCY) for one in IDS[1:]}})


def delivers(job, stored):
    """Run twice. The app gets every pair except that of the install that it has refreshed itself, then the newer ones."""
    manifest = job.manifest(LIST)
    first = None
    for arguments in ((), ("--force",)):
        done = job.run(manifest, *arguments)
        results = job.results()
        assert done.returncode == 1, done.stdout + done.stderr
        assert {one for one in IDS if results[one]["delivery"] != "delivered"} == {REFRESHED}, done.stderr
        assert results[REFRESHED]["delivery"].startswith("no: ")
        found = stored()
        assert found == {one: results[one]["access_token"] for one in IDS} | {REFRESHED: "its own"}
        assert found != first
        first = found
    tested = job("deliver", job.output, "--test")
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert stored() == first


def test_the_tables_name_exactly_the_recipes_that_exist():
    text = (PROJECT / "config" / "README.md").read_text(encoding="utf-8")
    tables = [
        text.partition(header)[2].partition("\n\n")[0]
        for header in ("| your store |", "| it runs in |", "| your monitor |")
    ]
    files = {file.name for file in RECIPES.iterdir() if file.is_file()} - {"README.md"}
    assert {name for table in tables for name in re.findall(r"\]\(recipes/([\w.-]+)\)", table)} == files


def test_python_can_read_the_programs_that_are_only_text():
    programs = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(programs) == 4
    for program in programs:
        ast.parse(program)


# -- sql ---------------------------------------------------------------------------------------------------------------


def statement_of(job, name, url):
    """Point the job at a database by a recipe."""
    target = {"RECOVERY_DELIVER__DATABASE_URL": url}
    (sql,) = load_settings(RECIPES / name, target, {}).deliver.sql
    job.environment |= {**target, "RECOVERY_DELIVER__SQL": sql}


def rows(old, far_off):
    """The rows that the app had before: dead pairs that wait for a reauthorization, and one that it refreshed itself."""
    for one in IDS:
        location = None if one == AGENCY else one
        kept = one == REFRESHED
        yield location, AGENCY, "its own" if kept else "dead", far_off if kept else old, not kept


def test_postgres_updates_the_rows_of_locations_and_agencies_and_the_newest_wins(job, postgres):
    postgres.execute(
        "create table connections (location_id text, company_id text, access_token text, refresh_token text,"
        " expires_at timestamptz, needs_reauth boolean)",
        *(
            f"insert into connections values (nullif('{one or ''}', ''), '{company}', '{token}', 'x', '{at}', {needs})"
            for one, company, token, at, needs in rows(OLD, FAR_OFF)
        ),
    )
    query = "select coalesce(location_id, company_id), access_token from connections where not needs_reauth"
    statement_of(job, "postgres.toml", postgres.url)
    try:
        delivers(job, lambda: dict(postgres.execute(query)))
        expires = dict(postgres.execute("select coalesce(location_id, company_id), expires_at from connections"))
        told = job.results()[OTHERS[0]]["expires_at"]
        assert expires[OTHERS[0]] == datetime.fromisoformat(told)
    finally:
        postgres.execute("drop table connections")


def test_postgres_inserts_what_is_missing_too(job, postgres):
    postgres.execute(
        "create table connections (resource_id text primary key, access_token text, refresh_token text,"
        " expires_at timestamptz, needs_reauth boolean)",
        f"insert into connections values ('{REFRESHED}', 'its own', 'x', '{FAR_OFF}', false)",
        f"insert into connections values ('{OTHERS[0]}', 'dead', 'x', '{OLD}', true)",
    )
    query = "select resource_id, access_token from connections where not needs_reauth"
    statement_of(job, "postgres_insert_too.toml", postgres.url)
    try:
        delivers(job, lambda: dict(postgres.execute(query)))
    finally:
        postgres.execute("drop table connections")


def test_sqlite_updates_the_rows_of_locations_and_agencies_and_the_newest_wins(job, tmp_path):
    file = tmp_path / "app.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(
            "create table connections (location_id text, company_id text, access_token text, refresh_token text,"
            " expires_at integer, needs_reauth integer)"
        )
        before = [
            (one, company, token, "x", at, needs) for one, company, token, at, needs in rows(as_ms(OLD), as_ms(FAR_OFF))
        ]
        connection.executemany("insert into connections values (?, ?, ?, ?, ?, ?)", before)

    def stored(value="access_token"):
        query = f"select coalesce(location_id, company_id), {value} from connections where not needs_reauth"
        with closing(sqlite3.connect(file)) as connection:
            return dict(connection.execute(query))

    statement_of(job, "sqlite.toml", f"sqlite:///{file}")
    delivers(job, stored)
    assert stored("expires_at")[OTHERS[0]] == as_ms(job.results()[OTHERS[0]]["expires_at"])


# -- HighLevel's own SDKs ----------------------------------------------------------------------------------------------

PYTHON_APP = """
import json
from pathlib import Path
from highlevel.storage import MemorySessionStorage

class KeptInAFile(MemorySessionStorage):
    file = Path(__file__).with_name("sessions.json")

    async def init(self):
        self.sessions = json.loads(self.file.read_text())

    async def disconnect(self):
        self.file.write_text(json.dumps(self.sessions, default=str))

storage = KeptInAFile()
"""
NODE_APP = """
import { readFileSync, writeFileSync } from "node:fs";
import { MemorySessionStorage } from "@gohighlevel/api-client";

const file = new URL("sessions.json", import.meta.url);

class KeptInAFile extends MemorySessionStorage {
  async init() {
    this.sessions = new Map(Object.entries(JSON.parse(readFileSync(file, "utf-8"))));
  }
  async disconnect() {
    writeFileSync(file, JSON.stringify(Object.fromEntries(this.sessions)));
  }
}

export const storage = new KeptInAFile();
"""


def installed(command, what):
    """Install packages from their registry, or skip."""
    try:
        subprocess.run([*map(str, command)], capture_output=True, timeout=200, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"{what} cannot be had from its registry: {(error.stderr or b'').decode().strip()[-200:]}")


@pytest.fixture
def python_app(tmp_path):
    app = tmp_path / "app"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--only-binary", ":all:", "--retries", "0"]
    installed([*pip, "--target", app, "gohighlevel-api-client==3.0.0"], "gohighlevel-api-client")
    (app / "app.py").write_text(PYTHON_APP)
    shutil.copy(RECIPES / "highlevel_sdk.py", app)
    return app, [sys.executable, str(app / "highlevel_sdk.py")]


@pytest.fixture
def node_app(tmp_path):
    for program in ("node", "npm"):
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed (Debian: apt install nodejs npm)")
    app = tmp_path / "app"
    npm = ["npm", "install", "--prefix", app, "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0"]
    installed([*npm, "@gohighlevel/api-client@3.1.0"], "@gohighlevel/api-client")
    (app / "app.mjs").write_text(NODE_APP)
    shutil.copy(RECIPES / "highlevel_sdk.mjs", app)
    return app, ["node", str(app / "highlevel_sdk.mjs")]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", ["python_app", "node_app"])
def test_an_app_of_highlevels_own_sdk_gets_its_sessions(job, language, request):
    app, command = request.getfixturevalue(language)
    sessions, application = app / "sessions.json", CLIENT_ID.partition("-")[0]
    before = {f"{application}:{REFRESHED}": {"access_token": "its own", "expire_at": as_ms(FAR_OFF)}}
    before[f"{application}:{OTHERS[0]}"] = {"access_token": "dead", "expire_at": as_ms(OLD)}
    sessions.write_text(json.dumps(before))
    job.environment |= {"RECOVERY_DELIVER__COMMAND": json.dumps(command), "RECOVERY_DELIVER__TIMEOUT_SECONDS": "120"}
    found = {}

    def stored():
        found.clear()
        found.update(json.loads(sessions.read_text()))
        return {key.removeprefix(f"{application}:"): session["access_token"] for key, session in found.items()}

    delivers(job, stored)
    results = job.results()
    for one in (AGENCY, *OTHERS):
        session = found[f"{application}:{one}"]
        assert session["refresh_token"] == results[one]["refresh_token"]
        assert session["userType"] == ("Company" if one == AGENCY else "Location")
        assert (session["companyId"], session["locationId"]) == (AGENCY, None if one == AGENCY else one)
        assert 86_000 < session["expires_in"] < 86_400
        assert abs(session["expire_at"] - as_ms(results[one]["expires_at"])) < 60_000
    assert job.results()[REFRESHED]["delivery"] == "no: the app has a newer pair"


# -- any other store ---------------------------------------------------------------------------------------------------

STORE = f"""
from pathlib import Path

def store(pair):
    if pair["resource_id"] == "{REFRESHED}":
        raise ValueError("the app has a newer pair")
    Path(__file__).with_name("app").joinpath(pair["resource_id"]).write_text(pair["access_token"])
"""


def test_the_loop_for_any_other_store_answers_what_the_store_says(job, tmp_path):
    app = tmp_path / "app"
    app.mkdir()
    (app / REFRESHED).write_text("its own")
    (tmp_path / "program.py").write_text(STORE + re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0])
    job.environment["RECOVERY_DELIVER__COMMAND"] = json.dumps([sys.executable, str(tmp_path / "program.py")])
    delivers(job, lambda: {file.name: file.read_text() for file in app.iterdir()})
    assert job.results()[REFRESHED]["delivery"] == "no: the app has a newer pair"


# -- a receiver --------------------------------------------------------------------------------------------------------


@contextmanager
def receiving(folder, secret):
    """The address of the receiver, which runs as a process."""
    port = free_port()
    flask = [sys.executable, "-m", "flask", "--app", RECIPES / "receiver.py", "run", "--port", port]
    environment = os.environ | {"DELIVERY_SECRET": secret, "DATABASE": str(folder / "app.db")}
    with (folder / "flask.log").open("w") as log:
        process = subprocess.Popen([*map(str, flask)], env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}/connections"
        wait_until(lambda: answers(url))
        yield url
    finally:
        process.terminate()  # Not by SIGINT, which a shell's background job ignores, and its children too.
        process.wait(10)


def answers(url):
    try:
        return requests.get(url, timeout=5).status_code == 405
    except requests.ConnectionError:
        return False


@pytest.fixture
def app_store(tmp_path):
    file = tmp_path / "app.db"
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(
            "create table connections (resource_id text primary key, access_token text, refresh_token text,"
            " expires_at integer, needs_reauth integer)"
        )
        rows = [(REFRESHED, "its own", "x", as_ms(FAR_OFF), 0), (OTHERS[0], "dead", "x", as_ms(OLD), 1)]
        connection.executemany("insert into connections values (?, ?, ?, ?, ?)", rows)

    def stored():
        with closing(sqlite3.connect(file)) as connection:
            return dict(connection.execute("select resource_id, access_token from connections where not needs_reauth"))

    return stored


def test_the_receiver_stores_signed_pairs_and_the_newest_wins(job, tmp_path, app_store):
    secret = new_secret()
    with receiving(tmp_path, secret) as url:
        job.environment |= {"RECOVERY_DELIVER__URL": url, "RECOVERY_DELIVER__SECRET": secret}
        delivers(job, app_store)


def test_the_receiver_stores_nothing_from_a_test(tmp_path, app_store):
    secret, before = new_secret(), app_store()
    message = {"type": "connection.test", "data": {"resource_id": "test-location", "access_token": "made up"}}
    body, now = json.dumps(message), datetime.now(UTC)
    headers = {"webhook-id": "test-x", "webhook-timestamp": str(int(now.timestamp()))}
    headers["webhook-signature"] = Webhook(secret).sign("test-x", now, body)
    with receiving(tmp_path, secret) as url:
        assert requests.post(url, body, headers=headers, timeout=5).status_code == 204
    assert app_store() == before


def test_the_receiver_takes_only_what_is_signed_with_its_secret(tmp_path, app_store):
    secret, before = new_secret(), app_store()
    message = {"type": "connection.recovered", "data": {"resource_id": OTHERS[1], "access_token": "forged"}}
    body, now = json.dumps(message), datetime.now(UTC)
    headers = {"webhook-id": "x", "webhook-timestamp": str(int(now.timestamp()))}
    with receiving(tmp_path, secret) as url:
        for signature in ("", "v1", "v1,", "v1,x", Webhook(new_secret()).sign("x", now, body)):
            signed = headers | {"webhook-signature": signature}
            assert requests.post(url, body, headers=signed, timeout=5).status_code == 401
        assert requests.post(url, b"x" * 2_000_000, headers=headers, timeout=5).status_code == 413
    assert app_store() == before
