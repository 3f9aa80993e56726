"""`python -m jobs` is `recover`."""

from __future__ import annotations

from jobs.cli import main

main()
