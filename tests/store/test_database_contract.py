"""What every certificate database does, mailsec's own and NSS's: one suite for both."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_der_private_key

from mailsec.errors import KeyUnavailable, MailsecError, PrivateKeyError, UsageError, WrongPassphrase
from mailsec.model.address import Address
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.intake import Incoming, take_in
from mailsec.store.merging import merge
from tests.peers.nss import NssDirectory

ALICE = Address.parse("alice@example.org")
ANY = ("*",)


@pytest.fixture(scope="module")
def empty_nss(tmp_path_factory, need) -> Path:
    """An empty directory of certutil's: a copy of it costs less."""
    need("certutil", "libnss3-tools")
    return NssDirectory(tmp_path_factory.mktemp("empty")).path


@pytest.fixture(params=["sqlite", "nss"])
def backend(request) -> str:
    """PostgreSQL has the same code as SQLite above SQL, and suites of its own."""
    return request.param


@pytest.fixture
def opener(backend, tmp_path, request):
    """opener(login=…): the database anew, as another process would open it."""
    if backend == "nss":
        nss = NssDirectory(tmp_path / "nss", request.getfixturevalue("empty_nss"))

        def again(login: bool = True, password: bytes = b"one two"):
            return nss.open(tmp_path / "state", login=login, password=password)

    else:
        request.getfixturevalue("db").close()

        def again(login: bool = True, password: bytes = b"opensesame"):
            return CertDb.open(str(tmp_path / "mailsec.db"), password=password if login else None)

    return again


@pytest.fixture
def base(opener):
    with opener() as database:
        yield database


def same_key(one: bytes | None, other: bytes | None) -> bool:
    assert one and other
    first, second = load_der_private_key(one, None), load_der_private_key(other, None)
    return first.private_numbers() == second.private_numbers()  # type: ignore[union-attr]


def test_a_certificate_that_was_added_is_found_with_its_key(base, issue, at):
    alice = issue("Alice@Example.org")
    entry = base.add(alice.der, "alice", private_key=alice.key, at=at)
    assert entry.verified and entry.has_key and entry.addresses == ("alice@example.org",) and entry.nickname == "alice"
    assert [found.id for found in base.find("alice", at=at)] == [entry.id]
    assert [found.id for found in base.for_address(ALICE, at=at)] == [entry.id]
    assert [found.id for found in base.assigned_to(ALICE, "sign", at=at)] == [entry.id]
    assert [found.id for found in base.entries()] == [found.id for found in base.entries_with([entry.id, 7])] == [entry.id]
    assert same_key(base.private_key(entry), alice.key)
    assert base.check() == ()


def test_what_is_not_there_is_not_found(base, issue, at):
    base.add(issue("bob@example.org").der, "bob", at=at)
    assert not base.find("alice") and not base.for_address(ALICE, at=at) and not base.assigned_to(ALICE, at=at)
    assert base.private_key(base.find("bob")[0]) is None and not base.users()
    for change in (lambda: base.set_trust("alice", TrustFlags()), lambda: base.rename("alice", "other"), lambda: base.find_key("alice")):
        with pytest.raises(KeyUnavailable):
            change()


def test_everything_is_there_after_opening_again(base, opener, issue, ca, at):
    alice = issue("alice@example.org")
    base.add(alice.der, "alice", private_key=alice.key, at=at)
    base.add(ca.der, "CA", trust=TrustFlags.parse("CT,C,C"), domains=ANY, at=at)
    base.close()
    with opener() as again:
        assert [(entry.nickname, str(entry.trust), entry.has_key) for entry in again.entries()] == [
            ("CA", "CT,C,C", False),
            ("alice", ",,", True),
        ]
        assert same_key(again.private_key(again.find("alice")[0]), alice.key)


def test_the_same_certificate_twice_is_one_entry(base, issue, at):
    alice = issue("alice@example.org")
    first = base.add(alice.der, "alice", at=at)
    second = base.add(alice.der, "another name", private_key=alice.key, trust=TrustFlags.parse(",P,"), at=at)
    assert (first.id, first.has_key) == (second.id, False)
    assert second.nickname == "alice" and second.has_key and second.trust.email_peer
    assert len(base.entries()) == 1 and len(base.stored_keys()) == 1


def test_a_nickname_belongs_to_one_subject(base, issue, at):
    base.add(issue("alice@example.org").der, "mail", at=at)
    bob = issue("bob@example.org", name="Bob")
    with pytest.raises(UsageError, match="another subject"):
        base.add(bob.der, "mail", private_key=bob.key, at=at)
    assert len(base.entries()) == 1 and not base.stored_keys()
    base.add(bob.der, "bob", at=at)
    with pytest.raises(UsageError, match="another subject"):
        base.rename("bob", "mail")


@pytest.mark.parametrize("name", ["", " x", "a:b", "a\x1b[1m", "x" * 200])
def test_attack_a_nickname_that_deceives_is_refused(base, issue, at, name):
    with pytest.raises(UsageError):
        base.add(issue("alice@example.org").der, name, at=at)
    assert not base.entries()


def test_a_key_of_another_certificate_is_refused_and_leaves_nothing(base, issue, at):
    with pytest.raises(PrivateKeyError):
        base.add(issue("alice@example.org").der, "alice", private_key=issue("bob@example.org").key, at=at)
    assert not base.entries() and not base.stored_keys()


def test_what_is_no_certificate_is_refused(base, at):
    with pytest.raises(MailsecError):
        base.add(b"not a certificate", "x", at=at)


def test_anchors_are_what_the_letters_say(base, ca, at):
    base.add(ca.der, "CA", trust=TrustFlags.parse("C,C,"), domains=ANY, at=at)
    assert [(anchor.der, anchor.domains, anchor.purposes) for anchor in base.anchors("email")] == [(ca.der, ANY, ("email", "tls-server"))]
    assert base.anchors("tls-client") == ()
    base.set_trust("CA", TrustFlags.parse("T,p,"))
    assert base.anchors("email") == () and len(base.anchors("tls-client")) == 1
    assert base.distrusted("email") == (ca.der,) and base.distrusted("tls-server") == () and base.authorities() == ()
    base.set_trust("CA", TrustFlags())
    assert base.distrusted("email") == () and base.anchors("email") == () and base.authorities() == (ca.der,)


def test_an_anchor_for_mail_says_for_whom(base, ca, at):
    with pytest.raises(UsageError, match="domains"):
        base.add(ca.der, "CA", trust=TrustFlags.parse(",C,"), at=at)
    assert not base.entries()
    base.add(ca.der, "CA", at=at)
    with pytest.raises(UsageError, match="domains"):
        base.set_trust("CA", TrustFlags.parse(",C,"))
    assert base.anchors("email") == ()


def test_a_distrusted_certificate_is_used_for_nobody(base, issue, at):
    alice = issue("alice@example.org")
    base.add(alice.der, "alice", private_key=alice.key, trust=TrustFlags.parse(",p,"), at=at)
    assert not base.for_address(ALICE, at=at) and not base.assigned_to(ALICE, at=at)


def test_of_several_with_one_name_the_newest_valid_one_comes_first(base, issue, at):
    old = issue("alice@example.org", at=at - timedelta(days=200), days=100, key="old")
    now_ = issue("alice@example.org", at=at - timedelta(days=10))
    for certificate in (now_, old):
        base.add(certificate.der, "alice", private_key=certificate.key, at=at)
    assert [entry.der for entry in base.find("alice", at=at)] == [now_.der, old.der]
    assert [entry.der for entry in base.assigned_to(ALICE, "decrypt", at=at)] == [now_.der, old.der]


def test_a_new_name_is_for_all_certificates_of_the_old_one(base, issue, at):
    for days in (100, 200):
        base.add(issue("alice@example.org", days=days).der, "alice", at=at)
    base.rename("alice", "Alïce")
    assert not base.find("alice") and len(base.find("Alïce")) == 2


def test_a_key_goes_with_the_last_of_its_certificates(base, issue, at):
    for days in (100, 200):
        alice = issue("alice@example.org", days=days)
        base.add(alice.der, "alice", private_key=alice.key, at=at)
    first, second = base.find("alice")
    assert base.delete(first) is False and len(base.stored_keys()) == 1
    assert base.delete(second) is True and not base.stored_keys() and not base.entries()


def test_a_key_may_stay_without_its_certificate(base, issue, at):
    alice = issue("alice@example.org")
    entry = base.add(alice.der, "alice", private_key=alice.key, at=at)
    assert base.delete(entry, keep_key=True) is False
    (kept,) = base.stored_keys()
    assert kept.nicknames == () and same_key(base.key_octets(kept.key_id), alice.key)
    assert base.add(alice.der, "alice", at=at).has_key, "the key that waited was not found"


def test_keys_are_made_found_and_deleted(base, at):
    key_id = base.generate_key("ec-p256", at=at)
    (made,) = base.stored_keys()
    assert made.key_id == key_id and made.key_type == "ec:secp256r1" and made.verified
    assert base.find_key(key_id.hex()[:16]) == made
    octets = base.key_octets(key_id)
    assert base.delete_key(key_id) is True and not base.stored_keys() and base.key_octets(key_id) is None
    assert base.delete_key(key_id) is False
    assert base.add_key(octets, at=at) == base.add_key(octets, at=at) == key_id and len(base.stored_keys()) == 1
    with pytest.raises(MailsecError):
        base.generate_key("dsa", at=at)


def test_the_issuers_of_a_certificate_are_found(base, issue, ca, at):
    entry = base.add(issue("alice@example.org").der, "alice", at=at)
    assert base.chain(entry) == ()
    base.add(ca.der, "CA", at=at)
    assert base.chain(entry) == () and base.chain(base.find("CA")[0]) == (), "the anchor itself is nobody's intermediate"


def test_without_the_password_all_is_shown_and_nothing_decides(base, opener, ca, issue, at):
    alice = issue("alice@example.org")
    base.add(alice.der, "alice", private_key=alice.key, at=at)
    base.add(ca.der, "CA", trust=TrustFlags.parse("C,C,"), domains=ANY, at=at)
    base.close()
    with opener(login=False) as locked:
        assert not locked.unlocked
        assert [(entry.nickname, entry.verified) for entry in locked.entries()] == [("CA", False), ("alice", False)]
        assert not locked.for_address(ALICE, at=at) and not locked.assigned_to(ALICE, at=at)
        for ask in (
            lambda: locked.anchors("email"),
            lambda: locked.distrusted("email"),
            lambda: locked.private_key(locked.find("alice")[0]),
            lambda: locked.set_trust("alice", TrustFlags()),
            lambda: locked.add(issue("bob@example.org").der, "bob", at=at),
            lambda: locked.generate_key("ec-p256", at=at),
        ):
            with pytest.raises(WrongPassphrase):
                ask()


def test_a_new_password_replaces_the_old_one(base, opener, issue, at):
    alice = issue("alice@example.org")
    base.add(alice.der, "alice", private_key=alice.key, at=at)
    base.change_password(b"another one")
    base.close()
    with pytest.raises(MailsecError):
        opener()
    with opener(password=b"another one") as again:
        assert same_key(again.private_key(again.find("alice")[0]), alice.key)


def test_what_cannot_be_taken_in_stops_nothing_else(base, issue, at):
    good, other = issue("alice@example.org"), issue("bob@example.org", name="Bob")
    items = [Incoming(good.der, "mail"), Incoming(b"x"), Incoming(other.der, "mail"), Incoming(other.der, suggested="mail")]
    taken = list(take_in(base, items, at=at))
    assert [one.problem is None for one in taken] == [True, False, False, True]
    assert [entry.nickname for entry in base.entries()] == ["mail", "mail #2"]


def test_another_database_takes_over_what_it_has(base, issue, ca, at, tmp_path):
    alice = issue("alice@example.org")
    base.add(alice.der, "alice", private_key=alice.key, at=at)
    base.add(ca.der, "CA", trust=TrustFlags.parse("CT,C,C"), domains=ANY, at=at)
    with CertDb.create(str(tmp_path / "other.db"), b"", at=at, cost=2**10) as target:
        merged = merge(target, base, domains=("example.org",), at=at)
        assert (merged.added, merged.keys, merged.problems, merged.unverified) == (2, 1, [], [])
        entries = {entry.nickname: entry for entry in target.entries()}
        assert str(entries["CA"].trust) == "CT,C,C" and entries["CA"].verified
        assert same_key(target.private_key(entries["alice"]), alice.key)
