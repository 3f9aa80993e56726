"""A list that comes by a pipe is kept in memory, and only so much of it."""

import os
import threading

import pytest

from jobs.core.errors import UserError
from jobs.manifest.piped import piped
from jobs.manifest.reader import open_manifest

LIST = b"\xef\xbb\xbflocation_id;name\r\nLocA;Caf\xc3\xa9\r\nLocB;\r\n"


@pytest.fixture
def pipe(tmp_path):
    """`pipe(data)` is the name of a pipe by which `data` comes."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writers = []

    def made(data):
        writers.append(threading.Thread(target=path.write_bytes, args=(data,)))
        writers[-1].start()
        return path

    yield made
    for writer in writers:
        writer.join()


def test_a_list_by_a_pipe_is_read_as_often_as_needed(pipe):
    for data in (LIST, LIST.decode("utf-8-sig").encode("utf-16")):
        path = pipe(data)
        manifest = open_manifest(path, {}, piped(path))
        for _ in range(2):
            rows = [(row.account_id, row.cells) for row in manifest.rows()]
            assert rows == [("LocA", ("Café",)), ("LocB", ("",))]


def test_what_is_wrong_with_a_list_by_a_pipe_is_told_as_of_a_file(pipe):
    for data, why in (
        (b"", "is empty"),
        (b"PK\x03\x04", "is a damaged workbook"),
        (b"location_id\n\xe9\n", "is not UTF-8 (line 2)"),
    ):
        path = pipe(data)
        with pytest.raises(UserError, match=r"pipe: ") as refused:
            [*open_manifest(path, {}, piped(path)).rows()]
        assert why in str(refused.value)


def test_a_list_that_is_too_large_for_memory_is_refused(pipe):
    assert piped(pipe(bytes(1 << 20)), most_bytes=1 << 20) == bytes(1 << 20)


def test_one_byte_more_than_is_kept_is_refused(tmp_path):
    reader, writer = os.pipe()
    with os.fdopen(writer, "wb") as file:
        file.write(bytes(60_001))
    try:
        with pytest.raises(UserError, match="that are kept in memory: give the path of a file"):
            piped(type(tmp_path)(f"/dev/fd/{reader}"), most_bytes=60_000)
    finally:
        os.close(reader)


def test_a_file_is_not_a_pipe(tmp_path):
    (tmp_path / "list.csv").write_bytes(LIST)
    assert piped(tmp_path / "list.csv") is None
    assert piped(tmp_path) is None
    assert piped(tmp_path / "none") is None


def test_only_a_check_reads_standard_input(play):
    done = play()("plan", "-")
    assert done.returncode == 2
    assert "-: is standard input, which only `recover check` reads: use the path of a CSV" in done.stderr
