"""What mail teaches: first certificates, renewals, other keys, other authorities; and what a person decides."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from mailsec.errors import Refused, Tampered, UsageError
from mailsec.model.address import Address
from mailsec.model.correspondents import Sighting
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.learnt import Learnt
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

BOB = Address.parse("Bob@example.net")
DAY = timedelta(days=1)
CAPABILITIES = b"\x30\x0d\x30\x0b\x06\x09\x60\x86\x48\x01\x65\x03\x04\x01\x2e"


@pytest.fixture(scope="module")
def other_ca(at) -> IssuedBy:
    key = make_key("ec-p256")
    return IssuedBy(make_ca(common_name="Other CA", key=key, at=at, random=os.urandom), key)


@pytest.fixture
def learnt(db, ca, at) -> Learnt:
    db.add(ca.der, "CA", trust=TrustFlags.parse(",C,"), domains=("*",), at=at)
    return Learnt(db)


@pytest.fixture
def see(learnt, issue, ca, other_ca, at):
    """see(key=…, days=…, at=…): bob's mail was signed with a new certificate; what became of it."""

    def seen(*, key: str = "bob", days: int = 300, begins=at, now=None, by: IssuedBy | None = None, address=BOB, **sighting):
        if by is None:
            der, anchor = issue(str(address).lower(), at=begins, key=key, days=days).der, ca.der
        else:
            public = public_key_of(make_key("ec-p256"))
            der = issue_mail(by, addresses=[address], public_key=public, at=begins, random=os.urandom, days=days)
            anchor = by.certificate
        values = {"address": address, "certificate": der, "anchor": anchor} | sighting
        (lesson,) = learnt.learn([Sighting(**values)], anchors=(ca.der, other_ca.certificate), at=now or begins)
        return lesson

    return seen


def usable(db: CertDb) -> set[str]:
    """Fingerprints of what may be encrypted to for bob."""
    import hashlib

    return {hashlib.sha256(entry.der).hexdigest() for entry in db.for_address(BOB)}


def test_the_first_certificate_is_used_and_noted(db, learnt, see, at):
    lesson = see()
    assert (lesson.state, lesson.new) == ("", True) and usable(db) == {lesson.fingerprint}
    (known,) = learnt.seen()
    assert (known.entry.nickname, known.address, known.times, known.first_seen) == ("bob@example.net", "bob@example.net", 1, at)
    again = learnt.learn([Sighting(BOB, known.entry.der)], at=at + DAY)
    assert not again[0].new and learnt.seen()[0].times == 2 and learnt.seen()[0].last_seen == at + DAY


def test_another_key_waits_until_the_other_certificate_is_nearly_over(db, learnt, see, at):
    first = see(days=100)
    second = see(key="bob 2", begins=at + 10 * DAY)
    assert second.state == "pending" and usable(db) == {first.fingerprint}
    der = next(known.entry.der for known in learnt.seen("pending"))
    # Seen again when its time has come: it is used without anybody's help.
    (lesson,) = learnt.learn([Sighting(BOB, der, anchor=_anchor(db))], at=at + 80 * DAY)
    assert (lesson.state, lesson.new) == ("", True) and usable(db) == {first.fingerprint, second.fingerprint}


def _anchor(db: CertDb) -> bytes:
    return db.anchors("email")[0].der


def test_the_same_key_in_a_new_certificate_is_used_at_once(db, see, at):
    assert {see().fingerprint, see(begins=at + DAY).fingerprint} == usable(db)


@pytest.mark.parametrize("days", [10, 300])
def test_attack_another_authority_vouches_for_another_key(db, see, other_ca, at, days):
    first = see(days=days)
    second = see(by=other_ca, begins=at + DAY)
    assert second.state == "pending" and "another authority" in second.reason and usable(db) == {first.fingerprint}
    # Attack: patience. It waits for a person also when the other certificate has ended.
    third = see(by=other_ca, begins=at + 400 * DAY)
    assert third.state == "pending"


def in_use(db: CertDb, *addresses: str) -> tuple[bytes, ...]:
    return tuple(entry.der for address in addresses or ("bob@example.net",) for entry in db.for_address(Address.parse(address)))


def test_the_successor_of_a_revoked_certificate_is_used_at_once(db, see, at):
    first = see()
    second = see(key="bob 2", begins=at + DAY, revoked=in_use(db))
    assert (second.state, second.new) == ("", True) and "revoked" in second.reason
    assert usable(db) == {first.fingerprint, second.fingerprint}
    # The successor is what is in use now: no third one takes its place because of the first.
    revoked = tuple(der for der in in_use(db) if der != db.for_address(BOB)[0].der)
    assert see(key="bob 3", begins=at + 2 * DAY, revoked=revoked).state == "pending"


def test_one_that_waits_is_used_when_the_other_has_been_revoked(db, learnt, see, at):
    first = see()
    second = see(key="bob 2", begins=at + DAY)
    assert second.state == "pending"
    (waiting,) = learnt.seen("pending")
    (lesson,) = learnt.learn([Sighting(BOB, waiting.entry.der, anchor=_anchor(db), revoked=in_use(db))], at=at + 2 * DAY)
    assert (lesson.state, lesson.new) == ("", True) and usable(db) == {first.fingerprint, second.fingerprint}


@pytest.mark.parametrize("stolen", [False, True])
def test_attack_another_authority_follows_up_a_revoked_certificate(db, learnt, see, issue, other_ca, at, stolen):
    first = see()
    revoked = in_use(db)
    public = public_key_of(issue("bob@example.net", key="bob").key if stolen else make_key("ec-p256"))
    der = issue_mail(other_ca, addresses=[BOB], public_key=public, at=at, random=os.urandom)
    (lesson,) = learnt.learn([Sighting(BOB, der, anchor=other_ca.certificate, revoked=revoked)], at=at + DAY)
    assert lesson.state == "pending" and usable(db) == {first.fingerprint}


def test_attack_the_revoked_certificate_is_another_addresses(db, learnt, see, issue, ca, at):
    first = see()
    learnt.learn([Sighting(Address.parse("mallory@example.net"), issue("mallory@example.net").der, anchor=ca.der)], at=at)
    assert see(key="bob 2", begins=at + DAY, revoked=in_use(db, "mallory@example.net")).state == "pending"
    assert usable(db) == {first.fingerprint}


def test_one_of_two_in_use_is_revoked_and_the_other_stays(db, see, at):
    see()
    revoked = in_use(db)
    see(begins=at + DAY)
    assert see(key="bob 2", begins=at + 2 * DAY, revoked=revoked).state == "pending"


def test_what_a_person_pinned_mail_does_not_follow_up_when_it_is_revoked(db, learnt, see, at):
    learnt.decide(see().fingerprint, "pin")
    assert see(key="bob 2", begins=at + DAY, revoked=in_use(db)).state == "pending"


def test_attack_a_certificate_that_names_a_second_address_is_learnt_for_the_from_address_only(db, learnt, issue, ca, at):
    both = issue("mallory@example.net", "bob@example.net", at=at)
    learnt.learn([Sighting(Address.parse("mallory@example.net"), both.der, anchor=ca.der)], at=at)
    assert usable(db) == set()


def test_attack_a_certificate_in_use_for_one_address_is_not_bound_to_a_pinned_one(db, learnt, see, issue, ca, at):
    first = see()
    learnt.decide(first.fingerprint, "pin")
    both = issue("mallory@example.net", "bob@example.net", at=at)
    for address in ("mallory@example.net", "bob@example.net"):
        learnt.learn([Sighting(Address.parse(address), both.der, anchor=ca.der)], at=at)
    assert usable(db) == {first.fingerprint}


def test_attack_a_nickname_of_somebody_else_is_not_taken(db, learnt, issue, ca, at):
    alice = issue("alice@example.org")
    db.add(alice.der, "bob@example.net", private_key=alice.key, at=at)
    learnt.learn([Sighting(BOB, issue("bob@example.net").der, anchor=ca.der)], at=at)
    assert [entry.der for entry in db.find("bob@example.net")] == [alice.der]
    assert learnt.seen()[0].entry.nickname == "bob@example.net #2"


def test_our_own_certificate_is_not_followed_up_by_mail(db, learnt, issue, ca, see, at):
    own = issue("bob@example.net", days=5)
    db.add(own.der, "bob", private_key=own.key, at=at)
    assert see(key="somebody").state == "pending"


@pytest.mark.parametrize(
    ("word", "state", "used"), [("accept", "", True), ("reject", "rejected", False), ("pin", "pinned", True), ("block", "blocked", False)]
)
def test_a_person_decides(db, learnt, see, other_ca, at, word, state, used):
    see()
    second = see(by=other_ca)
    known = learnt.decide(second.fingerprint[:12].upper(), word)
    assert known.state == state and [one.state for one in learnt.known(BOB) if one.entry.der == known.entry.der] == [state]
    assert (second.fingerprint in usable(db)) is used
    assert (known.entry.der in db.distrusted()) is (word == "block")
    # What a person has decided, mail does not change.
    (lesson,) = learnt.learn([Sighting(BOB, known.entry.der, anchor=other_ca.certificate)], at=at + DAY)
    assert lesson.state == state and not lesson.new


def test_wrong_decisions(learnt, see):
    see()
    with pytest.raises(UsageError, match="cannot be 'love'"):
        learnt.decide("ab" * 8, "love")
    with pytest.raises(UsageError, match="not a fingerprint"):
        learnt.decide("xyz", "pin")
    with pytest.raises(Refused, match="no certificate has"):
        learnt.decide("00" * 16, "pin")


def test_capabilities_are_those_signed_last(learnt, see, at):
    assert learnt.capabilities(BOB) is None
    see(capabilities=CAPABILITIES, signed_at=at)
    assert learnt.capabilities(BOB) == CAPABILITIES
    see(capabilities=b"\x30\x00", signed_at=at - DAY)
    assert learnt.capabilities(BOB) == CAPABILITIES
    see(capabilities=b"\x30\x00", signed_at=at + DAY)
    assert learnt.capabilities(BOB) == b"\x30\x00"


def test_attack_a_certificate_that_waits_does_not_weaken_what_is_written(learnt, see, other_ca, at):
    see(capabilities=CAPABILITIES, signed_at=at)
    see(by=other_ca, capabilities=b"\x30\x00", signed_at=at + DAY)
    assert learnt.capabilities(BOB) == CAPABILITIES


def test_authorities_on_the_way_are_kept_and_not_believed(db, learnt, issue, ca, other_ca, at):
    sighting = Sighting(BOB, issue("bob@example.net").der, chain=(other_ca.certificate,), anchor=ca.der)
    learnt.learn([sighting], at=at)
    assert other_ca.certificate in db.authorities()
    assert [anchor.der for anchor in db.anchors("email")] == [ca.der]


def test_edited_rows_teach_and_decide_nothing(db, learnt, see, attack):
    lesson = see(capabilities=CAPABILITIES)
    attack("UPDATE certificates SET state = 'pinned' WHERE nickname = 'bob@example.net'", "UPDATE capabilities SET der = x'3000'")
    assert learnt.capabilities(BOB) is None and usable(db) == set() and learnt.known(BOB) == []
    with pytest.raises(Tampered):
        learnt.decide(lesson.fingerprint, "accept")


def test_octets_that_are_no_certificate_teach_nothing(learnt, see, at):
    assert learnt.learn([Sighting(BOB, b"junk"), Sighting(BOB, b"")], at=at) == ()
