"""Attackers at the ports of the running gateway, with aiosmtpd and Postfix as next hops. What test_peers.py has is not repeated here.

After each test the same workers are alive, and an honest client is served.
"""

from __future__ import annotations

import json
import random
import re
import socket
import ssl
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.faults.sender import letter
from tests.net.relay_peer import Peer
from tests.peers.gateway import Gateway, until
from tests.peers.inbox import Inbox
from tests.peers.postfix import Postfix, why_not

CAROL = "carol@partner.example"
OPENING = b"EHLO x\r\nMAIL FROM:<a@evil.example>\r\nRCPT TO:<bob@%s>\r\nDATA\r\n"
SMUGGLED = b"MAIL FROM:<admin@example.org>\r\nRCPT TO:<victim@%s>\r\nDATA\r\nFrom: admin@example.org\r\nSubject: evil\r\n\r\nevil"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """example.org is behind aiosmtpd, postfix.example behind Postfix; `normalise` mends bare line ends, the other ports refuse them."""
    directory = tmp_path_factory.mktemp("attackers")
    store, postfix = Peer(), None
    routes = {}
    with Inbox() as inbox:
        if why_not() is None:
            (directory / "postfix").mkdir()
            postfix = Postfix(directory / "postfix", main={"relayhost": f"[127.0.0.1]:{store.port}"}).__enter__()
            routes["postfix.example"] = f"smtp://[127.0.0.1]:{postfix.port}"
        gateway = Gateway(
            directory / "gateway",
            inbox.port,
            listeners=[{"name": "normalise", "normalise": True, "peers": ["127.0.0.0/8"]}],
            gateway={"domains": ["example.org", "postfix.example"]},
            relay={"routes": routes},
        )
        try:
            gateway.start()
            yield SimpleNamespace(gateway=gateway, inbox=inbox, store=store, postfix=postfix)
        finally:
            gateway.close()
            if postfix is not None:
                postfix.stop()
            store.close()


@pytest.fixture(autouse=True)
def unharmed(world):
    before = world.gateway.worker_pids()
    yield
    assert world.gateway.worker_pids() == before and len(world.gateway.pids()) == 2
    octets = letter(CAROL, "bob@example.org")
    began = time.monotonic()
    with world.gateway.client() as client:
        assert client.sendmail(CAROL, ["bob@example.org"], octets) == {}
    assert time.monotonic() - began < 5
    assert not re.search(r"Traceback|[Uu]nexpected error", world.gateway.log.read_text())


def talk(gateway, octets: bytes, listener: str = "internet", seconds: float = 20) -> list[bytes]:
    """All replies to `octets`, until the gateway closes or answers our end."""
    received = b""
    with gateway.connect(listener, seconds) as connection:
        try:
            connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has closed already: its last words can still be read
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionError:
            pass
    return received.splitlines()


# -- smuggling --------------------------------------------------------------------------------------------------------------------


def sequences(vectors) -> list[bytes]:
    found = [text.encode("latin-1") for text in json.loads((vectors / "smtp-smuggling" / "unique_sequences.json").read_text())]
    assert len(found) >= 7
    return found


def test_smuggling_by_every_end_of_data_that_is_none_is_refused(world, vectors):
    for sequence in sequences(vectors):
        octets = OPENING % b"example.org" + b"Subject: x\r\n\r\nbody" + sequence + SMUGGLED % b"example.org" + b"\r\n.\r\nQUIT\r\n"
        replies = talk(world.gateway, octets)
        assert replies[-2].startswith(b"554 5.6.0"), (sequence, replies)
        assert sum(line.startswith(b"250 2.1.0") for line in replies) == 1
    assert not any(b"evil" in one.octets for one in world.inbox.messages)


@pytest.mark.parametrize("domain", ["example.org", "postfix.example"])
def test_smuggling_sequences_that_are_mended_stay_text_of_one_message(world, vectors, domain):
    if domain == "postfix.example" and world.postfix is None:
        pytest.skip(why_not() or "")
    for number, sequence in enumerate(sequences(vectors)):
        mark = f"<{domain}-{number}@smuggling.example>"
        octets = OPENING % domain.encode() + f"Message-ID: {mark}\r\nSubject: x\r\n\r\nbody".encode() + sequence
        octets += SMUGGLED % domain.encode() + b"\r\n.\r\nQUIT\r\n"
        replies = talk(world.gateway, octets, "normalise")
        assert sum(line.startswith(b"250 2.1.0") for line in replies) == 1, (sequence, replies)
        if replies[-2].startswith(b"554"):
            assert b"\0" in sequence or b"\r." in sequence, sequence  # a NUL is never mended
            continue

        def arrived(mark: str = mark) -> list[tuple[list[str], bytes]]:
            if domain == "example.org":
                return [(list(one.recipients), one.octets) for one in world.inbox.of(mark)]
            return [(recipients, octets) for _, recipients, octets in list(world.store.messages) if mark.encode() in octets]

        ((recipients, delivered),) = until(arrived, 60, f"{mark} in one piece")
        assert recipients == [f"bob@{domain}"]
        assert b"MAIL FROM:<admin" in delivered and b"\0" not in delivered
        assert re.search(rb"(?<!\r)\n|\r(?!\n)", delivered) is None
    for _, recipients, _ in list(world.store.messages):
        assert not any("victim" in one for one in recipients)
    assert not any("victim" in one for message in world.inbox.messages for one in message.recipients)


# -- STARTTLS ---------------------------------------------------------------------------------------------------------------------


def read_until(connection: socket.socket, mark: bytes) -> bytes:
    received = b""
    while mark not in received:
        piece = connection.recv(4096)
        if not piece:
            break
        received += piece
    return received


@pytest.mark.parametrize("listener", ["submission", "internet"])
def test_starttls_with_octets_behind_it_is_refused_and_closed(world, listener):
    for behind in (b"MAIL FROM:<evil@x.example>\r\n", b"EHLO evil\r\nMAIL FROM:<evil@x.example>\r\n", b"\r\n", b"x"):
        replies = talk(world.gateway, b"EHLO x\r\nSTARTTLS\r\n" + behind, listener)
        assert replies[-1].startswith(b"554"), replies
        assert not any(line.startswith(b"220 2.0.0") for line in replies)


def test_octets_before_starttls_are_not_remembered_after_it(world):
    """MAIL and RCPT in clear, then TLS: within a transaction there is none, and what was said before it is forgotten (CVE-2011-0411)."""
    context = ssl.create_default_context(cafile=str(world.gateway.ca_file))
    with world.gateway.connect() as connection:
        connection.sendall(b"EHLO before.example\r\nMAIL FROM:<evil@x.example>\r\nRCPT TO:<bob@example.org>\r\nSTARTTLS\r\n")
        assert b"503 5.5.1" in read_until(connection, b"503 5.5.1")
        connection.sendall(b"RSET\r\nSTARTTLS\r\n")
        assert b"220 2.0.0" in read_until(connection, b"220 2.0.0")
        with context.wrap_socket(connection, server_hostname="localhost") as encrypted:
            for command in (b"DATA", b"RCPT TO:<bob@example.org>", b"MAIL FROM:<a@x.example>"):
                encrypted.sendall(command + b"\r\n")
                assert encrypted.recv(4096).startswith(b"503"), command
            encrypted.sendall(b"EHLO after.example\r\nMAIL FROM:<carol@partner.example>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\n")
            assert b"354" in read_until(encrypted, b"354")
            encrypted.sendall(b"Message-ID: <after-tls@x.example>\r\n\r\nbody\r\n.\r\n")
            assert encrypted.recv(4096).startswith(b"250")
    (delivered,) = until(lambda: world.inbox.of("<after-tls@x.example>"))
    assert delivered.reverse_path == CAROL and b"before.example" not in delivered.octets


def test_octets_between_the_220_and_the_handshake_close_the_connection(world):
    with world.gateway.connect() as connection:
        connection.sendall(b"EHLO x\r\nSTARTTLS\r\n")
        read_until(connection, b"220 2.0.0")
        connection.sendall(b"MAIL FROM:<evil@x.example>\r\n")
        received = b""
        try:
            while piece := connection.recv(4096):
                received += piece
        except ConnectionError:
            pass
        # a TLS alert at most, and no reply to the command
        assert b"250" not in received and b"503" not in received


def test_openssl_starts_tls_and_the_certificate_is_the_right_one(world, need):
    command = [need("openssl"), "s_client", "-connect", f"127.0.0.1:{world.gateway.ports['internet']}", "-starttls", "smtp", "-crlf"]
    command += ["-CAfile", str(world.gateway.ca_file), "-verify_return_error", "-verify_hostname", "localhost", "-quiet"]
    done = subprocess.run(command, input=b"QUIT\n", capture_output=True, timeout=60, check=False)
    assert b"221 2.0.0" in done.stdout, done.stderr


# -- octets without end -----------------------------------------------------------------------------------------------------------


def flood(gateway, opening: bytes, piece: bytes, megabytes: int) -> tuple[int, bytes]:
    """Send `piece` again and again until the gateway has had enough; how many octets it took, and its last words."""
    sent, received = 0, b""
    with gateway.connect() as connection:
        connection.sendall(opening)
        if b"DATA" in opening:
            read_until(connection, b"354")
        try:
            while sent < megabytes << 20:
                connection.sendall(piece)
                sent += len(piece)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        try:
            while more := connection.recv(65536):
                received += more
        except OSError:
            pass
    return sent, received


@pytest.mark.parametrize("listener", ["submission", "trusted", "internet"])
def test_line_without_an_end_is_cut_off(world, listener):
    with world.gateway.connect(listener) as connection:
        connection.settimeout(20)
        try:
            for _ in range(64):
                connection.sendall(b"A" * (1 << 20))
            raise AssertionError("64 MiB of a line were read")
        except OSError:
            pass


def test_line_without_an_end_in_data_costs_no_memory(world):
    """RFC 5321 §4.5.3.1.6 allows 1000 octets; longer ones are passed on, not collected."""
    before = peak(world.gateway)
    _, received = flood(world.gateway, OPENING % b"example.org", b"B" * (1 << 20), 40)
    assert b"250 2.0.0" not in received
    assert peak(world.gateway) - before < 40_000


def peak(gateway) -> int:
    """The most memory that a worker has had, in kB."""
    found = []
    for pid in gateway.pids():
        found.append(int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]))
    return max(found)


def test_10000_recipients_are_too_many_and_the_first_ones_get_their_message(world):
    commands = b"".join(b"RCPT TO:<r%d@example.org>\r\n" % number for number in range(10_000))
    with world.gateway.connect() as connection:
        connection.sendall(b"EHLO x\r\nMAIL FROM:<carol@partner.example>\r\n")
        read_until(connection, b"250 2.1.0")
        file = connection.makefile("rb")
        codes: list[bytes] = []
        # in pieces, as a client that waits for its replies
        for start in range(0, len(commands), 60_000):
            connection.sendall(commands[start : start + 60_000])
            for _ in range(commands[: start + 60_000].count(b"\r\n") - len(codes)):
                line = file.readline()
                codes.append(line[:3])
                if not line or line.startswith(b"421"):
                    break
            if codes[-1] in (b"", b"421"):
                break
        accepted = codes.count(b"250")
        assert accepted == 1000 and set(codes) == {b"250", b"452"}, {code: codes.count(code) for code in set(codes)}
        # RFC 5321 §4.5.3.1.10: it goes on with those that were taken, in this very session
        connection.sendall(b"DATA\r\n")
        assert file.readline().startswith(b"354 ")
    # RFC 5321 §4.5.3.1.10: the client sends to those that were taken, and comes back with the rest
    with world.gateway.client(timeout=60) as client:
        client.ehlo()
        client.mail(CAROL)
        for number in range(1000):
            assert client.rcpt(f"r{number}@example.org")[0] == 250
        octets = letter(CAROL, "many@example.org")
        mark = re.search(rb"Message-ID: (\S+)", octets)[1].decode()
        assert client.data(octets)[0] == 250
    until(lambda: {one for message in world.inbox.of(mark) for one in message.recipients} == {f"r{n}@example.org" for n in range(1000)}, 60)


def test_header_without_an_end_is_refused(world):
    began = time.monotonic()
    _, received = flood(world.gateway, OPENING % b"example.org", b"X-Endless: " + b"x" * 60 + b"\r\n", 20)
    assert b"250 2.0.0" not in received
    with world.gateway.client() as client:
        client.ehlo()
        client.mail(CAROL)
        client.rcpt("bob@example.org")
        code, text = client.data(b"X-Endless: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n" * 200_000 + b"\r\nbody\r\n")
        assert code in (552, 554), text
        client.mail(CAROL)
        client.rcpt("bob@example.org")
        code, text = client.data(b"X-Folded: x\r\n" + b" folded\r\n" * 500_000 + b"\r\nbody\r\n")
        assert code in (552, 554), text
    assert time.monotonic() - began < 15


def nested(depth: int) -> bytes:
    """Multiparts within multiparts, the innermost signed by nobody."""
    opening = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (number, number) for number in range(depth))
    closing = b"".join(b"\r\n--b%d--\r\n" % number for number in reversed(range(depth)))
    return opening + b"Content-Type: text/plain\r\n\r\nfound\r\n" + closing


@pytest.mark.parametrize("listener", ["internet", "trusted"])
def test_1000_nested_multiparts_are_answered_at_once(world, listener):
    sender = CAROL if listener == "internet" else "alice@example.org"
    head = f"From: {sender}\r\nTo: bob@example.org\r\nMessage-ID: <nested-{listener}@x.example>\r\nMIME-Version: 1.0\r\n".encode()
    began = time.monotonic()
    with world.gateway.client(listener) as client:
        client.ehlo()
        client.mail(sender)
        client.rcpt("bob@example.org")
        code, text = client.data(head + nested(1000))
    assert time.monotonic() - began < 5
    assert code in (250, 550, 552, 554), text
    if code == 250:
        (delivered,) = until(lambda: world.inbox.of(f"<nested-{listener}@x.example>"))
        assert b"found" in delivered.octets or b"pkcs7" in delivered.octets


@pytest.mark.parametrize("octets", [b"NOOP\0\r\n", b"MAIL FROM:<a\0@x.example>\r\n", b"EHLO \0\r\n", b"\0\r\n", b"RCPT TO:<\0>\r\n"])
def test_nul_in_a_command_is_refused(world, octets):
    replies = talk(world.gateway, b"EHLO x\r\n" + octets + b"QUIT\r\n")
    assert any(re.match(rb"5\d\d", line) for line in replies), replies


@pytest.mark.parametrize("place", [b"Subject: a\0b\r\n\r\nbody\r\n", b"Subject: x\r\n\r\nbo\0dy\r\n", b"\0", b"From\0: x\r\n\r\n\r\n"])
def test_nul_in_a_message_is_refused(world, place):
    replies = talk(world.gateway, OPENING % b"example.org" + place + b"\r\n.\r\nQUIT\r\n")
    assert replies[-2].startswith(b"554 5.6.0"), replies


# -- any octets on any port -------------------------------------------------------------------------------------------------------

WORDS = [
    b"EHLO x\r\n", b"HELO x\r\n", b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<bob@example.org>\r\n", b"DATA\r\n", b".\r\n", b"\r\n.\r\n", b"RSET\r\n",
    b"STARTTLS\r\n", b"AUTH PLAIN ", b"AUTH LOGIN\r\n", b"BDAT 5 LAST\r\n", b"VRFY x\r\n", b"EXPN x\r\n", b"HELP\r\n", b"QUIT\r\n", b"NOOP\r\n",
    b"\x16\x03\x01\x00\x05", b"\0", b"\xff\xfe", b"\n", b"\r", b"<" * 300, b"MAIL FROM:<>\r\n", b"From: x\r\n", b"AGFsaWNlAHg=\r\n", b"*\r\n",
    b"SIZE=99999999999999999999", b"MAIL FROM:<a@b.example> SIZE=-1\r\n", b"MAIL FROM:<a@b.example> BODY=BINARYMIME\r\n", b"lhlo x\r\n",
]  # fmt: skip
REPLY = re.compile(rb"[2-5]\d\d[ -]")


@pytest.mark.parametrize("listener", ["submission", "trusted", "internet", "normalise"])
def test_any_octets_on_any_port_get_replies_or_a_closed_connection(world, listener):
    chance = random.Random()
    seed = chance.randrange(1 << 32)
    chance.seed(seed)
    for _ in range(40):
        octets = b"".join(
            chance.choice(WORDS) if chance.random() < 0.8 else chance.randbytes(chance.randrange(200))
            for _ in range(chance.randrange(1, 25))
        )
        with world.gateway.connect(listener) as connection:
            received = b""
            try:
                if chance.random() < 0.3:
                    connection.settimeout(20)
                    received = connection.recv(4096)
                connection.sendall(octets)
                connection.shutdown(socket.SHUT_WR)
                while piece := connection.recv(65536):
                    received += piece
            except ConnectionError:
                pass
        clear = received.partition(b"220 2.0.0")[0]  # behind it a TLS alert may come
        assert all(REPLY.match(line) for line in clear.splitlines()), (seed, octets, received)


def test_a_client_that_goes_away_at_any_octet_leaves_nothing(world):
    octets = OPENING % b"example.org" + b"Message-ID: <gone@x.example>\r\n\r\nbody\r\n.\r\n"
    for end in range(1, len(octets), 5):
        with world.gateway.connect() as connection:
            connection.sendall(octets[:end])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset
    assert not world.inbox.of("<gone@x.example>")
    assert not [entry for entry in world.gateway.queue() if entry["message_id"] == "<gone@x.example>"]
