"""The screen of a person: one live line, drawn by rich, and the messages above it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TextIO, cast

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from jobs.terminal.line import fit

if TYPE_CHECKING:
    from jobs.terminal.gauge import Standing
    from jobs.terminal.streams import Stream

_STYLES = {"warning": "yellow", "error": "red"}


class _Console(Console):
    """A console that never hides the cursor: a killed run could not show it again."""

    def show_cursor(self, show: bool = True) -> bool:  # noqa: FBT002 - as rich has it
        del show
        return False


def console(stream: Stream, *, recorded: bool = False) -> Console:
    """A console that prints text as it is, without looking for markup in it."""
    return _Console(
        file=cast("TextIO", stream.drawing),
        force_terminal=True,
        force_interactive=True,
        markup=False,
        highlight=False,
        emoji=False,
        record=recorded,
    )


class LiveScreen:
    """Prints messages above one live line, which appears with the first `show`."""

    def __init__(self, on: Console) -> None:
        self._console = on
        self._live: Live | None = None

    def say(self, text: str, level: str, *, whole: bool = False) -> None:
        """Print a line above the live line, broken between words. `whole`: unbroken, so that it can be copied."""
        self._console.print(Text(text, style=_STYLES.get(level, "")), soft_wrap=whole)

    def show(self, standing: Standing) -> None:
        """Draw the live line again."""
        self._draw(self._drawn(standing))

    def draw(self, words: str) -> None:
        """Draw a live line of words."""
        self._draw(Text(words, no_wrap=True, overflow="crop"))

    def _draw(self, what: Group | Table | Text) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()
        self._live.update(what, refresh=True)

    def wait(self, words: str) -> None:
        """Show what is happening now in place of the live line."""
        if self._live is not None:
            self.draw(words)

    def close(self) -> None:
        """Remove the live line."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _drawn(self, standing: Standing) -> Group | Table:
        # The last column stays free: some terminals wrap as soon as it is written.
        width = self._console.width - 1
        bar, parts = fit(standing, width)
        text = Text(no_wrap=True, overflow="crop")
        for words, style in parts:
            text.append(words, style)
        if not bar:
            return Group(text)
        grid = Table.grid()
        drawn = ProgressBar(
            max(standing.total, 1), standing.done, width=bar, complete_style="green", finished_style="green"
        )
        grid.add_row(drawn, text)
        return grid
