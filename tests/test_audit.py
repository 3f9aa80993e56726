"""The audit of the lock tells what was looked up from what was not."""

from __future__ import annotations

from tests.audit import verdict

SKIPPED = {"name": "idna", "skip_reason": "Dependency not found"}
SAFE = {"name": "click", "version": "8.4.0", "vulns": []}
HOLE = {"id": "PYSEC-2018-28", "fix_versions": ["2.20.0"], "aliases": [], "description": "..."}
BAD = {"name": "requests", "version": "2.19.0", "vulns": [HOLE, {**HOLE, "id": "PYSEC-2", "fix_versions": []}]}


def test_a_vulnerability_is_named_with_its_package_and_its_fix():
    assert verdict({"dependencies": [SKIPPED, SAFE, BAD]}) == (
        2,
        ["requests 2.19.0: PYSEC-2018-28, fixed in 2.20.0", "requests 2.19.0: PYSEC-2, fixed in none yet"],
    )


def test_packages_that_no_list_knows_are_not_looked_up():
    assert verdict({"dependencies": [SKIPPED, SKIPPED]}) == (0, [])
    assert verdict({}) == (0, [])
