"""Tells a watcher that a run begins and how it ended, so that it can miss a run that never came to its end.

The form is that of Healthchecks (https://healthchecks.io/docs/http_api/): a POST to `<url>/start`, and one to
`<url>/<exit code>` with the message about the end as its body. Both have the id of the run. If a ping fails, that is a
warning and never changes the exit code.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

from jobs.core.errors import Exit
from jobs.outgoing.notify import as_bytes
from jobs.outgoing.post import Posted, post

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jobs.core.secret import Secret
    from jobs.outgoing.notify import News

# Three tries, so that one lost packet at the end of a night wakes nobody.
_WAITS = (0.0, 0.5, 0.5)
_PASSES = (0, 408, 429)
_SERVER_ERRORS = range(500, 600)
# Answers of Healthchecks with the status 200 that are not a yes.
_NOT_TAKEN = {
    b"OK (not found)": "it knows no check at this address",
    b"OK (rate limited)": "it was pinged too often",
}


@dataclass(frozen=True, slots=True)
class Watcher:
    """Whoever watches over the runs, at `url` ('': nobody). A ping takes at most three times `seconds`, and the
    second that `sleep` waits in between.
    """

    url: Secret
    environment: Mapping[str, str]
    seconds: float = 3.0
    sleep: Callable[[float], None] = time.sleep

    def started(self, run_id: str) -> Iterator[str]:
        """Tell that a run has started. Yields what went wrong, in one line."""
        yield from self._ping("start", run_id, b"")

    def ended(self, news: News) -> Iterator[str]:
        """Tell how a run ended, also if it could not start. Yields what went wrong, in one line.

        If another run holds the folder or the app, nothing is told: a watcher takes any failure for the end of that run.
        """
        if news.code is not Exit.HELD:
            yield from self._ping(str(int(news.code)), news.run.run_id if news.run else news.run_id, as_bytes(news))

    def _ping(self, what: str, run_id: str, content: bytes) -> Iterator[str]:
        url = self.url.reveal()
        if not url:
            return
        wrong = ""
        for wait in _WAITS:
            self.sleep(wait)
            posted = post(
                _address(url, what, run_id), content, "text/plain; charset=utf-8", self.environment, self.seconds
            )
            wrong = posted.wrong or _NOT_TAKEN.get(posted.body.strip(), "")
            if not _worth_another_try(posted):
                break
        if wrong:
            yield f"ping.url ({urlsplit(url).hostname}), {what}: {wrong}"


def _address(url: str, what: str, run_id: str) -> str:
    """The address of a ping. A query of the operator's own is kept."""
    parts = urlsplit(url)
    run = [f"rid={UUID(run_id)}"] if run_id else []
    query = "&".join([*filter(None, [parts.query]), *run])
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{what}", query=query))


def _worth_another_try(posted: Posted) -> bool:
    """Whether another try may be taken."""
    return bool(posted.wrong) and (posted.status in _PASSES or posted.status in _SERVER_ERRORS)
