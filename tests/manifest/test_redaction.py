"""Secrets under other names: they reach no file that others read, and come back to what is known as they were."""

from __future__ import annotations

import csv
import io
import json

import pytest

from jobs.manifest.redaction import holds_secret, names_secret
from jobs.sandbox.tokens import mint
from tests.helpers.job import CLIENT_ID
from tests.helpers.workbook_parts import parts_of

JWT = mint("access", "Location", "LocA", CLIENT_ID, "CoA", 60)
HEX = "5f3a9c1e7b2d48605f3a9c1e7b2d48605f3a9c1e"
IN_JSON = json.dumps({"access_token": "OLD-ACCESS", "refresh_token": "OLD-REFRESH"})


@pytest.mark.parametrize(
    "header",
    [
        "ghl_access_token", "client_secret", "token_data", "Token", "accessToken2", "API key", "api-key", "APIKey", "apikey",
        "GHLACCESSTOKEN", "password", "Passwort", "DB Password", "private_key", "signingKey", "refresh token", "oldSecret",
        "authorization", "jwt", "Credentials", "\ufeffsecret\u200b",
    ],
)  # fmt: skip
def test_a_header_that_names_a_secret(header):
    assert names_secret(header)


@pytest.mark.parametrize(
    "header",
    [
        "name", "secretary", "key", "key account", "token_type", "token expires at", "tokenExpiry", "note", "customer_key",
        "passport", "broker", "monkey", "", "42", "access", "bearing",
    ],
)  # fmt: skip
def test_a_header_that_names_none(header):
    assert not names_secret(header)


@pytest.mark.parametrize(
    "cell",
    [
        JWT, f"see {JWT} here", HEX, f"code={HEX}", IN_JSON, "{'accessToken': 'abcd1234'}", "client_secret=hunter2&x=1",
        "password: hunter2", "API key: a1b2c3", '{"a":"{\\"refresh_token\\":\\"abcd\\"}"}', "Authorization: Bearer abcdefgh12345678",
        "sk_live_abc123", "xoxb-1234567890-abc", "ghp_abcdefgh1234", "pit-5f3a9c1e-7b2d-4860-5f3a-9c1e7b2d4860",
        "aB3dE6gH9jK2mN5pQ8sT1vW4yZ", "x" * 64, "-----BEGIN RSA PRIVATE KEY-----",
        "https://bob:hunter2@crm.example.com/", "see redis://:hunter2@cache", "https://hooks.slack.com/services/T00/B00/ve9EPM428h8vShlRW1KT",
    ],
)  # fmt: skip
def test_a_cell_with_the_form_of_a_secret(cell):
    assert holds_secret(cell)


@pytest.mark.parametrize(
    "cell",
    [
        "Acme", "call first, then write", "ve9EPM428h8vShlRW1KT", "66c8a1b2c3d4e5f6a7b8c9d0-m0testing", "+49 30 1234567",
        "5f3a9c1e-7b2d-4860-5f3a-9c1e7b2d4860", "owner@a-rather-long-name-of-a-business.example", "2026-11-25T02:30:00Z",
        "https://example.com/top-10-tips-to-reconnect-the-apps-of-your-customers", "lost the token", "token: no", "",
        "https://app.gohighlevel.com/v2/location/ve9EPM428h8vShlRW1KT/dashboard", "****",
        "https://example.com:8080/@acme", "https://example.com, ask: bob@example.com", "mailto:bob@example.com",
    ],
)  # fmt: skip
def test_a_cell_without_a_secret_stays_as_it_is(cell):
    assert not holds_secret(cell)


def of(job, name):
    with (job.output / name).open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def written(*rows):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


HEADER = ("location_id", "company_id", "name", "token_data", "ghl_access_token", "client_secret", "free")
ROW = ("LocA", "CoA", "Acme", IN_JSON, "OLD-OTHER", "A-CLIENT-SECRET", JWT)
SECRETS = ("OLD-ACCESS", "OLD-REFRESH", "OLD-OTHER", "A-CLIENT-SECRET", JWT)


def seen_by_others(job):
    texts = [
        (job.output / name).read_text(encoding="utf-8-sig")
        for name in ("failures.csv", "failures.html", "summary.json")
    ]
    return "".join([*texts, *parts_of(job.output / "failures.xlsx").values()])


def test_secrets_in_columns_of_the_users_are_starred_for_others_and_said_and_kept_in_the_results(play):
    job = play(default="not_installed")
    done = job.run(job.manifest(written(HEADER, ROW)))
    assert not [secret for secret in SECRETS if secret in seen_by_others(job) + done.stdout + done.stderr]
    assert [of(job, "failures.csv")[0][name] for name in HEADER[2:]] == ["Acme", *["****"] * 4]
    assert [of(job, "results.csv")[0][name] for name in HEADER[2:]] == list(ROW[2:])
    assert "starred in the reports of failures: token_data, ghl_access_token, client_secret, free" in done.stderr
    assert "starred" not in job.run(job.manifest("location_id,name\nLocB,x\n")).stderr.rpartition("free")[2]


def test_a_starred_cell_that_comes_back_replaces_nothing_that_is_known(play):
    job = play(default="not_installed")
    broken = ("bad id", "", "Torn", IN_JSON, "OLD-OTHER-2", "", "")
    job.run(job.manifest(written(HEADER, ROW, broken) + f'LocB,,"x" {JWT},,,\n'))
    before = [[row[name] for name in (*HEADER, "row_as_read")] for row in of(job, "results.csv")]
    assert before[0][2:7] == list(ROW[2:])
    assert before[1] == [*broken, ""]
    assert before[2][-1] == f'LocB,,"x" {JWT},,,'
    for _ in range(3):
        assert job("run", job.output / "failures.csv").returncode == 1
        assert [[row[name] for name in (*HEADER, "row_as_read")] for row in of(job, "results.csv")] == before
        assert not [secret for secret in SECRETS if secret in seen_by_others(job)]
    changed = job.manifest(written(HEADER, (*ROW[:4], "NEW-OTHER", *ROW[5:])))
    job.run(changed)
    assert of(job, "results.csv")[0]["ghl_access_token"] == "NEW-OTHER"


def test_broken_lines_that_show_the_same_stars_come_back_each_as_its_own(play):
    job = play(default="not_installed")
    other = JWT[:-8] + "abcdefgh"
    ids = [JWT, "****", other, "bad id", JWT]
    job.run(job.manifest("location_id\n" + "".join(f"{one}\n" for one in ids)))
    for _ in range(2):
        job("run", job.output / "failures.csv")
        assert [row["location_id"] for row in of(job, "results.csv")] == ids
        assert [row["location_id"] for row in of(job, "failures.csv")] == ["****", "****", "****", "bad id", "****"]


def test_a_token_in_place_of_an_id_reaches_nobody(play):
    job = play(default="not_installed")
    done = job.run(job.manifest(f"location_id,company_id\n{JWT},CoA\nLocA,{JWT}\n"))
    assert JWT not in seen_by_others(job) + done.stdout + done.stderr
    assert JWT.rpartition(".")[2] not in seen_by_others(job)
    assert {row["location_id"] for row in of(job, "results.csv")} == {JWT, "LocA"}


def test_the_text_of_a_torn_line_shows_no_secret_and_only_its_shape_where_any_cell_may_be_one(play):
    job = play(default="not_installed")
    job.run(job.manifest(f'location_id,note\nLocA,"call "me" {HEX},x\nLocB,{{"token": "abcd"}},y\n'))
    first, second = (row["row_as_read"] for row in of(job, "failures.csv"))
    assert first == 'LocA,"call "me" ****,x'
    assert second == "****,****,****"
    job.run(job.manifest("location_id,api_key\nLocA,short1,x\n"))
    assert "short1" not in seen_by_others(job)
    assert of(job, "failures.csv")[0]["row_as_read"] == "****,****,****"
    assert of(job, "results.csv")[0]["row_as_read"] == "LocA,short1,x"
    job.run(job.manifest("location_id,refresh_token\nLocA,short2,x\n"))
    assert "short2" not in seen_by_others(job) + (job.output / "results.csv").read_text()
