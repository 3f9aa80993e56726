"""Lists that come by a pipe. They are read more than once, and may hold tokens, so they are kept in memory and never on disk."""

from __future__ import annotations

import io
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.core.errors import refuse
from jobs.core.file_errors import what_to_do

if TYPE_CHECKING:
    from typing import BinaryIO

STANDARD_INPUT, NAMED = Path("-"), Path("standard input")
_STDIN = 0
_ITS_NAMES = {STANDARD_INPUT, Path("/dev/stdin"), Path("/dev/fd/0"), Path("/proc/self/fd/0")}
_MOST_BYTES = 256 << 20  # A pair of HighLevel's is about 2.5 KB: that is a list of 100,000 installs.
_CHUNK_BYTES = 1 << 20


def piped(path: Path, most_bytes: int = _MOST_BYTES) -> bytes | None:
    """All that comes by a pipe, at most so many bytes. None if `path` does not lead to one. Raises UserError."""
    if path != STANDARD_INPUT and not _is_stream(path):
        return None
    where = str(NAMED if path == STANDARD_INPUT else path)
    try:
        with _opened(path) as file:
            return _all_of(file, where, most_bytes)
    except OSError as error:
        todo = what_to_do(error, "check what writes into it")
        raise refuse(f"cannot be read ({error.strerror})", where, todo) from None


def _opened(path: Path) -> BinaryIO:
    if path in _ITS_NAMES:  # It may be a socket, which has no name that can be opened.
        return open(_STDIN, "rb", closefd=False)
    return path.open("rb")


def _is_stream(path: Path) -> bool:
    with suppress(OSError):
        mode = path.stat().st_mode
        return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)
    return False


def _all_of(file: BinaryIO, where: str, most_bytes: int) -> bytes:
    kept = io.BytesIO()
    while chunk := file.read(_CHUNK_BYTES):
        kept.write(chunk)
        if kept.tell() > most_bytes:
            what = f"is larger than the {most_bytes >> 20} MiB that are kept in memory"
            raise refuse(what, where, "give the path of a file, or cut the list into parts")
    return kept.getvalue()
