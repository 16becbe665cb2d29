"""The certificate database through its public face: entries, trust, keys, assignments, passwords."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from mailsec.errors import KeyUnavailable, PrivateKeyError, StoreError, UsageError, WrongPassphrase
from mailsec.model.address import Address
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from tests.store.backends import sqlite_only

ALICE = Address.parse("alice@example.org")


def test_a_certificate_that_was_added_is_found_with_its_key(db, issue, at):
    alice = issue("Alice@Example.org")
    entry = db.add(alice.der, "alice", private_key=alice.key, at=at)
    assert entry.verified and entry.has_key and entry.addresses == ("alice@example.org",)
    assert [found.id for found in db.find("alice")] == [entry.id]
    assert [found.id for found in db.for_address(ALICE, at=at)] == [entry.id]
    assert [found.id for found in db.assigned_to(ALICE, "sign", at=at)] == [entry.id]
    assert db.private_key(entry) == alice.key
    assert db.check() == ()


def test_the_same_certificate_twice_is_one_entry(db, issue, at):
    alice = issue("alice@example.org")
    first = db.add(alice.der, "alice", at=at)
    second = db.add(alice.der, "another name", private_key=alice.key, trust=TrustFlags.parse(",P,"), at=at)
    assert (first.id, first.has_key) == (second.id, False)
    assert second.nickname == "alice" and second.has_key and second.trust.email_peer
    assert len(db.entries()) == 1


def test_everything_is_there_after_opening_again(db, path, issue, at):
    alice = issue("alice@example.org")
    db.add(alice.der, "alice", private_key=alice.key, at=at)
    db.add_user("alice@example.org", b"secret", at=at, iterations=4096)
    with CertDb.open(path, password=b"opensesame") as again:
        assert again.private_key(again.find("alice")[0]) == alice.key
        assert again.check_password("alice@example.org", b"secret") is not None
        assert again.check() == ()


def test_a_worker_opens_with_the_data_key(db, path, issue, at):
    alice = issue("alice@example.org")
    db.add(alice.der, "alice", private_key=alice.key, at=at)
    with CertDb.open(path, data_key=db.data_key) as worker:
        assert worker.private_key(worker.find("alice")[0]) == alice.key


def test_a_wrong_passphrase_opens_nothing(db, path):
    for wrong in (b"", b"opensesame ", b"x"):
        with pytest.raises(WrongPassphrase):
            CertDb.open(path, password=wrong)


def test_a_wrong_data_key_opens_nothing(db, path):
    with pytest.raises(StoreError):
        CertDb.open(path, data_key=bytes(32))


def test_without_a_passphrase_everything_is_shown_and_nothing_is_verified(db, path, ca, issue, at):
    alice = issue("alice@example.org")
    db.add(alice.der, "alice", private_key=alice.key, at=at)
    db.add(ca.der, "CA", trust=TrustFlags.parse("C,C,"), domains=("*",), at=at)
    db.add_user("alice@example.org", b"secret", at=at, iterations=4096)
    with CertDb.open(path) as locked:
        assert not locked.unlocked
        assert [(entry.nickname, entry.verified) for entry in locked.entries()] == [("CA", False), ("alice", False)]
        assert [user.verified for user in locked.users()] == [False]
        assert locked.for_address(ALICE, at=at) == [] and locked.assigned_to(ALICE, at=at) == []
        for ask in (
            lambda: locked.anchors("email"),
            lambda: locked.private_key(locked.find("alice")[0]),
            lambda: locked.check_password("alice@example.org", b"secret"),
            lambda: locked.set_trust("alice", TrustFlags()),
            lambda: locked.data_key,
        ):
            with pytest.raises(WrongPassphrase):
                ask()


def test_a_new_password_replaces_the_old_one_and_rewrites_only_the_wrapping(db, path, issue, at):
    alice = issue("alice@example.org")
    db.add(alice.der, "alice", private_key=alice.key, at=at)
    key = db.data_key
    db.change_password(b"new", cost=2**10)
    with pytest.raises(WrongPassphrase):
        CertDb.open(path, password=b"opensesame")
    with CertDb.open(path, password=b"new") as again:
        assert again.data_key == key and again.private_key(again.find("alice")[0]) == alice.key


def test_an_empty_password_needs_no_asking(path, at):
    with CertDb.create(path, b"", at=at) as db:
        assert not db.has_password
    with CertDb.open(path) as db:
        assert db.unlocked
        db.change_password(b"now there is one", cost=2**10)
        assert db.has_password
    with CertDb.open(path) as db:
        assert not db.unlocked


def test_anchors_are_what_the_letters_say(db, ca, issue, at):
    db.add(ca.der, "CA", trust=TrustFlags.parse("C,C,"), domains=("Example.ORG",), at=at)
    assert [(anchor.der, anchor.domains, anchor.purposes) for anchor in db.anchors("email")] == [
        (ca.der, ("example.org",), ("email", "tls-server"))
    ]
    assert db.anchors("tls-client") == ()
    db.set_trust("CA", TrustFlags.parse("T,p,"))
    assert db.anchors("email") == () and len(db.anchors("tls-client")) == 1
    assert db.distrusted("email") == (ca.der,) and db.distrusted("tls-server") == ()


def test_an_anchor_for_mail_names_its_domains(db, ca, at):
    with pytest.raises(UsageError, match="domains"):
        db.add(ca.der, "CA", trust=TrustFlags.parse(",C,"), at=at)
    db.add(ca.der, "CA", at=at)
    with pytest.raises(UsageError, match="domains"):
        db.set_trust("CA", TrustFlags.parse(",C,"))
    with pytest.raises(UsageError):
        db.set_trust("CA", TrustFlags.parse(",C,"), domains=["not a domain"])


def test_of_one_name_the_newest_valid_one_of_ours_comes_first(db, issue, at):
    old = issue("alice@example.org", at=at - timedelta(days=400), key="old")
    current = issue("alice@example.org", at=at - timedelta(days=10), key="current")
    newer_without_key = issue("alice@example.org", at=at - timedelta(days=5), key="not ours")
    future = issue("alice@example.org", at=at + timedelta(days=30), key="future")
    for issued in (old, current, future):
        db.add(issued.der, "alice", private_key=issued.key, at=at)
    db.add(newer_without_key.der, "alice", at=at)
    assert [entry.der for entry in db.find("alice", at=at)][:2] == [current.der, newer_without_key.der]
    assert [entry.der for entry in db.assigned_to(ALICE, "sign", at=at)] == [current.der, future.der, old.der]


def test_a_nickname_of_another_subject_is_refused(db, issue, at):
    db.add(issue("alice@example.org").der, "Server-Cert", at=at)
    with pytest.raises(UsageError, match="another subject"):
        db.add(issue("mallory@example.net").der, "Server-Cert", at=at)
    db.add(issue("mallory@example.net").der, "mallory", at=at)
    with pytest.raises(UsageError, match="another subject"):
        db.rename("mallory", "Server-Cert")
    assert {entry.nickname for entry in db.entries()} == {"Server-Cert", "mallory"}


def test_assignments_replace_whom_the_certificate_names(db, issue, at):
    alice = issue("alice@example.org")
    db.add(alice.der, "alice", private_key=alice.key, at=at)
    db.assign("alice", ["@Example.ORG"])
    entry = db.find("alice")[0]
    assert entry.assigned == ("@example.org",)
    assert [found.id for found in db.assigned_to(Address.parse("bob@example.org"), "sign", at=at)] == [entry.id]
    db.assign("alice", ["bob@example.org"])
    assert db.assigned_to(ALICE, "sign", at=at) == []
    db.assign("alice", [])
    assert [found.id for found in db.assigned_to(ALICE, "sign", at=at)] == [entry.id]
    with pytest.raises(UsageError):
        db.assign("alice", ["nobody"])


def test_a_key_of_another_certificate_is_refused(db, issue, at):
    with pytest.raises(PrivateKeyError, match="does not belong"):
        db.add(issue("alice@example.org").der, "alice", private_key=issue("bob@example.org").key, at=at)
    with pytest.raises(PrivateKeyError):
        db.add(issue("alice@example.org").der, "alice", private_key=b"\x30\x03\x02\x01\x01", at=at)
    assert db.entries() == []


def test_renewed_with_the_same_key_both_have_it_until_the_last_goes(db, issue, at):
    first, second = issue("alice@example.org"), issue("alice@example.org", at=at + timedelta(days=1))
    one = db.add(first.der, "alice", private_key=first.key, at=at)
    two = db.add(second.der, "alice", at=at)
    assert two.has_key
    assert db.delete(one) is False
    assert db.private_key(db.find("alice")[0]) == first.key
    assert db.delete(two) is True
    assert db.entries() == [] and db.check() == ()


def test_rename_and_unknown_names(db, issue, at):
    db.add(issue("alice@example.org").der, "alice", at=at)
    db.rename("alice", "Alice Example")
    assert db.find("alice") == [] and len(db.find("Alice Example")) == 1
    for act in (lambda: db.rename("alice", "x"), lambda: db.set_trust("alice", TrustFlags()), lambda: db.assign("alice", [])):
        with pytest.raises(KeyUnavailable):
            act()


def test_changes_are_counted_for_others(db, path, issue, at):
    with CertDb.open(path, password=b"opensesame") as other:
        before = other.changes()
        db.add(issue("alice@example.org").der, "alice", at=at)
        assert other.changes() == before + 1
        assert len(other.entries()) == 1 and other.entries()[0].verified


def test_writers_at_once_keep_the_sums_right(db, path, at):
    def write(number: int) -> None:
        with CertDb.open(path, data_key=db.data_key, busy_timeout=30) as mine:
            for count in range(5):
                mine.add_user(f"user{number}-{count}@example.org", b"secret", at=at, iterations=4096)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(db.users()) == 20 and all(user.verified for user in db.users()) and db.check() == ()


def test_a_change_that_fails_leaves_nothing(db, issue, at):
    before = db.changes()
    with pytest.raises(RuntimeError), db.writing() as changes:
        changes.insert("partner_settings", {"partner": "@example.net", "name": "encrypt", "value": "required"})
        raise RuntimeError
    assert db.changes() == before and db.check() == ()


@sqlite_only
def test_the_file_is_for_its_owner_only(db, path, tmp_path):
    files = list(tmp_path.iterdir())
    assert files and all(file.stat().st_mode & 0o777 == 0o600 for file in files)


def test_nothing_is_overwritten(db, path, at):
    with pytest.raises(StoreError, match="exists already"):
        CertDb.create(path, b"", at=at)


def test_migrations_make_exactly_the_tables_of_the_schema(db):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    from mailsec.store.schema import AUTHENTICATED, metadata

    with db.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    for table, columns in AUTHENTICATED.values():
        assert {*columns, "mac"} == set(table.columns.keys())


@pytest.mark.parametrize(
    "url", ["", "nss:/tmp/x", "postgresql://user:secret@host/db", "mysql://x/y", "sqlite://", "sqlite:///:memory:", "x://y", "a\0b"]
)
def test_an_odd_url_is_a_usage_error_that_repeats_no_secret(url, at):
    with pytest.raises(UsageError) as caught:
        CertDb.open(url)
    assert "secret" not in str(caught.value) + caught.value.hint


def test_no_secret_is_shown(db, issue, at):
    assert "opensesame" not in repr(db) and db.data_key.hex() not in repr(db.__dict__)
    assert repr(db._key) == "DataKey(...)"


def test_authorities_help_to_build_paths_whatever_trust_they_have_unless_it_is_distrust(db, ca, issue, at):
    db.add(issue("alice@example.org").der, "alice", at=at)
    db.add(ca.der, "CA", at=at)
    assert db.authorities() == (ca.der,) and db.anchors("email") == ()
    db.set_trust("CA", TrustFlags.parse(",p,"))
    assert db.authorities() == ()
