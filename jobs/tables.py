"""The story of `load`: what a run has left, as a pandas DataFrame for a notebook."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from jobs.core.errors import UserError, refuse
from jobs.core.file_errors import what_to_do
from jobs.core.model import Cause
from jobs.manifest.redaction import Redactor
from jobs.reports.columns import RESULTS, RESULTS_OPEN

if TYPE_CHECKING:
    from os import PathLike

__all__ = ["load"]

_RESULTS = "results.csv"
_TOKENS = {"access_token", "refresh_token", "sealed"}
_TIMES = ("expires_at", "recovered_at", "delivered_at")
_IDS = ("location_id", "company_id", "client_id")


def load(folder: str | PathLike[str], *, tokens: bool = False) -> pd.DataFrame:
    """The rows of results.csv in the folder of a run, in their order: each install, and each line that could not be read.

    `expires_at`, `recovered_at` and `delivered_at` are timestamps in UTC, or NaT if the cell is empty. Everything else is text as
    it is in the file, and '' if it is empty. Without `tokens`, the columns that hold pairs are left out, and all
    other cells show stars in place of a secret, as in failures.csv. Raises UserError.
    """
    path = Path(os.path.expanduser(folder)) / _RESULTS  # noqa: PTH111 - pathlib raises for a user it does not know
    frame = _read(path, tokens=tokens)
    if not tokens:
        _put_stars(frame)
    for name in _TIMES:
        frame[name] = _times(frame[name], path)
    return frame


def _read(path: Path, *, tokens: bool) -> pd.DataFrame:
    """The columns of results.csv, all text."""
    try:
        # Names of columns are the only thing that pandas changes: of two with one name, the second gets `.1`, and none becomes
        # `Unnamed: ` and its place.
        frame = pd.read_csv(
            path, dtype=str, na_filter=False, index_col=False, usecols=lambda name: tokens or name not in _TOKENS
        )
    except (FileNotFoundError, NotADirectoryError):
        raise _no_results(path) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not a CSV of the job"
        todo = what_to_do(error, "check its path and rights") if isinstance(error, OSError) else _make_again(path)
        raise refuse(f"cannot be read ({reason})", str(path), todo) from None
    expected = [column.name for column in RESULTS_OPEN if tokens or column.name not in _TOKENS]
    if missing := [name for name in expected if name not in frame]:
        raise refuse(f"has no column {missing[0]}: another version has written it", str(path), _make_again(path))
    return frame


def _make_again(path: Path) -> str:
    return f"make it again with `recover report {shlex.quote(str(path.parent))}`"


def _no_results(path: Path) -> UserError:
    folder = path.parent
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else f"does not exist in {Path.cwd()}"
        return refuse(what, str(folder), "use the folder of a run, such as data/installs")
    return refuse(f"has no {_RESULTS}", str(folder), _make_again(path))


def _put_stars(frame: pd.DataFrame) -> None:
    """Put stars in place of secrets: in the user's columns, and in the ids of lines that could not be read."""
    ours = {column.name for column in RESULTS}
    own = [name for name in frame.columns if name not in ours]
    unreadable = frame["cause"] == Cause.INVALID_ROW
    for rows, names in ((unreadable, [*_IDS, *own]), (~unreadable, own)):
        seen = frame.loc[rows, names]
        frame.loc[rows, names] = _starred(seen, names)


def _starred(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    stars = Redactor()
    rows = (stars.cells(zip(names, row, strict=True)) for row in frame.itertuples(index=False, name=None))
    return pd.DataFrame([[cell for _, cell in row] for row in rows], frame.index, names, dtype="str")


def _times(texts: pd.Series[str], path: Path) -> pd.Series[pd.Timestamp]:
    try:
        return pd.to_datetime(texts, utc=True, format="ISO8601").dt.as_unit("us")
    except ValueError:
        raise refuse(f"has a cell in {texts.name} that is not a time", str(path), _make_again(path)) from None
