"""What a handshake came to."""

from __future__ import annotations

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from mailsec.errors import ProtocolError
from mailsec.model.session import TlsInfo
from mailsec.net.tls_context import ContextFacts
from mailsec.net.tls_library import was_resumed

__all__ = ["facts_of", "tls_info"]

# RFC 9266 §2: the label, an empty context, 32 octets
_BINDING = b"EXPORTER-Channel-Binding"
_BINDING_OCTETS = 32


def tls_info(connection: SSL.Connection, *, verified: bool = False) -> TlsInfo:
    """What the handshake came to. Raise ProtocolError for a peer that shows a certificate which cannot be read."""
    try:
        certificate = connection.get_peer_certificate(as_cryptography=True)
        shown = certificate.public_bytes(Encoding.DER) if certificate is not None else None
        sent = (connection.get_peer_cert_chain(as_cryptography=True) or ()) if shown is not None else ()
        chain = tuple(der for der in (one.public_bytes(Encoding.DER) for one in sent) if der != shown)
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
        group=connection.get_group_name() or "",
        resumed=was_resumed(connection),
        peer_chain=chain,
        own_certificate=_own(connection),
        exporter=_exporter(connection),
    )


def facts_of(connection: SSL.Connection) -> ContextFacts:
    """What is remembered with the context of a connection; nothing where that is none of ours."""
    facts = connection.get_context().get_app_data()
    return facts if isinstance(facts, ContextFacts) else ContextFacts()


def _exporter(connection: SSL.Connection) -> bytes:
    # RFC 9266 §4.2: with TLS 1.2 only where the master secret is extended, which the library does not tell.
    if connection.get_protocol_version_name() != "TLSv1.3":
        return b""
    return connection.export_keying_material(_BINDING, _BINDING_OCTETS, b"")


def _own(connection: SSL.Connection) -> bytes | None:
    shown = facts_of(connection).shown
    if len(shown) == 1:
        return shown[0].der
    if not shown:
        return None
    used = connection.get_certificate(as_cryptography=True)
    return used.public_bytes(Encoding.DER) if used is not None else None
