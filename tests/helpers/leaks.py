"""Searches bytes for tokens: whole, cut by the pages of a database, encoded, or only their claims."""

from __future__ import annotations

import base64
import json
import re
from contextlib import suppress
from pathlib import Path

# The chance that a megabyte of ciphertext holds a given piece is about 1 in 10^19.
_PIECE = 14
_EMPTY = bytes(64)  # Half of what a database keeps.
_MAY_HOLD_ONE = re.compile(rb"[\w+/=-]{%d,}" % _PIECE)


def pieces(token):
    """What no two tokens have in common, in pieces: of the signature and the id, each in the ways it may be written.

    Any 27 characters in a row of these hold a whole piece.
    """
    _, claims, signature = token.split(".")
    text = base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)).decode()
    token_id = json.loads(text)["jti"]
    at = text.index(token_id)
    of_claims = claims[at * 4 // 3 + 1 : (at + len(token_id)) * 4 // 3]
    written = [signature, of_claims, token_id, signature.encode().hex(), *_encoded(signature), *_encoded(of_claims)]
    return {
        one[start : start + _PIECE].encode() for one in written for start in range(0, len(one) - _PIECE + 1, _PIECE)
    }


def _encoded(text):
    """Its base64, wherever it begins in what is encoded, without the ends that depend on its neighbours."""
    return [base64.b64encode(text[start:].encode()).decode()[:-4] for start in range(3)]


def leaks(tokens, *places):
    """The names of the places that hold a piece of a token. A place is bytes, a text, a file, or a folder."""
    wanted = set().union(*map(pieces, tokens))
    return sorted({name for place in places for name, held in _contents(place) if _holds(held, wanted)})


def _holds(held, wanted):
    text = b"\n".join(_MAY_HOLD_ONE.findall(held.replace(_EMPTY, b"\0")))
    return any(piece in text for piece in wanted)


def _contents(place):
    if isinstance(place, Path):
        for path in sorted([place, *place.rglob("*")]):
            with suppress(FileNotFoundError):  # The process that is searched may remove its own.
                if path.is_file():
                    yield path.name, path.read_bytes()
    else:
        yield "what was said", place.encode() if isinstance(place, str) else place


def open_files(pid):
    """Each regular file that a process has open, also one without a name: what the system calls it, and its bytes."""
    found = {}
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if link.is_file():
                found[str(link.readlink())] = link.read_bytes()
    return found
