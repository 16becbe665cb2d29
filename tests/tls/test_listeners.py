"""What a listener shows to whom, as real clients see it: OpenSSL's s_client, Python's ssl, and octets by hand."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess

import pytest
from OpenSSL import SSL

from mailsec.x509.certificate import load_certificate
from tests.peers.gateway import until
from tests.tls.conftest import NOW


def shown(scene, listener: str, name: str | None = "gw.example.org", **limits) -> bytes:
    """The certificate (DER) that a client is shown who asks for `name`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for limit, value in limits.items():
        setattr(context, limit, value)
    with (
        socket.create_connection(("127.0.0.1", scene.gateway.ports[listener]), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname=name) as sock,
    ):
        return sock.getpeercert(binary_form=True)


def s_client(scene, need, listener: str, *options: str, said: bytes = b"QUIT\r\n") -> str:
    port = scene.gateway.ports[listener]
    command = [need("openssl"), "s_client", "-connect", f"127.0.0.1:{port}", "-ign_eof", *options]
    done = subprocess.run(command, input=said, capture_output=True, timeout=60, check=False)
    return (done.stdout + done.stderr).decode("latin-1")


@pytest.mark.parametrize(
    ("name", "whose"),
    [("gw.example.org", "ec"), ("OTHER.example", "other"), ("x.other.example", "other"),
     ("a.b.other.example", "ec"), ("nobody.example", "ec"), (None, "ec")],
    ids=str,
)  # fmt: skip
def test_certificate_is_chosen_by_name(scene, name, whose):
    assert shown(scene, "any", name) == getattr(scene, whose).der


@pytest.mark.parametrize(
    ("listener", "options", "taken"),
    [
        ("any", ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"), True),
        ("any", ("-tls1_2", "-cipher", "AES128-GCM-SHA256:@SECLEVEL=0"), False),
        ("any", ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0"), False),
        ("any", ("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"), True),
        ("modern", ("-tls1_3",), True),
        ("modern", ("-tls1_2",), False),
        ("fips", ("-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"), True),
        ("fips", ("-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"), False),
        ("fips", ("-tls1_3", "-groups", "X25519"), False),
        ("fips", ("-tls1_3", "-groups", "P-256"), True),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_profile_says_which_versions_ciphers_and_groups_are_taken(scene, need, listener, options, taken):
    seen = s_client(scene, need, listener, *options)
    assert bool(re.search(r"New, TLSv1\.[23], Cipher is (?!\(NONE\))", seen)) is taken, seen


def test_rsa_and_ecdsa_side_by_side_each_with_its_own_chain(scene, need):
    for version, old, new in (("-tls1_2", "RSA+SHA256", "ECDSA+SHA256"), ("-tls1_3", "rsa_pss_rsae_sha256", "ECDSA+SHA256")):
        for algorithm, subject, certificates in ((old, "RSA-PSS|RSA", 1), (new, "ECDSA", 2)):
            seen = s_client(scene, need, "any", version, "-showcerts", "-servername", "gw.example.org", "-sigalgs", algorithm)
            assert re.search(rf"Peer signature type: ({subject})", seen), seen
            assert seen.count("BEGIN CERTIFICATE") - 1 in (certificates, certificates - 1), seen
            assert len(re.findall(r"^ *\d s:", seen, re.MULTILINE)) == certificates


@pytest.mark.parametrize(
    ("listener", "name", "welcome"),
    [
        ("known", "gw.example.org", True),
        ("known", None, True),
        ("known", "nobody.example", False),
        ("named", "other.example", True),
        ("named", None, False),
        ("named", "nobody.example", False),
    ],
)
def test_strict_names(scene, listener, name, welcome):
    if welcome:
        assert shown(scene, listener, name)
        return
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
        shown(scene, listener, name)


def hello(name: bytes, version: int = 0x0303) -> bytes:
    """A ClientHello by hand, with these octets as its server name."""
    entry = b"\0" + struct.pack(">H", len(name)) + name
    sni = struct.pack(">HHH", 0, len(entry) + 2, len(entry)) + entry
    groups = struct.pack(">HHHH", 10, 4, 2, 23)
    algorithms = struct.pack(">HHHHH", 13, 6, 4, 0x0403, 0x0804)
    extensions = sni + groups + algorithms if version >= 0x0303 else groups
    suites = struct.pack(">4H", 0xC02B, 0xC02F, 0xC013, 0x000A)
    body = struct.pack(">H", version) + os.urandom(32) + b"\0" + struct.pack(">H", len(suites)) + suites + b"\1\0"
    body += struct.pack(">H", len(extensions)) + extensions
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + struct.pack(">H", len(message)) + message


def answer(scene, octets: bytes, listener: str = "any") -> bytes:
    with socket.create_connection(("127.0.0.1", scene.gateway.ports[listener]), timeout=20) as raw:
        raw.sendall(octets)
        with contextlib.suppress(ConnectionError):
            return raw.recv(4096)
    return b""


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe", b"a\0b.example", b"..", b"x" * 300, b"gw.example.org\r\nMAIL FROM:<a@b>", b"*.other.example", b"", b"%s%n", b"\xc3\xa4.example"],
    ids=repr,
)  # fmt: skip
def test_sni_with_odd_octets_is_an_unknown_name_or_an_alert(scene, name):
    found = answer(scene, hello(name))
    # A ServerHello (handshake, 22), with the first certificate; or an alert (21). Never silence, never a traceback.
    assert found[:1] in (b"\x16", b"\x15"), found
    if found[:1] == b"\x16":
        assert b"other.example" not in found
    assert answer(scene, hello(name), "named")[:1] == b"\x15"
    assert "Traceback" not in scene.gateway.log.read_text()


@pytest.mark.parametrize("version", [0x0300, 0x0301, 0x0302], ids=["SSLv3", "TLS1.0", "TLS1.1"])
def test_hello_of_an_old_version_gets_an_alert(scene, version):
    found = answer(scene, hello(b"gw.example.org", version))
    # RFC 8446 §6.2: protocol_version (70).
    assert found[:1] == b"\x15" and found[5:7] == b"\x02\x46", found.hex()


def test_sslv2_hello_and_rubbish_cost_a_connection_and_nothing_else(scene):
    for octets in (b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + os.urandom(40), b"GET / HTTP/1.1\r\n\r\n", os.urandom(64)):
        answer(scene, octets)
    assert shown(scene, "any") == scene.ec.der


def test_renegotiation_is_refused(scene):
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    with socket.create_connection(("127.0.0.1", scene.gateway.ports["any"]), timeout=20) as raw:
        raw.setblocking(True)
        connection = SSL.Connection(context, raw)
        connection.set_connect_state()
        connection.do_handshake()
        assert connection.recv(100).startswith(b"220")
        connection.renegotiate()
        with pytest.raises(SSL.Error, match="no renegotiation"):
            connection.do_handshake()


def test_hybrid_key_exchange_where_the_client_has_it(scene):
    context = SSL.Context(SSL.TLS_METHOD)  # our own library has it
    with socket.create_connection(("127.0.0.1", scene.gateway.ports["any"]), timeout=20) as raw:
        raw.setblocking(True)
        connection = SSL.Connection(context, raw)
        connection.set_connect_state()
        connection.do_handshake()
        assert connection.get_group_name() == "X25519MLKEM768"


def test_directory_is_read_again_when_it_changes_and_a_half_written_file_replaces_nothing(scene):
    renewed = scene.ca.issue("other.example", "*.other.example", "new.example")
    before = shown(scene, "any", "other.example")
    staging = scene.directory / "staging"
    certificate, key = renewed.write(staging)
    (scene.files / "tls.pem").write_bytes(renewed.pem[:200])
    until(lambda: scene.events("certificates stay as they were"), 20, "the warning")
    assert shown(scene, "any", "other.example") == before
    for name in (key, certificate):
        shutil.copyfile(name, scene.files / name.rpartition("/")[2])
    until(lambda: shown(scene, "any", "other.example") == renewed.der, 20, "the new certificate")
    scene.other = renewed
    assert shown(scene, "any", "new.example") == renewed.der
    assert [one for one in scene.events("certificate replaced") if one["fingerprint"] == renewed.fingerprint]


def test_certificate_is_replaced_when_the_database_changes(scene):
    renewed = scene.below.issue("gw.example.org", begins=dt.timedelta(hours=-1))
    assert load_certificate(renewed.der).not_before > load_certificate(scene.ec.der).not_before
    with scene.database() as database:
        database.add(renewed.der, "EC", private_key=renewed.key, at=NOW)
    until(lambda: shown(scene, "any") == renewed.der, 20, "the new certificate")
    scene.ec = renewed


def test_session_is_resumed_within_a_listener_and_not_across_client_policies(scene):
    context = scene.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def connect(listener: str, session=None):
        with (
            socket.create_connection(("127.0.0.1", scene.gateway.ports[listener]), timeout=20) as raw,
            context.wrap_socket(raw, server_hostname="gw.example.org", session=session) as sock,
        ):
            return sock.session, sock.session_reused

    session, _ = connect("any")
    assert connect("any", session)[1]
    assert not connect("optional", session)[1]
    assert not connect("known", session)[1]
