"""The bytes of a list: a file, or what came by a pipe."""

from __future__ import annotations

import io
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.core.errors import UserError, refuse
from jobs.core.file_errors import what_to_do
from jobs.manifest.piped import STANDARD_INPUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Source:
    """A list: the file at `path`, or `data` if it came by that pipe."""

    path: Path
    data: bytes | None = None

    def open(self) -> BinaryIO:
        """Its bytes. Raises UserError if they cannot be read."""
        with self._blaming_the_file():
            self._must_be_a_file()
            return self.path.open("rb") if self.data is None else io.BytesIO(self.data)

    def begins(self) -> bytes:
        """Its first four bytes. Raises UserError if they cannot be read."""
        with self.open() as file, self._blaming_the_file():
            return file.read(4)

    @contextmanager
    def _blaming_the_file(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            reason = getattr(error, "strerror", None) or "its name is not valid"
            todo = what_to_do(error, "check its path and rights")
            raise refuse(f"cannot be read ({reason})", str(self.path), todo) from None

    def _must_be_a_file(self) -> None:
        path, todo = self.path, "use the path of a CSV or a workbook"
        if self.data is not None or path.is_file():
            return
        if path == STANDARD_INPUT:
            raise refuse("is standard input, which only `recover check` reads", str(path), todo)
        missing = "does not exist" if path.is_absolute() else f"does not exist in {Path.cwd()}"
        raise refuse("is not a file" if path.exists() else missing, str(path), todo)
