"""The link that a customer uses to install the app again."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from jobs.core.model import Cause

if TYPE_CHECKING:
    from jobs.core.model import App, Record

INSTALL_PAGE = "https://marketplace.gohighlevel.com/v2/oauth/chooselocation"
WHITE_LABEL_PAGE = "https://marketplace.leadconnectorhq.com/v2/oauth/chooselocation"
HELPS_WITH = frozenset(
    {
        Cause.NOT_INSTALLED,
        Cause.RECONNECT_REMOVED,
        Cause.REFRESH_INVALID,
        Cause.REFRESH_UNKNOWN,
        Cause.AGENCY_REFUSED,
    }
)


def reinstall_url(app: App | None, record: Record) -> str:
    """The install page of the record's app, if installing again helps and the link is known. Otherwise ''."""
    return reinstall_page(app, INSTALL_PAGE) if app is not None and record.cause in HELPS_WITH else ""


def reinstall_page(app: App, page: str) -> str:
    """`page` for this app, or '' if the app's `redirect_uri` or `scopes` are not configured.

    Without `version_id`, the page of a draft app answers `error.noversionid` (measured 2026-08-20).
    """
    if not app.redirect_uri or not app.scopes:
        return ""
    query = {
        "response_type": "code",
        "client_id": app.client_id,
        "redirect_uri": app.redirect_uri,
        "scope": app.scopes,
        "version_id": app.client_id.partition("-")[0],
    }
    return f"{page}?{urlencode(query)}"
