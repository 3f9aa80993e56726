"""failures.html as people meet it: in a real Chromium, with and without script, on paper, by keyboard, in the dark."""

from __future__ import annotations

import re

import pytest

from jobs.core.model import Cause
from tests.helpers.browser import need_chromium, running
from tests.helpers.made import COLUMNS, all_causes, make_run, person, place

GONE = Cause.NOT_INSTALLED
PAUSED = Cause.LOCATION_INACTIVE
HOSTILE = "</td></pre></script><img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def browser():
    need_chromium()
    with running() as started:
        yield started


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs: failures of every cause, some of them fixed and some new since the first."""
    folder = tmp_path_factory.mktemp("page")
    made = all_causes()
    fixed = [place(900 + number, "CoFixed", *person(number)) for number in range(3)]
    make_run(folder, COLUMNS, [*made[:15], *((row, GONE) for row in fixed)])
    make_run(folder, COLUMNS, [*made, *((row, None) for row in fixed)])
    return folder


@pytest.fixture
def visit(browser, folder):
    """`visit(fragment, folder, **context)` opens the page; what it complains of or asks the network for fails the test."""
    contexts, complaints = [], []

    def opened(fragment="", where=folder, **more):
        context = browser.new_context(**more)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("file:") or complaints.append(request.url))
        page.goto((where / "failures.html").as_uri() + fragment)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


def shown(page):
    return page.locator("tr.i:visible").count()


def test_it_opens_with_the_work_of_customers_and_agencies_and_folds_the_rest(visit):
    page = visit()
    is_open = {
        part.get_attribute("data-owner"): part.get_attribute("open") == "" for part in page.locator(".owner").all()
    }
    assert is_open == {"customer": True, "agency": True, "developer": False, "highlevel": False, "nobody": False}
    assert (
        page.locator("header > :first-child, h1")
        .first.inner_text()
        .startswith("31 of 35 installs still need attention.")
    )


def test_words_and_chips_filter_together_and_the_address_keeps_both(visit):
    page = visit()
    page.get_by_label("Find").fill("dental")
    many = shown(page)
    page.get_by_role("button", name=re.compile("^Ask the agency")).click()
    few = shown(page)
    assert 0 < few < many
    assert page.locator("#shown").inner_text() == f"{few} of 31 shown"
    fragment = page.evaluate("location.hash")
    assert fragment == "#text=dental&owner=agency"
    again = visit(fragment)
    assert shown(again) == few
    assert again.get_by_label("Find").input_value() == "dental"
    assert again.get_by_role("button", name=re.compile("^Ask the agency")).get_attribute("aria-pressed") == "true"
    again.get_by_role("button", name="Show all").click()
    assert shown(again) == shown(visit())
    assert again.locator(".owner[open]").count() == 2


def test_the_filter_finds_companies_causes_and_what_is_folded(visit):
    page = visit()
    failed = [(row, cause) for row, cause in all_causes() if cause]
    of_harbor = sum(getattr(row, "company_id", "").startswith("CoHarbor") for row, _ in failed)
    wrong = sum(cause is Cause.WRONG_ACCOUNT for _, cause in failed)
    busy = sum(cause is Cause.RATE_LIMITED for _, cause in failed)
    wanted = {
        "CoHarborAgency000001": of_harbor,
        "wrong_account": wrong,
        "too busy": busy,
        "trace-00000005": 1,
        "zzz": 0,
    }
    for text, count in wanted.items():
        page.get_by_label("Find").fill(text)
        assert shown(page) == count, text
    page.get_by_label("Find").fill("")
    page.get_by_role("button", name=re.compile("^New since")).click()
    assert shown(page) == page.locator("tr.i.new").count() == 17


def test_each_chip_names_its_count_and_shows_just_so_many(visit):
    page = visit()
    chips = page.locator('button[data-kind="cause"]').all()
    assert len(chips) == len(Cause)
    for chip in chips:
        chip.click()
        assert shown(page) == int(chip.locator("b").inner_text())
        chip.click()


def test_a_message_is_copied_by_its_button(visit):
    page = visit(permissions=["clipboard-read", "clipboard-write"])
    message = page.locator(".message").first
    for name, part in (("Copy subject", ".subject"), ("Copy text", ".body")):
        message.get_by_role("button", name=name).click()
        message.get_by_role("button", name="Copied").wait_for()
        assert page.evaluate("navigator.clipboard.readText()") == message.locator(part).text_content()
        page.wait_for_timeout(50)
        message.get_by_role("button", name=name).wait_for()


def test_where_the_clipboard_is_refused_the_text_is_selected(visit):
    page = visit()
    page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
    message = page.locator(".message").first
    message.get_by_role("button", name="Copy text").click()
    message.get_by_role("button", name=re.compile("Copied|Selected")).wait_for()
    assert page.evaluate("getSelection().toString()").strip() == message.locator(".body").text_content().strip()


def test_without_script_all_of_it_can_be_read_and_nothing_is_shown_that_does_not_work(visit):
    page = visit(java_script_enabled=False)
    assert page.locator("#filter:visible").count() == 0
    assert page.locator(".acts button:visible").count() == 0
    for owner in ("developer", "highlevel", "nobody"):
        page.locator(f".owner[data-owner={owner}] > summary").click()
    assert shown(page) == 31
    message = page.locator(".message").first
    message.locator("summary").click()
    message.locator(".body").click()  # one click selects it
    assert page.evaluate("getSelection().toString()").strip() == message.locator(".body").text_content().strip()


@pytest.mark.parametrize("script", [True, False])
def test_on_paper_everything_is_open_with_boxes_heads_and_the_targets_of_links(visit, script):
    page = visit(java_script_enabled=script)
    page.emulate_media(media="print")
    if script:
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert page.locator("details:not([open])").count() == 0
    seen = page.locator("tr.i, .message pre").evaluate_all("all => all.map(one => one.checkVisibility())")
    assert len(seen) > 31
    assert all(seen)
    assert page.locator("#filter:visible, .acts:visible").count() == 0
    style = "(node, [pseudo, name]) => getComputedStyle(node, pseudo)[name]"
    assert page.locator("thead").last.evaluate(style, [None, "display"]) == "table-header-group"
    assert page.locator("tr.i > td").first.evaluate(style, ["::before", "borderTopStyle"]) == "solid"
    assert "marketplace.gohighlevel.com" in page.locator(".links a").first.evaluate(style, ["::after", "content"])
    if script:
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator(".owner[open]").count() == 2


def test_it_is_worked_by_keyboard_alone(visit):
    page = visit()
    page.keyboard.press("Tab")
    while page.evaluate("document.activeElement.id") != "text":
        page.keyboard.press("Tab")
    page.keyboard.type("harbor")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.evaluate("location.hash") == "#text=harbor&owner=customer"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Control+A")
    page.keyboard.press("Delete")
    page.get_by_role("button", name=re.compile("^For the developer")).focus()
    page.keyboard.press("Enter")
    page.locator(".owner[data-owner=developer] > summary").focus()
    page.keyboard.press("Enter")
    assert page.locator(".owner[data-owner=developer]").get_attribute("open") is None


@pytest.mark.parametrize("look", [{"color_scheme": "dark"}, {}, {"viewport": {"width": 380, "height": 800}}], ids=str)
def test_axe_finds_nothing(visit, look):
    from axe_playwright_python.sync_playwright import Axe

    page = visit(bypass_csp=True, **look)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    found = Axe().run(page).response["violations"]
    assert [(rule["id"], node["target"], node["failureSummary"]) for rule in found for node in rule["nodes"]] == []


def test_axe_finds_nothing_where_the_run_stopped_or_nothing_failed(visit, tmp_path):
    from axe_playwright_python.sync_playwright import Axe

    make_run(tmp_path / "a", COLUMNS, [(place(1), GONE)], untried=[place(2)], stopped_because="outage", exit_code=3)
    make_run(tmp_path / "b", COLUMNS, [(place(1), None)])
    for name in ("a", "b"):
        for scheme in ("light", "dark"):
            page = visit(where=tmp_path / name, bypass_csp=True, color_scheme=scheme)
            assert Axe().run(page).response["violations"] == []


def test_a_narrow_screen_scrolls_in_one_direction_and_names_each_cell(visit):
    page = visit(viewport={"width": 380, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    content = page.locator("tr.i > td").first.evaluate("node => getComputedStyle(node, '::before').content")
    assert content == f'"{COLUMNS[0]}"'


def test_what_customers_and_servers_wrote_does_nothing(visit, tmp_path):
    columns = ("name", '";}*{display:none}\\')
    make_run(tmp_path / "out", columns, [(place(1, "Co1", HOSTILE, HOSTILE), GONE)], said={GONE: HOSTILE})
    page = visit(where=tmp_path / "out", viewport={"width": 380, "height": 800})
    assert "owned" not in page.title()
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator("tr.i").inner_text()


def test_5000_failures_open_without_the_work_for_what_is_far_below(visit, tmp_path):
    causes = (PAUSED, GONE, Cause.RECONNECT_REMOVED)  # A cause lists 2,000 at most.
    made = [(place(n, "" if n % 2 else f"Co{n % 97}", *person(n)), causes[n % 3]) for n in range(5000)]
    make_run(tmp_path / "out", COLUMNS, made)
    page = visit(where=tmp_path / "out")
    assert page.locator("h1").inner_text().startswith("5,000 of 5,000 installs")
    assert page.locator("tr.i").count() == 5000
    far = page.locator(".long tr.i").last
    assert not far.evaluate("node => node.checkVisibility({contentVisibilityAuto: true})")
    page.locator("#text").fill(person(4999)[1])
    assert re.fullmatch(r"\d\d of 5,000 shown", page.locator("#shown").text_content())
