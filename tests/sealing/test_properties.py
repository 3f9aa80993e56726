"""Whatever the tokens are, a pair is opened as it was sealed, and only at the install that it was sealed for."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pyrage
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.core.model import InstallKey, Level, Sealed, Tokens
from jobs.core.secret import Secret
from jobs.ledger.reads import tokens_from_text, tokens_to_text
from jobs.sealing.opener import Opener, Unread
from jobs.sealing.sealer import Sealer

API, AT = "https://services.leadconnectorhq.com", "2026-11-26T10:00:00.000Z"
IDENTITY = pyrage.x25519.Identity.generate()
SEALER, OPENER = Sealer([str(IDENTITY.to_public())], API), Opener([IDENTITY], API)
TOKENS = st.text(min_size=1) | st.builds(str.__mul__, st.text(min_size=1, max_size=8), st.integers(1, 2_000))
IDS = st.text(min_size=1, max_size=24)
KEYS = st.builds(InstallKey, IDS, st.sampled_from(Level), IDS)


def pair(access, refresh):
    return Tokens(Secret(access), Secret(refresh), "Bearer", "", "", "", "", "", "", "")


@settings(max_examples=60, deadline=None)
@given(KEYS, TOKENS, TOKENS)
def test_any_pair_is_opened_as_it_was_sealed_after_a_way_through_the_ledger(key, access, refresh):
    text = tokens_to_text(SEALER.seal(key, pair(access, refresh), AT))
    assert OPENER.open(key, tokens_from_text(text)) == pair(access, refresh)


@settings(max_examples=25, deadline=None)
@given(st.lists(KEYS, min_size=2, max_size=4, unique=True), TOKENS)
def test_any_pair_that_lies_at_another_install_is_refused(keys, token):
    """Even if both have the same tokens, and the fingerprint came along."""
    sealed = {key: SEALER.seal(key, pair(token, token), AT) for key in keys}
    for mine, other in permutations(keys, 2):
        text = sealed[other].sealed
        swapped = replace(pair("", ""), sealed=Sealed(text.text, text.fingerprint, text.recipients))
        unread = OPENER.open(mine, swapped)
        assert isinstance(unread, Unread)
        assert unread.why.startswith("it was sealed for another install")
