"""What a token says about itself: nothing in it overflows, and a value that is not a moment does not end its life."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime

import pytest

from jobs.core.model import InstallKey, Level
from jobs.core.secret import Secret
from jobs.highlevel.jwt_claims import read_claims, why_useless

KEY = InstallKey("app-1", Level.SUB_ACCOUNT, "LocA")


def token(exp):
    """A token whose payload has this text as its `exp`."""
    parts = ('{"alg": "HS256"}', f'{{"authClassId": "LocA", "exp": {exp}}}')
    return Secret(
        ".".join([*(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts), "s" * 43])
    )


@pytest.mark.parametrize(
    "exp", ["1e300", "-1", "NaN", "Infinity", "-Infinity", "9" * 400, "1e999", "true", '"1"', "null"]
)
def test_an_end_that_is_not_a_moment_does_not_count(exp):
    claims = read_claims(token(exp))
    assert claims is not None
    assert claims.expires is None
    assert why_useless(token(exp), KEY, 1_800_000_000) == ""


@pytest.mark.parametrize("exp", [0, 1_700_000_000, 1_700_000_000.5, 253_402_300_799])
def test_an_end_that_is_a_moment_fits_into_a_date(exp):
    claims = read_claims(token(json.dumps(exp)))
    assert claims is not None
    assert datetime.fromtimestamp(claims.expires or 0, UTC).timestamp() == exp
    assert bool(why_useless(token(json.dumps(exp)), KEY, 1_800_000_000)) is (exp < 1_800_000_000)


@pytest.mark.parametrize(
    ("meta", "scopes"),
    [
        ('{"scopes": ["a.readonly", "b.write", 7]}', {"a.readonly", "b.write"}),
        ('{"scopes": []}', set()),
        ('{"scopes": "a.readonly"}', None),
        ("{}", None),
        ("null", None),
    ],
)
def test_what_a_token_may_do_is_what_it_says_or_is_not_known(meta, scopes):
    claims = read_claims(token(f'1, "oauthMeta": {meta}'))
    assert claims is not None
    assert claims.scopes == scopes
