"""What every service, source, engine and authenticator of a plugin must do, as functions for its tests. They fail by AssertionError.

The one invariant: a contract asks only what the gateway relies on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from mailsec.algorithms.profiles import PKCS1_V1_5, PROFILES
from mailsec.algorithms.public_keys import public_key_facts
from mailsec.errors import CryptoError, MailsecError
from mailsec.interfaces import Authenticator, Credentials, CryptoBackend, Evidence, EvidenceRequest, RevocationSource, TcpService
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.model.session import Session
from mailsec.plugins import PluginManager
from mailsec.testing import values
from mailsec.testing.dialog import Player
from mailsec.testing.gateway import MemoryGateway
from mailsec.x509.issue import make_key, public_key_of

__all__ = ["check_authenticator", "check_crypto_backend", "check_plugin", "check_revocation_source", "check_tcp_service"]

Run = Callable[[Awaitable[Any]], Any]


def check_tcp_service(service: TcpService, run: Run, *, session: Session | None = None) -> None:
    """Its cores set a deadline, take octets of any kind in any pieces, ask only for what there is, and end when their peer does."""
    assert service.name
    talk = session or values.session()
    silent = Player(*service.open(talk), run)
    assert silent.deadline is not None or silent.closed, "a core sets a Deadline at once: a silent peer would stay for ever"
    silent.wait()
    silent.lose()
    noise = [b"", b"\r\n", b"\n", b"\0", b"\xff" * 300, b"GET / HTTP/1.0\r\n\r\n", b"A" * 200_000, bytes(range(256)) * 20]
    for octets in noise:
        player = Player(*service.open(talk), run)
        for start in range(0, len(octets), 777):
            if player.closed or player.in_handshake:
                break
            player.feed(octets[start : start + 777])
        assert len(player.said) <= 1000 + 4 * len(octets), "a few octets bring many: an attacker's amplifier"
        player.lose()
    first, second = service.open(talk), service.open(talk)
    assert first[0] is not second[0], "each connection has a core of its own"


def check_revocation_source(source: RevocationSource, run: Run, known: EvidenceRequest, unknown: EvidenceRequest) -> None:
    """It brings something for `known` and nothing for `unknown`; what it cannot say it says by an error that is temporary."""
    assert source.name
    found: Sequence[Evidence] = run(source.evidence(known))
    assert found and all(isinstance(one, Evidence) and one.kind and one.data and one.source for one in found)
    for request in (unknown, EvidenceRequest(known.kind, b"no certificate"), EvidenceRequest("a kind of tomorrow", known.certificate)):
        failure: MailsecError | None = None
        brought: Sequence[Evidence] = ()
        try:
            brought = run(source.evidence(request))
        except MailsecError as error:
            failure = error
        assert not brought, f"evidence for what it cannot know: {request.kind}"
        assert failure is None or failure.temporary, "what cannot be had is no reason to refuse mail for good"
    addresses = getattr(source, "addresses", None)
    if addresses is not None:
        assert all(isinstance(one, str) for one in addresses(known))


def check_authenticator(authenticator: Authenticator, run: Run, right: Credentials, wrong: Credentials) -> None:
    """It says who `right` is, and nobody for `wrong`, or for a mechanism that it does not have."""
    assert authenticator.name and right.mechanism in authenticator.mechanisms
    session = values.session()
    identity = run(authenticator.authenticate(right, session))
    assert identity is not None and identity.name and identity.addresses, "somebody without an address can send nothing"
    for credentials in (wrong, Credentials(right.mechanism, right.login, b""), Credentials("NOSUCH", right.login, right.secret)):
        assert run(authenticator.authenticate(credentials, session)) is None
    assert right.secret.decode("latin-1") not in repr(identity)


def check_crypto_backend(backend: CryptoBackend, run: Run) -> None:
    """It computes what the software engine does, and never raises for a signature or key that is wrong."""
    assert backend.name
    ours = SoftwareBackend()
    for digest in ("sha256", "sha384", "sha512"):
        one, other = backend.hash(digest), ours.hash(digest)
        for running in (one, other):
            running.update(b"octets")
            running.update(memoryview(b" and more"))
        assert one.digest() == other.digest(), digest
    try:
        backend.hash("md-of-tomorrow")
    except CryptoError:
        pass
    else:
        raise AssertionError("a digest that it does not know is a CryptoError")
    for kind in ("ec-p256", "rsa-2048", "ed25519"):
        private = make_key(kind)
        public, key = public_key_of(private), SoftwareKey("key", private)
        facts = public_key_facts(public)
        mechanism = PROFILES["default"].signature_for(facts.key_type, facts.bits)
        signature = run(key.sign(mechanism, b"octets"))
        assert backend.verify(public, mechanism, signature, b"octets"), f"a right signature is refused: {kind}"
        wrong = bytes([signature[0] ^ 1]) + signature[1:]
        for arguments in (
            (public, signature, b"others"),
            (public, wrong, b"octets"),
            (public, b"", b"octets"),
            (b"rubbish", signature, b"octets"),
        ):
            assert not backend.verify(arguments[0], mechanism, arguments[1], arguments[2]), f"a wrong signature is taken: {kind}"
        backend.check_key(public, mechanism)
        if kind == "rsa-2048":
            wrapped = run(backend.wrap(public, PKCS1_V1_5, bytes(32)))
            assert run(key.unwrap(PKCS1_V1_5, wrapped)) == bytes(32)
    try:
        backend.check_key(b"rubbish", mechanism)
    except CryptoError:
        return
    raise AssertionError("a key that cannot be computed with is a CryptoError: its signatures are not wrong, but unknown")


def check_plugin(plugin: object, **changes: Any) -> MemoryGateway:
    """The gateway starts with it, and takes a message of each origin without a failure of it; return the gateway."""
    PluginManager().add(plugin, "plugin")
    gateway = MemoryGateway(plugin, **changes)
    gateway.runtime.run(gateway.pipeline.startup())
    text = "From: alice@example.org\nTo: bob@example.net\nSubject: x\n\nhello\n"
    replies = [gateway.submit(text), gateway.trust(text), gateway.arrive(text.replace("alice", "eve"), "bob@example.org")]
    failed = [event for event in gateway.events if event.name == "plugin failed"]
    assert not failed, failed[0].fields["reason"]
    assert all(reply.code for reply in replies)
    gateway.runtime.run(gateway.pipeline.shutdown())
    assert not gateway.runtime.failures, gateway.runtime.failures
    return gateway
