"""The only door to the API. Every request passes the gate and every answer is scrubbed here, before anybody sees it.

A call returns values, or raises `CallFailed` with an `Answer` that says what came. `core.causes` says what it means.
"""

from __future__ import annotations

__all__ = ["api", "jwt_claims", "network_errors", "parsing", "proxy", "transport"]
