"""failures.html: the failures as a list of work, for support staff; one file, no network."""

from __future__ import annotations

import base64
import hashlib
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from jobs.causes import ADVICE
from jobs.model import Cause, Owner
from jobs.reports.links import reinstall_url
from jobs.reports.tables import own_cells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from jobs.model import App, Record, Run

_HERE = Path(__file__).parent
_OWNERS: dict[Owner, str] = {
    Owner.CUSTOMER: "Ask the customer",
    Owner.AGENCY: "Ask the agency",
    Owner.DEVELOPER: "For the developer",
    Owner.HIGHLEVEL: "For HighLevel's support",
    Owner.NOBODY: "Nothing to do but run the job again",
}


def write(
    file: BinaryIO,
    run: Run,
    columns: Sequence[str],
    failures_by_cause: Callable[[Cause], Iterator[Record]],
    apps: Mapping[str, App],
) -> None:
    """Stream the page. What a customer or a server wrote is escaped by the template."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(loader=FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    style = (_HERE / "failures.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    template = environment.get_template("failures.html.j2")
    sections = _sections(columns, failures_by_cause, apps)
    stream = template.stream(run=run, style=style, style_hash=digest, columns=columns, sections=sections)
    stream.enable_buffering(100)
    stream.dump(file, encoding="utf-8")


def _sections(
    columns: Sequence[str], failures_by_cause: Callable[[Cause], Iterator[Record]], apps: Mapping[str, App]
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    for owner, title in _OWNERS.items():
        parts = []
        for cause in (cause for cause in Cause if ADVICE[cause].owner is owner):
            failures = failures_by_cause(cause)
            first = list(islice(failures, 1))
            if first:
                rows = (_row(record, columns, apps) for record in chain(first, failures))
                parts.append({"cause": cause.value, "next_step": ADVICE[cause].next_step, "rows": rows})
        if parts:
            yield title, parts


def _row(record: Record, columns: Sequence[str], apps: Mapping[str, App]) -> dict[str, Any]:
    return {
        "own": own_cells(record, columns),
        "record": record,
        "link": reinstall_url(apps.get(record.client_id), record),
    }
