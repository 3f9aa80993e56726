"""The settings under which a rehearsal reaches nothing real.

The user's project may tell people and monitors of its runs, hand its pairs to a store, and keep them in a database.
"""

from __future__ import annotations

import shlex

ALONE = {
    "RECOVERY_NOTIFY__URL": "",
    "RECOVERY_NOTIFY__COMMAND": "",
    "RECOVERY_PING__URL": "",
    "RECOVERY_METRICS__TEXTFILE": "",
    "RECOVERY_DELIVER__URL": "",
    "RECOVERY_DELIVER__SECRET": "",
    "RECOVERY_DELIVER__COMMAND": "",
    "RECOVERY_DELIVER__DATABASE_URL": "",
    "RECOVERY_DELIVER__SQL": "",
    "RECOVERY_LEDGER__URL": "",
    "RECOVERY_LEDGER__NAME": "",
    "RECOVERY_SEAL__RECIPIENTS": "[]",
}
"""Every setting that names somebody or a place outside the rehearsal, emptied."""


def as_line() -> str:
    """The command of a shell that sets them."""
    return " ".join(["export", *(f"{name}={shlex.quote(value)}" for name, value in ALONE.items())])
