"""A pair is sealed for its recipients and bound to its install; whatever else is opened is refused by name."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pyrage
import pytest

from jobs.core.model import InstallKey, Level, Sealed, Tokens
from jobs.core.secret import Secret
from jobs.sealing.opener import NEEDS_IDENTITY, Opener, Unread, opened
from jobs.sealing.sealer import Sealer

API, AT = "https://services.leadconnectorhq.com", "2026-11-26T10:00:00.000Z"
KEY = InstallKey("app-1", Level.SUB_ACCOUNT, "LocA")


@pytest.fixture
def identity():
    return pyrage.x25519.Identity.generate()


def pair(access="access-1", refresh="refresh-1"):
    return Tokens(Secret(access), Secret(refresh), "Bearer", "", "", "Location", "", "", "LocA", "")


def sealed(identity, tokens=None, base_url=API, key=KEY):
    """A pair as it is read from the ledger, where neither token is."""
    new = Sealer([str(identity.to_public())], base_url).seal(key, tokens or pair(), AT)
    return replace(new, access_token=Secret(""), refresh_token=Secret(""))


def token_of(account_id):
    """A token whose claims name this account."""
    parts = (json.dumps(part).encode() for part in ({"alg": "HS256"}, {"authClassId": account_id}))
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "s" * 43])


def why_not(identity, tokens, key=KEY):
    unread = Opener([identity], API).open(key, tokens)
    assert isinstance(unread, Unread)
    return unread.why


def test_an_identity_opens_pairs_in_several_threads_at_once(identity):
    pairs = [pair(f"access-{number}") for number in range(200)]
    opener, texts = Opener([identity], API), [sealed(identity, one) for one in pairs]
    with ThreadPoolExecutor(8) as threads:
        assert [*threads.map(partial(opener.open, KEY), texts)] == pairs


def test_whoever_has_an_identity_opens_the_pair(identity):
    another = pyrage.x25519.Identity.generate()
    new = Sealer([str(identity.to_public()), str(another.to_public())], API).seal(KEY, pair(), AT)
    for one in (identity, another):
        assert Opener([one], API).open(KEY, new) == pair()


def test_the_sealed_text_says_whose_pair_it_is_and_when_it_came(identity):
    text = sealed(identity).sealed.text
    assert json.loads(pyrage.decrypt(text.encode(), [identity])) == {
        "base_url": API,
        "client_id": "app-1",
        "user_type": "Location",
        "resource_id": "LocA",
        "access_token": "access-1",
        "refresh_token": "refresh-1",
        "issued_at": AT,
    }


def test_another_identity_opens_nothing(identity):
    assert why_not(pyrage.x25519.Identity.generate(), sealed(identity)) == "no identity in --identity FILE opens it"


@pytest.mark.parametrize(
    ("name", "base_url", "key"),
    [
        ("base_url", "https://another.example", KEY),
        ("client_id", API, KEY._replace(client_id="app-2")),
        ("user_type", API, KEY._replace(level=Level.AGENCY)),
        ("resource_id", API, KEY._replace(account_id="LocB")),
    ],
)
def test_a_pair_of_another_install_is_refused_by_name(identity, name, base_url, key):
    why = why_not(identity, sealed(identity, base_url=base_url, key=key))
    assert why == f"it was sealed for another install ({name} is another one)"


@pytest.mark.parametrize("which", ["access", "refresh"])
def test_a_token_whose_claims_name_another_install_is_refused(identity, which):
    foreign = pair(**{which: token_of("LocB")})
    why = why_not(identity, sealed(identity, foreign))
    assert why == f"its {which} token is refused: the token belongs to another install"


def test_another_pair_of_the_same_install_is_refused(identity):
    mine, other = sealed(identity), sealed(identity, pair("access-2"))
    swapped = replace(mine, sealed=Sealed(other.sealed.text, mine.sealed.fingerprint))
    assert why_not(identity, swapped) == "it holds another pair than the one that was recorded"


def test_a_damaged_text_is_refused(identity):
    text, mark, _ = sealed(identity).sealed
    for damaged in (text.replace("A", "B", 7), text[:-60], "", text[:200] + "-----END AGE ENCRYPTED FILE-----"):
        assert why_not(identity, replace(pair("", ""), sealed=Sealed(damaged, mark)))


# A whole pair, but a token is a lone surrogate, which JSON can say and no text can hold.
NO_TEXT = json.dumps(
    {"base_url": API, "client_id": KEY.client_id, "user_type": KEY.level, "resource_id": KEY.account_id}
    | {"access_token": "\ud800", "refresh_token": "r", "issued_at": AT}
).encode()


@pytest.mark.parametrize("words", [NO_TEXT, b"", b"[]", b"null", b"{", b'{"access_token": 1}', b"[" * 10_000])
def test_anything_else_than_a_pair_is_refused(identity, words):
    text = pyrage.encrypt(words, [identity.to_public()], armored=True).decode()
    why = why_not(identity, replace(pair("", ""), sealed=Sealed(text, "")))
    assert why == "it holds something else than a pair"


def test_a_pair_is_sealed_once_and_an_open_one_stays_as_it_is(identity):
    sealer = Sealer([str(identity.to_public())], API)
    once = sealer.seal(KEY, pair(), AT)
    assert sealer.seal(KEY, once, AT) is once
    assert Opener([identity], API).open(KEY, pair()) == opened(None, KEY, pair()) == pair()


def test_without_an_identity_nothing_sealed_is_opened(identity):
    assert opened(None, KEY, sealed(identity)) == NEEDS_IDENTITY
