"""The running gateway and programs that are not ours: swaks, smtplib, aiosmtpd, openssl; and attacks on it over the wire."""

from __future__ import annotations

import smtplib
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator

import pytest

from mailsec.app.demo.letters import ALICE, BOB, CAROL, letter, signed
from mailsec.app.demo.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    """The world of the demonstration: Alice may submit, Carol writes from outside, the destination is a Maildir."""
    folder = tmp_path_factory.mktemp("world")
    folder.chmod(0o700)
    made = World(folder)
    made.make_database()
    made.make_people()
    made.carol, made.stranger = made.correspondents()
    made.start_destination()
    made.start_mailbox()
    made.write_configuration()
    made.start_gateway()
    yield made
    made.close()


@pytest.fixture
def submission(world) -> Iterator[smtplib.SMTP]:
    client = smtplib.SMTP("127.0.0.1", world.ports["submission"], timeout=20)
    client.starttls(context=ssl.create_default_context(cafile=str(world.ca_file)))
    client.login("alice", world.password)
    yield client
    client.close()


def refused(call, *arguments) -> tuple[int, bytes]:
    with pytest.raises(smtplib.SMTPResponseException) as caught:
        call(*arguments)
    return caught.value.smtp_code, caught.value.smtp_error


def test_swaks_submits_and_openssl_verifies(world, need, tmp_path):
    swaks, openssl = need("swaks"), need("openssl")
    command = [swaks, "--server", f"127.0.0.1:{world.ports['submission']}", "--tls", "--auth", "PLAIN", "--auth-user", "alice"]
    command += ["--auth-password", world.password, "--from", ALICE, "--to", CAROL, "--header", "Message-Id: <swaks@example.org>"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    path = world.arrived("<swaks@example.org>")
    verified = subprocess.run(
        [openssl, "cms", "-verify", "-in", str(path), "-CAfile", str(world.ca_file), "-out", str(tmp_path / "content")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified.stderr
    assert b"This is a test mailing" in (tmp_path / "content").read_bytes()


def test_a_message_of_8_bit_octets_survives_as_it_was_signed(world, submission, need):
    octets, message_id = letter(ALICE, CAROL, "Grüße", "Übermorgen. " * 20 + "\n" + "x" * 990 + "\n", "eight-bit")
    submission.sendmail(ALICE, [CAROL], octets)
    path = world.arrived(message_id)
    command = [need("openssl"), "cms", "-verify", "-in", str(path), "-CAfile", str(world.ca_file), "-out", "/dev/null"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0


# -- attacks ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        f"From: {BOB}\r\n",
        f"From: {ALICE}\r\nFrom: {BOB}\r\n",
        f"From: {ALICE}, {BOB}\r\n",
        f"From: {ALICE}\r\nSender: {BOB}\r\n",
        f"From: {ALICE}\r\nResent-From: {BOB}\r\n",
        f'From: "{ALICE}" <{BOB}>\r\n',
    ],
    ids=["another", "two-fields", "two-addresses", "sender", "resent", "display-name"],
)
def test_signing_oracle_user_a_writes_as_user_b(submission, header):
    code, text = refused(submission.sendmail, ALICE, [CAROL], (header + "Subject: x\r\n\r\nPay.\r\n").encode())
    assert code == 550 and text.startswith((b"5.7.1", b"5.6.0"))


def test_signing_oracle_forged_own_domain_from_on_internet_is_not_signed(world):
    octets, message_id = letter(ALICE, BOB, "From the boss", "Pay.\n", "forged-from")
    with smtplib.SMTP("127.0.0.1", world.ports["internet"], timeout=20) as client:
        client.sendmail(ALICE, [BOB], octets)
    delivered = world.arrived(message_id).read_bytes()
    assert b"multipart/signed" not in delivered and b"smime=none" in delivered


def test_open_relay_attempts(world):
    with smtplib.SMTP("127.0.0.1", world.ports["internet"], timeout=20) as client:
        client.ehlo()
        client.mail("x@elsewhere.example")
        for recipient in (
            "a@elsewhere.example",
            "a%elsewhere.example@example.org",
            "elsewhere.example!a@example.org",
            '"a@elsewhere.example"@example.org',
        ):
            assert client.rcpt(recipient)[0] in (501, 550, 553), recipient
        assert client.rcpt("postmaster@example.org")[0] == 250


def test_nobody_authenticates_in_clear_or_with_a_wrong_password(world):
    with smtplib.SMTP("127.0.0.1", world.ports["submission"], timeout=20) as client:
        client.ehlo()
        assert "auth" not in client.esmtp_features
        assert client.docmd("AUTH PLAIN AGFsaWNlAHg=")[0] in (530, 538)
        assert client.docmd(f"MAIL FROM:<{ALICE}>")[0] == 530
        client.starttls()
        client.ehlo()
        with pytest.raises(smtplib.SMTPAuthenticationError):
            client.login("alice", "not her password")


def test_a_signed_message_is_not_signed_again(world, submission):
    # What Carol signed is not Alice's: it counts as unsigned, and Alice may not send as Carol anyway.
    octets, _ = letter(CAROL, BOB, "Hello", "Hello.\n", "not-hers")
    assert refused(submission.sendmail, ALICE, [BOB], signed(octets, world.carol))[0] == 550


def test_200_stalled_sessions_while_another_client_is_served_in_under_a_second(world):
    stalled = [socket.create_connection(("127.0.0.1", world.ports["internet"]), timeout=20) for _ in range(200)]
    try:
        for connection in stalled:
            connection.sendall(b"EHLO stalled\r\nMAIL FROM:<a@elsewhere.example>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nSubject: ")
        # All are in the middle of a message now.
        for connection in stalled:
            seen = b""
            while b"354" not in seen:
                seen += connection.recv(4096)
        began = time.monotonic()
        octets, message_id = letter(CAROL, BOB, "Quick", "Quick.\n", "while-stalled")
        with smtplib.SMTP("127.0.0.1", world.ports["internet"], timeout=20) as client:
            client.sendmail(CAROL, [BOB], octets)
        assert time.monotonic() - began < 1
        world.arrived(message_id)
    finally:
        for connection in stalled:
            connection.close()


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        b"\0" * 4096,
        b"A" * 100_000,
        b"\n.\n" * 50,
    ],
    ids=["http", "tls-hello", "nul", "endless-line", "bare-lf"],
)
def test_any_octets_get_a_reply_or_a_closed_connection_and_the_worker_lives(world, octets):
    before = world.worker_pids()
    with socket.create_connection(("127.0.0.1", world.ports["internet"]), timeout=10) as connection:
        received = b""
        try:
            connection.sendall(octets)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(4096):
                received += piece
        except OSError:  # closed while we were still talking
            received = received or b"220 "
    assert received.startswith(b"220 ")
    assert all(line[:3].isdigit() for line in received.splitlines())
    assert world.worker_pids() == before
