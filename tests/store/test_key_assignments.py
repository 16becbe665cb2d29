"""Assignments of keys that lie on tokens, as token hosts are given them."""

from __future__ import annotations

import base64
import hashlib
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailsec.app.modules import Assignments
from mailsec.errors import Tampered
from mailsec.model.address import Address
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.modules import key_assignments
from mailsec.testing.authority import Authority
from mailsec.x509.issue import make_key, public_key_of

AT = datetime(2026, 11, 27, tzinfo=UTC)


@pytest.mark.parametrize("column", ["pattern = '*'", "key_id = zeroblob(32)", "usage = 'decrypt'"])
def test_attack_an_edited_assignment_makes_no_key_one_for_whom_its_certificate_names(tmp_path: Path, column: str):
    path = tmp_path / "mailsec.db"
    database = CertDb.create(str(path), b"", at=AT)
    key = make_key("ec-p256")
    database.add(
        Authority().certify(public_key_of(key), "alice@example.org"), "alice", private_key=key, assigned=["bob@example.org"], at=AT
    )
    assert [pattern for rows in key_assignments(database).values() for pattern, _ in rows] == ["bob@example.org"]
    with sqlite3.connect(path) as connection:
        assert connection.execute(f"UPDATE assignments SET {column}").rowcount == 1
    with pytest.raises(Tampered):
        key_assignments(database)
    assignments = Assignments(database)
    assert assignments.refresh() is False
    assert assignments.current is None, "an empty mapping would mean that certificates decide"
    database.close()


def test_a_key_on_a_token_is_told_the_certificates_that_a_person_put_here_and_none_that_mail_taught(tmp_path: Path):
    """Attack: somebody gets a certificate for a public key that he saw, and sends mail with it."""
    database = CertDb.create(str(tmp_path / "mailsec.db"), b"", at=AT)
    authority, public = Authority(at=AT), public_key_of(make_key("ec-p256"))
    database.add(authority.certificate, "CA", at=AT)
    own = database.add(authority.certify(public, "alice@example.org"), "alice", at=AT)
    database.add(authority.certify(public, "mallory@example.net"), "mallory", source="harvested", at=AT)
    assignments = Assignments(database)
    assert assignments.refresh() and assignments.told() == {"assigned": {}, "certificates": [], "known": []}
    assert assignments.listed("card", [public]) and assignments.refresh()
    assert assignments.told()["known"] == [hashlib.sha256(public).hexdigest()]
    assert [base64.b64decode(one["der"]) for one in assignments.told()["certificates"]] == [own.der]
    assert not assignments.listed("card", [public]) and not assignments.refresh()
    database.set_trust("alice", TrustFlags.parse(",p,"))
    assert assignments.refresh() and assignments.certificates == []
    database.close()


def test_attack_a_certificate_that_mail_taught_for_the_public_key_of_ours_does_not_sign_our_mail(tmp_path: Path):
    database = CertDb.create(str(tmp_path / "mailsec.db"), b"", at=AT)
    key, alice = make_key("ec-p256"), Address.parse("alice@example.org")
    public = public_key_of(key)
    database.add(Authority(at=AT).certify(public, "alice@example.org"), "alice", private_key=key, assigned=["alice@example.org"], at=AT)
    newer = Authority("partner", at=AT + timedelta(hours=1)).certify(public, "mallory@example.net")
    database.add(newer, "mallory", source="harvested", at=AT)
    for usage in ("sign", "decrypt"):
        assert [one.nickname for one in database.assigned_to(alice, usage, at=AT + timedelta(days=1))] == ["alice"]
    database.close()


def test_a_certificate_that_mail_taught_before_its_key_came_is_used(tmp_path: Path):
    database = CertDb.create(str(tmp_path / "mailsec.db"), b"", at=AT)
    key = make_key("ec-p256")
    certificate = Authority(at=AT).certify(public_key_of(key), "alice@example.org")
    database.add(certificate, "alice", source="harvested", at=AT)
    database.add(certificate, "alice", private_key=key, at=AT)
    assert [one.nickname for one in database.assigned_to(Address.parse("alice@example.org"), "sign", at=AT)] == ["alice"]
    database.close()
