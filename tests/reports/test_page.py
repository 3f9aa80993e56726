"""failures.html as a text: what is in it, and what can never get out of it."""

from __future__ import annotations

import base64
import csv
import hashlib
import re
import stat
from html.parser import HTMLParser
from urllib.parse import urlsplit

import pytest

from jobs.core.model import App, Cause
from jobs.core.secret import Secret
from jobs.reports.cards import WHY_STOPPED
from jobs.reports.links import INSTALL_PAGE, WHITE_LABEL_PAGE
from jobs.reports.page import labels
from tests.helpers.made import (
    APP,
    CLIENT_ID,
    COLUMNS,
    SECRET,
    all_causes,
    broken,
    make_run,
    person,
    place,
    render_again,
)

HOSTS = {urlsplit(page).hostname for page in (INSTALL_PAGE, WHITE_LABEL_PAGE)}
GONE = Cause.NOT_INSTALLED


class Read(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def attributes(self, name):
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def page_of(folder, made, **more):
    make_run(folder, COLUMNS, made, **more)
    return (folder / "failures.html").read_text(encoding="utf-8")


def headline(page):
    return re.search(r"<h1>(.*?)</h1>", page)[1]


def test_the_first_line_is_a_sentence(tmp_path):
    made = [(place(n, "", *person(n)), GONE if n < 31 else None) for n in range(1200)]
    assert headline(page_of(tmp_path / "a", made)) == (
        "31 of 1,200 installs still need attention. 1,169 are back. 0 were not tried."
    )
    one = [(place(1), GONE), (place(2), None)]
    assert headline(page_of(tmp_path / "b", one, untried=[place(3)])) == (
        "1 of 3 installs still needs attention. 1 is back. 1 was not tried."
    )


def test_where_nothing_failed_there_is_nothing_to_do(tmp_path):
    page = page_of(tmp_path, [(place(1), None), (place(2), None)])
    assert "Nothing to do" in page
    assert "not complete" not in page
    assert "<script" not in page


@pytest.mark.parametrize("reason", WHY_STOPPED)
def test_a_run_that_stopped_early_says_that_the_list_is_not_complete_and_why(tmp_path, reason):
    page = page_of(tmp_path, [(place(1), GONE)], untried=[place(2), place(3)], stopped_because=reason, exit_code=3)
    band = page[page.index('class="band"') : page.index("<h1>")]
    assert "This list is not complete." in band
    assert WHY_STOPPED[reason] in Read(band).text
    assert "2 installs were not tried. You do not have to do anything for them until the next report." in band


def test_a_run_that_was_cut_off_or_had_a_bug_says_so_too(tmp_path):
    bug = page_of(tmp_path / "a", [(place(1), GONE)], exit_code=70)
    assert "because of a bug in the job" in bug
    make_run(tmp_path / "b", COLUMNS, [(place(1), GONE)], killed=True)
    assert "the run was still working or had been killed" in render_again(tmp_path / "b")


def test_every_failure_stands_once_under_its_owner_with_the_users_columns_first(tmp_path):
    page = page_of(tmp_path, all_causes())
    owners = re.findall(r'<details class="owner" data-owner="(\w+)"( open)?>', page)
    assert owners == [("customer", " open"), ("agency", " open"), ("developer", ""), ("highlevel", ""), ("nobody", "")]
    assert sorted(re.findall(r'<section class="card" data-cause="(\w+)"', page)) == sorted(Cause)
    assert page.count('<tr class="i') == 31
    heads = [re.findall(r'<th scope="col">(.*?)</th>', head) for head in re.findall(r"<thead>.*?</thead>", page)]
    assert all(head[: len(COLUMNS)] == list(COLUMNS) for head in heads)


def test_a_card_lists_2000_installs_at_most_and_names_the_csv_and_the_counts_stay_true(tmp_path):
    made = [(place(n, f"Co{n % 7}", *person(n)), Cause.NOT_INSTALLED) for n in range(2_300)]
    made += [(place(n, "", *person(n)), Cause.SERVER_ERROR) for n in range(2_300, 2_303)]
    make_run(tmp_path / "out", COLUMNS, made)
    page = (tmp_path / "out" / "failures.html").read_text(encoding="utf-8")
    assert page.count('class="i') == 2_003
    assert "<h1>2,303 of 2,303 installs still need attention." in page
    assert '<span class="count">2,300 installs</span> <code class="name">not_installed</code>' in page
    (told,) = re.findall(r'<p class="more">(.*?)</p>', page)
    assert told.startswith(
        "The first 2,000 of 2,300 are listed here. To see all of them, open <code>failures.csv</code>"
    )
    assert "<code>not_installed</code>" in told


def test_of_what_is_fixed_2000_installs_are_listed_at_most(tmp_path):
    made = [(place(n, "", *person(n)), Cause.NOT_INSTALLED) for n in range(2_100)]
    make_run(tmp_path / "out", COLUMNS, made)
    make_run(tmp_path / "out", COLUMNS, [(row, None) for row, _ in made])
    page = (tmp_path / "out" / "failures.html").read_text(encoding="utf-8")
    assert "<dt>Fixed</dt><dd>2,100</dd>" in page
    assert page.count("<tr><td>") == 2_000
    assert "The first 2,000 of 2,100 are listed here." in page
    assert "<code>results.csv</code>" in page


def test_a_broken_line_is_named_by_its_number_and_shows_what_was_read(tmp_path):
    page = page_of(tmp_path, [(broken(6, "Kite", "k@kite.example", why="line 7 is ragged"), Cause.INVALID_ROW)])
    assert "<code>line 7</code>" in page
    assert "bad id!" in page
    assert "line 7 is ragged" in page
    assert "Company" not in Read(page[page.index("<main>") :]).text


def test_what_an_earlier_list_held_is_marked_and_counted_apart(tmp_path):
    page_of(tmp_path, [(place(1), GONE), (place(2), GONE)])
    page = page_of(tmp_path, [(place(1), GONE)])
    assert headline(page).startswith("1 of 1 install still needs attention.")
    assert "The page includes 1 install from an earlier list that is not in the newest one" in page
    assert page.count("not in the newest list</span>") == 1


def test_the_block_for_highlevel_holds_what_their_support_asks_for(tmp_path):
    made = [(place(n, "", *person(n)), Cause.CODE_REJECTED) for n in range(3)]
    made += [(place(9, "", *person(9)), Cause.WRONG_ACCOUNT)]
    page = page_of(tmp_path, made, at="2024-10-08T13:35:43.887Z")
    block = re.search(r'<pre class="body".*?>(.*?)</pre>', page, re.DOTALL)[1]
    for part in (
        "4 installs",
        "POST https://services.leadconnectorhq.com/oauth/token",
        "POST https://services.leadconnectorhq.com/oauth/reconnect",
        "Invalid grant: authorization code is invalid",
        "2024-10-08 13:35 UTC",
        "trace-00000000",
        CLIENT_ID,
    ):
        assert part in block
    assert block.index("Installs: 3") < block.index("Installs: 1")


def test_the_link_to_install_again_is_shown_where_it_helps_and_is_known(tmp_path):
    page = page_of(tmp_path, [(place(1), Cause.RECONNECT_REMOVED), (place(2), Cause.LOCATION_INACTIVE)])
    links = [link for link in Read(page).attributes("href") if link.startswith("https:")]
    assert [urlsplit(link).hostname for link in links] == [
        "marketplace.gohighlevel.com",
        "marketplace.leadconnectorhq.com",
    ]
    bare = render_again(tmp_path, {CLIENT_ID: App(CLIENT_ID, Secret(SECRET))})
    assert "Ask the developer for the link" in bare
    assert "https://marketplace" not in bare


def test_with_several_apps_a_company_has_a_message_for_each_under_its_name(tmp_path):
    other = App("other-app", Secret("x" * 8), "Mail Merge", APP.redirect_uri, APP.scopes)
    made = [(place(1, "Co1"), GONE), (place(2, "Co1", client_id="other-app"), GONE)]
    page_of(tmp_path, made)
    page = render_again(tmp_path, {CLIENT_ID: APP, "other-app": other})
    assert re.findall(r"<code>Co1</code>, app ([\w ]+?) <", page) == ["Calendar Sync", "Mail Merge"]
    assert "Please install Mail Merge again" in page


HOSTILE = "</td></pre></script><img src=x onerror=alert(1)><script>alert(2)</script>=1+1"


def test_what_customers_and_servers_wrote_stays_text(tmp_path):
    columns = (HOSTILE, '";}*{background:url(https://evil.example)}\\')
    made = [
        (place(n, "Co1", f"={HOSTILE}", HOSTILE), cause)
        for n, cause in enumerate(c for c in Cause if c is not Cause.INVALID_ROW)
    ]
    made += [(broken(90, HOSTILE, HOSTILE, why=HOSTILE), Cause.INVALID_ROW)]
    make_run(tmp_path, columns, made, said=dict.fromkeys(Cause, f"={HOSTILE}"))
    read = Read((tmp_path / "failures.html").read_text(encoding="utf-8"))
    tags = [tag for tag, _ in read.tags]
    assert "img" not in tags
    assert tags.count("script") == tags.count("style") == 1
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on") or name == "style"]
    assert "=</td>" in read.text  # a browser runs no formula: the apostrophe is for failures.csv alone


def test_a_phone_number_stands_on_the_page_as_it_is_and_harmless_in_the_csv(tmp_path):
    make_run(tmp_path, ("phone", "-x"), [(place(1, "Co1", "+49 30 1234", "-"), Cause.NOT_INSTALLED)])
    page = (tmp_path / "failures.html").read_text(encoding="utf-8")
    assert "<td>+49 30 1234</td><td>-</td>" in page
    assert '<th scope="col">-x</th>' in page
    with (tmp_path / "failures.csv").open(encoding="utf-8-sig", newline="") as file:
        assert next(csv.DictReader(file))["phone"] == "'+49 30 1234"


def test_links_go_to_the_two_marketplace_hosts_and_to_mail_alone(tmp_path):
    read = Read(page_of(tmp_path, all_causes()))
    links = [attributes for _, attributes in read.tags if "href" in attributes]
    assert len(links) > 5
    for link in links:
        parts = urlsplit(link["href"])
        assert parts.scheme == "mailto" or (parts.scheme == "https" and parts.hostname in HOSTS)
        assert link["rel"] == "noreferrer noopener"
    assert not read.attributes("src")
    assert not read.attributes("action")


def test_the_policy_names_the_hashes_of_what_is_there_and_allows_nothing_else(tmp_path):
    page = page_of(tmp_path, all_causes())
    policy = re.search(r'Content-Security-Policy" content="(.*?)"', page)[1]
    given = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    for tag in ("style", "script"):
        text = re.search(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert given.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert given == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "require-trusted-types-for": "'script'",
    }


def test_a_columns_name_ends_no_string_of_the_style():
    style = labels(['a"b', "x\\", "</style>", "é\n"])
    assert re.findall(r'content:"(.*?)"', style) == ["a\\22 b", "x\\5c ", "\\3c \\2f style\\3e ", "\\e9 \\a "]


def test_the_page_is_private_and_holds_no_secret(tmp_path):
    page = page_of(tmp_path, [*all_causes(), (place(77), None)])
    assert stat.S_IMODE((tmp_path / "failures.html").stat().st_mode) == 0o600
    assert not [secret for secret in (SECRET, "made-access", "made-refresh") if secret in page]
