"""The words that all rooms share: the job's values, what each answer means, errors for a person, secrets, ids and times.

It imports nothing else from the job.
"""

from __future__ import annotations

__all__ = [
    "batches",
    "causes",
    "checks",
    "clock",
    "endings",
    "errors",
    "file_errors",
    "fingerprints",
    "formula_guard",
    "ids",
    "model",
    "plurals",
    "secret",
]
