"""Certificates that a person bound to an address or to a whole domain: for encryption, after one's own, and for nothing else."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest

from mailsec.errors import KeyUnavailable, Refused, Tampered, UsageError
from mailsec.model.address import Address
from mailsec.model.correspondents import Sighting
from mailsec.model.trust import TrustFlags
from mailsec.store.bindings import Bindings, binding_key
from mailsec.store.certdb import CertDb
from mailsec.store.learnt import Learnt
from mailsec.store.merging import merge

BOB = Address.parse("bob@partner.example")
DAVE = Address.parse("Dave@PARTNER.example")
DAY = timedelta(days=1)


@pytest.fixture
def gateway(db, issue, ca, at) -> CertDb:
    """A database with the certificate of a partner's gateway, bound to their domain."""
    db.add(ca.der, "CA", trust=TrustFlags.parse(",C,"), domains=("*",), at=at)
    db.add(issue("gateway@gw.partner.example").der, "gateway", at=at)
    Bindings(db).bind("gateway", ["@Partner.Example"])
    return db


def names(db: CertDb, address: Address, **more) -> list[str]:
    return [entry.nickname for entry in db.for_address(address, **more)]


def test_it_is_for_everybody_of_the_domain_and_for_nobody_else(gateway):
    assert names(gateway, BOB) == names(gateway, DAVE) == ["gateway"]
    for other in ("bob@example.net", "bob@sub.partner.example", "bob@evilpartner.example", "bob@example"):
        assert names(gateway, Address.parse(other)) == []
    (entry,) = gateway.for_address(BOB)
    assert entry.bound == ("@partner.example",) and entry.addresses == ("gateway@gw.partner.example",)
    assert entry.for_whom(BOB) == "@partner.example" and entry.for_whom(Address.parse("gateway@gw.partner.example")) != ""


def test_ones_own_certificate_comes_first_as_long_as_it_is_valid(gateway, issue, at):
    gateway.add(issue("bob@partner.example", days=100).der, "bob", at=at - 50 * DAY)
    assert names(gateway, BOB, at=at) == ["bob", "gateway"] and names(gateway, DAVE, at=at) == ["gateway"]
    assert names(gateway, BOB, at=at + 200 * DAY) == ["gateway", "bob"]


def test_an_address_too_and_taken_back(gateway, issue, at):
    bindings = Bindings(gateway)
    bindings.bind("gateway", ["bob@example.net", "@partner.example"])
    bindings.bind("gateway", ["bob@example.net"])
    assert gateway.find("gateway")[0].bound == ("@partner.example", "bob@example.net")
    assert bindings.unbind("gateway", ["@partner.example"]) == 1
    assert names(gateway, BOB) == [] and names(gateway, Address.parse("bob@example.net")) == ["gateway"]
    with pytest.raises(Refused, match="is not bound"):
        bindings.unbind("gateway", ["@partner.example"])
    # What it names itself is not taken away.
    with pytest.raises(Refused):
        bindings.unbind("gateway", ["gateway@gw.partner.example"])


@pytest.mark.parametrize("place", ["*", "@", "", "partner.example", "@.partner.example", "@*.example", "@a b", "a@b@c", "@x\n.example"])
def test_what_means_nobody_or_everybody_is_no_binding(gateway, place):
    with pytest.raises(UsageError, match="cannot be bound"):
        binding_key(place)
    with pytest.raises(UsageError):
        Bindings(gateway).bind("gateway", [place])


def test_authorities_and_unknown_names(gateway):
    with pytest.raises(Refused, match="authority"):
        Bindings(gateway).bind("CA", ["@partner.example"])
    with pytest.raises(KeyUnavailable):
        Bindings(gateway).bind("nobody", ["@partner.example"])


def test_attack_a_row_that_binds_is_put_in_by_somebody_else(gateway, issue, at, attack):
    mallory = gateway.add(issue("mallory@example.net").der, "mallory", at=at)
    attack(
        f"INSERT INTO certificate_addresses (id, certificate_id, address, bound, mac) "
        f"SELECT 999, {mallory.id}, address, bound, mac FROM certificate_addresses WHERE address = '@partner.example'"
    )
    assert names(gateway, BOB) == [] and Learnt(gateway).known(BOB, domain=True) == []
    with pytest.raises(Tampered):
        Bindings(gateway).bind("gateway", ["@example.net"])


def test_attack_a_binding_is_edited(gateway, attack):
    attack("UPDATE certificate_addresses SET address = '@bank.example' WHERE address = '@partner.example'")
    assert names(gateway, BOB) == names(gateway, Address.parse("boss@bank.example")) == []


def test_attack_a_name_of_the_certificate_becomes_a_binding_and_back(gateway, attack):
    attack("UPDATE certificate_addresses SET bound = (address <> '@partner.example')")
    assert names(gateway, BOB) == []


def test_attack_another_certificate_is_put_into_the_row_of_a_bound_one(gateway, issue, attack):
    other = issue("mallory@example.net").der
    attack(f"UPDATE certificates SET der = x'{other.hex()}', sha256 = x'{hashlib.sha256(other).hexdigest()}' WHERE nickname = 'gateway'")
    assert names(gateway, BOB) == []
    with pytest.raises(Tampered):
        Bindings(gateway).bind("gateway", ["@example.net"])


def test_attack_a_key_signs_for_whom_its_certificate_is_bound_to(db, issue, at):
    ours = issue("us@example.org")
    db.add(ours.der, "us", private_key=ours.key, at=at)
    Bindings(db).bind("us", ["@partner.example", "bob@example.net"])
    for address in (BOB, Address.parse("bob@example.net")):
        assert names(db, address) == ["us"] and db.assigned_to(address) == [] and db.assigned_to(address, "decrypt") == []
    assert [entry.nickname for entry in db.assigned_to(Address.parse("us@example.org"))] == ["us"]


def test_attack_mail_of_the_gateway_itself_binds_nothing(db, issue, ca, at):
    gateway = issue("gateway@partner.example", "bob@partner.example").der
    Learnt(db).learn([Sighting(Address.parse("gateway@partner.example"), gateway, anchor=ca.der)], anchors=(ca.der,), at=at)
    assert names(db, BOB) == []


def test_it_keeps_no_certificate_of_their_own_waiting(gateway, issue, ca, at):
    own = issue("bob@partner.example").der
    (lesson,) = Learnt(gateway).learn([Sighting(BOB, own, anchor=ca.der)], anchors=(ca.der,), at=at)
    assert lesson.state == "" and names(gateway, BOB) == ["bob@partner.example", "gateway"]
    assert [one.entry.nickname for one in Learnt(gateway).known(BOB)] == ["bob@partner.example"]
    assert len(Learnt(gateway).known(BOB, domain=True)) == 2


def test_bindings_are_merged_and_deleted_with_their_certificate(gateway, tmp_path, at):
    tmp_path.chmod(0o700)
    with CertDb.create(str(tmp_path / "other.db"), b"", at=at, cost=2) as other:
        merge(other, gateway, at=at)
        assert names(other, BOB) == ["gateway"]
        other.delete(other.find("gateway")[0])
        assert names(other, BOB) == [] and other.check() == ()
