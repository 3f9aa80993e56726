"""For whom pairs are sealed: the public keys of `age` and of SSH that age takes.

A key is tried here, where it is read, since a run must not find out at its first pair that it cannot be sealed.
"""

from __future__ import annotations

import base64
import hashlib
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeAlias

    from pyrage import ssh, x25519

    Recipient: TypeAlias = x25519.Recipient | ssh.Recipient

_FORMS = 'a public key of age ("age1...") or of SSH ("ssh-ed25519 ..." or "ssh-rsa ...")'
_KEYS = re.compile(r"\bage1|\bssh-[a-z0-9]+ ", re.IGNORECASE)  # What follows an SSH key on its line is its comment.
_SHOWN = 16


def public_key(text: str) -> str:
    """The public key without its comment, written so that two texts of one key are equal. Raises ValueError as `recipient_of`."""
    if len(_KEYS.findall(text)) > 1:
        raise ValueError("it holds several keys: write a list, or in the environment one key a line")
    key = " ".join(text.split()[:2]) if text.startswith("ssh-") else text.lower()
    recipient_of(key)
    return key


def recipient_of(text: str) -> Recipient:
    """The recipient that a public key names. Raises ValueError with words that never hold the text, which may be a secret."""
    # Slow to import, and needed only where pairs are sealed.
    from pyrage import EncryptError, RecipientError, encrypt, ssh, x25519

    if not text:
        raise ValueError(f"it is empty: use {_FORMS}, or an empty list to leave pairs open")
    if "AGE-SECRET-KEY-" in text.upper() or "PRIVATE KEY" in text.upper():
        raise ValueError(f"it is a secret key, which belongs on another machine: use {_FORMS}")
    try:
        with panics_as_errors():
            recipient = ssh.Recipient.from_str(text) if text.startswith("ssh-") else x25519.Recipient.from_str(text)
            encrypt(b"", [recipient])  # So that a key that nothing can be sealed for is found before any pair comes.
            return recipient
    except (RecipientError, EncryptError, RuntimeError):
        raise ValueError(f"it is not {_FORMS}") from None


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """A context that raises RuntimeError if pyrage panics, since a panic is not an Exception."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(str(error)) from None


def key_fingerprint(text: str) -> str:
    """The beginning of the fingerprint of a public key: of an SSH key, the one that `ssh-keygen -l` shows."""
    key = base64.b64decode(text.split()[1]) if text.startswith("ssh-") else text.encode()
    mark = base64.b64encode(hashlib.sha256(key).digest()).decode()
    return f"SHA256:{mark[:_SHOWN]}"
