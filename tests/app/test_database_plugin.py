"""The database as a plugin: keys, logins, certificates and anchors, from memory until something changes."""

from __future__ import annotations

import os
import sqlite3
from datetime import timedelta
from functools import lru_cache

import pytest

from mailsec.app.database_plugin import CHECKED_EVERY, DatabasePlugin
from mailsec.errors import StoreError, Tampered
from mailsec.interfaces import Credentials, run_now
from mailsec.model.address import Address
from mailsec.model.correspondents import Sighting
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.mechanism import SignatureMechanism
from mailsec.model.partner import NOTHING_AGREED
from mailsec.model.session import Origin, Session
from mailsec.model.trust import TrustFlags
from mailsec.plugins import PluginManager
from mailsec.store.certdb import CertDb
from mailsec.store.learnt import Learnt
from mailsec.store.logins import Logins
from mailsec.store.partners import Partners
from mailsec.testing.runtime import EPOCH, FakeRuntime
from mailsec.x509.certificate import load_certificate
from mailsec.x509.issue import IssuedBy, issue_mail, issue_server, make_ca, make_key, public_key_of

ALICE = Address.parse("alice@example.org")
SESSION = Session("1", "submission-587", Origin.SUBMISSION, "192.0.2.1")
AT = EPOCH - timedelta(days=1)


@lru_cache
def key(name: str) -> bytes:
    return make_key("ec-p256")


@lru_cache
def ca() -> IssuedBy:
    return IssuedBy(make_ca(common_name="CA", key=key("ca"), at=AT - timedelta(days=1000), random=os.urandom), key("ca"))


def certificate(address: str, name: str, *, days: int = 100, at=AT, usage: str = "both") -> bytes:
    public = public_key_of(key(name))
    return issue_mail(ca(), addresses=[Address.parse(address)], public_key=public, at=at, random=os.urandom, days=days, usage=usage)


class Counted(CertDb):
    """Counts what the database is asked."""

    asked = 0

    def reading(self):
        self.asked += 1
        return super().reading()


@pytest.fixture
def db(tmp_path):
    tmp_path.chmod(0o700)
    with Counted.create(str(tmp_path / "x.db"), b"", at=AT) as database:
        database.add(ca().certificate, "CA", trust=TrustFlags.parse("C,C,"), domains=["*"], at=AT)
        database.add(certificate("alice@example.org", "alice"), "alice", private_key=key("alice"), at=AT)
        database.add_user("alice@example.org", b"secret", at=AT, iterations=4096)
        yield database


@pytest.fixture
def runtime():
    return FakeRuntime()


@pytest.fixture
def plugin(db, runtime):
    return DatabasePlugin(db, runtime)


@pytest.fixture
def keys(plugin):
    return plugin.register_key_stores()[0]


@pytest.fixture
def users(plugin):
    return plugin.authenticator


def plain(secret: bytes, login: str = "alice@example.org", authorisation: str = "") -> Credentials:
    return Credentials("PLAIN", login, secret, authorisation)


def test_the_manager_takes_it(plugin):
    manager = PluginManager()
    manager.add(plugin, "database")
    manager.load([])
    for hook in ("register_key_stores", "register_certificate_directories"):
        assert [provider.name for provider in manager.providers(hook, settings=None, runtime=None)] == ["database"]


def test_a_key_is_found_by_nickname_and_by_address_and_signs(keys, runtime):
    handle = runtime.run(keys.key("alice"))
    assert runtime.run(keys.keys_for(ALICE, "sign")) == (handle,)
    assert handle.name == "alice" and handle.assigned == ("alice@example.org",) and handle.chain == ()
    assert run_now(handle.sign(SignatureMechanism("ecdsa", "sha256"), b"octets"))
    assert "alice" in repr(handle) and key("alice").hex()[:40] not in repr(handle)
    for other in ("bob", "token:alice", "pkcs11:object=alice", ""):
        assert runtime.run(keys.key(other)) is None


def test_asked_again_it_answers_from_memory_without_suspending(keys, plugin, db, runtime):
    runtime.run(keys.keys_for(ALICE, "sign"))
    runtime.run(plugin.anchors())
    before = db.asked
    for _ in range(100):
        run_now(keys.keys_for(ALICE, "sign"))
        run_now(plugin.anchors())
    assert db.asked == before
    for _ in range(10):
        runtime.advance(CHECKED_EVERY)
        runtime.run(keys.keys_for(ALICE, "sign"))
    assert db.asked == before + 10


def test_a_change_by_another_process_counts_within_a_second(keys, plugin, db, runtime):
    handle = runtime.run(keys.key("alice"))
    assert len(runtime.run(plugin.anchors())) == 1
    with CertDb.open(db.name) as other:
        other.set_trust("CA", TrustFlags.parse(",p,"))
        other.delete(other.find("alice")[0])
    runtime.advance(CHECKED_EVERY)
    assert runtime.run(plugin.anchors()) == () and len(runtime.run(plugin.distrusted())) == 1
    assert runtime.run(keys.key("alice")) is None and handle is not None


def test_the_same_handle_is_given_until_something_changes(keys, runtime):
    first = runtime.run(keys.key("alice"))
    runtime.advance(3600)
    assert runtime.run(keys.key("alice")) is first


def test_expired_keys_decrypt_and_do_not_sign(keys, db, runtime):
    old = certificate("alice@example.org", "old", at=AT - timedelta(days=400), days=30)
    db.add(old, "alice-2025", private_key=key("old"), at=AT)
    assert [each.name for each in runtime.run(keys.keys_for(ALICE, "sign"))] == ["alice"]
    assert [each.name for each in runtime.run(keys.keys_for(ALICE, "decrypt"))] == ["alice", "alice-2025"]
    runtime.advance(200 * 86400)
    assert runtime.run(keys.keys_for(ALICE, "sign")) == ()


def test_a_key_is_used_for_what_its_certificate_says(keys, db, runtime):
    db.add(certificate("bob@example.org", "bob", usage="encrypt"), "bob", private_key=key("bob"), at=AT)
    server = issue_server(ca(), names=["mail.example.org"], public_key=public_key_of(key("server")), at=AT, random=os.urandom)
    db.add(server, "Server-Cert", private_key=key("server"), assigned=["*"], at=AT)
    bob = Address.parse("bob@example.org")
    assert runtime.run(keys.keys_for(bob, "sign")) == ()
    assert [each.name for each in runtime.run(keys.keys_for(bob, "decrypt"))] == ["bob"]
    assert runtime.run(keys.key("Server-Cert")).name == "Server-Cert"


def test_a_login_costs_its_price_once(users, db, runtime):
    identity = runtime.run(users.authenticate(plain(b"secret"), SESSION))
    assert (identity.name, identity.addresses, identity.mechanism) == ("alice@example.org", ("alice@example.org",), "PLAIN")
    before = db.asked
    for _ in range(10):
        assert run_now(users.authenticate(plain(b"secret"), SESSION)) == identity
    assert db.asked == before
    assert runtime.run(users.authenticate(plain(b"wrong"), SESSION)) is None
    assert runtime.run(users.authenticate(plain(b"secret", "bob@example.org"), SESSION)) is None


def test_a_login_as_somebody_else_is_refused(users, runtime):
    assert runtime.run(users.authenticate(plain(b"secret", authorisation="ceo@example.org"), SESSION)) is None
    assert runtime.run(users.authenticate(plain(b"secret", authorisation="alice@example.org"), SESSION)) is not None
    assert runtime.run(users.authenticate(Credentials("LOGIN", "alice@example.org", b"secret"), SESSION)) is None


def test_a_disabled_user_is_out_within_a_second(users, db, runtime):
    assert runtime.run(users.authenticate(plain(b"secret"), SESSION))
    db.set_disabled("alice@example.org", True)
    runtime.advance(CHECKED_EVERY)
    assert runtime.run(users.authenticate(plain(b"secret"), SESSION)) is None


def test_a_password_that_changed_during_a_login_is_not_remembered(users, db, runtime):
    runtime.run(users.authenticate(plain(b"wrong"), SESSION))
    real = db.check_password

    def slow(login: str, password: bytes):
        user = real(login, password)
        db.set_password("alice@example.org", b"new", iterations=4096)
        runtime.advance(CHECKED_EVERY)
        runtime.run(users._answers.fresh())
        return user

    db.check_password = slow
    assert runtime.run(users.authenticate(plain(b"secret"), SESSION))
    db.check_password = real
    assert runtime.run(users.authenticate(plain(b"secret"), SESSION)) is None


def test_certificates_of_correspondents(plugin, db, runtime):
    directory = plugin.register_certificate_directories()[0]
    db.add(certificate("carol@example.net", "carol"), "carol", trust=TrustFlags.parse(",P,"), at=AT)
    carol = Address.parse("Carol@Example.net")
    assert [found.trusted_binding for found in runtime.run(directory.certificates(carol))] == [True]
    assert [found.trusted_binding for found in runtime.run(directory.certificates(ALICE))] == [False]
    assert runtime.run(directory.certificates(Address.parse("nobody@example.net"))) == ()


def test_a_tampered_table_gives_a_temporary_error_and_no_anchor(plugin, db, runtime):
    connection = sqlite3.connect(db.name)
    connection.execute("UPDATE certificates SET nickname = 'x', mac = x'00' WHERE nickname = 'alice'")
    connection.commit()
    connection.close()
    with pytest.raises(Tampered) as caught:
        runtime.run(plugin.anchors())
    assert caught.value.temporary


def test_a_database_that_is_away_is_an_error_and_not_an_old_answer(keys, db, runtime, monkeypatch):
    runtime.run(keys.key("alice"))

    def away():
        raise StoreError("away")

    monkeypatch.setattr(db, "changes", away)
    runtime.advance(CHECKED_EVERY)
    for _ in range(2):
        with pytest.raises(StoreError):
            runtime.run(keys.key("alice"))


def test_remembered_logins_are_bounded_in_number_and_time():
    logins = Logins(bytes(32))
    for number in range(3 * DEFAULT_LIMITS.remembered_logins):
        logins.keep(str(number), b"secret", None, 0.0)
    assert len(logins._known) == DEFAULT_LIMITS.remembered_logins
    logins.keep("alice", b"secret", "user", 0.0)
    assert logins.find("alice", b"secret", DEFAULT_LIMITS.remembered_login_seconds - 1) == "user"
    assert logins.find("alice", b"secret", DEFAULT_LIMITS.remembered_login_seconds) is None
    assert logins.find("alice", b"Secret", 0) is None and logins.find("al", b"icesecret", 0) is None
    assert "secret" not in repr(logins)


def test_the_chain_of_a_key_holds_what_is_between_it_and_the_anchor(keys, db, runtime):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    root = x509.load_der_x509_certificate(ca().certificate)
    middle_key = serialization.load_der_private_key(key("middle"), None)
    middle = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Middle")]))
        .issuer_name(root.subject).public_key(middle_key.public_key()).serial_number(5)
        .not_valid_before(AT).not_valid_after(AT + timedelta(days=500))
        .add_extension(x509.BasicConstraints(True, 0), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(middle_key.public_key()), False)
        .sign(serialization.load_der_private_key(key("ca"), None), hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )  # fmt: skip
    der = issue_mail(
        IssuedBy(middle, key("middle")), addresses=[Address.parse("dora@example.org")],
        public_key=public_key_of(key("dora")), at=AT, random=os.urandom,
    )  # fmt: skip
    db.add(middle, "Middle", at=AT)
    db.add(der, "dora", private_key=key("dora"), at=AT)
    assert runtime.run(keys.key("dora")).chain == (middle,)


def test_the_directory_tells_what_a_person_decided_and_what_the_holder_reads(plugin, db, runtime):
    directory = plugin.register_certificate_directories()[0]
    carol, learnt = Address.parse("carol@example.net"), Learnt(db)
    ders = [certificate("carol@example.net", name) for name in ("carol", "carol 2", "carol 3")]
    db.add(ders[0], "carol", at=AT)
    sightings = [Sighting(carol, der, anchor=ca().certificate, capabilities=b"\x30\x00") for der in ders[:2]]
    learnt.learn(sightings, anchors=[ca().certificate], at=AT)

    def told() -> dict[bytes, tuple[str, bool]]:
        runtime.advance(CHECKED_EVERY)
        found = runtime.run(directory.certificates(carol))
        assert {one.capabilities for one in found} == {b"\x30\x00"}
        return {one.der: ("" if one.against is None else one.against.code, one.preferred) for one in found}

    assert told() == {ders[0]: ("", False), ders[1]: ("recipient-pending", False)}
    learnt.decide(load_certificate(ders[1]).fingerprint.hex(), "pin")
    assert told() == {ders[0]: ("", False), ders[1]: ("", True)}
    learnt.decide(load_certificate(ders[1]).fingerprint.hex(), "block")
    assert told()[ders[1]] == ("recipient-blocked", False)
    db.set_trust("carol", TrustFlags.parse(",p,"))
    assert told()[ders[0]] == ("distrusted", False)
    # Whose key is here reads what this gateway reads.
    (own,) = runtime.run(directory.certificates(ALICE))
    assert b"\x60\x86\x48\x01\x65\x03\x04\x01\x2e" in own.capabilities


def test_partners_are_known_and_a_change_is_seen(plugin, db, runtime):
    bob, partners = Address.parse("bob@example.net"), Partners(db)
    assert runtime.run(plugin.agreed(bob)) == NOTHING_AGREED
    partners.set("@example.net", {"encrypt": "required"})
    runtime.advance(CHECKED_EVERY)
    assert runtime.run(plugin.agreed(bob)).encrypt == "required"
