"""The register of our own authorities: what was issued and revoked, and that nobody edits it unseen."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mailsec.errors import KeyUnavailable, Refused, Tampered, UsageError
from mailsec.store.issued import IssuedStore
from mailsec.x509.certificate import load_certificate


@pytest.fixture
def register(db, ca, issue, at):
    store = IssuedStore(db)
    store.record(ca.der, issue("alice@example.org").der, at=at)
    return store


@pytest.fixture
def serial(issue, register, ca):
    return register.issued(ca.der)[0].serial


def test_what_was_issued_is_listed_once(register, ca, issue, at, db):
    bob = issue("bob@example.org")
    register.record(ca.der, bob.der, at=at)
    register.record(ca.der, bob.der, at=at)
    listed = register.issued(ca.der)
    assert len(listed) == 2 and listed[1].der == bob.der and listed[1].not_after == load_certificate(bob.der).not_after
    assert all(one.revoked_at is None for one in listed) and db.check() == ()


def test_revoked_stays_revoked_with_the_first_instant_and_reason(register, ca, serial, at):
    assert register.revoke(ca.der, serial, at=at, reason="keyCompromise")
    assert not register.revoke(ca.der, serial, at=at + timedelta(days=1), reason="superseded")
    one = register.issued(ca.der)[0]
    assert (one.revoked_at, one.reason) == (at, "keyCompromise")
    with pytest.raises(Refused):
        register.release(ca.der, serial)


def test_on_hold_may_be_released_or_revoked_for_good(register, ca, serial, at):
    register.revoke(ca.der, serial, at=at, reason="certificateHold")
    register.release(ca.der, serial)
    assert register.issued(ca.der)[0].revoked_at is None
    register.revoke(ca.der, serial, at=at, reason="certificateHold")
    assert register.revoke(ca.der, serial, at=at + timedelta(days=1), reason="superseded")
    one = register.issued(ca.der)[0]
    assert (one.revoked_at, one.reason) == (at, "superseded")


def test_an_unknown_serial_number_or_reason_is_refused(register, ca, at):
    with pytest.raises(KeyUnavailable):
        register.revoke(ca.der, 77, at=at)
    with pytest.raises(UsageError):
        register.revoke(ca.der, 77, at=at, reason="boredom")
    assert register.revoke(ca.der, 77, at=at, not_after=at + timedelta(days=9))


def test_a_revocation_that_was_edited_away_is_not_forgotten(register, ca, serial, at, attack):
    register.revoke(ca.der, serial, at=at)
    attack("UPDATE issued SET revoked_at = NULL, reason = ''")
    with pytest.raises(Tampered):
        register.issued(ca.der)
    with pytest.raises(Tampered):
        register.revoke(ca.der, serial, at=at, reason="keyCompromise")


def test_a_revocation_whose_row_was_deleted_is_noticed(register, ca, serial, at, attack):
    attack("DELETE FROM issued")
    with pytest.raises(Tampered, match="table issued"):
        register.issued(ca.der)
