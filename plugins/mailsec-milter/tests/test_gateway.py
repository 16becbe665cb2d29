"""`mailsec serve` behind Postfix: users of the database, real workers, DKIM on top; and what is encrypted stays closed though the key is there."""

from __future__ import annotations

import re
import signal
import smtplib
import subprocess
from types import SimpleNamespace

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from mailsec.keys.files import pem
from tests.faults.sender import letter
from tests.net.relay_peer import Peer
from tests.peers.gateway import Gateway, until
from tests.peers.postfix import Postfix, free_ports, wait_for_port, why_not

ALICE, CAROL = "alice@example.org", "carol@partner.example"
KEY = ed25519.Ed25519PrivateKey.generate()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("milter-serve")
    (directory / "dkim.pem").touch(0o600)
    (directory / "dkim.pem").write_bytes(KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    gateway = Gateway(
        directory / "gateway",
        9,
        workers=1,
        listeners=[{"name": "milter", "service": "milter"}],
        plugins={"enabled": ["milter", "dkim"]},
        plugin={
            "milter": {"progress_seconds": 1},
            "dkim": {
                "check": [],
                "sign": [{"domain": "example.org", "selector": "ed", "key_file": str(directory / "dkim.pem")}],
            },
        },
    )
    store, people = Peer(), free_ports(1)[0]
    main = {
        "smtpd_milters": f"inet:127.0.0.1:{gateway.ports['milter']}",
        "milter_default_action": "tempfail",
        "relayhost": f"[127.0.0.1]:{store.port}",
        "smtpd_recipient_restrictions": "permit",
    }
    master = f"127.0.0.1:{people} inet n - n - 10 smtpd -o {{milter_macro_defaults = auth_authen=alice, auth_type=PLAIN}}\n"
    try:
        gateway.start()
        with Postfix(directory / "postfix", main=main, master=master) as postfix:
            wait_for_port(people)
            ports = {"internet": postfix.port, "people": people}
            yield SimpleNamespace(gateway=gateway, store=store, ports=ports, directory=directory)
    finally:
        gateway.close()
        store.close()


def send(world, port: str, octets: bytes, sender: str, recipient: str) -> bytes:
    """What comes out behind Postfix."""
    with smtplib.SMTP("127.0.0.1", world.ports[port], timeout=60) as client:
        client.sendmail(sender, [recipient], octets, ["BODY=8BITMIME"])
    mark = re.search(rb"Message-ID: (\S+)", octets)[1]
    return until(lambda: [one for _, _, one in list(world.store.messages) if mark in one.partition(b"\r\n\r\n")[0]], 60, repr(mark))[0]


def verified(world, delivered: bytes) -> bool:
    command = ["openssl", "cms", "-verify", "-CAfile", str(world.gateway.ca_file), "-out", "/dev/null"]
    return subprocess.run(command, input=delivered, capture_output=True, check=False).returncode == 0


def test_a_user_of_the_database_is_signed_for_with_dkim_around_it(world):
    octets = letter(ALICE, CAROL, body="Grüße, 你好\r\n.\r\n".encode() * 100)
    delivered = send(world, "people", octets, ALICE, CAROL)
    assert verified(world, delivered)
    record = b"v=DKIM1; k=ed25519; p=" + dkim.base64.b64encode(KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))
    assert dkim.DKIM(delivered).verify(dnsfunc=lambda name, timeout=5: record if name == b"ed._domainkey.example.org." else None)
    mark = re.search(rb"Message-ID: (\S+)", octets)[1].decode()
    [event] = [one for one in world.gateway.events() if one.get("event") == "received" and one.get("message_id") == mark]
    assert event["listener"] == "milter" and event["user"] == "alice" and event["origin"] == "submission" and event["queue_id"]
    assert event["protection"] == "signed" and event["action"] == "deliver"


def test_a_large_message_is_signed(world):
    """It goes through files and streams: twelve MiB, in chunks of 64 KiB, with a body that is another afterwards."""
    octets = letter(ALICE, CAROL, body=b"0123456789abcdef\r\n" * 700_000)
    assert verified(world, send(world, "people", octets, ALICE, CAROL))


def test_attack_encrypted_mail_from_outside_stays_closed(world):
    (world.directory / "bob.pem").write_bytes(pem(world.gateway.certificate_of("bob"), "CERTIFICATE"))
    command = ["openssl", "cms", "-encrypt", "-aes256", str(world.directory / "bob.pem")]
    inner = b"Content-Type: text/plain\r\n\r\nthe secret\r\n"
    closed = subprocess.run(command, input=inner, capture_output=True, check=True).stdout.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    octets = letter(CAROL, "bob@example.org").partition(b"\r\n\r\n")[0] + b"\r\n" + closed
    delivered = send(world, "internet", octets, CAROL, "bob@example.org")
    assert b"the secret" not in delivered and delivered.rstrip(b"\r\n").endswith(closed.rstrip(b"\r\n"))
    assert b'Authentication-Results: gw.example.org; smime=none reason="the message is' in delivered


def test_a_gateway_that_is_not_there_makes_the_client_come_back(world):
    octets = letter(ALICE, CAROL)
    world.gateway.gateway.send_signal(signal.SIGTERM)
    assert world.gateway.gateway.wait(30) == 0
    with smtplib.SMTP("127.0.0.1", world.ports["people"], timeout=60) as client, pytest.raises(smtplib.SMTPException) as caught:
        client.sendmail(ALICE, [CAROL], octets)
    assert "451" in str(caught.value) or "421" in str(caught.value)
    world.gateway.start()
    assert verified(world, send(world, "people", octets, ALICE, CAROL))
