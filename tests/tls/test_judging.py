"""Client certificates judged at an instant: resumed sessions, evidence that comes later, trust that cannot be read."""

from __future__ import annotations

import datetime as dt

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from mailsec.errors import Refused, Unavailable
from mailsec.gateway.client_certificates import ClientCertificates
from mailsec.gateway.inquiry import Inquiries
from mailsec.interfaces import Evidence
from mailsec.keys.software import SoftwareBackend
from mailsec.model.session import Origin, TlsInfo
from mailsec.model.settings import ListenerSettings, RevocationSettings
from mailsec.model.trust import Anchor
from mailsec.testing.runtime import FakeRuntime
from tests.tls.issuing import Issuer

NOW = dt.datetime(2026, 11, 27, 12, 0, tzinfo=dt.UTC)
REQUIRED = ListenerSettings("mtls", "127.0.0.1:465", "smtp", Origin.SUBMISSION, client_certificates="required")
OPTIONAL = ListenerSettings("mtls", "127.0.0.1:465", "smtp", Origin.SUBMISSION, client_certificates="optional")


class World:
    """A trust store, a source of lists and answers, and the judge between them."""

    def __init__(self) -> None:
        self.ca = Issuer("TLS CA", at=NOW)
        self.below = Issuer("TLS CA 2", at=NOW, issuer=self.ca)
        self.runtime = FakeRuntime(NOW)
        self.lists = [self.ca.crl(hours=48), self.below.crl(hours=48)]
        self.responds = False
        self.fails = False
        self._anchors = (Anchor(self.ca.der, purposes=("tls-client",)),)
        revocation = RevocationSettings()
        inquiries = Inquiries(self.runtime, [self], revocation)
        self.judge = ClientCertificates(self.runtime, self, inquiries, SoftwareBackend(), revocation)

    name = "crl"
    local = True

    async def evidence(self, request):
        if request.kind == "crl":
            return [Evidence("crl", data, "test", self.runtime.now()) for data in self.lists]
        if request.kind != "ocsp" or not self.responds:
            return []
        certificate, issuer = (x509.load_der_x509_certificate(one) for one in (request.certificate, request.issuer))
        asked = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA256()).build().public_bytes(Encoding.DER)
        authority = self.ca if request.issuer == self.ca.der else self.below
        return [Evidence("ocsp", authority.answer(asked, at=self.runtime.now(), hours=1), "test", self.runtime.now())]

    async def anchors(self, purpose="email"):
        if self.fails:
            raise Unavailable("the database is out", stage="database")
        return self._anchors

    async def distrusted(self, purpose="email"):
        return ()

    async def authorities(self):
        return ()

    def ask(self, listener, holder, *, resumed=False):
        info = TlsInfo("TLSv1.3", "x", peer_certificate=holder.der, peer_chain=() if resumed else holder.chain, resumed=resumed)
        return self.runtime.run(self.judge.judge(listener, info))


def test_session_resumed_after_the_client_certificate_was_revoked_is_refused():
    world = World()
    alice = world.below.issue(addresses=("alice@example.org",), purpose="client")
    assert world.ask(REQUIRED, alice).peer_identity.addresses == ("alice@example.org",)
    # A resumed session brings no chain; what it began with is remembered.
    assert world.ask(REQUIRED, alice, resumed=True).peer_verified
    world.below.revoke(alice)
    world.lists[1] = world.below.crl(hours=48, number=2)
    world.runtime.advance(120)
    with pytest.raises(Refused, match="revoked"):
        world.ask(REQUIRED, alice, resumed=True)
    judged = world.ask(OPTIONAL, alice, resumed=True)
    assert not judged.peer_verified and judged.peer_identity is None and judged.peer_reasons


def test_client_certificate_is_judged_by_what_a_responder_says():
    world = World()
    world.lists, world.responds = [], True
    alice = world.below.issue(addresses=("alice@example.org",), purpose="client")
    assert world.ask(REQUIRED, alice).peer_verified
    world.below.revoke(alice)
    assert world.ask(REQUIRED, alice).peer_verified, "the answer is good for an hour"
    world.runtime.advance(2 * 3600)
    with pytest.raises(Refused, match="revoked"):
        world.ask(REQUIRED, alice)
    judged = world.ask(OPTIONAL, alice)
    assert not judged.peer_verified and judged.peer_identity is None


def test_certificate_that_ends_during_a_sessions_life_is_refused_when_it_is_resumed():
    world = World()
    alice = world.ca.issue(addresses=("alice@example.org",), purpose="client", ends=dt.timedelta(hours=1))
    assert world.ask(REQUIRED, alice).peer_verified
    world.runtime.advance(2 * 3600)
    with pytest.raises(Refused):
        world.ask(REQUIRED, alice, resumed=True)


def test_trust_that_cannot_be_read_believes_nobody():
    world = World()
    alice = world.ca.issue(addresses=("alice@example.org",), purpose="client")
    world.fails = True
    with pytest.raises(Unavailable):
        world.ask(REQUIRED, alice)
    judged = world.ask(OPTIONAL, alice)
    assert not judged.peer_verified and judged.peer_identity is None


def test_octets_that_are_no_certificate_are_nobody():
    world = World()
    for octets in (b"", b"\x30\x00", b"\xff" * 5000, world.ca.der[:-5]):
        judged = world.runtime.run(world.judge.judge(OPTIONAL, TlsInfo("TLSv1.3", "x", peer_certificate=octets)))
        assert not judged.peer_verified and judged.peer_identity is None and judged.peer_reasons
