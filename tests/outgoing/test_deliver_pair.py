"""A pair as a target sees it, and its id, which is the same each time that it is sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from jobs.core.clock import as_written
from jobs.ledger.deliveries import PairKey
from jobs.outgoing.deliver.pair import key_of, made_up_pair, pair_id_of, pair_of
from tests.helpers.deliveries import waiting

NOW = datetime(2026, 11, 26, 2, tzinfo=UTC)
MOMENTS = st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001
LEDGERS = st.text(alphabet="abcdef0123456789-", min_size=1)
KEYS = st.builds(PairKey, st.integers(min_value=1, max_value=2**63 - 1), MOMENTS.map(as_written))


@given(LEDGERS, KEYS)
def test_the_id_of_a_pair_can_be_read_back(ledger, key):
    assert key_of(ledger, pair_id_of(ledger, key)) == key


@given(LEDGERS, KEYS, KEYS)
def test_two_pairs_have_two_ids(ledger, one, other):
    assert (pair_id_of(ledger, one) == pair_id_of(ledger, other)) == (one == other)


@given(st.text() | st.from_regex(r"l-[0-9٣_ +-]{1,30}-[0-9_ +-]{1,30}", fullmatch=True) | st.just("l-1-" + "9" * 5000))
def test_only_the_id_of_a_pair_has_a_key(text):
    key = key_of("l", text)
    assert key is None or pair_id_of("l", key) == text


@given(KEYS)
def test_the_id_of_a_pair_of_another_ledger_has_no_key(key):
    assert key_of("mine", pair_id_of("another", key)) is None


def test_absent_and_empty_values_are_null_and_seconds_are_counted_from_now(tmp_path):
    columns, cells = ("plan", "note", "plan"), ("gold", "", "silver")
    with waiting(tmp_path, 1, columns, cells) as waits:
        (found,) = waits.store.waiting(1, ()).pairs
    data = pair_of("id", found.record, NOW).data
    json.dumps(data)
    assert data["columns"] == {"plan": "gold", "note": None}  # The first of two with one name.
    assert (data["location_id"], data["resource_id"], data["company_id"]) == ("Loc" + "0" * 17, "Loc" + "0" * 17, None)
    assert data["application_id"] == data["client_id"].partition("-")[0]
    assert data["expires_at"] == "2026-11-27T02:00:00.000Z"
    assert (
        data["expires_at_ms"] == 1000 * data["expires_at_s"] == 1000 * datetime(2026, 11, 27, 2, tzinfo=UTC).timestamp()
    )
    assert data["expires_in"] == 86_400
    assert pair_of("id", found.record, NOW + timedelta(days=9)).data["expires_in"] == 0


def test_no_token_is_in_the_text_of_a_pair():
    pair = made_up_pair(NOW)
    assert "token" not in repr(pair)


def test_the_ids_of_a_made_up_pair_begin_with_test():
    data = made_up_pair(NOW, ("plan",)).data
    for name in ("pair_id", "resource_id", "location_id", "company_id", "client_id", "application_id", "user_id"):
        assert data[name].startswith("test-")
    assert data["columns"] == {"plan": None}
