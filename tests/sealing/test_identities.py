"""What opens sealed pairs is read from a file or a descriptor, and nothing of it is ever shown."""

import base64
import os
from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from jobs.core.errors import UserError
from jobs.sealing.identities import read_identities
from tests.helpers.identities import AGE, ENCRYPTED, PASSPHRASE

BINARY = base64.b64decode("".join(ENCRYPTED.splitlines()[1:-1]))


@pytest.fixture(scope="module")
def keys():
    return {"ed25519": ed25519.Ed25519PrivateKey.generate(), "rsa": rsa.generate_private_key(65537, 2048)}


def written(tmp_path, data):
    file = tmp_path / "identity"
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return file


def never(what):
    pytest.fail(f"asked for the {what}")


def sealed_for(recipient):
    return pyrage.encrypt(b"pair", [recipient])


def opens(identities, recipient):
    return pyrage.decrypt(sealed_for(recipient), identities) == b"pair"


def private(key, passphrase=None):
    form = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, form)


def recipient(key):
    text = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return pyrage.ssh.Recipient.from_str(text)


def why_not(file, ask=never):
    with pytest.raises(UserError) as refused:
        read_identities(file, ask)
    assert len(str(refused.value).splitlines()) == 1
    assert refused.value.code == 2
    return str(refused.value)


def test_every_identity_of_a_file_opens(tmp_path):
    another = pyrage.x25519.Identity.generate()
    file = written(tmp_path, f"\ufeff# created: today\r\n# public key: age1...\r\n{AGE}\r\n\r\n  {another}\n")
    found = read_identities(file, never)
    assert all(opens(found, one) for one in (pyrage.x25519.Identity.from_str(AGE).to_public(), another.to_public()))


def test_an_identity_is_read_from_a_descriptor():
    reader, writer = os.pipe()
    os.write(writer, AGE.encode())
    os.close(writer)
    try:
        assert len(read_identities(Path(f"/dev/fd/{reader}"), never)) == 1
    finally:
        os.close(reader)


@pytest.mark.parametrize("data", [ENCRYPTED, BINARY], ids=["armored", "binary"])
def test_an_encrypted_identity_opens_with_its_passphrase(tmp_path, data):
    asked = []
    file = written(tmp_path, data)
    found = read_identities(file, lambda what: asked.append(what) or PASSPHRASE)
    assert opens(found, pyrage.x25519.Identity.from_str(AGE).to_public())
    assert asked == [f"passphrase of {file}"]


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE], ids=["plain", "with a passphrase"])
@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_a_private_key_of_ssh_opens(tmp_path, keys, kind, passphrase):
    file = written(tmp_path, private(keys[kind], passphrase))
    assert opens(read_identities(file, lambda _: passphrase or never(_)), recipient(keys[kind]))


def test_a_wrong_passphrase_is_told_as_such(tmp_path, keys):
    for data in (ENCRYPTED, private(keys["ed25519"], PASSPHRASE)):
        file = written(tmp_path, data)
        for wrong in ("wrong horse", ""):
            assert why_not(file, lambda _, wrong=wrong: wrong) == f"{file}: the passphrase is wrong: run this again"


WRONG = {
    "empty": ("", "holds no identity"),
    "only comments": ("# created: today\n", "holds no identity"),
    "a public key of age": (str(pyrage.x25519.Identity.from_str(AGE).to_public()), "line 1: holds a public key"),
    "a public key of SSH": ("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI me@here", "line 1: holds a public key"),
    "a plugin's": (f"{AGE}\nAGE-PLUGIN-YUBIKEY-1QQPQGQZNF9LNCCF", "line 2: holds an identity of a plugin"),
    "a newer kind": ("AGE-SECRET-KEY-PQ-1XZZMUV3J6NY4QE3XYTMASW8", "line 1: holds an identity of a kind"),
    "a damaged one": (f"# mine\n{AGE[:-1]}Q", "line 2: is damaged"),
    "another text": ("access_token,refresh_token\n", "line 1: is not an identity"),
    "bytes": (bytes(range(128, 256)), "line 1: is not an identity"),
    "huge": (b"#" * 2_000_000, "is too large for an identity"),
    "a torn key": (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n", "is not a private key that age can use"),
    "a key of another form": (b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIE", "`ssh-keygen -p -f FILE`"),
    "a torn encrypted file": (BINARY[:-9], "is encrypted, and damaged"),
    "a file for another identity": (sealed_for(pyrage.x25519.Identity.generate().to_public()), "for another identity"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_not_an_identity_is_refused_without_its_content(tmp_path, kind):
    data, says = WRONG[kind]
    why = why_not(written(tmp_path, data), lambda _: PASSPHRASE)
    assert says in why
    words = data.decode("latin-1").split() if isinstance(data, bytes) else data.split()
    assert not any(word in why for word in words if len(word) > 9)


def test_a_key_of_a_kind_that_age_does_not_know_is_refused(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    for passphrase in (None, PASSPHRASE):
        file = written(tmp_path, private(key, passphrase))
        assert "is not a private key that age can use" in why_not(file, lambda _: PASSPHRASE)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    assert why_not(tmp_path / "none").startswith(f"{tmp_path}/none: does not exist: give the file of an age identity")
    assert why_not(tmp_path).startswith(f"{tmp_path}: cannot be read (Is a directory)")
