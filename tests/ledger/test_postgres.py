"""Which addresses of a database are taken, and how it is connected to."""

from __future__ import annotations

import pytest

from jobs.core.errors import UserError
from jobs.core.secret import Secret
from jobs.ledger.postgres import check_url

REMOTE = "[prod]\nhost=db.example.com\nsslmode=disable\n"


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A service file of libpq that names a remote host."""
    (tmp_path / "services").write_text(REMOTE)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGSSLMODE", "require")


def test_a_host_from_a_service_file_needs_encryption_in_the_address_itself(service, monkeypatch):
    with pytest.raises(UserError, match="from a service file, so it may send live tokens unencrypted"):
        check_url(Secret("postgresql:///?service=prod"))
    check_url(Secret("postgresql:///?service=prod&sslmode=require"))
    monkeypatch.setenv("PGSERVICE", "prod")
    with pytest.raises(UserError, match="would send live tokens unencrypted over the network"):
        check_url(Secret("postgresql:///"))
