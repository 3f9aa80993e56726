"""One POST to an address that the operator has set. It follows no redirects, and uses the job's proxies and certificates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_ANSWER_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Posted:
    """What came of a POST. `wrong` is '' if the answer was a yes. `status` is 0 if no answer came."""

    wrong: str
    status: int = 0
    body: bytes = b""


def post(url: str, content: bytes, kind: str, environment: Mapping[str, str], seconds: float) -> Posted:
    """What came of posting `content`, which is of this `kind`. It takes at most `seconds`.

    `wrong` never shows the address. Nothing is raised, because no error here may change how a run ends.
    """
    import requests

    from jobs.highlevel.transport import Limits, Transport

    headers = {"User-Agent": "highlevel-recovery", "Accept-Encoding": "identity", "Content-Type": kind}
    try:
        transport = Transport(url, Limits(seconds, seconds, seconds, _MOST_ANSWER_BYTES), environment)
        try:
            answer = transport.send(requests.Request("POST", url, headers=headers, data=content).prepare())
        finally:
            transport.close()
    except UserError as error:
        return Posted(str(error))
    except Exception as error:  # noqa: BLE001 - its words may hold the address
        return Posted(f"no answer ({type(error).__name__})")
    taken = answer.status in range(200, 300)
    return Posted("" if taken else f"answered {answer.status}; redirects are not followed", answer.status, answer.body)
