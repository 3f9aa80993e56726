"""The report to paste for HighLevel's support."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.core.model import Stage
from jobs.core.secret import plain
from jobs.reports.cards import CARDS
from jobs.reports.groups import minute
from jobs.reports.messages import TO_HIGHLEVEL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobs.ledger.support_queries import Evidence
    from jobs.reports.messages import Message, Messages

ENDPOINTS: Mapping[Stage, str] = {
    Stage.MANIFEST: "",
    Stage.RECONNECT: "POST {base_url}/oauth/reconnect",
    Stage.EXCHANGE: "POST {base_url}/oauth/token",
    Stage.INSTALLED_LOCATIONS: "GET {base_url}/oauth/installed-locations",
    Stage.LOCATION_TOKEN: "POST {base_url}/oauth/location-token",
    Stage.REFRESH: "POST {base_url}/oauth/token (refresh)",
    Stage.PROOF: "GET {base_url}/locations, /companies or /oauth/installedLocations",
}


def block(
    evidence: Sequence[Evidence], client_ids: Sequence[str], count: int, base_url: str, messages: Messages
) -> Message | None:
    """What HighLevel's support needs to know about `count` failures. None if the user's template fails on it."""
    kinds = [
        {
            "what": f"{CARDS[kind.cause].title} ({kind.cause.value})",
            "count": kind.count,
            "endpoint": ENDPOINTS[kind.stage].format(base_url=base_url),
            "status": kind.http_status,
            "words": plain(kind.message, 300),
            "first": f"{minute(kind.first)} UTC",
            "last": f"{minute(kind.last)} UTC",
            "trace_ids": list(kind.trace_ids),
        }
        for kind in evidence
    ]
    return messages.write(TO_HIGHLEVEL, {"client_ids": list(client_ids), "kinds": kinds, "count": count})
