"""What a run needs before it may begin: settings, apps, the address of the API, and where its files go."""

from __future__ import annotations

import json
import shutil

import pytest
from msgspec.inspect import FloatType, IntType, type_info
from msgspec.structs import fields

from jobs.config.apps import base_url
from jobs.config.settings import Settings, SigningSecrets, load_settings
from jobs.core.errors import UserError
from jobs.core.secret import Secret
from jobs.start import MESSAGES, PROJECT, make_start, output_for, place_of

ONE_APP = {"HIGHLEVEL_CLIENT_ID": "app-1", "HIGHLEVEL_CLIENT_SECRET": "secret-of-one"}
APPS = """
[[apps]]
client_id = "app-1"
client_secret_env = "SECRET_OF_ONE"

[[apps]]
client_id = "app-2"
client_secret_file = "config/second"
redirect_uri = "https://app.example.com/back"
scopes = "a.readonly b.write"
"""


@pytest.fixture
def start(tmp_path):
    """`start(environment, "path"=text, ...)` makes a start in a project of these files; INPUT is `installs.csv`."""

    def from_files(environment=None, options=None, **files):
        texts = {"installs.csv": "location_id,client_id\nLocA,\n"} | {
            name.replace("__", "/").replace("_toml", ".toml").replace("_csv", ".csv").replace("dotenv", ".env"): text
            for name, text in files.items()
        }
        for name, text in texts.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
            path.chmod(0o600)
        shutil.copytree(PROJECT / MESSAGES, tmp_path / MESSAGES, dirs_exist_ok=True)
        return make_start(tmp_path, ONE_APP if environment is None else environment, path_of(tmp_path), options or {})

    def path_of(folder):
        return folder / "installs.csv"

    return from_files


def problems(call, *args, **files):
    with pytest.raises(UserError) as error:
        call(*args, **files)
    return [str(problem) for problem in error.value.problems]


def test_the_environment_beats_dotenv_which_beats_the_file_and_an_option_beats_all(start):
    file = "[pace]\nrequests_per_second = 1\nworkers = 2\n[retry]\nattempts = 3\n[log]\nlevel = 'debug'\n"
    dotenv = "RECOVERY_PACE__WORKERS=5\nRECOVERY_RETRY__ATTEMPTS=6\nRECOVERY_LOG__LEVEL=error\n"
    given = ONE_APP | {"RECOVERY_RETRY__ATTEMPTS": "7", "RECOVERY_PACE__WORKERS": "8"}
    found = start(given, {"--workers": "9"}, config__recovery_toml=file, dotenv=dotenv).settings
    assert (found.pace.requests_per_second, found.pace.workers) == (1, 9)
    assert (found.retry.attempts, found.log.level) == (7, "error")


@pytest.mark.parametrize(
    ("file", "environment", "options", "named"),
    [
        ("[pace]\nworkers = true\n", {}, {}, "recovery.toml, pace.workers"),
        ("[pace]\nrequests_per_second = '10'\n", {}, {}, "recovery.toml, pace.requests_per_second"),
        ("[pace]\nwrkers = 1\n", {}, {}, "recovery.toml, pace.wrkers"),
        ("pace = 3\n", {}, {}, "recovery.toml, pace"),
        ("[http]\ntotal_timeout_seconds = inf\n", {}, {}, "http.total_timeout_seconds"),
        ("[pace\n", {}, {}, "line 1"),
        ("", {"RECOVERY_PACE__WORKERS": "many"}, {}, "RECOVERY_PACE__WORKERS"),
        ("", {"RECOVERY_PACE__WRKERS": "1"}, {}, "RECOVERY_PACE__WRKERS"),
        ("", {"RECOVERY_PACES__WORKERS": "1"}, {}, "RECOVERY_PACES__WORKERS"),
        ("", {"RECOVERY__WORKERS": "1"}, {}, "RECOVERY__WORKERS"),
        ("", {"RECOVERY_HTTP__MAX_ANSWER_BYTES": "0"}, {}, "RECOVERY_HTTP__MAX_ANSWER_BYTES"),
        ("", {}, {"--rate": "nan"}, "--rate"),
        ("", {}, {"--workers": "-1"}, "--workers"),
    ],
)
def test_an_unknown_or_wrong_setting_is_refused_by_the_name_it_was_given_under(
    start, file, environment, options, named
):
    (said,) = problems(start, ONE_APP | environment, options, config__recovery_toml=file)
    assert named in said


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("ping", "url", "https://hc.example/key"),
        ("deliver", "url", "https://app.example/new"),
        ("deliver", "secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        ("deliver", "database_url", "postgresql://app:word@localhost/main"),
        ("ledger", "url", "postgresql://app:word@localhost/main"),
    ],
)
def test_a_secret_in_the_file_is_refused_without_it_being_shown(start, section, key, value):
    (said,) = problems(start, config__recovery_toml=f"[{section}]\n{key} = {value!r}\n")
    name = f"RECOVERY_{section}__{key}".upper()
    assert said == f"recovery.toml, {section}.{key}: is a secret: set {name} in .env instead"


def test_a_secret_key_in_dotenv_is_refused_by_the_name_of_its_variable_without_it_being_shown(start):
    secret = "AGE-SECRET-KEY-1QQQQQQQQQQQQQQQQQQQQ"
    (said,) = problems(start, dotenv=f"RECOVERY_SEAL__RECIPIENTS={secret}\n")
    assert said.startswith("RECOVERY_SEAL__RECIPIENTS: has an invalid value (it is a secret key")
    assert secret not in said


@pytest.mark.parametrize(
    "text",
    [
        "https://me:canary@ho\N{ACCOUNT OF}st/", "https://me:canary@[::1/", "https://me:canary@[canary]/", "https://h:canary/",
        "http://me:canary@host.example/", "canary", "[canary", "'canary", "https://me:canary@host:99999/",
    ],
)  # fmt: skip
def test_no_refused_setting_is_ever_shown(tmp_path, text):
    kinds = {
        f"RECOVERY_{section.name}__{key.name}".upper(): key.type
        for section in fields(Settings)
        for key in fields(section.type)
    }
    said = "\n".join(problems(load_settings, tmp_path / "none", dict.fromkeys(kinds, text), {}))
    assert "canary" not in said
    assert all(name in said for name, kind in kinds.items() if kind in {Secret, SigningSecrets})


def test_where_the_ledger_is_may_be_said_in_dotenv_for_every_command(tmp_path):
    (tmp_path / ".env").write_text("RECOVERY_LEDGER__URL=postgresql:///main\nHIGHLEVEL_BASE_URL=http://localhost:1\n")
    place = place_of(tmp_path, {}, tmp_path / "out")
    assert (place.in_database, place.base_url) == (True, "http://localhost:1")
    assert not place_of(tmp_path, {"RECOVERY_LEDGER__URL": ""}, tmp_path / "out").in_database


@pytest.mark.parametrize("one", fields(Settings), ids=lambda one: one.name)
def test_every_number_of_the_settings_has_a_range_and_what_is_outside_is_refused_in_one_line_with_it(tmp_path, one):
    file = tmp_path / "recovery.toml"
    for key in fields(one.type):
        allowed = type_info(key.type)
        if not isinstance(allowed, IntType | FloatType):
            continue
        whole = "whole " if isinstance(allowed, IntType) else ""
        name = f"RECOVERY_{one.name}__{key.name}".upper()
        said = f"{name}: has an invalid value: give a {whole}number from {allowed.ge:,} to {allowed.le:,}"
        outside = ("nan", "inf", "-inf", "1e300", "-1", "9" * 400, str(-1 if allowed.ge == 0 else 0))
        for text in (*outside, "9" * 5000, "", "many"):
            assert problems(load_settings, tmp_path / "none", {name: text}, {}) == [said]
        for text in (*outside, "true"):
            file.write_text(f"[{one.name}]\n{key.name} = {text}\n")
            (line,) = problems(load_settings, file, {}, {})
            assert line == said.replace(name, f"recovery.toml, {one.name}.{key.name}")
        for bound in (allowed.ge, allowed.le):
            found = load_settings(tmp_path / "none", {name: str(bound)}, {})
            assert getattr(getattr(found, one.name), key.name) == bound


@pytest.mark.parametrize("text", [f"a = {'9' * 5000}", f"a = {'[' * 5000}"], ids=["digits", "nesting"])
@pytest.mark.parametrize("file", ["config__recovery_toml", "config__apps_toml"])
def test_a_file_of_numbers_or_nesting_without_end_is_one_line(start, file, text):
    (said,) = problems(start, **{file: text})
    assert "cannot be read" in said


@pytest.mark.parametrize(
    "name", ["RECOVERY_PORT", "RECOVERY_SERVICE_HOST", "RECOVERY_PORT_8765_TCP", "RECOVERY_WORKERS"]
)
def test_a_variable_without_two_low_lines_is_somebody_elses(start, name):
    assert start(ONE_APP | {name: "tcp://10.0.0.7:8765"}).settings == Settings()


def test_dotenv_may_come_from_another_system_and_is_refused_where_it_is_unreadable(start):
    windows = b"\xef\xbb\xbfHIGHLEVEL_CLIENT_ID=app-1\r\nexport HIGHLEVEL_CLIENT_SECRET='se$cret #1'\r\n"
    assert start({}, dotenv=windows).apps.known["app-1"].client_secret.reveal() == "se$cret #1"
    assert "not UTF-8" in problems(start, ONE_APP, dotenv=b"A=\xff\n")[0]
    assert "line 2" in problems(start, ONE_APP, dotenv="A=1\nHIGHLEVEL_CLIENT_SECRET='open\n")[0]


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"REQUESTS_CA_BUNDLE": "/none"}, "cannot be read"),
        ({"SSL_CERT_FILE": __file__}, "holds no certificates"),
        ({"HTTPS_PROXY": "socks5://proxy:1"}, "HTTPS_PROXY"),
        ({"all_proxy": "ftp://proxy"}, "all_proxy"),
    ],
)
def test_a_proxy_or_certificates_that_cannot_be_used_are_refused_before_anything_begins(start, environment, says):
    (said,) = problems(start, ONE_APP | environment)
    assert says in said


def test_what_does_not_concern_this_address_is_not_refused(start):
    assert start(ONE_APP | {"HTTP_PROXY": "socks5://proxy:1", "HTTPS_PROXY": "proxy:3128"}).needed == {"app-1"}
    loopback = {"HIGHLEVEL_BASE_URL": "http://127.0.0.1:1", "HTTPS_PROXY": "socks5://proxy:1"}
    assert start(ONE_APP | loopback).needed == {"app-1"}


def test_an_apps_secret_must_be_there_only_where_input_needs_the_app(start):
    for_two = "location_id,client_id\nLocA,app-2\n"
    found = start({}, config__apps_toml=APPS, config__second="secret-of-two\r\n", installs_csv=for_two)
    assert found.needed == {"app-2"}
    assert found.apps.known["app-2"].client_secret.reveal() == "secret-of-two"
    for_one = "location_id,client_id\nLocA,app-1\n"
    (said,) = problems(start, {}, config__apps_toml=APPS, installs_csv=for_one)
    assert "SECRET_OF_ONE" in said
    third = {"HIGHLEVEL_CLIENT_ID": "app-3"}
    assert start(third, config__apps_toml=APPS, installs_csv=for_two).needed == {"app-2"}
    for_three = "location_id,client_id\nLocA,app-3\n"
    assert "HIGHLEVEL_CLIENT_SECRET" in problems(start, third, config__apps_toml=APPS, installs_csv=for_three)[0]


def test_all_that_is_wrong_is_told_at_once_a_missing_secret_and_a_bad_line_too(start):
    given = {"RECOVERY_PACE__WORKERS": "x", "HIGHLEVEL_BASE_URL": "http://example.com"}
    for_both = "location_id,client_id\nLocA,app-1\nLocB,app-2\n"
    said = problems(start, given, config__apps_toml=APPS, installs_csv=for_both)
    for name in ("RECOVERY_PACE__WORKERS", "HIGHLEVEL_BASE_URL", "SECRET_OF_ONE", "second"):
        assert any(name in line for line in said)
    assert len(said) == 4


def test_without_credentials_it_is_said_what_to_set_and_that_a_demo_needs_none(start):
    said = problems(start, {}, installs_csv=b"location_id\nLocA\n\xff\n")
    assert [line for line in said if "line 3" in line]
    assert [line for line in said if "make demo" in line]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[apps]]\nclient_id = 'a'\n", "exactly one of"),
        ("[[apps]]\nclient_id = 'a'\nclient_secret = 's'\nclient_secret_env = 'E'\n", "exactly one of"),
        ("[[apps]]\nclient_id = 'a'\nclient_secret = 's'\nsecret = 's'\n", "secret is unknown"),
        ("[[apps]]\nclient_id = 'a'\nclient_secret = 7\n", "client_secret is not a text"),
        ("[[apps]]\nclient_id = 'a b'\nclient_secret = 's'\n", "does not look like a client id"),
        ("[[apps]]\nclient_id = 'a'\nclient_secret = 's'\n" * 2, "configured twice"),
        ("[apps]\nclient_id = 'a'\n", "may only hold [[apps]]"),
        ("[[apps]]\nclient_secret = 'no-one-may-see-me\n", "at end of document"),
        ("[[apps]]\nclient_secret = no-one-may-see-me\n", "at line 2"),
    ],
)
def test_a_mistake_in_the_apps_file_is_named_and_no_secret_with_it(start, text, says):
    said = "\n".join(problems(start, {}, config__apps_toml=text))
    assert says in said
    assert "no-one-may-see-me" not in said


def test_a_file_of_secrets_that_others_may_read_is_warned_of(start, tmp_path):
    files = {"config__apps_toml": APPS, "config__second": "s", "dotenv": "A=1\n"}
    files["installs_csv"] = "location_id,client_id\nLocA,app-2\n"
    assert start({}, **files).apps.warnings == ()
    for name in ("config/apps.toml", "config/second", ".env"):
        (tmp_path / name).chmod(0o644)
    warnings = make_start(tmp_path, {}, tmp_path / "installs.csv", {}).apps.warnings
    for name in ("config/apps.toml", "config/second", ".env"):
        assert [line for line in warnings if name in line]


NOT_SEEN = "a space or an invisible character: is it part of the secret?"


@pytest.mark.parametrize(
    ("secret", "hint"),
    [
        ("s3cret ", "ends with"),
        ("s3cret\u200b", "ends with"),
        ("s3cret\u00a0\r\n", "ends with"),
        ("\ts3cret", "begins with"),
        ("\ufeffs3cret", "begins with"),
        ("s3 cret", "holds"),
        ("s3\u00adcret", "holds"),
    ],
)
def test_a_secret_with_a_character_that_is_not_seen_is_hinted_at_by_the_name_of_its_place(
    start, tmp_path, secret, hint
):
    found = start(ONE_APP | {"HIGHLEVEL_CLIENT_SECRET": secret})
    assert found.warnings == (f"HIGHLEVEL_CLIENT_SECRET {hint} {NOT_SEEN}",)
    in_apps = APPS.replace('client_secret_env = "SECRET_OF_ONE"', f"client_secret = {json.dumps(secret)}")
    both = start({}, config__apps_toml=in_apps, config__second=secret, installs_csv="location_id,client_id\nL,app-1\n")
    where = "begins with" if secret.startswith("\ufeff") else hint
    assert f"client_secret (apps.toml, app 1) {where} {NOT_SEEN}" in both.warnings
    if not secret.startswith("\ufeff"):  # In a file, that is a mark of its encoding.
        assert f"{tmp_path / 'config' / 'second'} {hint} {NOT_SEEN}" in both.warnings
    named = start(
        {"SECRET_OF_ONE": secret},
        config__apps_toml=APPS,
        config__second="x",
        installs_csv="location_id,client_id\nL,app-1\n",
    )
    assert named.warnings == (f"SECRET_OF_ONE {hint} {NOT_SEEN}",)
    assert "s3" not in "".join(found.warnings + both.warnings + named.warnings)


@pytest.mark.parametrize("secret", ["s3cret", "s3cret\n", "s3cret\r\n", "s$e#c'r\"et"])
def test_a_trailing_newline_is_not_part_of_a_secret_and_hinted_at_by_nobody(start, secret):
    found = start(ONE_APP | {"HIGHLEVEL_CLIENT_SECRET": secret})
    assert found.warnings == ()
    assert found.apps.known["app-1"].client_secret.reveal() == secret.rstrip("\r\n")


def test_around_a_client_id_what_is_not_seen_does_not_count_and_within_it_is_refused_by_name(start):
    assert start(ONE_APP | {"HIGHLEVEL_CLIENT_ID": "\u00a0app-1\u200b "}).needed == {"app-1"}
    (said,) = problems(start, ONE_APP | {"HIGHLEVEL_CLIENT_ID": "app\u200b-1"})
    assert said.startswith(
        "HIGHLEVEL_CLIENT_ID: client_id does not look like a client id (it holds a space or an invisible character)"
    )


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("", "https://services.leadconnectorhq.com"),
        ("HTTPS://API.Example.com:443/", "https://api.example.com"),
        ("https://api.example.com:8443/v2//", "https://api.example.com:8443/v2"),
        (" http://LocalHost:8765/ ", "http://localhost:8765"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_an_address_has_one_spelling(given, meant):
    assert base_url({"HIGHLEVEL_BASE_URL": given}) == meant


@pytest.mark.parametrize(
    "given",
    [
        "api.example.com", "ftp://h", "http://example.com", "http://10.0.0.1", "https://h:99999", "https://[::1",
        "https://u:p@h", "https://:p@h", "https://a b", "https://h\\x", "https://h..x", "https://h/?q", "https://h/#f",
        "https://h/a b", "https://",
    ],
)  # fmt: skip
def test_what_is_not_an_address_or_not_encrypted_is_refused(given):
    with pytest.raises(UserError):
        base_url({"HIGHLEVEL_BASE_URL": given})


def test_the_output_folder_is_named_after_input_or_is_the_one_that_holds_input(tmp_path):
    project = tmp_path / "project"
    assert output_for(project, tmp_path / "list.of.may.csv", None) == project / "data" / "list.of.may"
    assert output_for(project, tmp_path / "list", None) == project / "data" / "list"
    assert output_for(project, tmp_path / "x.csv", tmp_path / "given") == tmp_path / "given"
    for name in ("...csv", "..csv", ".csv", " .csv"):
        with pytest.raises(UserError, match="--output"):
            output_for(project, tmp_path / name, None)
    out = tmp_path / "out"
    out.mkdir()
    (out / "ledger.sqlite3").touch()
    (out / "failures.csv").touch()
    assert output_for(project, out / "failures.csv", None) == out
    (tmp_path / "link.csv").symlink_to(out / "failures.csv")
    assert output_for(project, tmp_path / "link.csv", None) == out
