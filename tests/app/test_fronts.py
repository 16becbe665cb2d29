"""What stands in front of a listener, with the whole gateway: PROXY headers (HAProxy's and forged ones), XCLIENT over a unix socket."""

from __future__ import annotations

import ipaddress
import os
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from tests.peers import postfix as postfixes
from tests.peers.gateway import Gateway, until
from tests.peers.inbox import Inbox
from tests.peers.postfix import free_port, wait_for_port

MESSAGE = "From: carol@example.net\r\nTo: alice@example.org\r\nSubject: x\r\n\r\nhello\r\n"


@pytest.fixture(scope="module")
def inbox():
    with Inbox() as taken:
        yield taken


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, inbox):
    directory = tmp_path_factory.mktemp("fronts") / "gateway"
    sockets = Path("/tmp") / f"mailsec-fronts-{os.getpid()}"
    sockets.mkdir()
    proxied = {"front": {"proxies": ["127.0.0.0/24"]}, "peers": ["192.0.2.0/24", "2001:db8::/32", "127.0.0.1"]}
    own = str(os.getuid())
    made = Gateway(
        directory,
        inbox.port,
        workers=1,
        listeners=[
            {"name": "proxied", **proxied},
            {"name": "proxied-tls", "tls": "implicit", "certificate": "Server-Cert", **proxied},
            {"name": "other-proxies", "front": {"proxies": ["198.51.100.7"]}},
            {"name": "front", "front": {"xclient": True, "xclient_users": [own]}, "peers": ["192.0.2.0/24"]},
            {"name": "login", "origin": "submission", "front": {"xclient": True, "xclient_users": [own], "xclient_login": True}},
            {"name": "stranger", "front": {"xclient": True, "xclient_users": ["4294000000"]}},
            {
                "name": "lmtp",
                "protocol": "lmtp",
                "front": {"xclient": True, "xclient_users": ["postfix"] if postfixes.why_not() is None else [own]},
            },
        ],
    )
    text = made.configuration.read_text()
    for name in ("front", "login", "stranger", "lmtp"):
        text = text.replace(f'"127.0.0.1:{made.ports[name]}"', f'"unix:{sockets}/{name}"')
    made.configuration.write_text(text)
    made.sockets = sockets
    yield made.start()
    made.close()
    for one in sockets.iterdir():
        one.unlink()
    sockets.rmdir()


class Unix(smtplib.SMTP):
    """smtplib over a unix socket."""

    def _get_socket(self, host, port, timeout):
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        opened.settimeout(timeout)
        opened.connect(host)
        return opened


def unix(gateway, name: str) -> smtplib.SMTP:
    return Unix(str(gateway.sockets / name), 1, local_hostname="mx.example", timeout=30)


def version_2(source: str) -> bytes:
    packed = ipaddress.ip_address(source).packed
    addresses = packed * 2 + b"\x12\x34\x00\x19"
    return b"\r\n\r\n\x00\r\nQUIT\n" + bytes([0x21, 0x11 if len(packed) == 4 else 0x21]) + len(addresses).to_bytes(2, "big") + addresses


def heard(gateway, listener: str, octets: bytes) -> bytes:
    with gateway.connect(listener) as opened:
        said = b""
        try:
            opened.sendall(octets)
            opened.shutdown(socket.SHUT_WR)
            while data := opened.recv(4096):
                said += data
        except OSError:  # it was reset, at whatever moment
            pass
        return said


@pytest.mark.parametrize("header", [b"PROXY TCP4 192.0.2.9 127.0.0.1 4711 25\r\n", version_2("192.0.2.9")], ids=["v1", "v2"])
def test_client_is_whom_the_proxy_announces(gateway, inbox, header):
    before = len(inbox.messages)
    dialog = f"EHLO c\r\nMAIL FROM:<carol@example.net>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\n{MESSAGE}.\r\nQUIT\r\n".encode()
    assert b"250 2.0.0 accepted" in heard(gateway, "proxied", header + dialog)
    until(lambda: len(inbox.messages) > before, 30, "the message")
    assert b"from c ([192.0.2.9])" in inbox.messages[-1].octets


@pytest.mark.parametrize("octets", [b"EHLO c\r\n", b"\x16\x03\x01", b"PROXY TCP4 192.0.2.9 127.0.0.1 4711\r\nEHLO c\r\n", b"QUIT\r\n"])
def test_attack_proxy_header_is_absent_or_forged(gateway, octets):
    assert heard(gateway, "proxied", octets) == b""


def test_attack_proxy_header_from_who_is_no_proxy(gateway):
    assert heard(gateway, "other-proxies", b"PROXY TCP4 192.0.2.9 127.0.0.1 4711 25\r\nEHLO c\r\n") == b""


def test_peers_are_those_that_the_proxy_announces(gateway):
    assert heard(gateway, "proxied", b"PROXY TCP4 203.0.113.1 127.0.0.1 4711 25\r\n").startswith(b"554 5.7.1")
    assert heard(gateway, "proxied", b"PROXY TCP6 2001:db8::1 ::1 4711 25\r\nQUIT\r\n").startswith(b"220 ")
    assert heard(gateway, "proxied", b"PROXY UNKNOWN\r\nQUIT\r\n").startswith(b"220 "), "the proxy itself asks whether we live"


def test_tls_begins_behind_the_header(gateway):
    context = ssl.create_default_context(cafile=str(gateway.ca_file))
    with gateway.connect("proxied-tls") as opened:
        # The first octets of TLS come in one piece with the header, as a proxy would send them.
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        session = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            session.do_handshake()
        opened.sendall(version_2("192.0.2.9") + outgoing.read())
        while True:
            incoming.write(opened.recv(16384))
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                continue
        opened.sendall(outgoing.read())
        while True:
            try:
                assert session.read(4096).startswith(b"220 ")
                break
            except ssl.SSLWantReadError:
                incoming.write(opened.recv(16384))


def test_haproxy(gateway, need, tmp_path):
    haproxy, ports = need("haproxy"), [free_port(), free_port()]
    configuration = "global\n  log stderr local0\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n"
    for port, listener, word in ((ports[0], "proxied", "send-proxy"), (ports[1], "proxied-tls", "send-proxy-v2")):
        configuration += f"listen l{port}\n  bind 127.0.0.1:{port}\n  server s 127.0.0.1:{gateway.ports[listener]} {word}\n"
    (tmp_path / "haproxy.cfg").write_text(configuration)
    process = subprocess.Popen([haproxy, "-f", str(tmp_path / "haproxy.cfg"), "-db"], stderr=subprocess.DEVNULL)
    try:
        wait_for_port(ports[0], process=process)
        with smtplib.SMTP("127.0.0.1", ports[0], timeout=20) as smtp:
            assert smtp.noop()[0] == 250
        context = ssl.create_default_context(cafile=str(gateway.ca_file))
        with smtplib.SMTP_SSL("127.0.0.1", ports[1], timeout=20, context=context) as smtp:
            assert smtp.noop()[0] == 250
    finally:
        process.terminate()
        process.wait(10)


def test_xclient_over_a_unix_socket(gateway, inbox):
    before = len(inbox.messages)
    with unix(gateway, "front") as smtp:
        smtp.ehlo()
        assert smtp.has_extn("xclient")
        assert smtp.docmd("XCLIENT", "NAME=[UNAVAILABLE] ADDR=192.0.2.33 PORT=99 HELO=client.example PROTO=ESMTP")[0] == 220
        smtp.ehlo("client.example")
        smtp.sendmail("carol@example.net", ["alice@example.org"], MESSAGE)
    until(lambda: len(inbox.messages) > before, 30, "the message")
    assert b"from client.example ([192.0.2.33])" in inbox.messages[-1].octets
    with unix(gateway, "front") as smtp:
        smtp.ehlo()
        assert smtp.docmd("XCLIENT", "ADDR=203.0.113.1") == (554, b"5.7.1 not accepted from this address")


def test_attack_xclient_from_another_user_of_this_machine(gateway):
    with unix(gateway, "stranger") as smtp:
        smtp.ehlo()
        assert not smtp.has_extn("xclient")
        assert smtp.docmd("XCLIENT", "ADDR=127.0.0.1")[0] == 550


def test_login_that_the_server_in_front_has_checked(gateway):
    with unix(gateway, "login") as smtp:
        smtp.ehlo()
        assert smtp.docmd("XCLIENT", "ADDR=192.0.2.33 LOGIN=alice")[0] == 220
        smtp.ehlo("client.example")
        assert smtp.mail("bob@example.org")[0] == 550
        assert smtp.mail("alice@example.org")[0] == 250
    with unix(gateway, "login") as smtp:
        smtp.ehlo()
        assert smtp.docmd("XCLIENT", "ADDR=192.0.2.33 LOGIN=nobody")[0] == 550


def test_lmtp_over_a_unix_socket(gateway):
    class Lmtp(Unix, smtplib.LMTP):
        pass

    with smtplib.LMTP(str(gateway.sockets / "lmtp")) as lmtp:
        assert lmtp.sendmail("carol@example.net", ["alice@example.org"], MESSAGE) == {}


def test_postfix_speaks_lmtp_to_us_and_says_who_its_client_was(gateway, inbox, tmp_path):
    if why := postfixes.why_not():
        pytest.skip(why)
    # Postfix's processes are of another user: the socket is for its group, too.
    shutil.chown(gateway.sockets / "lmtp", group="postfix")
    main = {
        "mydestination": "",
        "relay_domains": "example.org",
        "relay_transport": f"lmtp:unix:{gateway.sockets}/lmtp",
        "smtpd_relay_restrictions": "permit_mynetworks, reject",
        "lmtp_send_xforward_command": "yes",
        "lmtp_destination_recipient_limit": "50",
    }
    before = len(inbox.messages)
    (tmp_path / "postfix").mkdir()
    with postfixes.Postfix(tmp_path / "postfix", main=main) as postfix, smtplib.SMTP("127.0.0.1", postfix.port, timeout=30) as smtp:
        smtp.ehlo("client.example")
        smtp.sendmail("carol@example.net", ["alice@example.org", "bob@example.org"], MESSAGE, ["SMTPUTF8", "RET=HDRS", "ENVID=x1"])
        everybody = {"alice@example.org", "bob@example.org"}
        until(lambda: {one for message in inbox.messages[before:] for one in message.recipients} == everybody, 60, "the message")
    until(lambda: any(event.get("client") == "127.0.0.1" for event in gateway.events()), 10, "the client in the log")
    assert b"with LMTP" in inbox.messages[-1].octets or b"with UTF8LMTP" in inbox.messages[-1].octets


def test_check_refuses_who_would_let_strangers_speak_for_others(tmp_path):
    head = (
        '[gateway]\nhostname = "gw.example.org"\ndomains = ["example.org"]\n[relay]\nnext_hop = "smtp://[127.0.0.1]:10026"\n[[listener]]\n'
    )
    for listener, told in (
        ('address = "0.0.0.0:25"\norigin = "internet"\nfront = { xclient = true }', "strangers could be whoever they like"),
        ('address = "unix:/tmp/x"\norigin = "internet"\nfront = { xclient = true }', "whose processes may use it?"),
        ('address = "0.0.0.0:25"\norigin = "internet"\nfront = { proxies = ["0.0.0.0/0"] }', "takes strangers for proxies"),
        ('address = "127.0.0.1:10025"\norigin = "trusted"\nsenders = "*"\nfront = { proxies = ["127.0.0.1"] }', "open relay"),
        ('address = "127.0.0.1:25"\norigin = "internet"\nfront = { xclient_login = true }', "is nothing without xclient"),
    ):
        (tmp_path / "mailsec.toml").write_text(head + listener + "\n")
        command = [sys.executable, "-m", "mailsec", "check", "-c", str(tmp_path / "mailsec.toml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 78 and told in done.stdout + done.stderr, done.stdout + done.stderr


def test_check_misses_no_users_of_the_database_where_somebody_else_checks_logins(tmp_path):
    subprocess.run([sys.executable, "-m", "mailsec", "init", str(tmp_path / "gw")], check=True, capture_output=True, timeout=60)
    configuration = tmp_path / "gw" / "mailsec.toml"

    def told() -> str:
        command = [sys.executable, "-m", "mailsec", "check", "-c", str(configuration)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert "nobody can submit mail" in told()
    entry = '\n[[authenticator]]\nkind = "dovecot"\nsocket = "unix:/run/dovecot/auth-client"\ndomains = ["example.org"]\n'
    configuration.write_text(configuration.read_text() + entry)
    assert "nobody can submit mail" not in told()
