"""One POST to an address that the operator has set. It follows no redirects, and uses the job's proxies and certificates."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from jobs.core.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from requests import Request

    from jobs.highlevel.transport import Transport

_MOST_ANSWER_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Posted:
    """What came of a POST. `wrong` is '' if the answer was a yes. `status` is 0 if no answer came."""

    wrong: str
    status: int = 0
    body: bytes = b""


def post(url: str, content: bytes, content_type: str, environment: Mapping[str, str], seconds: float) -> Posted:
    """What came of posting `content`. It takes at most `seconds`, with everything that it waits for.

    `wrong` never shows the address. Nothing is raised, because no error here may change how a run ends.
    """
    import requests

    from jobs.highlevel.transport import Limits, Transport

    headers = {"User-Agent": "highlevel-recovery", "Accept-Encoding": "identity", "Content-Type": content_type}
    request = requests.Request("POST", url, headers=headers, data=content)
    transport = partial(Transport, url, Limits(seconds, seconds, seconds, _MOST_ANSWER_BYTES), environment)
    answers: SimpleQueue[Posted] = SimpleQueue()
    try:
        # The system's look-up of a name has no limit. So another thread asks, and is left alone when the time is over.
        Thread(target=lambda: answers.put(_sent(request, transport)), name="post", daemon=True).start()
        return answers.get(timeout=seconds)
    except Empty:
        return Posted(f"no answer within {seconds:g} s")
    except RuntimeError:
        return Posted("no answer (the system starts no more threads)")


def _sent(request: Request, make_transport: Callable[[], Transport]) -> Posted:
    """What came of sending it, whatever goes wrong."""
    try:
        transport = make_transport()
        try:
            answer = transport.send(request.prepare())
        finally:
            transport.close()
    except UserError as error:
        return Posted(str(error))
    except Exception as error:  # noqa: BLE001 - its words may hold the address
        return Posted(f"no answer ({type(error).__name__})")
    taken = answer.status in range(200, 300)
    return Posted("" if taken else f"answered {answer.status}; redirects are not followed", answer.status, answer.body)
