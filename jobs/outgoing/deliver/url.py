"""A target that is an address: each pair is a signed POST by the Standard Webhooks scheme.

Source of the scheme: https://www.standardwebhooks.com. The status of an answer decides, and redirects are not
followed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
from standardwebhooks import Webhook

from jobs.highlevel.network_errors import judge
from jobs.highlevel.parsing import retry_after_of
from jobs.highlevel.transport import Dropped, Limits, Transport
from jobs.outgoing.deliver.verdict import Later, No, Over, Yes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from jobs.core.secret import Secret
    from jobs.highlevel.transport import Raw
    from jobs.outgoing.deliver.pair import Pair
    from jobs.outgoing.deliver.verdict import Verdict

_MOST_ANSWER_BYTES = 65_536
_GONE = 410
# The target is busy or away, which says nothing about the pair.
_PASSES = (408, 429)


class UrlTarget:
    """POSTs each pair to `url`, signed with each of `secrets`. `now` gives the time in UTC. A try takes at most
    `seconds`.
    """

    kind = "url"

    def __init__(
        self,
        url: Secret,
        secrets: tuple[Secret, ...],
        seconds: float,
        environment: Mapping[str, str],
        now: Callable[[], datetime],
    ) -> None:
        self._url = url
        self._webhooks = [Webhook(secret.reveal()) for secret in secrets]
        self._transport = Transport(url.reveal(), Limits(seconds, seconds, seconds, _MOST_ANSWER_BYTES), environment)
        self._now = now
        self.where = shown_address(url)

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def hand_over(self, pair: Pair) -> Verdict:
        """Hand a pair over, once."""
        return self._post(pair, "connection.recovered")

    def test(self, pair: Pair) -> Verdict:
        """Send a made-up pair as a test message, once."""
        return self._post(pair, "connection.test")

    def _post(self, pair: Pair, kind: str) -> Verdict:
        message = {"type": kind, "timestamp": pair.data["recovered_at"], "data": pair.data}
        body, now = json.dumps(message, ensure_ascii=True), self._now()
        headers = {
            "User-Agent": "highlevel-recovery",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "webhook-id": pair.pair_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(webhook.sign(pair.pair_id, now, body) for webhook in self._webhooks),
        }
        request = requests.Request("POST", self._url.reveal(), headers=headers, data=body.encode()).prepare()
        try:
            return _judged(self._sent(request), now)
        except Exception as error:
            if not isinstance(error, Dropped) and judge(type(error)) is None:
                raise
            return Later(f"no answer from {self.where} ({type(error).__name__})")

    def _sent(self, request: requests.PreparedRequest) -> Raw:
        try:
            return self._transport.send(request)
        except Dropped:  # A kept connection was closed before an answer began, so nobody has seen the request.
            return self._transport.send(request)


def shown_address(url: Secret) -> str:
    """The part of an address that may be shown: its scheme and host."""
    parts = urlsplit(url.reveal())
    return f"{parts.scheme}://{parts.hostname}"


def _judged(answer: Raw, now: datetime) -> Verdict:
    """What an answer means for its pair."""
    status = answer.status
    if status in range(200, 300):
        return Yes()
    if status == _GONE:
        return Over(f"the address answered {status}: it wants no more of these")
    if status in _PASSES or status >= 500:  # noqa: PLR2004 - a server's own fault
        return Later(f"the address answered {status}", retry_after_of(answer.headers, now))
    return No(f"the address answered {status}")
