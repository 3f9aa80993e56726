"""Reads identities, which open sealed pairs: those of age, and private keys of SSH. A passphrase is asked for if one is needed.

No error holds anything of what was read.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pyrage
from pyrage import ssh, x25519

from jobs.core.errors import UserError, refuse
from jobs.core.file_errors import what_to_do
from jobs.core.model import ARMOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from jobs.sealing.opener import Identity

_LARGEST = 1 << 20
_ENCRYPTED = (b"age-encryption.org/v1", ARMOR.encode())
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
_NEEDED = "give the file of an age identity (`age-keygen -o FILE`), or of an ed25519 or RSA private key of OpenSSH"
# What a line may begin with, in the order in which it is looked for, and why it cannot be used.
_OTHER_LINES = {
    "AGE-SECRET-KEY-1": "is damaged",
    "AGE-SECRET-KEY-": "holds an identity of a kind that this job does not know",
    "AGE-PLUGIN-": "holds an identity of a plugin (such as a hardware key), which this job does not use",
    "AGE1": "holds a public key, which opens nothing",
    "SSH-": "holds a public key, which opens nothing",
}


def read_identities(file: Path, ask: Callable[[str], str]) -> list[Identity]:
    """The identities in a file or a descriptor, at least one. `ask` gives the passphrase for what is asked about.

    Raises UserError.
    """
    data = _content(file)
    if data.startswith(_ENCRYPTED):
        data = _decrypted(file, data, ask)
    if _PRIVATE_KEY.match(data):
        return [_of_ssh(file, data, ask)]
    found: list[Identity] = [*_of_age(file, data)]
    if not found:
        raise refuse("holds no identity", str(file), _NEEDED)
    return found


def _content(file: Path) -> bytes:
    """All that it holds, without space before it."""
    try:
        with file.open("rb") as opened:
            data = opened.read(_LARGEST + 1)
    except FileNotFoundError:
        raise refuse("does not exist", str(file), _NEEDED) from None
    except OSError as error:
        todo = what_to_do(error, "check its path and rights")
        raise refuse(f"cannot be read ({error.strerror})", str(file), todo) from None
    if len(data) > _LARGEST:
        raise refuse("is too large for an identity", str(file), _NEEDED)
    return data.removeprefix(b"\xef\xbb\xbf").lstrip()


def _decrypted(file: Path, data: bytes, ask: Callable[[str], str]) -> bytes:
    """What a file holds that age encrypted with a passphrase."""
    try:
        return pyrage.passphrase.decrypt(data, ask(f"passphrase of {file}")).lstrip()
    except pyrage.DecryptError as error:
        match str(error):
            case "Decryption failed":
                raise _wrong_passphrase(file) from None
            case "No matching keys found":
                todo = "decrypt it with that identity, and give what comes out by a descriptor"
                raise refuse("is encrypted for another identity, not with a passphrase", str(file), todo) from None
        raise refuse("is encrypted, and damaged or cut short", str(file), "use a copy of it that is whole") from None


def _wrong_passphrase(file: Path) -> UserError:
    return refuse("the passphrase is wrong", str(file), "run this again")


def _of_age(file: Path, data: bytes) -> Iterator[x25519.Identity]:
    """The identities of age in a text, one a line."""
    for number, text in enumerate(data.decode("ascii", "replace").splitlines(), start=1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        try:
            yield x25519.Identity.from_str(line)
        except pyrage.IdentityError:
            kinds = (why for begins, why in _OTHER_LINES.items() if line.upper().startswith(begins))
            raise refuse(next(kinds, "is not an identity"), f"{file}, line {number}", _NEEDED) from None


def _of_ssh(file: Path, data: bytes, ask: Callable[[str], str]) -> ssh.Identity:
    """The identity that a private key of SSH is."""
    try:
        return ssh.Identity.from_buffer(data)
    except pyrage.IdentityError as error:
        if str(error) != "ssh key must be decrypted first":
            raise _no_key_for_age(file) from None
    plain = _without_passphrase(file, data, ask(f"passphrase of {file}"))
    try:
        return ssh.Identity.from_buffer(plain)
    except pyrage.IdentityError:
        raise _no_key_for_age(file) from None


def _without_passphrase(file: Path, data: bytes, passphrase: str) -> bytes:
    """A private key of OpenSSH as it would be without its passphrase."""
    # Slow to import, and needed only for such a key.
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization as form

    try:
        key = form.load_ssh_private_key(data, passphrase.encode())
    except (ValueError, TypeError):  # TypeError: it is empty.
        raise _wrong_passphrase(file) from None
    except UnsupportedAlgorithm:
        raise _no_key_for_age(file) from None
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())


def _no_key_for_age(file: Path) -> UserError:
    what = "is not a private key that age can use, or it is damaged"
    todo = f"{_NEEDED} (`ssh-keygen -p -f FILE` writes the form of OpenSSH)"
    return refuse(what, str(file), todo)
