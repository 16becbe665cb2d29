"""TLS contexts: what is taken, what is refused, and that sessions are resumed."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from mailsec.errors import ConfigurationError, ProtocolError
from mailsec.model.requests import StartTls
from mailsec.net.tls import server_tls
from mailsec.net.tls_client import check_peer
from mailsec.net.tls_session import tls_info
from mailsec.wire.smtp.offers import ServerSettings


def self_signed(key) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def pkcs8(key, encoding: serialization.Encoding) -> bytes:
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


@pytest.mark.parametrize("encoding", [serialization.Encoding.PEM, serialization.Encoding.DER], ids=["pem", "der"])
@pytest.mark.parametrize(
    "key", [ec.generate_private_key(ec.SECP256R1()), rsa.generate_private_key(65537, 2048), ed25519.Ed25519PrivateKey.generate()],
    ids=["ec", "rsa", "ed25519"],
)  # fmt: skip
def test_certificates_and_keys_of_every_usual_kind(key, encoding):
    assert server_tls(self_signed(key).public_bytes(encoding), pkcs8(key, encoding))


def test_key_of_another_certificate_is_a_configuration_error(certificates):
    other = pkcs8(ec.generate_private_key(ec.SECP256R1()), serialization.Encoding.PEM)
    for certificate, key in ((certificates.pem, other), (b"rubbish", other), (certificates.pem, b"rubbish")):
        with pytest.raises(ConfigurationError) as info:
            server_tls(certificate, key)
        assert info.value.hint and "PRIVATE" not in str(info.value)


def test_chain_is_shown(certificates, serve):
    tls = server_tls(certificates.pem, certificates.key_pem, [certificates.ca_pem])
    assert tls is not None


def test_certificate_that_names_nobody_is_not_verified(certificates):
    nameless = certificates._make("localhost", certificates.key.public_key(), None)
    server = server_tls(nameless.public_bytes(serialization.Encoding.PEM), certificates.key_pem).serverConnectionForTLS(None)
    context = SSL.Context(SSL.TLS_METHOD)
    client = SSL.Connection(context, None)
    server.set_accept_state()
    client.set_connect_state()
    for _ in range(4):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    assert tls_info(client).version == "TLSv1.3"
    with pytest.raises(ProtocolError, match="does not name localhost"):
        check_peer(client, StartTls("localhost", "verified"))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_sessions_are_resumed_and_ciphers_are_authenticated(serve, certificates, version):
    port, _ = serve(ServerSettings("gw.example.org", tls="implicit"))
    context = ssl.create_default_context(cadata=certificates.ca_pem.decode())
    context.maximum_version = version
    session = None
    for attempt in range(2):
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as raw,
            context.wrap_socket(raw, server_hostname="localhost", session=session) as sock,
        ):
            assert sock.recv(100).startswith(b"220")
            assert sock.session_reused is bool(attempt)
            assert "GCM" in sock.cipher()[0] or "CHACHA20" in sock.cipher()[0]
            assert sock.compression() is None
            session = sock.session
