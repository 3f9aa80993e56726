"""Machines and file systems that lack something: the job does without it, or says which file, which act, what to do."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from jobs.core.endings import ending_of
from jobs.core.errors import Exit
from tests.helpers.job import PROJECT, pairs
from tests.helpers.lists import listing

WITHOUT = """
import os
for name in ("posix_fallocate", "sched_getaffinity", "sched_setaffinity"):
    delattr(os, name) if hasattr(os, name) else None
"""


def run(job, *before, output=None, environment=(), count=3):
    """A run of the job as a child of the command `before`."""
    manifest = job.manifest(listing(count))
    command = [*before, sys.executable, "-m", "jobs", "run", manifest, "--output", output or job.output]
    try:
        return subprocess.run(
            [*map(str, command)], cwd=PROJECT, env=job.environment | dict(environment), capture_output=True, text=True,
            check=False, timeout=60,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip(f"{before[0]} is not installed")


def strace(job, *injections, of=()):
    """A run whose system refuses these calls, `NAME:error=ERRNO`, on these paths where some are given."""
    paths = [word for path in of for word in ("-P", os.fspath(path))]
    injected = [word for injection in injections for word in ("-e", f"inject={injection}")]
    trace = job.folder / "trace"
    done = run(job, "strace", "-f", "-qq", "-o", trace, *paths, *injected)
    if "INJECTED" not in (trace.read_text() if trace.exists() else ""):
        pytest.skip(f"strace may not trace here: {done.stderr[-200:]}")
    return done


def one_line(done, code):
    assert "Traceback" not in done.stderr + done.stdout
    assert done.returncode == code, done.stderr
    return next(line for line in done.stderr.splitlines() if line.startswith("error: "))


@pytest.mark.parametrize("error", ["EINVAL", "EOPNOTSUPP", "ENOSYS"])
def test_a_file_system_that_syncs_no_folders_is_warned_of_once_and_the_run_goes_on(play, error):
    job = play()
    job.output.mkdir(mode=0o700)
    done = strace(job, f"fsync:error={error}", of=[job.output])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("does not sync folders") == 1
    assert pairs(job.output) == job.issued()


def test_a_folder_that_the_disk_fails_to_sync_is_refused_and_nothing_is_sent(play):
    job = play()
    job.output.mkdir(mode=0o700)
    said = one_line(strace(job, "fsync:error=EIO", of=[job.output]), 2)
    assert f"{job.output}: cannot be synced (Input/output error): check the disk" in said
    assert job.sandbox.seen == []


@pytest.mark.parametrize("error", ["ENOLCK", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_told_as_such_and_nothing_is_sent(play, error):
    job = play()
    said = one_line(strace(job, f"flock:error={error}"), 2)
    assert f"{job.output / '.lock'}: is on a file system that has no locks" in said
    assert job.sandbox.seen == []


def test_a_start_without_a_file_descriptor_to_spare_says_so(play):
    job = play()
    job.output.mkdir(mode=0o700)
    said = one_line(strace(job, "openat:error=EMFILE", of=[job.output / ".lock"]), 2)
    assert f"{job.output / '.lock'}: cannot be locked (Too many open files): raise the limit" in said
    assert job.sandbox.seen == []


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (
            OSError(28, "No space left on device", "/some/file"),
            Exit.CANNOT_START,
            "/some/file: cannot be used (No space",
        ),
        (OSError(24, "Too many open files"), Exit.CANNOT_START, "raise the limit of open files"),
        (PermissionError(13, "Permission denied", "/some/file"), Exit.CANNOT_START, "give this user the right"),
        (FileNotFoundError(2, "No such file or directory", "/some/file"), Exit.BUG, "Traceback"),
        (OSError(9, "Bad file descriptor"), Exit.BUG, "Traceback"),
        (OSError("something"), Exit.BUG, "Traceback"),
    ],
)
def test_what_the_system_refuses_is_told_by_what_to_do_and_what_only_a_bug_meets_keeps_its_traceback(
    error, code, words
):
    try:
        raise error
    except OSError as caught:
        ended = ending_of(caught)
    assert ended.code == code
    assert words in "".join(ended.problems) + ended.text


def test_a_system_without_the_calls_that_only_linux_has_runs(play):
    job = play()
    (job.folder / "sitecustomize.py").write_text(WITHOUT)
    done = run(job, environment={"PYTHONPATH": str(job.folder)})
    assert done.returncode == 0, done.stderr
    assert pairs(job.output) == job.issued()


def test_a_file_system_that_cannot_set_room_aside_has_it_filled(play):
    job = play()
    trace = job.folder / "trace"
    done = strace(job, "fallocate:error=EOPNOTSUPP")
    assert done.returncode == 0, done.stderr
    assert "EOPNOTSUPP" in trace.read_text()
    assert pairs(job.output) == job.issued()


@pytest.mark.parametrize(("mode", "warned"), [(0o755, False), (0o750, False), (0o775, True), (0o1777, True)])
def test_a_folder_of_the_users_keeps_its_mode_with_a_warning_where_others_may_write_to_it(play, mode, warned):
    job = play()
    job.output.mkdir()
    job.output.chmod(mode)
    done = run(job)
    assert done.returncode == 0, done.stderr
    assert job.output.stat().st_mode & 0o7777 == mode
    assert ("other users can write to" in done.stderr) == warned
    assert {file.stat().st_mode & 0o777 for file in job.output.iterdir()} == {0o600}


def test_a_folder_that_the_job_makes_is_its_owners_alone(play):
    job = play()
    assert run(job, output=job.folder / "new" / "out").returncode == 0
    assert {(job.folder / name).stat().st_mode & 0o777 for name in ("new", "new/out")} == {0o700}


def without_coverage(job):
    """The environment of a run that writes nothing of its own: neither may coverage."""
    return {name: value for name, value in job.environment.items() if name != "COVERAGE_PROCESS_CONFIG"}


READ_ONLY = """
mount -t tmpfs tmpfs "$DISK" && mount --bind / / && mount -o remount,ro,bind / / || exit 77
mkdir "$DISK/state"
"$PYTHON" -m jobs run "$INPUT" --output "$1"
code=$?
ls -A "$DISK/out" 2>/dev/null
exit $code
"""


@pytest.fixture
def read_only(play):
    """`read_only(output, state)`: a run where only the folder `disk` can be written to, on a disk of its own."""
    job = play()
    disk = job.folder / "disk"
    disk.mkdir()

    def start(output, state):
        more = {"DISK": disk, "INPUT": job.manifest(listing(3)), "PYTHON": sys.executable, "XDG_STATE_HOME": state}
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", READ_ONLY, "sh", output], cwd=PROJECT, capture_output=True, text=True,
            env=without_coverage(job) | {"HOME": "/nonexistent"} | {key: str(value) for key, value in more.items()},
            check=False, timeout=60,
        )  # fmt: skip
        if done.returncode == 77 or "unshare" in done.stderr:
            pytest.skip("only root makes its own view of the disks")
        return job, disk, done

    return start


def test_where_all_but_output_and_the_folder_of_the_lock_is_read_only_it_runs(read_only, tmp_path):
    job, _, done = read_only(tmp_path / "disk" / "out", tmp_path / "disk" / "state")
    assert done.returncode == 0, done.stderr
    assert len(job.issued()) == 3


@pytest.mark.parametrize(("output", "state"), [("disk/out", "elsewhere"), ("elsewhere", "disk/state")])
def test_where_the_folders_it_needs_are_read_only_it_does_not_start(read_only, tmp_path, output, state):
    job, _, done = read_only(tmp_path / output, tmp_path / state)
    said = one_line(done, 2)
    assert "elsewhere" in said
    assert job.sandbox.seen == []


def test_what_is_on_disk_for_a_moment_is_in_output_without_a_name(play):
    job = play()
    olds = "".join(f"Loc{n},canary-of-an-old-pair-{n}-{'x' * 2_000}\n" for n in range(3_000))
    manifest = job.manifest(f"location_id,refresh_token\n{olds}")
    manifest.chmod(0o600)
    trace = job.folder / "trace"
    calls = "openat,unlink,unlinkat"
    command = [
        "strace",
        "-f",
        "-qq",
        "-e",
        f"trace={calls}",
        "-o",
        trace,
        sys.executable,
        "-m",
        "jobs",
        "run",
        manifest,
    ]
    try:
        done = subprocess.run(
            [*map(str, command), "--output", str(job.output), "--limit", "3"], cwd=PROJECT, capture_output=True, text=True,
            env=without_coverage(job) | {"PYTHONDONTWRITEBYTECODE": "1"}, check=False, timeout=100,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    assert done.returncode == 4, done.stderr
    written = {}
    lines = trace.read_text(errors="replace").splitlines()
    for number, line in enumerate(lines):
        found = re.search(r'openat\(\S+, "([^"]+)", (O_\S+)', line)
        if found and re.search("O_CREAT", found[2]) and "= -1" not in line:
            written.setdefault(found[1], number)
    elsewhere = [path for path in written if not path.startswith((str(job.output), str(job.folder / "state"), "/dev/"))]
    assert elsewhere == []
    temporary = [path for path in written if "etilqs" in path]
    assert temporary, "the list was too short to need a file"
    for path in temporary:
        nearby = lines[written[path] : written[path] + 4]
        assert any(line.find("unlink(") >= 0 and path in line for line in nearby)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory of a process")
@pytest.mark.parametrize("megabytes", [80, 180, 190, 200, 210])
def test_a_process_with_too_little_memory_is_told_so_in_one_line_and_nothing_is_sent(play, megabytes):
    job = play()
    done = run(job, "sh", "-c", f'ulimit -v {megabytes << 10}; exec "$@"', "sh")
    assert one_line(done, 2) == (
        f"error: this process: may use only {megabytes} MB of memory (ulimit -v): raise that limit to 256 MB or more"
    )
    assert done.stderr.splitlines()[-1] == "exit 2: could not start; nothing was sent"
    assert job.sandbox.seen == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit the memory of a process")
def test_a_process_with_just_enough_memory_recovers_all(play):
    done = run(play(), "sh", "-c", 'ulimit -v 262144; exec "$@"', "sh")
    assert done.returncode == 0, done.stderr
