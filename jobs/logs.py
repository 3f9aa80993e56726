"""What is said while a run goes on: structlog, readable or as JSON lines, through one net for secrets.

Standard output and standard error are both behind the net, a traceback too: nothing passes by.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

import structlog

from jobs.secret import Secret, scrub_own

if TYPE_CHECKING:
    from collections.abc import Iterable

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Net:
    """A text stream that stars secrets out, and that never fails: a terminal that is gone costs messages only."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._secrets: tuple[Secret, ...] = ()
        self.failed = stream is None

    def guard(self, secrets: Iterable[Secret]) -> None:
        """Star these out too, from now on."""
        self._secrets = (*self._secrets, *secrets)

    def write(self, text: str) -> int:
        """Write `text` without its secrets."""
        if not self.failed and self._stream is not None:
            try:
                self._stream.write(scrub_own(text, self._secrets))
                self._stream.flush()
            except (OSError, ValueError):
                self.failed = True
        return len(text)

    def flush(self) -> None:
        """Every write is flushed already."""

    def isatty(self) -> bool:
        """Whether a person looks at it."""
        try:
            return self._stream is not None and self._stream.isatty()
        except ValueError:
            return False

    @property
    def encoding(self) -> str:
        """The encoding of the stream behind."""
        return getattr(self._stream, "encoding", None) or "utf-8"


def set_up_logs(net: Net, *, level: str, as_json: bool, colors: bool) -> structlog.typing.FilteringBoundLogger:
    """The logger of the run, writing to `net`."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=18, sort_keys=False)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(file=net),  # type: ignore[arg-type]
        cache_logger_on_first_use=False,
    )
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def nets() -> tuple[Net, Net]:
    """Put standard output and standard error behind nets; returns these. What a bug prints passes them too."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    out, err = Net(sys.stdout), Net(sys.stderr)
    sys.stdout, sys.stderr = out, err
    return out, err
