"""What is told about pairs that are handed over to the app's own store, during a run and after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.core.clock import Every
from jobs.core.model import Delivery
from jobs.terminal.events import Event
from jobs.terminal.shell import deliver_command, quoted
from jobs.terminal.watch import REFRESH_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from jobs.core.model import DeliveryReport, Run
    from jobs.outgoing.deliver.courier import News
    from jobs.terminal.voice import Voice


class DeliveryWatch:
    """Tells about deliveries. `clock` gives monotonic seconds."""

    def __init__(self, voice: Voice, clock: Callable[[], float]) -> None:
        self._voice = voice
        self._draws = Every(REFRESH_SECONDS, clock)
        self._failed_before = False

    def happened(self, news: Iterable[News]) -> None:
        """Tell what happened to pairs."""
        for one in news:
            ids: dict[str, object] = {"pair_id": one.pair_id, "id": one.resource_id}
            if not one.pair_id:
                words = f"delivery rests for this run: {one.why}; undelivered pairs wait, and the run goes on"
                self._voice.tell(Event.DELIVERY_RESTS, {"message": one.why}, words)
            elif one.state is Delivery.DELIVERED:
                self._voice.tell(Event.DELIVERED, ids)
            else:
                words = f"{one.resource_id} was not delivered: {one.why}; {_what_now(one)}. Others like it are counted"
                self._voice.tell(
                    Event.DELIVERY_FAILED, ids | {"message": one.why}, "" if self._failed_before else words
                )
                self._failed_before = True

    def delivering(self, report: DeliveryReport) -> None:
        """Show how far the delivery is when nothing is tried any more."""
        screen = self._voice.screen
        if screen is not None and self._draws.due():
            screen.wait(f"delivering: {report.delivered:,} delivered, {report.failed:,} not ...")


def _what_now(news: News) -> str:
    """What becomes of a pair that was not delivered."""
    if not news.sent:
        return "it waits for an identity that opens it"
    return "it waits for the next run" if news.state is Delivery.WAITING else "the app's store refused it"


def closing(run: Run, folder: Path, identity: str) -> Iterator[str]:
    """The lines of the closing block about deliveries. None without a target. The file `identity` opens sealed pairs."""
    counts, report = run.counts, run.delivery
    if report.target is None:
        return
    yield f"{counts.delivered:,} are delivered to your app ({report.delivered:,} of them now), {counts.undelivered:,} wait"
    if report.rested_because:
        yield f"delivery rests for now: {report.rested_because}"
    if counts.undelivered:
        run_again = f"a run with --identity {quoted(identity)}" if run.sealed else "the next run"
        yield f"{run_again} hands over what waits, and so does this command (results.csv says why each waits):"
        yield f"  {deliver_command(folder, identity if run.sealed else '')}"
