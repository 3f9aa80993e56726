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
    from jobs.recovery.attempt import Tried
    from jobs.recovery.dispatcher import FinishedTry
    from jobs.recovery.progress import InstallProgress
    from jobs.recovery.state import Parts, State


def take_in(state: State, finished: FinishedTry, parts: Parts) -> BaseException | None:
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


def _judge(state: State, finished: FinishedTry, parts: Parts) -> None:
    """Tell everybody who counts answers, then let the install go on."""
    progress, tried, now = finished.progress, finished.tried, parts.clock()
    state.release(parts.router.heard(progress, finished.task, tried), now)
    parts.connectivity.back(progress.last_try, now)
    if isinstance(tried, Tokens | Answer):
        parts.breaker.hear(progress.install.key.client_id, finished.task.route, tried, parts.dispatcher.tries)
    if isinstance(tried, Tokens | Listing) or (isinstance(tried, Answer) and tried.status):
        parts.dispatcher.answered()
        _in_contact(state, parts)
    elif isinstance(tried, Answer) and _may_be_the_network(progress, tried, parts):
        was_away = parts.connectivity.away
        if parts.connectivity.unanswered(progress.install.key, progress.last_try, now):
            state.unsettled.append((progress, tried))
            _in_doubt(state, tried, parts, was_away=was_away)
            return
    _go_on(state, progress, tried, parts)


def _may_be_the_network(progress: InstallProgress, answer: Answer, parts: Parts) -> bool:
    """Whether no answer came for a reason that may be nobody's fault.

    Not so for an exchange, since an answer came before it, nor for a refresh whose token may be spent: that is
    repeated in time, or never.
    """
    if not is_unreachable(answer) or answer.stage is Stage.EXCHANGE or progress.window.opened is not None:
        return False
    return parts.connectivity.away or not progress.suspect


def _in_contact(state: State, parts: Parts) -> None:
    """Take note of an answer: an install that got none until now was itself at fault."""
    if parts.connectivity.away:
        parts.notes.add("HighLevel answers again: the run continues")
    parts.connectivity.answered(parts.dispatcher.tries)
    for progress, _ in state.unsettled:
        progress.suspect = True
    settle_all(state, parts)


def settle_last(state: State, parts: Parts) -> None:
    """Settle the installs that got no answer, when nothing is tried that could show more. If no connection could be
    made for them, the network is away, however few they are.
    """
    if state.unsettled and all(answer.never_left for _, answer in state.unsettled):
        was_away = parts.connectivity.away
        parts.connectivity.no_connection(parts.clock())
        _in_doubt(state, state.unsettled[-1][1], parts, was_away=was_away)
    else:
        settle_all(state, parts)


def _in_doubt(state: State, answer: Answer, parts: Parts, *, was_away: bool) -> None:
    """One more install got no answer. If nobody gets one, no try is used up, and all wait for the network."""
    if not parts.connectivity.away:
        return
    if parts.connectivity.over(parts.clock()):
        parts.breaker.stop_all(Trip("outage", answer.message))
    if not was_away:
        parts.notes.add(f"HighLevel cannot be reached: {answer.message}; one install keeps trying, the others wait")
    for progress, _ in state.unsettled:
        state.wait_until(parts.clock(), progress)
    state.unsettled.clear()


def settle_all(state: State, parts: Parts) -> None:
    """Go on with the installs that got no answer while others did: it counts as their try."""
    unsettled, state.unsettled = state.unsettled, []
    for progress, answer in unsettled:
        _go_on(state, progress, answer, parts)


def _go_on(state: State, progress: InstallProgress, tried: Tried, parts: Parts) -> None:
    """Let an install go on after a try, or end."""
    if tried is None:
        _unless_tomorrow(state, progress.install.key.client_id, parts)
        _cut_short(state, progress, parts)
    elif isinstance(tried, Listing):
        state.wait_until(parts.clock(), progress)
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
            state.wait_until(parts.clock() + wait, progress)
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
        state.wait_until(parts.clock() + (wait or 0.0), progress)


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
    if stopped:
        for progress in state.take_waiting(lambda progress: progress.install.key.client_id in stopped):
            _cut_short(state, progress, parts)
