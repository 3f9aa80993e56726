"""A line of the manifest as the ledger stages it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jobs.core.model import Broken, Row


def of_row(position: int, row: Row) -> dict[str, object]:
    """A usable line with its old pair. The staged table is temporary: the ledger's file never holds old pairs."""
    return {
        "position": position,
        "line": row.line,
        "client_id": row.client_id,
        "level": row.level.value,
        "account_id": row.account_id,
        "company_id": row.company_id,
        "access_token": row.access_token.reveal() if row.access_token else "",
        "refresh_token": row.refresh_token.reveal() if row.refresh_token else "",
        "cells": json.dumps(row.cells, ensure_ascii=False),
    }


def of_broken(position: int, row: Broken) -> dict[str, object]:
    """A line that cannot be used."""
    cells = {"cells": json.dumps(row.cells, ensure_ascii=False), "cell_count": len(row.cells)}
    return asdict(row) | {"position": position} | cells
