"""What another database knows is taken over, and what is here stays as it is."""

from __future__ import annotations

import hashlib
import sqlite3
from datetime import timedelta

import pytest

from mailsec.model.address import Address
from mailsec.model.trust import CertificateEntry, TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.issued import IssuedStore
from mailsec.store.learnt import Learnt
from mailsec.store.merging import merge
from mailsec.store.partners import Partners


@pytest.fixture
def other(tmp_path, at):
    with CertDb.create(str(tmp_path / "other.db"), b"", at=at) as database:
        yield database


def test_certificates_keys_users_settings_and_registers_are_taken_over(db, other, ca, issue, at):
    alice = issue("alice@example.org")
    other.add(ca.der, "CA", trust=TrustFlags.parse("C,C,"), domains=("example.org",), private_key=ca.key, at=at)
    other.add(alice.der, "alice", private_key=alice.key, assigned=["@example.org"], at=at)
    lone = issue("lone@example.org").key
    other.add_key(lone, at=at)
    other.add_user("alice@example.org", b"secret", at=at, iterations=4096)
    Partners(other).set("@example.net", {"encrypt": "required"})
    IssuedStore(other).record(ca.der, alice.der, at=at)
    blocked = other.add(issue("bad@example.org").der, "bad", at=at)
    Learnt(other).decide(hashlib.sha256(blocked.der).hexdigest(), "block")
    merged = merge(db, other, at=at + timedelta(days=1))
    assert (merged.added, merged.keys, merged.users, merged.partners, merged.issued) == (3, 3, 1, 1, 1)
    assert not (merged.unverified or merged.renamed or merged.differing or merged.problems)
    assert db.check() == () and db.private_key(db.find("alice")[0]) == alice.key
    assert [anchor.domains for anchor in db.anchors("email")] == [("example.org",)]
    assert db.find("alice")[0].assigned == ("@example.org",)
    assert db.check_password("alice@example.org", b"secret") is not None
    assert Partners(db).settings(Address.parse("bob@example.net")).encrypt == "required"
    assert blocked.der in db.distrusted() and len(db.stored_keys()) == 3
    again = merge(db, other, at=at)
    assert (again.added, again.known, again.keys, again.users, again.partners, again.issued) == (0, 3, 0, 0, 0, 0)


def test_what_is_here_stays_and_differences_are_told(db, other, ca, issue, at):
    db.add(ca.der, "CA", trust=TrustFlags.parse(",C,"), domains=("example.org",), at=at)
    other.add(ca.der, "other name", trust=TrustFlags.parse("C,C,"), domains=("*",), at=at)
    db.add(issue("alice@example.org").der, "mail", at=at)
    other.add(issue("bob@example.org").der, "mail", at=at)
    db.add_user("alice@example.org", b"ours", at=at, iterations=4096)
    other.add_user("alice@example.org", b"theirs", at=at, iterations=4096)
    merged = merge(db, other, at=at)
    assert merged.differing == [("CA", ",C,", "C,C,")] and merged.renamed == [("mail", "mail #2")]
    assert [anchor.domains for anchor in db.anchors("email")] == [("example.org",)]
    assert db.check_password("alice@example.org", b"ours") is not None
    assert {entry.nickname for entry in db.entries()} == {"CA", "mail", "mail #2"}


def test_attack_an_anchor_that_somebody_planted_in_the_other_database_is_left_there(db, other, ca, issue, at, tmp_path):
    other.add(ca.der, "CA", at=at)
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("UPDATE certificates SET trust_email = 'C', domains = '[\"*\"]'")
    merged = merge(db, other, at=at)
    assert merged.unverified == ["CA"] and db.entries() == []


def test_anchors_of_a_database_without_domains_need_some_to_be_named(db, ca, at):
    class Nss:
        """As an NSS directory would answer."""

        def entries(self):
            return [CertificateEntry(1, "CA", ca.der, TrustFlags.parse("CT,C,C"), has_key=True)]

        def private_key(self, entry):
            return ca.key

    merged = merge(db, Nss(), at=at)
    assert len(merged.problems) == 1 and "domains" in merged.problems[0] and db.entries() == []
    merged = merge(db, Nss(), domains=("example.org",), at=at)
    assert merged.added == 1 and [anchor.domains for anchor in db.anchors("email")] == [("example.org",)]
    assert db.private_key(db.find("CA")[0]) == ca.key


def test_attack_rows_that_somebody_edited_in_the_other_database_are_left_there_and_told(db, other, ca, issue, at, tmp_path):
    """A revocation, or whom a key is for, that silently stays behind is an attack that worked."""
    alice = issue("alice@example.org")
    other.add(alice.der, "alice", private_key=alice.key, assigned=["sales@example.org"], at=at)
    other.add_user("alice@example.org", b"secret", at=at, iterations=4096)
    IssuedStore(other).record(ca.der, alice.der, at=at)
    with sqlite3.connect(tmp_path / "other.db") as attacker:
        attacker.execute("UPDATE users SET addresses = '[\"*\"]'")
        attacker.execute("UPDATE issued SET reason = 'keyCompromise'")
        attacker.execute("UPDATE assignments SET pattern = '*'")
    merged = merge(db, other, at=at)
    assert [problem.split(":")[0] for problem in merged.problems] == ["table users", "table issued", "table assignments"]
    assert merged.unverified == ["alice"] and (merged.keys, merged.users, merged.issued) == (0, 0, 0)
