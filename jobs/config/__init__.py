"""What the operator configured: `config/recovery.toml`, variables and options as one value, and the apps with their secrets.

This room refuses a value that cannot be used before anything is sent. It says where the value is and what to write instead.
"""

from __future__ import annotations

__all__ = ["apps", "recipients", "settings"]
