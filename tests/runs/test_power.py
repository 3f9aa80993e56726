"""Power loss: what is synced, and before what. Seen from the system's side, by strace."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.helpers.job import PROJECT, pairs

CALLS = "mkdir,mkdirat,fsync,fdatasync,sendto,rename,renameat,renameat2,openat"


@pytest.fixture
def traced(play, tmp_path):
    """The calls of a run that makes its folder, one worker, in their order: (name, what it is about)."""
    job = play()
    trace = tmp_path / "trace"
    try:
        done = subprocess.run(
            ["strace", "-f", "-y", "-s", "40", "-e", f"trace={CALLS}", "-o", trace, sys.executable, "-m", "jobs", "run",
             job.manifest("location_id\nLocA\nLocB\nLocC\n"), "--output", job.folder / "new" / "out", "--workers", "1"],
            cwd=PROJECT, env=job.environment | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, check=False,
            timeout=60,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    if done.returncode:
        pytest.skip(f"strace may not trace here: {done.stderr.decode()[-200:]}")
    found = []
    for line in trace.read_text(errors="replace").splitlines():
        call = re.match(r"\d+\s+(\w+)\((.*)", line)
        if call and "ENOENT" not in line and "EEXIST" not in line:
            found.append((call[1], call[2]))
    return job.folder, found


def places(found, name, *parts):
    return [
        place
        for place, (call, about) in enumerate(found)
        if call.startswith(name) and all(part in about for part in parts)
    ]


def test_names_and_contents_are_synced_before_anything_relies_on_them(traced):
    folder, found = traced
    reconnects = places(found, "sendto", "POST /oauth/reconnect")
    exchanges = places(found, "sendto", "POST /oauth/token")
    assert (len(reconnects), len(exchanges)) == (3, 3)
    # The folders are there under their names before the first request.
    for made in (folder / "new", folder / "new" / "out"):
        (at,) = places(found, "mkdir", f'"{made}"')
        assert [sync for sync in places(found, "fsync", f"<{made.parent}>") if at < sync < reconnects[0]]
    # So are the ledger and its log.
    out = folder / "new" / "out"
    (wal,) = places(found, "openat", "ledger.sqlite3-wal", "O_CREAT")[:1]
    assert [sync for sync in places(found, "f", f"<{out}>") if wal < sync < reconnects[0] and "sync" in found[sync][0]]
    # An outcome is synced before its worker sends another request, and the last one before the reports.
    syncs = places(found, "fdatasync", "ledger.sqlite3-wal") + places(found, "fsync", "ledger.sqlite3-wal")
    reports = places(found, "openat", ".new-results.csv")
    for exchange, following in zip(exchanges, [*reconnects[1:], reports[0]], strict=True):
        assert [sync for sync in syncs if exchange < sync < following]
    # A report is synced before it is moved into place, and its name after.
    for name in ("results.csv", "failures.csv", "failures.html", "failures.xlsx", "summary.json"):
        (move,) = places(found, "rename", f".new-{name}")
        (before,) = places(found, "fsync", f".new-{name}")
        assert before < move
        assert [sync for sync in places(found, "fsync", f"<{out}>") if sync > move]


def test_every_file_is_made_with_a_private_mode(traced):
    folder, found = traced
    first = {}
    for call, about in found:
        path = re.search(r', "([^"]+)", ', about)
        if call == "openat" and "O_CREAT" in about and path and path[1].startswith(str(folder)):
            first.setdefault(path[1], about)
    assert len(first) >= 8
    # SQLite opens the ledger again with a mode of its own, when it is there already.
    assert not [about for about in first.values() if not re.search(r"O_CREAT.*, 0600\)", about)]


def test_outcomes_that_wait_for_a_slow_disk_are_synced_together(play, tmp_path):
    job = play()
    job.environment["RECOVERY_PACE__REQUESTS_PER_SECOND"] = "40"
    trace, count = tmp_path / "trace", 60
    manifest = job.manifest("location_id\n" + "".join(f"Loc{n}\n" for n in range(count)))
    command = [
        "strace",
        "-f",
        "-y",
        "-qq",
        "-o",
        trace,
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:delay_exit=250000",
    ]
    try:
        done = subprocess.run(
            [*command, sys.executable, "-m", "jobs", "run", manifest, "--output", job.output],
            cwd=PROJECT, env=job.environment, capture_output=True, check=False, timeout=90,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    if "DELAYED" not in trace.read_text(errors="replace"):
        pytest.skip(f"strace may not delay a call here: {done.stderr.decode()[-200:]}")
    assert done.returncode == 0, done.stderr
    assert len(pairs(job.output)) == count
    # In the quarter of a second that a sync takes, the pace lets ten requests out: five installs, and their outcomes.
    assert trace.read_text(errors="replace").count("ledger.sqlite3-wal") < count / 2
