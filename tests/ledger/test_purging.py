"""What a purge leaves in the ledger's file, whatever SQLite does with what it frees."""

from __future__ import annotations

from functools import partial

from sqlalchemy import event

from jobs.ledger import purging
from tests.helpers.deliveries import tokens_of, waiting


def test_no_byte_of_a_purged_pair_is_left_where_sqlite_does_not_overwrite_what_it_frees(tmp_path):
    with waiting(tmp_path, 30) as waits:
        engine = waits.ledger.engine
        event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA secure_delete = OFF"))
        waits.ledger.write(partial(purging.forget, everything=True, at="2026-11-26T02:00:00.000Z"))
        purging.scrub_file(engine)
        left = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert not [number for number in range(30) if tokens_of(number).access_token.reveal().encode() in left]
