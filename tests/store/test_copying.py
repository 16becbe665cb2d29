"""Backups of a database in use, put in place again, from SQLite to PostgreSQL and back."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from mailsec.errors import SchemaError, StoreError, Tampered
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.copying import copy_database
from mailsec.store.evidence import EvidenceStore, KeptEvidence
from mailsec.store.issued import IssuedStore
from tests.store.backends import sqlite_only


@pytest.fixture
def filled(db, ca, issue, at):
    alice = issue("alice@example.org")
    db.add(ca.der, "CA", trust=TrustFlags.parse("C,C,"), domains=("example.org",), at=at)
    db.add(alice.der, "alice", private_key=alice.key, assigned=["@example.org"], at=at)
    db.add_user("alice@example.org", b"secret", at=at, iterations=4096)
    IssuedStore(db).record(ca.der, alice.der, at=at)
    EvidenceStore(db).keep([KeptEvidence("ocsp", b"x" * 32, b"octets", "here", at, at + timedelta(days=1))])
    return db


def holds_everything(path: str, issue, ca, at) -> None:
    alice = issue("alice@example.org")
    with CertDb.open(path, password=b"opensesame") as copy:
        assert copy.check() == ()
        entry = copy.find("alice")[0]
        assert entry.verified and copy.private_key(entry) == alice.key and entry.assigned == ("@example.org",)
        assert [anchor.domains for anchor in copy.anchors("email")] == [("example.org",)]
        assert copy.check_password("alice@example.org", b"secret") is not None
        assert len(IssuedStore(copy).issued(ca.der)) == 1
        # And it goes on: ids and sums are right, of numbered tables, too.
        copy.add(issue("bob@example.org").der, "bob", at=at)
        EvidenceStore(copy).keep([KeptEvidence("ocsp", b"y" * 32, b"octets", "here", at, at + timedelta(days=1))])
        assert copy.check() == ()


def test_a_backup_is_a_whole_database_of_one_moment(filled, tmp_path, issue, ca, at):
    backup = tmp_path / "backup.db"
    copy_database(filled, str(backup))
    assert backup.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir() if "backup" in path.name) == ["backup.db"]
    holds_everything(str(backup), issue, ca, at)


def test_a_backup_made_while_others_write_is_of_one_moment(filled, path, tmp_path, at):
    stop = threading.Event()

    def write() -> None:
        with CertDb.open(path, data_key=filled.data_key, busy_timeout=60) as mine:
            number = 0
            while not stop.is_set():
                number += 1
                mine.add_user(f"user{number}@example.org", b"secret", at=at, iterations=1)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(3):
            copy_database(filled, str(tmp_path / f"backup{number}.db"))
    finally:
        stop.set()
        writer.join()
    for number in range(3):
        with CertDb.open(str(tmp_path / f"backup{number}.db"), password=b"opensesame") as copy:
            assert copy.check() == ()


def test_from_one_kind_of_database_to_the_other(filled, backend, tmp_path, postgres, issue, ca, at):
    other = postgres.new() if backend == "sqlite" else str(tmp_path / "other.db")
    copy_database(filled, other)
    holds_everything(other, issue, ca, at)


def test_a_backup_needs_no_password_and_keeps_that_of_its_day(filled, path, tmp_path):
    with CertDb.open(path) as locked:
        copy_database(locked, str(tmp_path / "backup.db"))
    filled.change_password(b"new", cost=2**10)
    with CertDb.open(str(tmp_path / "backup.db"), password=b"opensesame") as copy:
        assert copy.check() == ()


def test_what_is_there_is_put_aside_only_when_the_copy_is_whole(filled, path, backend, tmp_path, issue, ca, at):
    backup = str(tmp_path / "backup.db")
    copy_database(filled, backup)
    filled.remove_user("alice@example.org")
    with CertDb.open(backup) as copy:
        with pytest.raises(StoreError, match="exists already"):
            copy_database(copy, path)
        assert list(filled.users()) == []
        filled.close()
        aside = copy_database(copy, path, replace_at=at)
    holds_everything(path, issue, ca, at)
    if backend == "sqlite":
        assert aside == Path(path + ".replaced-20260501T120000")
        with CertDb.open(str(aside), password=b"opensesame") as old:
            assert old.check() == () and list(old.users()) == []


@sqlite_only
def test_a_running_process_refuses_the_old_state_that_was_put_in_its_place(filled, path, tmp_path, at):
    copy_database(filled, str(tmp_path / "backup.db"))
    filled.remove_user("alice@example.org")
    with CertDb.open(str(tmp_path / "backup.db")) as copy:
        copy_database(copy, path, replace_at=at)
    filled._engine.dispose()  # its next connection finds the other file
    with pytest.raises(Tampered, match="back in time"):
        filled.add_user("b@example.org", b"secret", iterations=4096)


@sqlite_only
def test_a_copy_that_fails_leaves_nothing(filled, tmp_path, monkeypatch):
    def fails(done: int, words: str) -> None:
        raise RuntimeError

    before = sorted(tmp_path.iterdir())
    with pytest.raises(RuntimeError):
        copy_database(filled, str(tmp_path / "backup.db"), show=fails)
    assert sorted(tmp_path.iterdir()) == before


def test_a_newer_schema_is_not_copied_by_halves(filled, tmp_path):
    with filled.writing() as changes:
        changes.connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0003'")
    with pytest.raises(SchemaError, match="has schema 3"):
        copy_database(filled, str(tmp_path / "backup.db"))
    assert not (tmp_path / "backup.db").exists()
