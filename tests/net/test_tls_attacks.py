"""Clients of TLS that speak by hand: what a library would never send, and what lives on after it should have gone."""

from __future__ import annotations

import gc
import weakref
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL

from mailsec.net.tls import ServerTls, server_tls
from mailsec.net.tls_context import own_certificate
from mailsec.net.tls_layer import TlsLayer
from mailsec.net.tls_library import GROUPS_CAN_BE_SET, set_groups
from tests.tls.issuing import Issuer

from .test_tls_layer import Above, Wire


def expanded(secret: bytes, name: bytes, size: int) -> bytes:
    """RFC 8446 §7.1: HKDF-Expand-Label with an empty context."""
    label = b"tls13 " + name
    return HKDFExpand(hashes.SHA256(), size, size.to_bytes(2, "big") + bytes([len(label)]) + label + b"\0").derive(secret)


def key_updates(secret: bytes, count: int) -> bytes:
    """Records that ask for new keys, and for an answer each (RFC 8446 §4.6.3), each under the keys of the one before."""
    records = []
    for _ in range(count):
        header = b"\x17\x03\x03" + (6 + 16).to_bytes(2, "big")
        sealed = AESGCM(expanded(secret, b"key", 16)).encrypt(expanded(secret, b"iv", 12), b"\x18\0\0\1\1\x16", header)
        records.append(header + sealed)
        secret = expanded(secret, b"traffic upd", 32)
    return b"".join(records)


def step(connection: SSL.Connection) -> None:
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        pass


def test_attack_new_keys_without_end_before_the_first_word_of_a_server_fill_no_memory(certificates):
    secrets: dict[bytes, bytes] = {}

    def log(connection: SSL.Connection, line: bytes) -> None:
        name, _, secret = line.split()
        secrets[name] = bytes.fromhex(secret.decode())

    context = SSL.Context(SSL.TLS_METHOD)
    context.set_tls13_ciphersuites(b"TLS_AES_128_GCM_SHA256")
    context.set_keylog_callback(log)
    client = SSL.Connection(context, None)
    client.set_connect_state()
    server = server_tls(certificates.pem, certificates.key_pem).serverConnectionForTLS(None)
    server.set_accept_state()
    wire, above = Wire(), Above()
    layer = TlsLayer(wire, above, server, client=False)
    while not above.shaken:
        step(client)
        layer.dataReceived(client.bio_read(65536))
        if wire.out:
            client.bio_write(bytes(wire.out))
            wire.out.clear()
    # Behind STARTTLS a server waits for EHLO, and its tickets with it.
    asked = key_updates(secrets[b"CLIENT_TRAFFIC_SECRET_0"], 300)
    layer.dataReceived(asked)
    assert len(wire.out) > len(asked) * 0.9, "the answers go to the socket, where what is not taken is bounded"


@pytest.mark.skipif(not GROUPS_CAN_BE_SET, reason="this TLS library cannot be told the groups of a client")
def test_attack_client_hello_again_after_the_certificates_were_replaced_finds_no_callback_that_is_gone(certificates):
    """RFC 8446 §4.1.4: the library asks for the name's certificate once more behind a HelloRetryRequest."""
    now = [0.0]
    other = Issuer(at=datetime.now(UTC)).issue("other.example")
    shown = [
        own_certificate("first", certificates.pem, certificates.key_pem),
        own_certificate("other", other.pem, other.key_pem),
    ]
    tls = ServerTls(shown, monotonic=lambda: now[0])
    context = SSL.Context(SSL.TLS_METHOD)
    set_groups(context, ("P-521", "X25519"))
    client = SSL.Connection(context, None)
    client.set_connect_state()
    client.set_tlsext_host_name(b"other.example")
    server = tls.serverConnectionForTLS(None)
    server.set_accept_state()
    first = weakref.ref(server.get_context())
    step(client)
    server.bio_write(client.bio_read(65536))
    step(server)
    client.bio_write(server.bio_read(65536))
    now[0] = 1e9
    tls.serverConnectionForTLS(None)
    gc.collect()
    assert first() is not None, "whose callback the library calls by a pointer"
    step(client)
    server.bio_write(client.bio_read(65536))
    step(server)
    client.bio_write(server.bio_read(65536))
    step(client)
    assert client.get_peer_certificate(as_cryptography=True) == other.parsed
