"""TLS for listeners and next hops: contexts from octets in memory, the check of a peer, and what a session turned out to be.

The one invariant: `verified` means that the chain leads to a given root and that the certificate names the host (RFC 6125, RFC 9525);
nothing less is ever reported as verified.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key, load_pem_private_key
from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IOpenSSLServerConnectionCreator
from zope.interface import implementer

from mailsec.errors import ConfigurationError, ProtocolError
from mailsec.model.requests import StartTls
from mailsec.model.session import TlsInfo

__all__ = ["ClientTls", "ServerTls", "check_peer", "client_tls", "server_tls", "tls_info"]

# RFC 9325 §4.2: forward secrecy and authenticated encryption only. TLS 1.3 has a list of its own.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:!aNULL:!PSK:!DSS"
# RFC 9325 §3.3, §3.5: no compression (CRIME), no renegotiation.
_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_SINGLE_DH_USE | SSL.OP_SINGLE_ECDH_USE


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    # RFC 8996: TLS 1.0 and 1.1 are not used.
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(_OPTIONS)
    context.set_cipher_list(_CIPHERS)
    # An idle session then costs no buffers: 2000 connections of one worker.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


def _certificates(data: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(data) if b"-----BEGIN" in data else [x509.load_der_x509_certificate(data)]


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """One listener's certificate. Call it with a `StartTls` request (as `WireProtocol` does), or give it to Twisted as it is."""

    def __init__(self, context: SSL.Context) -> None:
        self._context = context

    def __call__(self, request: StartTls) -> ServerTls:
        return self

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        return SSL.Connection(self._context, None)


def server_tls(certificate: bytes, private_key: bytes, chain: Sequence[bytes] = ()) -> ServerTls:
    """A server's context from a certificate, its key (PKCS#8) and its chain, each PEM or DER, in memory.

    A PEM `certificate` may hold its chain. Raise ConfigurationError for what cannot be read or does not fit together.
    """
    context = _context()
    try:
        own, *rest = _certificates(certificate)
        for octets in chain:
            rest += _certificates(octets)
        load = load_pem_private_key if b"-----BEGIN" in private_key else load_der_private_key
        context.use_certificate(own)
        context.use_privatekey(load(private_key, None))  # type: ignore[arg-type]  # kinds that OpenSSL refuses raise below
        context.check_privatekey()
        for extra in rest:
            if extra.subject != extra.issuer:
                # RFC 8446 §4.4.2: the root itself may be left out.
                context.add_extra_chain_cert(extra)
    except (ValueError, TypeError, SSL.Error) as error:
        raise ConfigurationError(
            "the server certificate and its private key cannot be used together",
            hint="give a certificate with the key that belongs to it (RSA, ECDSA or Ed25519)",
        ) from error
    # Sessions can be resumed within this worker: tickets under a key that OpenSSL draws and forgets with the process.
    context.set_session_id(b"mailsec")
    context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
    context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
    return ServerTls(context)


@implementer(IOpenSSLClientConnectionCreator)
class ClientTls:
    """One connection to a next hop."""

    def __init__(self, context: SSL.Context, server_name: str) -> None:
        self._context = context
        self._server_name = server_name

    def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        connection = SSL.Connection(self._context, None)
        if self._server_name and not _is_address(self._server_name):
            # RFC 6066 §3: SNI holds a DNS name, never an address.
            connection.set_tlsext_host_name(self._server_name.encode("idna"))
        return connection


def client_tls(roots: bytes | None = None) -> Callable[[StartTls], ClientTls]:
    """What `WireProtocol` needs to begin TLS as a client. `roots`: trust anchors in PEM; None: those of the system."""

    @lru_cache(maxsize=4)
    def context_for(verify: str) -> SSL.Context:
        context = _context()
        if verify != "verified":
            # RFC 7435: opportunistic and "required" take any certificate; who must be sure says "verified".
            context.set_verify(SSL.VERIFY_NONE)
            return context
        context.set_verify(SSL.VERIFY_PEER)
        if roots is None:
            context.set_default_verify_paths()
        else:
            store = context.get_cert_store()
            assert store is not None
            for root in x509.load_pem_x509_certificates(roots):
                store.add_cert(_to_openssl(root))
        return context

    return lambda request: ClientTls(context_for(request.verify), request.server_name)


def _to_openssl(certificate: x509.Certificate) -> Any:
    from OpenSSL import crypto

    return crypto.X509.from_cryptography(certificate)


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
    try:
        if _is_address(request.server_name):
            verify_ip_address(connection, request.server_name)
        else:
            verify_hostname(connection, request.server_name)
    except (VerificationError, CertificateError, x509.ExtensionNotFound, ValueError) as error:
        raise ProtocolError(
            f"the certificate of the next hop does not name {request.server_name}",
            hint="set the next hop to the name in its certificate, or its tls to required",
            stage="tls",
        ) from error
    return True


def tls_info(connection: SSL.Connection, *, verified: bool = False) -> TlsInfo:
    """What the handshake came to. Raise ProtocolError for a peer that shows a certificate which cannot be read."""
    try:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        shown = certificate.public_bytes(Encoding.DER) if certificate is not None else None
    except ValueError as error:  # OpenSSL takes what is no DER to others
        raise ProtocolError("the certificate of the peer cannot be read", stage="tls") from error
    name = connection.get_servername()
    return TlsInfo(
        version=connection.get_protocol_version_name(),
        cipher=connection.get_cipher_name() or "",
        cipher_bits=connection.get_cipher_bits() or 0,
        peer_certificate=shown,
        peer_verified=verified,
        server_name=name.decode("ascii", "replace") if name else "",
    )
