"""Real Postfix in front of the core, over a socket: what it delivers is verified by openssl, and is otherwise what was sent."""

from __future__ import annotations

import contextlib
import re
import shutil
import smtplib
import socket
import subprocess
import threading
from types import SimpleNamespace

import pytest

from mailsec.errors import KeyUnavailable
from mailsec.hookspecs import hookimpl
from mailsec.keys.files import pem
from mailsec.model.protection import ProtectionPlan
from mailsec.model.verdict import Decision
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.runtime import EPOCH
from tests.faults.sender import letter
from tests.net.relay_peer import Peer
from tests.peers.gateway import until
from tests.peers.postfix import Postfix, free_ports, wait_for_port, why_not

OPENSSL = shutil.which("openssl") or "openssl"
CA = Authority(at=EPOCH.replace(year=2025))
ALICE, CAROL = CA.issue("alice@example.org", kind="rsa-2048"), CA.issue("carol@partner.example", kind="rsa-2048")

BODIES = {
    "dots": b".\r\n..\r\n.x\r\n...\r\n",
    "from-lines": b"From here on\r\nFrom there\r\n",
    "trailing-blanks": b"a  \r\nb\t\r\n \r\n",
    "8-bit": "Grüße, 你好\r\n".encode() * 40,
    "long-lines": b"x" * 990 + b"\r\n" + b"y" * 997 + b"\r\n",
    "no-line-end": b"end",
    "empty": b"",
    "one-mebibyte": b"0123456789abcdef" * 4 + b"\r\n" + b"z" * 70 + b"\r\n" * 12_000,
}


class Token(MemoryKeys):
    """Keys that may be out."""

    out: KeyUnavailable | None = None

    async def keys_for(self, address, usage):
        if self.out is not None:
            raise self.out
        return await super().keys_for(address, usage)


class Policy:
    """Everything that goes out is signed, encrypted for those with a certificate of their own domain; spam is put on hold."""

    @hookimpl
    def plan_protection(self, candidates, plan):
        if plan is not None or (not candidates.signers and not candidates.wait):
            return plan
        if candidates.wait:
            return ProtectionPlan(wait=candidates.wait)
        if candidates.recipient.domain == "partner.example" and candidates.encryption_wait:
            return ProtectionPlan(wait=candidates.encryption_wait)
        encrypt = candidates.recipient.domain == "partner.example"
        return ProtectionPlan(True, encrypt, candidates.signers[0], recipients=candidates.certificates if encrypt else ())

    @hookimpl
    def decide_message(self, transaction, verdict):
        return Decision("hold", None, "looks like spam") if transaction.message.first("subject") == "spam" else None


class Milter(threading.Thread):
    """A socket in front of cores and a gateway in memory; one connection after the other would hold Postfix up, so each has a thread."""

    def __init__(self, behind, mta) -> None:
        super().__init__(daemon=True)
        self.behind, self.mta = behind, mta
        self.lock = threading.Lock()
        self.offers: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            one = self.behind.mta()
            while not one.closed and (data := connection.recv(65536)):
                if data[4:5] == b"O":
                    self.offers.append(data)
                with self.lock:
                    one.feed(data)
                said, one.said = one.said, b""
                connection.sendall(said)
            one.conversation.closed()


@pytest.fixture(scope="module")
def world(milter, tmp_path_factory):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("milter")
    keys = Token(ALICE)
    gateway = MemoryGateway(keys, MemoryDirectory.of(ALICE, CAROL), built_in=[Policy()], trust=MemoryTrust(CA.anchor))
    behind = milter.Behind(gateway, login_domains=["example.org"])
    served, store = Milter(behind, milter.Mta), Peer()
    named = Milter(milter.Behind(gateway, trusted_daemons=["postfix.example"], senders=["@example.org"]), milter.Mta)
    served.start()
    named.start()
    people, old, nameless = free_ports(3)
    main = {
        "smtpd_milters": f"inet:127.0.0.1:{served.port}",
        "milter_default_action": "tempfail",
        "relayhost": f"[127.0.0.1]:{store.port}",
        "smtpd_recipient_restrictions": "permit",
    }
    # What `smtpd_sasl_auth_enable` sends of somebody who has logged in.
    options = "-o {milter_macro_defaults = auth_authen=alice, auth_type=PLAIN}"
    master = f"127.0.0.1:{people} inet n - n - 10 smtpd {options}\n127.0.0.1:{old} inet n - n - 10 smtpd -o milter_protocol=3 {options}\n"
    master = master.replace("smtpd -o milter_protocol=3", "smtpd -o milter_protocol=3 -o cleanup_service_name=cleanup-3")
    master += f"127.0.0.1:{nameless} inet n - n - 10 smtpd -o smtpd_milters=inet:127.0.0.1:{named.port}\n"
    master += "cleanup-3 unix n - n - 0 cleanup -o milter_protocol=3\n"
    (directory / "ca.pem").write_bytes(pem(CA.certificate, "CERTIFICATE"))
    (directory / "carol.pem").write_bytes(pem(CAROL.certificate, "CERTIFICATE"))
    try:
        with Postfix(directory / "postfix", main=main, master=master) as postfix:
            for port in (people, old, nameless):
                wait_for_port(port)
            ports = {"internet": postfix.port, "people": people, "milter 3": old, "nameless": nameless}
            yield SimpleNamespace(ports=ports, store=store, postfix=postfix, directory=directory, keys=keys)
    finally:
        served.socket.close()
        named.socket.close()
        store.close()


def send(world, port: str, octets: bytes, sender: str, *recipients: str) -> None:
    with smtplib.SMTP("127.0.0.1", world.ports[port], timeout=30) as client:
        assert client.sendmail(sender, recipients, octets, ["BODY=8BITMIME"]) == {}


def stored(world, octets: bytes) -> bytes:
    """What came out behind Postfix of a letter."""
    mark = re.search(rb"Message-ID: (\S+)", octets)[1]
    return until(lambda: [one for _, _, one in list(world.store.messages) if mark in one.partition(b"\r\n\r\n")[0]], 60, repr(mark))[0]


def test_postfix_starts_without_a_word_of_its_log_daemon(world):
    # It would write to the socket that only it reads. That is full when enough other programs have started sooner, and then all of them hang.
    send(world, "internet", letter("carol@elsewhere.example", "alice@example.org"), "carol@elsewhere.example", "alice@example.org")
    said = until(lambda: (lambda log: log if "client=localhost" in log else "")(world.postfix.log.read_text()), 60)
    assert "postfix/postlogd[" not in said and "warning" not in said


@pytest.mark.parametrize("port", ["people", "milter 3"])
@pytest.mark.parametrize("name", BODIES)
def test_what_is_signed_is_intact_behind_postfix(world, name, port):
    octets = letter("alice@example.org", "bob@example.net", body=BODIES[name])
    send(world, port, octets, "alice@example.org", "bob@example.net")
    delivered = stored(world, octets)
    head = delivered.partition(b"\r\n\r\n")[0]
    assert head.count(b"Content-Type: ") == 1 and b"multipart/signed" in head and head.count(b"Received: ") == 1
    command = [OPENSSL, "cms", "-verify", "-CAfile", "ca.pem", "-out", "content", "-attime", str(int(EPOCH.timestamp()))]
    done = subprocess.run(command, input=delivered, cwd=world.directory, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", BODIES)
def test_what_comes_in_passes_octet_for_octet_with_its_verdict(world, name):
    octets = letter("carol@elsewhere.example", "alice@example.org", body=BODIES[name])
    octets = b"Authentication-Results: gw.example.org; smime=pass\r\nX-Blank:   three\r\n\tfolded\r\n" + octets
    send(world, "internet", octets, "carol@elsewhere.example", "alice@example.org")
    delivered = stored(world, octets)
    kept = octets.partition(b"\r\n")[2]
    assert delivered.rstrip(b"\r\n").endswith(kept.rstrip(b"\r\n"))
    added = delivered.rstrip(b"\r\n").removesuffix(kept.rstrip(b"\r\n"))
    assert added.count(b"Authentication-Results: gw.example.org; smime=none") == 1 and b"smime=pass" not in added


@pytest.mark.parametrize(("said", "word"), [(b"hello there", b"smime=pass"), (b"hello where", b"smime=fail")])
def test_what_comes_in_signed_is_verified(world, said, word):
    octets = letter("alice@example.org", "bob@example.net", body=b"hello there\r\n")
    send(world, "people", octets, "alice@example.org", "bob@example.net")
    # What left comes back, with the name of another message.
    mark = re.search(rb"Message-ID: (\S+)", octets)[1]
    back = stored(world, octets).replace(mark, b"<back-" + mark[1:]).replace(b"hello there", said)
    send(world, "internet", back, "alice@example.org", "bob@example.org")
    delivered = stored(world, back)
    assert delivered.partition(b"\r\n\r\n")[0].count(b"Authentication-Results: gw.example.org; " + word) == 1
    assert b"multipart/signed" in delivered and said in delivered


def test_attack_forged_results_with_blanks_before_the_colon_do_not_arrive(world):
    forged = b"Authentication-Results \t: gw.example.org; smime=pass\r\nAuthentication-Results: gw.example.org; smime=pass\r\n"
    octets = forged + letter("carol@elsewhere.example", "alice@example.org")
    send(world, "internet", octets, "carol@elsewhere.example", "alice@example.org")
    delivered = stored(world, octets)
    assert b"smime=pass" not in delivered and delivered.count(b"smime=none") == 1


def test_what_is_encrypted_serves_all_recipients(world):
    octets = letter("alice@example.org", "carol@partner.example", body=b"the secret\r\n")
    send(world, "people", octets, "alice@example.org", "carol@partner.example")
    delivered = stored(world, octets)
    assert b"the secret" not in delivered and b"application/pkcs7-mime" in delivered
    command = [OPENSSL, "cms", "-cmsout", "-print", "-noout"]
    done = subprocess.run(command, input=delivered, capture_output=True, check=False)
    assert (done.returncode == 0 and b"envelopedData" in done.stdout) or b"authEnvelopedData" in done.stdout


def refused(world, port: str, octets: bytes, sender: str, *recipients: str) -> tuple[int, bytes]:
    with smtplib.SMTP("127.0.0.1", world.ports[port], timeout=30) as client, pytest.raises(smtplib.SMTPDataError) as caught:
        client.sendmail(sender, recipients, octets)
    return caught.value.smtp_code, caught.value.smtp_error


def test_refusals_reach_the_client_in_our_words(world):
    octets = letter("alice@example.org", "carol@partner.example")
    code, text = refused(world, "people", octets, "alice@example.org", "carol@partner.example", "bob@example.net")
    assert (code, text) == (550, b"5.7.1 the recipients need different copies of this message: send it to each of them by itself")
    code, text = refused(world, "people", letter("bob@example.org", "bob@example.net"), "bob@example.org", "bob@example.net")
    assert code == 550 and text.startswith(b"5.7.1 you may not use the address")


def test_attack_postfix_calls_the_port_of_strangers_by_its_own_name(world):
    # `trusted_daemons` with the name that Postfix has everywhere: whoever connects could have mail signed for anybody of ours
    code, text = refused(world, "nameless", letter("alice@example.org", "bob@example.net"), "alice@example.org", "bob@example.net")
    assert code == 451, text


def test_a_key_that_is_away_makes_the_client_come_back(world):
    octets = letter("alice@example.org", "bob@example.net")
    world.keys.out = KeyUnavailable("the token is out", stage="token:HSM")
    code, text = refused(world, "people", octets, "alice@example.org", "bob@example.net")
    assert (code, text) == (451, b"4.3.2 a key, a directory or a responder is not available, try again later")
    world.keys.out = None
    send(world, "people", octets, "alice@example.org", "bob@example.net")
    assert b"multipart/signed" in stored(world, octets)


def test_what_is_held_lies_in_the_queue_of_postfix(world):
    octets = letter("carol@elsewhere.example", "alice@example.org").replace(b"Subject: ", b"Subject: spam\r\nX-Old: ", 1)
    assert b"Subject: spam\r\n" in octets
    send(world, "internet", octets, "carol@elsewhere.example", "alice@example.org")
    until(
        lambda: (
            "milter triggers HOLD action: looks like spam" in world.postfix.log.read_text()
            or "hold" in world.postfix.log.read_text().lower()
        ),
        30,
    )
    mark = re.search(rb"Message-ID: (\S+)", octets)[1]
    assert not [one for _, _, one in world.store.messages if mark in one]


def test_many_messages_over_one_connection_of_the_client(world):
    letters = [letter("alice@example.org", "bob@example.net", body=b"%d\r\n" % number) for number in range(5)]
    with smtplib.SMTP("127.0.0.1", world.ports["people"], timeout=30) as client:
        for octets in letters:
            client.sendmail("alice@example.org", ["bob@example.net"], octets)
            client.docmd("MAIL FROM:<alice@example.org>")
            client.docmd("RSET")
    assert all(b"multipart/signed" in stored(world, octets) for octets in letters)
