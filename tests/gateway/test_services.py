"""What the gateway does for plugins besides mail (`interfaces.Gateway`): certificates, people, registers of our own authorities, tokens."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mailsec.app.authenticators import AuthenticatorsPlugin
from mailsec.app.database_plugin import CHECKED_EVERY, DatabasePlugin
from mailsec.errors import KeyUnavailable, Tampered, Unavailable
from mailsec.gateway.pipeline import Pipeline
from mailsec.gateway.services import Surroundings
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import PEER, Credentials, Gateway
from mailsec.model.address import Address
from mailsec.model.session import Identity, Origin
from mailsec.model.trust import TrustFlags
from mailsec.plugins import PluginManager
from mailsec.store.certdb import CertDb
from mailsec.store.issued import IssuedStore
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryTrust
from mailsec.testing.gateway import MemoryGateway, settings
from mailsec.testing.memory import MemorySpool
from mailsec.testing.runtime import EPOCH, FakeRuntime
from mailsec.x509.certificate import load_certificate

ALICE, BOB = Address.parse("alice@example.org"), Address.parse("bob@example.net")
AT = EPOCH - timedelta(days=1)


class World:
    """A pipeline over a real database, with an authority that has issued two certificates, and one user."""

    def __init__(self, place) -> None:
        place.chmod(0o700)
        self.authority = Authority("Our CA", at=AT)
        self.url = str(place / "x.db")
        self.db = CertDb.create(self.url, b"", at=AT)
        self.db.add(self.authority.certificate, "Our CA", trust=TrustFlags.parse("C,C,"), domains=["*"], at=AT)
        self.people = [self.authority.issue(address).certificate for address in ("alice@example.org", "carol@example.org")]
        for number, der in enumerate(self.people):
            self.db.add(der, f"person {number}", issuer=self.authority.certificate, at=AT)
        self.db.add_user("alice", b"secret", ["alice@example.org"], at=AT, iterations=4096)
        self.runtime = FakeRuntime()
        plugin = DatabasePlugin(self.db, self.runtime)
        plugins = PluginManager()
        plugins.add(plugin, "database")
        plugins.add(AuthenticatorsPlugin((), plugin.authenticator), "authenticators")
        plugins.load()
        self.gateway = Pipeline(
            settings(),
            runtime=self.runtime,
            plugins=plugins,
            spool=MemorySpool(),
            trust=None,
            engine=object(),
            surroundings=Surroundings(plugin.register),
        )

    def run(self, awaitable):
        return self.runtime.run(awaitable)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.db.close()


def test_an_authority_of_ours_is_known_by_its_nickname_with_what_it_issued(world: World):
    assert list(world.run(world.gateway.authority("Our CA"))) == [world.authority.certificate]
    assert [one.der for one in world.run(world.gateway.issued("Our CA"))] == world.people
    serial = load_certificate(world.people[1]).serial
    found = world.run(world.gateway.issued_as("Our CA", serial))
    assert found is not None and found.der == world.people[1] and found.revoked_at is None
    assert world.run(world.gateway.issued_as("Our CA", 77)) is None


def test_a_revocation_is_seen_when_the_database_has_changed(world: World):
    serial = load_certificate(world.people[0]).serial
    assert world.run(world.gateway.issued_as("Our CA", serial)).revoked_at is None
    IssuedStore(world.db).revoke(world.authority.certificate, serial, at=AT, reason="keyCompromise")
    world.runtime.advance(CHECKED_EVERY)
    assert world.run(world.gateway.issued_as("Our CA", serial)).reason == "keyCompromise"
    assert [one.reason for one in world.run(world.gateway.issued("Our CA"))] == ["keyCompromise", ""]


def test_an_authority_that_was_renewed_with_another_key_has_the_registers_of_both(world: World):
    younger = Authority("Our CA", at=AT)
    world.db.add(younger.certificate, "Our CA", source="issued", at=AT)
    IssuedStore(world.db).record(younger.certificate, younger.issue("new@example.org", at=AT).certificate, at=AT)
    world.runtime.advance(CHECKED_EVERY)
    assert list(world.run(world.gateway.authority("Our CA"))) == [younger.certificate, world.authority.certificate]
    found = world.run(world.gateway.issued_as("Our CA", load_certificate(world.people[0]).serial))
    assert found is not None and found.issuer == world.authority.certificate


@pytest.mark.parametrize("name", ["Their CA", "", "person 0"])
def test_what_is_no_authority_of_ours_has_no_register(world: World, name):
    with pytest.raises(KeyUnavailable, match="there is no authority"):
        world.run(world.gateway.issued(name))


def test_attack_an_edited_register_answers_nothing(world: World):
    import sqlite3

    serial = load_certificate(world.people[0]).serial
    IssuedStore(world.db).revoke(world.authority.certificate, serial, at=AT, reason="keyCompromise")
    with sqlite3.connect(world.url) as raw:
        raw.execute("UPDATE issued SET revoked_at = NULL, reason = ''")
    world.runtime.advance(CHECKED_EVERY)
    with pytest.raises(Tampered):
        world.run(world.gateway.issued_as("Our CA", serial))


def test_a_login_that_a_peer_has_checked_is_an_identity(world: World):
    identity = world.run(world.gateway.identity("alice"))
    assert identity == Identity("alice", ("alice@example.org",), PEER)
    assert world.gateway.may_send(identity, ALICE) and not world.gateway.may_send(identity, BOB)
    for login in ("bob", "", "a\0b"):
        assert world.run(world.gateway.identity(login)) is None


def test_attack_who_is_disabled_is_nobody_else_for_a_mail_server_that_still_lets_them_in(world: World):
    from mailsec_milter.senders import identity_of
    from mailsec_milter.settings import MilterSettings

    # `login_domains` is for logins whom nobody knows here: a user who is disabled is known
    settings = MilterSettings(login_domains=["example.org"])
    assert world.gateway.may_send(world.run(identity_of(settings, world.gateway, "alice")), ALICE)
    world.db.set_disabled("alice", True)
    world.runtime.advance(CHECKED_EVERY)
    assert world.run(world.gateway.identity("alice")) == Identity("alice", (), PEER)
    assert not world.gateway.may_send(world.run(identity_of(settings, world.gateway, "alice")), ALICE)


@pytest.mark.parametrize("mechanism", [PEER, "UPSTREAM"])
def test_attack_no_client_authenticates_itself_by_a_mechanism_that_looks_at_no_password(world: World, mechanism):
    session = values.session(Origin.SUBMISSION)
    assert world.run(world.gateway.authenticate(Credentials(mechanism, "alice", b""), session)) is None


def test_a_module_that_is_not_configured_is_named():
    with pytest.raises(KeyUnavailable, match="there is no module called 'hsm'"):
        MemoryGateway().pipeline.token("hsm")


def test_usable_certificates_are_those_that_mail_would_be_encrypted_for():
    ours, theirs = Authority("CA"), Authority("Strangers")
    bob = ours.issue("bob@example.net")
    directory = MemoryDirectory.of(bob, theirs.issue("bob@example.net"), ours.issue("bob@example.net", at=AT - timedelta(days=9), days=1))
    gateway = MemoryGateway(directory, trust=MemoryTrust(ours.anchor))
    assert gateway.runtime.run(gateway.pipeline.usable_certificates(BOB)) == (bob.certificate,)
    assert len(gateway.runtime.run(gateway.pipeline.certificates(BOB))) == 3
    assert gateway.runtime.run(gateway.pipeline.usable_certificates(ALICE)) == ()


def test_a_directory_that_is_out_makes_nobody_one_without_a_certificate():
    directory = MemoryDirectory()
    directory.out = Unavailable("the directory is down")
    gateway = MemoryGateway(directory, trust=MemoryTrust(Authority("CA").anchor))
    with pytest.raises(Unavailable):
        gateway.runtime.run(gateway.pipeline.usable_certificates(BOB))


def test_a_service_processes_a_message_without_the_spool():
    """What a milter does: a transaction of its own making, outcomes, nothing kept."""

    class Milter:
        @hookimpl
        def startup(self, gateway):
            self.gateway = gateway

    milter = Milter()
    gateway = MemoryGateway(milter, trust=MemoryTrust(Authority("CA").anchor))
    gateway.runtime.run(gateway.pipeline.startup())

    async def ask():
        octets = values.message("From: eve@example.net\n\nhello\n").octets
        transaction = milter.gateway.begin(values.session(), values.envelope("eve@example.net", "alice@example.org"), octets)
        return [outcome async for outcome in milter.gateway.process(transaction)]

    (outcome,) = gateway.runtime.run(ask())
    assert outcome.decision.action == "deliver" and b"Authentication-Results" in b"".join(outcome.segments)
    assert not gateway.spool.rows and not gateway.events


def test_the_pipeline_is_the_gateway_of_the_interface():
    pipeline = MemoryGateway().pipeline
    for name in [name for name in vars(Gateway) if not name.startswith("_")]:
        assert callable(getattr(pipeline, name)), name
    assert pipeline.settings and pipeline.runtime
