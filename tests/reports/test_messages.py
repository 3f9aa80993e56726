"""The words for customers: theirs to read, the user's to change, and never a way to a secret or out of a report."""

from __future__ import annotations

import re
import shutil
from itertools import product
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from jobs.core.causes import ADVICE
from jobs.core.model import Cause, Level, Owner, Stage
from jobs.ledger.support_queries import by_company
from jobs.reports.cards import CARDS, SECTIONS
from jobs.reports.groups import PageContext, tables
from jobs.reports.links import HELPS_WITH
from jobs.reports.messages import HAS_MESSAGE, TO_HIGHLEVEL, load_messages
from jobs.reports.support import ENDPOINTS
from jobs.sandbox.world import Place
from jobs.start import MESSAGES, PROJECT, make_start
from tests.helpers.made import (
    APP,
    CLIENT_ID,
    COLUMNS,
    SECRET,
    make_run,
    messages,
    open_ledger,
    person,
    place,
    render_again,
)

JARGON = re.compile(r"token|oauth|reconnect|\bapi\b|endpoint|credential|scope\b|webhook|trace|\b4\d\d\b", re.IGNORECASE)
FORMULA = re.compile(r"^\s*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")


def parts(folder, cause, apps=None):
    ledger = open_ledger(folder, "")
    try:
        context = PageContext(COLUMNS, apps or {CLIENT_ID: APP}, messages())
        with ledger.engine.connect() as connection:
            return [part for table in tables(by_company(connection, cause), cause, context) for part in table]
    finally:
        ledger.close()


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_a_card_and_a_section_and_those_for_others_have_a_message(cause):
    card = CARDS[cause]
    assert card.title
    assert card.happened
    assert card.steps
    assert card.done
    assert ADVICE[cause].owner in SECTIONS
    assert (cause in HAS_MESSAGE) == (ADVICE[cause].owner in (Owner.CUSTOMER, Owner.AGENCY))
    assert (PROJECT / MESSAGES / f"{cause}.txt").exists() == (cause in HAS_MESSAGE)


def test_every_call_has_its_address_for_highlevels_support():
    assert set(ENDPOINTS) == set(Stage)


@pytest.mark.parametrize("cause", HAS_MESSAGE)
def test_a_message_is_free_of_jargon_and_asks_to_uninstall_only_where_the_app_is_still_there(cause):
    for accounts, more, link in product((["Harbor"], ["Harbor", "Pine"]), (0, 5), ("", "https://x.example/?a=b")):
        values = {"app": "Calendar Sync", "company": "Co1", "accounts": accounts, "more": more, "link": link}
        message = messages().write(cause.value, values | {"count": len(accounts) + more})
        assert not JARGON.search(f"{message.subject}\n{message.body}")
        assert ("uninstall" in message.body) == (cause in (Cause.RECONNECT_REMOVED, Cause.REFRESH_INVALID))
        assert all(account in message.body for account in accounts)
        assert (link in message.body) == (cause in HELPS_WITH and bool(link)) or not link


def test_an_agency_with_60_sub_accounts_is_one_message_that_names_them_all(tmp_path):
    made = [(place(n, "CoBig", *person(n)), Cause.RECONNECT_REMOVED) for n in range(60)]
    made += [(place(100, "CoBig", "Big Agency", "ops@big.example", level=Level.AGENCY), Cause.RECONNECT_REMOVED)]
    make_run(tmp_path / "out", COLUMNS, made)
    (part,) = parts(tmp_path / "out", Cause.RECONNECT_REMOVED)
    assert (part.company, part.count, len(part.rows)) == ("CoBig", 61, 61)
    assert all(row.account in part.mail.message.body for row in part.rows)
    assert "Big Agency (agency CoBig)" in part.mail.message.body
    assert "61 accounts" in part.mail.message.body
    assert "&body=" not in part.mail.mailto  # too long for a mail program's link


def test_a_company_of_many_hundreds_is_cut_into_tables_and_still_one_message(tmp_path):
    made = [(place(n, "CoBig" if n % 2 else "CoOther", *person(n)), Cause.NOT_INSTALLED) for n in range(500)]
    make_run(tmp_path / "out", COLUMNS, made)
    mine = [part for part in parts(tmp_path / "out", Cause.NOT_INSTALLED) if part.company == "CoBig"]
    assert [len(part.rows) for part in mine] == [100, 100, 50]
    assert [part.continued for part in mine] == [False, True, True]
    assert [bool(part.mail) for part in mine] == [True, False, False]
    assert "… and 150 more" in mine[0].mail.message.body


def test_installs_of_unknown_companies_may_be_strangers_and_get_a_message_each(tmp_path):
    made = [(place(n, "", *person(n)), Cause.NOT_INSTALLED) for n in range(3)]
    make_run(tmp_path / "out", COLUMNS, made)
    found = parts(tmp_path / "out", Cause.NOT_INSTALLED)
    assert [part.count for part in found] == [1, 1, 1]
    for n, part in enumerate(found):
        (name, address), body = person(n), part.mail.message.body
        assert name in body
        assert not [other for other in range(3) if other != n and person(other)[0] in body]
        query = parse_qs(urlsplit(part.mail.mailto).query)
        assert unquote(urlsplit(part.mail.mailto).path) == address
        assert query["body"] == [body.replace("\n", "\r\n")]


def test_two_addresses_in_the_rows_of_a_company_leave_the_choice_to_the_sender(tmp_path):
    make_run(tmp_path / "out", COLUMNS, [(place(n, "Co1", *person(n)), Cause.NOT_INSTALLED) for n in range(2)])
    (part,) = parts(tmp_path / "out", Cause.NOT_INSTALLED)
    assert part.mail.mailto.startswith("mailto:?subject=")


def test_what_a_user_wrote_breaks_out_of_no_message_and_no_mail_link(tmp_path):
    name = "=HYPERLINK(1)\n=2+2\r\n\t@x</pre><script>alert(1)</script>"
    address = "a@b.example?bcc=eve@evil.example&body=x"
    make_run(tmp_path / "out", COLUMNS, [(place(1, "", name, address), Cause.NOT_INSTALLED)])
    (part,) = parts(tmp_path / "out", Cause.NOT_INSTALLED)
    assert not [line for line in part.mail.message.body.splitlines() if FORMULA.match(line)]
    assert "bcc=" not in part.mail.mailto
    assert not set(part.mail.mailto) & set("<>\"'\n\r ")
    assert set(parse_qs(urlsplit(part.mail.mailto).query)) == {"subject", "body"}
    assert part.rows[0].own == [name, address]


@pytest.fixture
def words(tmp_path):
    return shutil.copytree(PROJECT / MESSAGES, tmp_path / "messages")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Subject: x\n{% if %}", "line 2"),
        ("Subject: x\n{{ accounts", "line 2"),
        ("Subject: x\n{% if count > 1000 %}{{ acounts }}{% endif %}", "unknown name: acounts"),
        ("Subject: x\n{{ accounts.__class__.__mro__ }}", "unsafe"),
        ("Subject: x\n{{ app.nosuch }}", "nosuch"),
        ("Subject: x\n{% include 'other.txt' %}", "no loader"),
        ("no subject\nbut text", "Subject:"),
        ("Subject: x\n", "Subject:"),
        (b"Subject: \xff\nx", "UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_broken_template_is_left_out_and_warned_of_in_one_line(words, text, told):
    file = words / "not_installed.txt"
    if text is None:
        file.unlink()
    else:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    loaded = load_messages(words)
    (warning,) = loaded.warnings
    assert told in warning
    assert "not_installed.txt" in warning
    assert "this message is left out" in warning
    assert "\n" not in warning
    assert set(loaded.templates) == {*HAS_MESSAGE, TO_HIGHLEVEL} - {"not_installed"}


def test_a_run_without_any_message_starts_and_names_each(tmp_path, play):
    job = play()
    manifest = job.manifest("location_id\nLocA\n")
    warnings = make_start(tmp_path, job.environment, manifest, {}).warnings
    names = {warning.partition(".txt: ")[0].rpartition("/")[2] for warning in warnings}
    assert names == {*HAS_MESSAGE, TO_HIGHLEVEL}


def test_a_mistake_in_a_template_keeps_no_install_from_coming_back(play):
    job = play({"LocB": Place("not_installed")})
    job.project = job.folder / "project"
    for folder in ("jobs", "config"):
        shutil.copytree(PROJECT / folder, job.project / folder)
    (job.project / MESSAGES / "not_installed.txt").write_text("Subject: x\n{{ acount }}", encoding="utf-8")
    manifest = job.manifest("location_id\nLocA\nLocB\n")
    planned = job("plan", manifest, "--output", job.output)
    assert planned.returncode == 0
    assert "unknown name: acount" in planned.stdout
    done = job.run(manifest)
    assert (done.returncode, job.summary()["counts"]["recovered"]) == (1, 1)
    assert "unknown name: acount" in done.stderr
    page = (job.output / "failures.html").read_text(encoding="utf-8")
    assert "The message is missing: config/messages/not_installed.txt has a mistake" in page
    again = job("report", job.output)
    assert again.returncode == 0
    assert "unknown name: acount" in again.stderr


def test_a_fault_that_only_some_values_bring_out_leaves_its_message_out_and_the_report_stands(words, tmp_path):
    (words / "not_installed.txt").write_text("Subject: x\n{{ 1 // (count - 7) }}", encoding="utf-8")
    (words / f"{TO_HIGHLEVEL}.txt").write_text("Subject: x\n{{ 1 // (count - 9) }}", encoding="utf-8")
    made = [(place(n, "Co7", *person(n)), Cause.NOT_INSTALLED) for n in range(7)]
    made += [(place(n, "Co9", *person(n)), Cause.MALFORMED_ANSWER) for n in range(7, 16)]
    make_run(tmp_path / "out", COLUMNS, made)
    page = render_again(tmp_path / "out", words=load_messages(words))
    assert "config/messages/not_installed.txt fails on these installs" in page
    assert "config/messages/highlevel.txt fails on these installs" in page
    assert page.count('class="i') == 16


def test_the_users_own_words_are_taken(words, tmp_path):
    (words / "not_installed.txt").write_text("Subject: Ahoi {{ app }}\n{{ accounts[0] }}, {{ link }}", encoding="utf-8")
    make_run(tmp_path / "out", COLUMNS, [(place(1, "Co1", *person(1)), Cause.NOT_INSTALLED)])
    page = render_again(tmp_path / "out", words=load_messages(words))
    assert "Ahoi Calendar Sync" in page
    assert SECRET not in page
