"""What the operator set: `config/recovery.toml`, variables and options as one value, and the apps with their secrets.

A value that cannot be used is refused here, before anything is sent, with where it stands and what to write instead.
"""

from __future__ import annotations

__all__ = ["apps", "settings"]
