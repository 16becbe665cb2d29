"""Databases and certificates that the tests of the store share. Keys are made once per process: they are the slow part."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import pytest

from mailsec.model.address import Address
from mailsec.store.certdb import CertDb
from mailsec.store.connection import make_engine, parse_url
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


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request) -> str:
    """Every test that uses a database runs on both; one that is about SQLite's file is marked `backends.sqlite_only`."""
    return request.param


@pytest.fixture
def path(tmp_path, backend, request) -> str:
    """Where a new database may be: a path, or the URL of an empty one."""
    tmp_path.chmod(0o700)
    return str(tmp_path / "mailsec.db") if backend == "sqlite" else request.getfixturevalue("postgres").new()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Path:
    """An empty database: a copy of it costs less than the migrations."""
    directory = tmp_path_factory.mktemp("empty")
    directory.chmod(0o700)
    with CertDb.create(str(directory / "x.db"), b"opensesame", at=AT, cost=CHEAP) as database:
        database.change_password(b"opensesame", cost=CHEAP)  # which empties the write-ahead log
    return directory / "x.db"


@pytest.fixture(scope="session")
def empty_template(postgres) -> str:
    """The same on PostgreSQL: a template."""
    postgres.sql("CREATE DATABASE empty")
    CertDb.create(postgres.url("empty"), b"opensesame", at=AT, cost=CHEAP).close()
    return "empty"


@pytest.fixture
def db(path: str, backend: str, request):
    if backend == "sqlite":
        shutil.copy(request.getfixturevalue("empty_database"), path)
    else:
        name, postgres = parse_url(path).database, request.getfixturevalue("postgres")
        template = request.getfixturevalue("empty_template")
        postgres.sql(f"DROP DATABASE {name}")
        postgres.sql(f"CREATE DATABASE {name} TEMPLATE {template}")
    with CertDb.open(path, password=b"opensesame") as database:
        yield database


@pytest.fixture
def attack(path: str, backend: str):
    """attack(sql, …): what somebody who can write the database does to it, with SQL as SQLite writes it."""

    def on_file(*statements: str, **values: object) -> None:
        connection = sqlite3.connect(path, isolation_level=None)
        for statement in statements:
            connection.execute(statement, values)
        connection.close()

    def on_server(*statements: str, **values: object) -> None:
        engine = make_engine(parse_url(path))
        with engine.connect().execution_options(mailsec_write=True) as connection, connection.begin():
            connection.exec_driver_sql("SET session_replication_role = replica")  # no foreign keys are checked
            for statement in statements:
                octets = re.sub(r"x'([0-9a-f]*)'", r"'\\\\x\1'::bytea", statement)
                named = re.sub(r"(?<!:):(\w+)", r"%(\1)s", octets.replace("%", "%%"))
                connection.exec_driver_sql(named, values)
        engine.dispose()

    return on_file if backend == "sqlite" else on_server
