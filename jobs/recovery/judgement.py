"""What happens to an install when its try is back: it goes on, waits, or ends.

If nobody gets an answer, that is nobody's fault: installs then wait for the network, and none of their tries is used
up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.core.model import Answer, RouteResult, Stage, Tokens
from jobs.highlevel.network_errors import is_late, is_unreachable
from jobs.recovery.attempt import Listing, is_refused_by_pace
from jobs.recovery.breaker import Trip
from jobs.recovery.progress import Exhausted
from jobs.recovery.state import Ended

if TYPE_CHECKING:
    from jobs.recovery.attempt import Task, Tried
    from jobs.recovery.dispatcher import FinishedTry
    from jobs.recovery.progress import InstallProgress
    from jobs.recovery.state import Parts, State

    InstallTry = FinishedTry[InstallProgress, Task, Tried]


def take_in(state: State, finished: InstallTry, parts: Parts) -> BaseException | None:
    """Judge a finished try. Returns the bug that its worker met, or that the judging met. The install ends with it; a
    new pair is kept.
    """
    bug = finished.bug
    if bug is None:
        try:
            _judge(state, finished, parts)
        except Exception as error:  # noqa: BLE001 - it is raised when what is in flight is back
            bug = error
    if bug is None:
        return None
    if isinstance(finished.tried, Tokens):
        finished.progress.tries += 1
        state.end(finished.progress, parts.router.recovered(finished.progress, finished.tried))
    else:
        state.end(finished.progress, parts.router.unfinished(finished.progress))
    return bug


def _judge(state: State, finished: InstallTry, parts: Parts) -> None:
    """Tell everybody who counts answers, then let the install go on."""
    progress, tried, now = finished.progress, finished.tried, parts.clock()
    state.release(parts.router.heard(progress, finished.task, tried), now)
    parts.connectivity.back(progress.last_try, now)
    if isinstance(tried, Tokens | Answer):
        parts.breaker.hear(progress.install.key.client_id, finished.task.route, tried, parts.dispatcher.tries)
    if isinstance(tried, Tokens | Listing) or (isinstance(tried, Answer) and tried.status):
        parts.dispatcher.answered()
        _settle(state, parts.connectivity.answered(parts.dispatcher.tries), parts)
    elif (
        isinstance(tried, Answer)
        and _may_be_the_network(progress, tried)
        and parts.connectivity.unanswered(progress, tried, now)
    ):
        _in_doubt(state, tried, parts)
        return
    _go_on(state, progress, tried, parts)


def _may_be_the_network(progress: InstallProgress, answer: Answer) -> bool:
    """Whether no answer came for a reason that may be nobody's fault.

    Not so for an exchange, since an answer came before it, nor for a refresh whose token may be spent: that is
    repeated in time, or never.
    """
    return is_unreachable(answer) and answer.stage is not Stage.EXCHANGE and progress.window.opened is None


def _in_doubt(state: State, answer: Answer, parts: Parts) -> None:
    """One more install got no answer. If nobody gets one, no try is used up, and all wait for the network."""
    if parts.connectivity.over(parts.clock()):
        parts.breaker.stop_all(Trip("outage", answer.message))
    if parts.connectivity.away:
        for progress, _ in parts.connectivity.settle():
            state.waiting.add(parts.clock(), progress)


def settle_last(state: State, parts: Parts) -> None:
    """Settle the installs that got no answer, when nothing is tried that could show more."""
    if (answer := parts.connectivity.no_connection(parts.clock())) is not None:
        _in_doubt(state, answer, parts)
    else:
        _settle(state, parts.connectivity.settle(), parts)


def _settle(state: State, unsettled: list[tuple[InstallProgress, Answer]], parts: Parts) -> None:
    for progress, answer in unsettled:
        _go_on(state, progress, answer, parts)


def _go_on(state: State, progress: InstallProgress, tried: Tried, parts: Parts) -> None:
    """Let an install go on after a try, or end."""
    if tried is None:
        _unless_tomorrow(state, progress.install.key.client_id, parts)
        _cut_short(state, progress, parts)
    elif isinstance(tried, Listing):
        state.waiting.add(parts.clock(), progress)
    elif isinstance(tried, Tokens):
        progress.tries += 1
        state.end(progress, parts.router.recovered(progress, tried))
    else:
        _failed(state, progress, tried, parts)


def _unless_tomorrow(state: State, client_id: str, parts: Parts) -> None:
    """Stop an app's rows if its requests of today are used up. The other apps go on."""
    why = parts.stop.no_more_today(client_id)
    if why:
        parts.breaker.stop_app(client_id, Trip("outage", why))
    if why and len(state.queues) > 1:
        parts.notes.add_once((client_id, "today"), f"{why}. Its other installs stay pending")


def _failed(state: State, progress: InstallProgress, answer: Answer, parts: Parts) -> None:
    if is_late(answer) and parts.connectivity.reached:
        parts.dispatcher.late(progress.last_try)
    progress.last = answer
    if is_refused_by_pace(answer):
        wait = parts.router.wait_refused(progress, answer)
        if wait is not None:
            state.waiting.add(parts.clock() + wait, progress)
            return
    else:
        progress.refusals = 0
        wait = parts.router.wait_after(progress, answer)
    state.ended += [Ended(agency.install, back, agency.first_try) for agency, back in parts.router.take_strays()]
    progress.tries += 1
    if wait is None and isinstance(parts.router.step(progress), Exhausted):
        state.end(progress, parts.router.over(progress))
    elif parts.stop.met() or parts.breaker.tripped(progress.install.key.client_id):
        state.end(progress, parts.router.unfinished(progress))
    else:
        state.waiting.add(parts.clock() + (wait or 0.0), progress)


def _cut_short(state: State, progress: InstallProgress, parts: Parts) -> None:
    """End an install that is cut short: as failed if it met 429 until patience ran out, otherwise as it was before."""
    if parts.stop.out_of_patience and is_refused_by_pace(progress.last) and progress.last is not None:
        progress.tries += 1
        progress.met.append(RouteResult(progress.left[0], progress.last))
        state.end(progress, parts.router.over(progress))
    else:
        state.end(progress, parts.router.unfinished(progress))


def give_up_waiting(state: State, parts: Parts, *, everybody: bool) -> None:
    """End waits that are pointless now: all of them, or those of an app that is stopped."""
    stopped = {client_id for client_id in state.queues if everybody or parts.breaker.tripped(client_id)}

    def given_up(progress: InstallProgress) -> bool:
        return progress.install.key.client_id in stopped

    if stopped:
        for progress in [*state.take_waiting(given_up), *parts.connectivity.give_up(given_up)]:
            _cut_short(state, progress, parts)
