"""TLS towards next hops: contexts for what is asked of the peer, and the check of who it is.

The one invariant: `verified` means one of two things. The chain leads to a given root (or through the certificate that was named) and the
certificate names the host (RFC 6125, RFC 9525); or the certificate, or its key, is one that was pinned. Nothing less is ever reported as
verified. A session is taken up again at the place where it began only, under the very demands that it was judged by: never under stronger ones.
"""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import SSL, crypto
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from zope.interface import implementer

from mailsec.errors import ConfigurationError, ProtocolError
from mailsec.keys.files import load_certificates
from mailsec.model.requests import StartTls
from mailsec.model.tls import TlsPeer
from mailsec.net.tls_context import ContextFacts, OwnCertificate, add_certificate, make_context
from mailsec.net.tls_session import facts_of

__all__ = ["ClientTls", "NextHopTls", "Wallet", "check_peer", "client_tls"]

_PARTIAL_CHAIN = 0x80000
"""X509_V_FLAG_PARTIAL_CHAIN: a certificate that was given is believed although it is no root."""
_MOST_CONTEXTS = 256
_MOST_PLACES = 256
_SESSIONS = 8
"""Sessions that are kept for one place: as many as there are connections to it at once, by default."""


class Wallet(Protocol):
    """Certificates by the names that the configuration uses, as they are at this moment."""

    def own(self, name: str) -> OwnCertificate | None:
        """Ours, with its key; None where there is none now."""
        ...

    def other(self, nickname: str) -> bytes | None:
        """Anybody's (DER)."""
        ...


@dataclass(frozen=True, slots=True)
class _Demands:
    """The context of all that is asked of a peer at once, and the sessions that began under it."""

    context: SSL.Context
    sessions: dict[tuple[str, str], deque[tuple[SSL.Session, float]]] = field(default_factory=dict)
    """By place and server name, each with the instant until which it may be used."""


@implementer(IOpenSSLClientConnectionCreator)
class ClientTls:
    """One connection to a next hop."""

    def __init__(self, demands: _Demands, request: StartTls, place: str, monotonic: Callable[[], float]) -> None:
        self._demands = demands
        self._request = request
        self._place = (place, request.server_name)
        self._monotonic = monotonic

    def keep(self, connection: SSL.Connection) -> None:
        """The session of a connection that was judged, and is over: the next one may take it up."""
        policy = self._request.peer.policy
        session = connection.get_session() if policy.resumption else None
        if session is None:
            return
        sessions = self._demands.sessions
        if self._place not in sessions and len(sessions) >= _MOST_PLACES:
            sessions.clear()
        sessions.setdefault(self._place, deque(maxlen=_SESSIONS)).append((session, self._monotonic() + policy.lifetime))

    def _session(self) -> SSL.Session | None:
        kept = self._demands.sessions.get(self._place)
        while kept:
            # RFC 8446 §C.4: a ticket is used once, so that nobody who listens can tell that the two connections are of one client.
            session, until = kept.pop()
            if self._monotonic() < until:
                return session
        return None

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._demands.context, None)
        session = self._session()
        if session is not None:
            connection.set_session(session)
        name = self._request.server_name
        if name and not _is_address(name):
            # RFC 6066 §3: SNI holds a DNS name, never an address.
            connection.set_tlsext_host_name(name.encode("idna"))
        return connection


class NextHopTls:
    """Begins TLS as a client, as `client_tls` says."""

    def __init__(self, roots: bytes | None, wallet: Wallet | None, monotonic: Callable[[], float]) -> None:
        self._roots = roots
        self._wallet = wallet
        self._monotonic = monotonic
        self._known: dict[tuple[str, TlsPeer, bytes | None, OwnCertificate | None], _Demands] = {}

    def __call__(self, request: StartTls, place: str = "") -> ClientTls:
        peer, wallet, known = request.peer, self._wallet, self._known
        authority = _found(wallet.other(peer.authority) if wallet else None, peer.authority) if peer.authority else None
        own = _found(wallet.own(peer.certificate) if wallet else None, peer.certificate) if peer.certificate else None
        key = (request.verify, peer, authority, own)
        demands = known.get(key)
        if demands is None:
            if len(known) >= _MOST_CONTEXTS:
                known.clear()
            demands = known[key] = _Demands(_context(request, authority, own, self._roots))
        return ClientTls(demands, request, place, self._monotonic)

    def forget(self) -> None:
        """Every session: who connects from now on is judged by a whole handshake, also where an earlier connection ends later."""
        self._known.clear()


def client_tls(roots: bytes | None = None, wallet: Wallet | None = None, monotonic: Callable[[], float] = time.monotonic) -> NextHopTls:
    """What `WireProtocol` needs to begin TLS as a client, with the place (an address) whose sessions may be taken up. `roots`: trust
    anchors in PEM; None: those of the system.

    What it returns raises ConfigurationError where a certificate that the request names is not there now.
    """
    return NextHopTls(roots, wallet, monotonic)


def _found(value: Any, name: str) -> Any:
    if value is None:
        raise ConfigurationError(f'there is no certificate "{name}"', hint='"mailsec check" tells more', stage="tls")
    return value


def _context(request: StartTls, authority: bytes | None, own: OwnCertificate | None, roots: bytes | None) -> SSL.Context:
    context = make_context(request.peer.policy)
    context.set_app_data(ContextFacts((own,) if own is not None else (), authority))
    if own is not None:
        add_certificate(context, own)
    if request.verify != "verified" or request.peer.pins:
        # RFC 7435: opportunistic and "required" take any certificate; who must be sure says "verified". A pin is compared afterwards.
        context.set_verify(SSL.VERIFY_NONE)
        return context
    context.set_verify(SSL.VERIFY_PEER)
    store = context.get_cert_store()
    assert store is not None
    if authority is not None:
        store.add_cert(_to_openssl(authority))
        store.set_flags(_PARTIAL_CHAIN)
    elif roots is None:
        context.set_default_verify_paths()
    else:
        for root in load_certificates(roots):
            store.add_cert(_to_openssl(root))
    return context


def _to_openssl(certificate: bytes) -> Any:
    # By OpenSSL itself: it takes what public CAs once made, such as a serial number of zero, of which cryptography warns.
    try:
        return crypto.load_certificate(crypto.FILETYPE_ASN1, certificate)
    except crypto.Error:
        raise ConfigurationError("OpenSSL cannot read a certificate that is to vouch for next hops", stage="tls") from None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_peer(connection: SSL.Connection, request: StartTls) -> bool:
    """After a handshake: True where the peer is verified, False where nobody asked; raise ProtocolError where it is somebody else."""
    if request.verify != "verified":
        return False
    if request.peer.pins:
        _check_pins(connection, request)
        return True
    authority = facts_of(connection).authority
    if authority is not None:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is not None and certificate.public_bytes(Encoding.DER) == authority:
            # The certificate itself was named: nothing that stands in it makes it surer.
            return True
    try:
        if _is_address(request.server_name):
            verify_ip_address(connection, request.server_name)
        else:
            verify_hostname(connection, request.server_name)
    except (VerificationError, CertificateError, x509.ExtensionNotFound, ValueError) as error:
        raise ProtocolError(
            f"the certificate of the next hop does not name {request.server_name}",
            hint="set the next hop to the name in its certificate, or server_name, or its tls to required",
            stage="tls",
        ) from error
    return True


def _check_pins(connection: SSL.Connection, request: StartTls) -> None:
    try:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        if certificate is None:
            raise ProtocolError("the next hop shows no certificate", stage="tls")
        whole = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, TypeError) as error:
        raise ProtocolError("the certificate of the next hop cannot be read", stage="tls") from error
    key = hashlib.sha256(spki).hexdigest()
    if not {f"sha256:{whole}", f"key-sha256:{key}"} & set(request.peer.pins):
        raise ProtocolError(
            f"the next hop shows another certificate than was pinned: sha256:{whole}, key-sha256:{key}",
            hint="where it was renewed and that is certain, put one of these into pins",
            stage="tls",
        )
