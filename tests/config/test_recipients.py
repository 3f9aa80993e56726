"""For whom pairs are sealed: a key that cannot be used is refused at the start, and never shown."""

from __future__ import annotations

import json
import shutil
import subprocess

import pyrage
import pytest

from jobs.config.recipients import key_fingerprint
from jobs.config.settings import load_settings
from jobs.core.errors import UserError

NAME = "RECOVERY_SEAL__RECIPIENTS"
SECRET = str(pyrage.x25519.Identity.generate())
GOOD = "age1u9sx4dalgvrdanvdvrkalke5lr77feupnq46asslvtzpa4p695wss55vsz"
OTHER = "age18nw9yn2qszdxahnch0gs4u2rpjkgw9hv4rtrwfgqknddjadtzufqd6mg6a"
SSH = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAII3YOrZ2c/QnCgr48bRbgPvGRFweVczSaFJ4QCjKDReU"


@pytest.fixture
def loaded(tmp_path):
    """`loaded(text)` gives the recipients that the environment names by it, `loaded(toml=text)` those of a file."""

    def load(text=None, toml=""):
        file = tmp_path / "recovery.toml"
        file.write_text(f"[seal]\nrecipients = {toml}\n" if toml else "")
        return load_settings(file, {} if text is None else {NAME: text}, {}).seal.recipients

    return load


def refused(loaded, *values, **more):
    with pytest.raises(UserError) as error:
        loaded(*values, **more)
    (problem,) = error.value.problems
    return str(problem)


SECRETS = [
    SECRET,
    SECRET.lower(),
    "AGE-SECRET-KEY-1",
    "AGE-SECRET-KEY-PQ-1QQQQ",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
    "-----BEGIN RSA PRIVATE KEY-----\r\nMIIEowIBAAKCAQEA\r\n",
]


@pytest.mark.parametrize("secret", SECRETS, ids=range(len(SECRETS)))
def test_a_secret_key_given_as_a_recipient_is_refused_without_it_being_shown(loaded, secret):
    listed = [GOOD, secret, OTHER]
    said = {
        refused(loaded, secret): NAME,
        refused(loaded, json.dumps(listed)): f"{NAME}: has an invalid value (key 2: ",
        refused(loaded, toml=json.dumps(secret)): "recovery.toml, seal.recipients",
        refused(loaded, toml=json.dumps(listed)): "recovery.toml, seal.recipients: has an invalid value (key 2: ",
    }
    for line, begin in said.items():
        assert line.startswith(begin)
        assert "it is a secret key, which belongs on another machine" in line
        assert "\n" not in line
        assert not [word for word in secret.upper().split() if len(word) > 12 and word in line.upper()]


def test_a_secret_key_that_breaks_the_file_is_not_shown_either(loaded):
    assert SECRET not in refused(loaded, toml=SECRET)


UNUSABLE = [
    GOOD[:-1], GOOD[:30], GOOD + "q", "age1" + "q" * 58, f"# mine {GOOD}", f'"{GOOD}"', "null",
    SSH[:60], "ssh-", "ssh-ed25519", "ssh-rsa " + SSH.split()[1], "ssh-dss AAAAB3NzaC1kc3M=", "ssh-ed25519 " + "A" * 99_999,
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTY=", "sk-ssh-ed25519@openssh.com AAAA",
    "AGE-PLUGIN-YUBIKEY-1QQQ", "\ufeff" + GOOD, GOOD + "\0", "schlüssel", "1" * 5_000, "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQA=",
]  # fmt: skip


@pytest.mark.parametrize("key", UNUSABLE, ids=range(len(UNUSABLE)))
def test_a_key_that_cannot_be_used_is_refused_in_one_line_with_its_number(loaded, key):
    for line in (refused(loaded, key), refused(loaded, f"{GOOD}\n{key}\n"), refused(loaded, json.dumps([GOOD, key]))):
        assert line.startswith(f"{NAME}: has an invalid value (")
        assert "it is not a public key of age" in line
        assert ("key 2: " in line) == (line != refused(loaded, key))
        assert len(key) < 12 or key not in line
        assert len(line) < 300


@pytest.mark.parametrize("text", ["", " \n", '[""]', f"{json.dumps([GOOD, ''])}"])
def test_an_empty_key_is_refused_since_pairs_would_be_open_or_have_one_reader_less(loaded, text):
    for line in (refused(loaded, text), refused(loaded, toml=text if text.startswith("[") else json.dumps(text))):
        assert "it is empty: use a public key" in line


@pytest.mark.parametrize("value", ["5", "true", "{ a = 1 }", "[5]", f'["{GOOD}", 5]', "2026-11-26"])
def test_a_value_of_another_type_is_refused(loaded, value):
    said = "recovery.toml, seal.recipients: has an invalid value (it is neither a public key nor a list of public keys)"
    assert refused(loaded, toml=value).startswith(said)
    if value.startswith("["):
        assert "it begins like a JSON list of texts, but it is not one" in refused(loaded, value)


def test_nobody_is_named_by_an_empty_list_alone(loaded):
    assert loaded() == loaded("[]") == loaded(toml="[]") == ()
    assert loaded("[]", toml=json.dumps([GOOD])) == ()


def test_keys_are_a_list_or_one_a_line_and_each_counts_once(loaded):
    both = (GOOD, SSH)
    assert loaded(f"{GOOD}\n{SSH}\n") == loaded(f"\r\n{GOOD}\r\n\r\n  {SSH} \r\n") == both
    assert loaded(json.dumps(both)) == loaded(toml=json.dumps(both)) == both
    assert loaded(f"{GOOD}\n{GOOD.upper()}\n{GOOD}") == loaded(toml=json.dumps(GOOD)) == (GOOD,)
    assert loaded(f"{SSH} ops@example\n{SSH} backup of ops\n{SSH.replace(' ', '  ')}") == (SSH,)


def test_a_pair_may_be_sealed_for_fifty(loaded):
    keys = [str(pyrage.x25519.Identity.generate().to_public()) for _ in range(50)]
    assert loaded("\n".join(keys)) == tuple(keys)


@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="OpenSSH is not installed")
@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_the_fingerprint_of_an_ssh_key_is_the_one_that_ssh_keygen_shows(tmp_path, loaded, kind):
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "ops@example", "-f", tmp_path / "key"], check=True)
    shown = subprocess.run(["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], check=True, capture_output=True, text=True)
    (key,) = loaded((tmp_path / "key.pub").read_text())
    assert len(key_fingerprint(key)) == len("SHA256:") + 16
    assert shown.stdout.split()[1].startswith(key_fingerprint(key))
    assert "secret key" in refused(loaded, (tmp_path / "key").read_text())


@pytest.mark.parametrize("both", [f"{SSH} {GOOD}", f"{SSH} {SSH}", f"{GOOD} {OTHER}", f"{GOOD},{OTHER}"])
def test_two_keys_on_one_line_are_refused_since_the_second_would_be_a_comment(loaded, both):
    assert "it holds several keys: write a list, or in the environment one key a line" in refused(loaded, both)
