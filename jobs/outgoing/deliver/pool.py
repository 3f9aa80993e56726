"""The courier for a target that takes one pair at a time: several at once, each until it is taken, refused or given
up.

One thread decides: it reads what waits, and writes answers that came together in one transaction. A target that fails
`give_up_after` installs in a row is left alone for the rest of the run.
"""

from __future__ import annotations

import time
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING

from tenacity import (
    Retrying,
    retry_if_result,
    sleep_using_event,
    stop_after_attempt,
    stop_any,
    stop_when_event_set,
    wait_random_exponential,
)

from jobs.core.model import Delivery
from jobs.ledger.refusals import UnwritableError
from jobs.outgoing.deliver.courier import LOOK_SECONDS, Courier
from jobs.outgoing.deliver.verdict import Later, No, Over, Yes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from jobs.ledger.deliveries import WaitingPair
    from jobs.outgoing.deliver.courier import Policy
    from jobs.outgoing.deliver.pair import Pair
    from jobs.outgoing.deliver.store import Store
    from jobs.outgoing.deliver.verdict import Target, Verdict


class PoolCourier(Courier):
    """Hands over what waits in `store` to `target`. `clock` gives monotonic seconds."""

    def __init__(
        self, store: Store, target: Target, policy: Policy, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(store, target.kind, clock)
        self._target = target
        self._policy = policy
        self._hold_until = self._held_since = float("-inf")
        self._in_a_row = 0

    # -- the thread that decides -------------------------------------------------------------------------------

    def _hand_over_all(self) -> None:
        try:
            with ThreadPoolExecutor(self._policy.workers, "delivery") as pool:
                self._hand_out(pool)
        finally:
            self._target.close()

    def _hand_out(self, pool: ThreadPoolExecutor) -> None:
        flying: dict[Future[Verdict | None], WaitingPair] = {}
        while True:
            finishing = self._finishing  # Before the ledger is read: what came before that is seen.
            self._look.clear()
            for waiting in self._next(flying.values()):
                pair = self._store.pair(waiting)
                flying[pool.submit(self._until_judged, pair)] = waiting
            if flying:
                done, _ = wait(flying, LOOK_SECONDS, FIRST_COMPLETED)
                back = [(flying.pop(future), future.result()) for future in done]
                self._settle([(pair, verdict) for pair, verdict in back if verdict is not None])
            elif finishing or self._stopping.is_set():
                return
            else:
                self._look.wait(LOOK_SECONDS)

    def _next(self, flying: Collection[WaitingPair]) -> Sequence[WaitingPair]:
        free = self._policy.workers - len(flying)
        without = [pair.key.install for pair in flying]
        return self._found(partial(self._store.waiting, free, without)).pairs if free > 0 else ()

    def _settle(self, done: Sequence[tuple[WaitingPair, Verdict]]) -> None:
        """Write the answers down, then count and tell them."""
        if not done:
            return
        states = [_state(verdict) for _, verdict in done]
        try:
            self._store.settle([(pair, *state) for (pair, _), state in zip(done, states, strict=True)])
        except UnwritableError as refused:
            self._rest(str(refused))
            return
        for (pair, verdict), (state, why) in zip(done, states, strict=True):
            self._count(pair, verdict, state, why)

    def _count(self, pair: WaitingPair, verdict: Verdict, state: Delivery, why: str) -> None:
        self._tell(pair, state, why)
        if isinstance(verdict, Over):
            self._rest(verdict.why)
        self._in_a_row = self._in_a_row + 1 if isinstance(verdict, Later) else 0
        if self._in_a_row >= self._policy.give_up_after:
            self._rest(f"{why}, for {self._in_a_row} installs in a row")

    # -- the threads that hand over ----------------------------------------------------------------------------

    def _until_judged(self, pair: Pair) -> Verdict | None:
        """What the target finally says about a pair, after all its tries. None if the pair was never sent."""
        policy = self._policy
        retrying = Retrying(
            retry=retry_if_result(lambda verdict: isinstance(verdict, Later)),
            stop=stop_any(stop_after_attempt(policy.attempts), stop_when_event_set(self._stopping)),
            wait=wait_random_exponential(multiplier=2 * policy.min_wait or 1, min=policy.min_wait, max=policy.max_wait),
            sleep=sleep_using_event(self._stopping),
            retry_error_callback=lambda state: state.outcome and state.outcome.result(),
        )
        return retrying(partial(self._between_holds, pair))

    def _between_holds(self, pair: Pair) -> Verdict | None:
        """The answer to one try. A pause that the target asks for holds all pairs back, and uses up no try."""
        while True:
            left = self._hold_until - self._clock()
            if left > 0:
                self._stopping.wait(left)
            if self._stopping.is_set():
                return None
            if not self._store.may_send():
                self._stopping.wait(LOOK_SECONDS)
                continue
            verdict = self._target.hand_over(pair)
            if not isinstance(verdict, Later) or not verdict.hold:
                self._held_since = float("-inf")
                return verdict
            now = self._clock()
            if self._held_since == float("-inf"):
                self._held_since = now
            if max(verdict.hold, now - self._held_since) > self._policy.patience:
                return Over(f"{verdict.why} and asks for a pause that is longer than pace.patience_seconds")
            self._hold_until = max(self._hold_until, now + verdict.hold)


def _state(verdict: Verdict) -> tuple[Delivery, str]:
    match verdict:
        case Yes():
            return Delivery.DELIVERED, ""
        case No(why):
            return Delivery.REFUSED, why
        case Later(why) | Over(why):
            return Delivery.WAITING, why
