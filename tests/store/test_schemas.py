"""Databases of another schema: N serves code N-1, older ones are upgraded, newer ones refused with the command to run."""

from __future__ import annotations

import pytest

from mailsec.errors import SchemaError
from mailsec.model.trust import TrustFlags
from mailsec.store import database as database_module
from mailsec.store import ledger as ledger_module
from mailsec.store.certdb import CertDb
from mailsec.store.issued import IssuedStore
from mailsec.store.schema import AUTHENTICATED


@pytest.mark.parametrize(
    ("version", "hint"), [("0000", "db upgrade"), ("0004", "install the newer mailsec that wrote it"), ("evil", "db upgrade")]
)
def test_a_schema_of_another_time_is_refused(db, path, version, hint):
    with db.writing() as changes:
        changes.connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{version}'")
    with pytest.raises(SchemaError) as caught:
        CertDb.open(path, password=b"opensesame")
    assert hint in caught.value.hint


def test_the_next_schema_serves_this_code(db, path):
    with db.writing() as changes:
        changes.connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0003'")
        changes.connection.exec_driver_sql("ALTER TABLE users ADD COLUMN comment TEXT DEFAULT ''")
    with CertDb.open(path, password=b"opensesame") as again:
        again.add_user("a@example.org", b"secret", iterations=4096)
        assert [user.verified for user in again.users()] == [True] and again.check() == ()


@pytest.fixture
def code_of_schema_1(monkeypatch):
    """Lets what follows run as code of schema 1 would: it does not know the table `issued`. Returns what ends that."""

    def begin() -> None:
        known = {name: table for name, table in AUTHENTICATED.items() if name != "issued"}
        monkeypatch.setattr(database_module, "SCHEMA", 1)
        for module in (database_module, ledger_module):
            monkeypatch.setattr(module, "AUTHENTICATED", known)

    begin()
    return monkeypatch.undo


def test_code_of_schema_1_works_on_schema_2_and_keeps_what_it_does_not_know(db, path, issue, ca, at, request):
    alice = issue("alice@example.org")
    IssuedStore(db).record(ca.der, alice.der, at=at)
    back = request.getfixturevalue("code_of_schema_1")
    with CertDb.open(path, password=b"opensesame") as old:
        old.add(alice.der, "alice", private_key=alice.key, at=at)
        old.set_trust("alice", TrustFlags.parse(",P,"))
        assert old.check() == () and old.find("alice")[0].verified
    back()
    with CertDb.open(path, password=b"opensesame") as new:
        assert new.check() == () and new.find("alice")[0].trust.email_peer
        assert [one.der for one in IssuedStore(new).issued(ca.der)] == [alice.der]


def test_a_database_of_schema_1_is_refused_with_the_command_and_upgraded_by_it(db, path, issue, ca, at):
    alice = issue("alice@example.org")
    db.add(alice.der, "alice", private_key=alice.key, at=at)
    with db.writing() as changes:
        changes.connection.exec_driver_sql("DROP TABLE issued")
        changes.connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    db.close()
    with pytest.raises(SchemaError, match="has schema 1, this mailsec needs 2") as caught:
        CertDb.open(path, password=b"opensesame")
    assert f"mailsec db upgrade -d {path}" in caught.value.hint
    CertDb.upgrade(path)
    CertDb.upgrade(path)  # once more does nothing
    with CertDb.open(path, password=b"opensesame") as again:
        assert again.check() == () and again.private_key(again.find("alice")[0]) == alice.key
        IssuedStore(again).record(ca.der, alice.der, at=at)
        assert again.check() == ()
