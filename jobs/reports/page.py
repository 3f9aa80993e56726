"""failures.html: the failures as a to-do list for support staff, in one file that needs no network.

The words are in `cards`, and the order comes from the ledger's queries. This module only puts them together, and it
streams the page.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from jobs.core.causes import ADVICE
from jobs.core.model import Cause, Owner, Record
from jobs.reports.cards import CARDS, SECTIONS, WHY_STOPPED
from jobs.reports.groups import PageContext, minute, tables
from jobs.reports.links import HELPS_WITH, INSTALL_PAGE, WHITE_LABEL_PAGE, reinstall_page
from jobs.reports.messages import HAS_MESSAGE, TO_HIGHLEVEL
from jobs.reports.support import block
from jobs.reports.tables import own_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from jobs.core.model import App, Run
    from jobs.ledger.changes import Changes
    from jobs.ledger.support_queries import Evidence, Listed, Tally

_HERE = Path(__file__).parent
# Read when the job starts: at its end, the folder of the code may be gone or hold another version.
_TEMPLATES = {file.name: file.read_text(encoding="utf-8") for file in _HERE.glob("*.j2")}
_STYLE = (_HERE / "failures.css").read_text(encoding="utf-8")
_SCRIPT = (_HERE / "failures.js").read_text(encoding="utf-8")
_OURS = ("Account", "HighLevel said", "Last tried (UTC)")
# The most rows of a card and of the fixed installs. A browser is slow with more, and the CSV has them all.
MOST_ROWS = 2_000


@dataclass(frozen=True, slots=True)
class Worklist:
    """What the page is made from. `by_company` and `fixed` can be called again, and give installs in the page's order."""

    tallies: Sequence[Tally]
    changes: Changes | None
    by_company: Callable[[Cause], Iterator[Listed]]
    fixed: Callable[[], Iterator[Record]]
    evidence: Sequence[Evidence]


def write(file: BinaryIO, run: Run, worklist: Worklist, context: PageContext) -> None:
    """Write the page as a stream. The template escapes what a customer or a server wrote."""
    from jinja2 import DictLoader, Environment

    environment = Environment(loader=DictLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"minute": minute, "n": "{:,}".format}
    columns = list(context.columns)
    style = _STYLE + labels((*columns, *_OURS))
    stream = environment.get_template("failures.html.j2").stream(
        run=run,
        band=_band(run),
        style=style,
        style_hash=_digest(style),
        script=_SCRIPT,
        script_hash=_digest(_SCRIPT),
        columns=(*columns, *_OURS),
        own_columns=columns,
        changes=worklist.changes,
        fixed=(_fixed(record, context) for record in islice(worklist.fixed(), MOST_ROWS)),
        listed=MOST_ROWS,
        unlisted=sum(tally.unlisted for tally in worklist.tallies),
        sections=list(_sections(run, worklist, context)),
    )
    stream.enable_buffering(100)
    stream.dump(file, encoding="utf-8")


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def labels(columns: Sequence[str]) -> str:
    """The style that names each cell on a narrow screen. It escapes every character that could end a CSS string."""

    def escaped(name: str) -> str:
        return "".join(sign if sign.isascii() and sign.isalnum() else f"\\{ord(sign):x} " for sign in name)

    rules = (f'.i>:nth-child({place})::before{{content:"{escaped(name)}"}}' for place, name in enumerate(columns, 1))
    return f"@media screen and (max-width:44rem){{{''.join(rules)}}}"


def _band(run: Run) -> str:
    """Why the list is not complete, in plain words. '' if it is complete."""
    if not run.finished_at:
        return "When this list was made, the run was still working or had been killed."
    if run.stopped_because:
        why = WHY_STOPPED.get(run.stopped_because, f"({run.stopped_because})")
        return f"The run stopped early. {why}"
    known_end = run.exit_code in (0, 1, None)
    return (
        "" if known_end else "The run stopped early because of a bug in the job. The developer needs to look into it."
    )


def _fixed(record: Record, context: PageContext) -> dict[str, Any]:
    own = own_cells(record, context.columns)
    return {"own": own, "account": record.location_id or record.company_id, "at": record.recovered_at}


def _sections(run: Run, worklist: Worklist, context: PageContext) -> Iterator[dict[str, Any]]:
    for owner, section in SECTIONS.items():
        cards = [card for cause in Cause if ADVICE[cause].owner is owner for card in _cards(cause, worklist, context)]
        if not cards:
            continue
        count = sum(card["count"] for card in cards)
        message, lost = None, ""
        if owner is Owner.HIGHLEVEL:
            client_ids = sorted({client_id for card in cards for client_id in card["client_ids"]})
            message = block(worklist.evidence, client_ids, count, run.base_url, context.messages)
            lost = context.messages.why_missing(TO_HIGHLEVEL)
        words = {"owner": owner.value, "words": section, "message": message, "lost": lost}
        yield words | {"cards": cards, "count": count}


def _cards(cause: Cause, worklist: Worklist, context: PageContext) -> Iterator[dict[str, Any]]:
    mine = [tally for tally in worklist.tallies if tally.cause is cause]
    if mine:
        client_ids = [tally.client_id for tally in mine]
        yield {
            "cause": cause.value,
            "words": CARDS[cause],
            "count": sum(tally.count for tally in mine),
            "new": sum(tally.new for tally in mine),
            "client_ids": client_ids,
            "has_message": cause in HAS_MESSAGE,
            "lost": context.messages.why_missing(cause.value),
            "listed": MOST_ROWS,
            "links": _links(client_ids, context.apps) if cause in HELPS_WITH else None,
            "tables": tables(islice(worklist.by_company(cause), MOST_ROWS), cause, context),
        }


def _links(client_ids: Sequence[str], apps: Mapping[str, App]) -> list[dict[str, str]]:
    """The install pages of these apps: for agencies that use HighLevel's name, and for white-label agencies."""
    found = []
    for client_id in client_ids:
        app = apps.get(client_id)
        pages = [reinstall_page(app, page) for page in (INSTALL_PAGE, WHITE_LABEL_PAGE)] if app else []
        if app and all(pages):
            found.append({"app": app.name or "the app", "usual": pages[0], "white_label": pages[1]})
    return found
