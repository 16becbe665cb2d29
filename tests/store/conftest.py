"""Databases and certificates that the tests of the store share. Keys are made once per process: they are the slow part."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import pytest

from mailsec.model.address import Address
from mailsec.store.certdb import CertDb
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

AT = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
CHEAP = 2**10


@dataclass(frozen=True)
class Issued:
    der: bytes
    key: bytes


@lru_cache
def _key(name: str) -> bytes:
    return make_key("ec-p256")


@pytest.fixture(scope="session")
def at() -> datetime:
    return AT


@pytest.fixture(scope="session")
def ca() -> Issued:
    return Issued(make_ca(common_name="Test CA", key=_key("ca"), at=AT, random=os.urandom), _key("ca"))


@pytest.fixture(scope="session")
def issue(ca: Issued) -> Callable[..., Issued]:
    """issue("alice@example.org", …): an S/MIME certificate and its key."""

    def issued(*addresses: str, at: datetime = AT, name: str = "", key: str = "", days: int = 300) -> Issued:
        private = _key(key or addresses[0])
        parsed = [Address.parse(address) for address in addresses]
        by = IssuedBy(ca.der, ca.key)
        der = issue_mail(by, addresses=parsed, public_key=public_key_of(private), at=at, random=os.urandom, common_name=name, days=days)
        return Issued(der, private)

    return issued


@pytest.fixture
def path(tmp_path) -> str:
    tmp_path.chmod(0o700)
    return str(tmp_path / "mailsec.db")


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """An empty database: a copy of it costs less than the migrations."""
    directory = tmp_path_factory.mktemp("empty")
    directory.chmod(0o700)
    with CertDb.create(str(directory / "x.db"), b"opensesame", at=AT, cost=CHEAP) as database:
        database.change_password(b"opensesame", cost=CHEAP)  # which empties the write-ahead log
    return directory / "x.db"


@pytest.fixture
def db(path: str, empty_database: Path):
    shutil.copy(empty_database, path)
    with CertDb.open(path, password=b"opensesame") as database:
        yield database
