"""Seal keys: one for all workers, another one after three months, none from a table that somebody wrote in."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, text

from mailsec.app.seal_keys import DatabaseSealKeys
from mailsec.errors import Tampered
from mailsec.store.certdb import CertDb
from mailsec.store.seal_keys import BELIEVED_FOR, SEALS_FOR, SealKeyStore
from mailsec.testing.runtime import EPOCH, FakeRuntime

AT = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(tmp_path):
    with CertDb.create(str(tmp_path / "db"), b"", at=AT) as made:
        yield made


def test_workers_share_one_key(database, tmp_path):
    first = SealKeyStore(database).current(AT)
    with CertDb.open(str(tmp_path / "db"), data_key=database.data_key) as other:
        assert SealKeyStore(other).current(AT + timedelta(days=1)) == first
    assert len(first.id) == 16 and len(first.secret) == 32 and first.retires_at == AT + BELIEVED_FOR
    assert database.check() == ()


def test_another_key_is_made_after_three_months_and_the_old_one_is_known(database):
    store = SealKeyStore(database)
    first, second = store.current(AT), store.current(AT + SEALS_FOR)
    assert first.id != second.id and first.secret != second.secret
    assert store.keys() == (second, first)


def test_no_key_that_somebody_edited_and_none_from_a_table_with_missing_rows(database, tmp_path):
    store = SealKeyStore(database)
    first = store.current(AT)
    engine = create_engine(f"sqlite:///{tmp_path / 'db'}")
    with engine.begin() as connection:
        # Attack: a retired key that is believed for another hundred years.
        connection.execute(text("UPDATE seal_keys SET retires_at = 9999999999"))
    with CertDb.open(str(tmp_path / "db"), data_key=database.data_key) as again:
        assert SealKeyStore(again).keys() == ()
        assert SealKeyStore(again).current(AT).id != first.id
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM seal_keys WHERE retires_at = 9999999999"))
    with pytest.raises(Tampered), CertDb.open(str(tmp_path / "db"), data_key=database.data_key) as again:
        SealKeyStore(again).keys()


def test_secret_is_nowhere_in_the_file(database, tmp_path):
    key = SealKeyStore(database).current(AT)
    database.close()
    assert not any(key.secret in path.read_bytes() for path in tmp_path.iterdir())


def test_the_database_is_asked_rarely(database):
    asked = []

    class Counting(SealKeyStore):
        def keys(self):
            asked.append(1)
            return super().keys()

    runtime = FakeRuntime(EPOCH)
    keys = DatabaseSealKeys(Counting(database), runtime)
    key = runtime.run(keys.current())
    known = len(asked)
    for _ in range(100):
        assert runtime.run(keys.find(key.id)) == key and runtime.run(keys.current()) == key
        # Attack: seals of strangers, each with another key.
        assert runtime.run(keys.find(os.urandom(8).hex())) is None
    assert len(asked) == known
    runtime.advance(10)
    assert runtime.run(keys.find("0" * 16)) is None
    assert len(asked) == known + 1
