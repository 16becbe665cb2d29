"""The running gateway encrypts: real sockets, a database that `mailsec partner` writes to, and `openssl cms -decrypt` as the reader."""

from __future__ import annotations

import json
import shutil
import smtplib
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from mailsec.cms.enveloped import read_enveloped_data
from mailsec.keys.files import pem
from mailsec.mime.index import index_message
from mailsec.mime.parts import read_parts
from mailsec.mime.transfer import decode
from mailsec.model.octets import BytesOctets
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.testing.authority import Authority
from mailsec.x509.certificate import load_certificate
from tests.peers.gateway import Gateway, until
from tests.peers.inbox import Inbox

NOW = datetime.now(UTC).replace(microsecond=0)
SECRET = b"the secret itself"


class Scene:
    def __init__(self, directory: Path, inbox: Inbox) -> None:
        self.inbox = inbox
        self.gateway = Gateway(
            directory / "gateway",
            inbox.port,
            workers=1,
            rule=[
                {"name": "market", "match": {"recipient": ["@market.example"]}, "encrypt": "required", "profile": "edi-energy"},
                {"name": "everybody signs", "sign": "required"},
            ],
        )
        line = (self.gateway.directory / "passphrase").read_text().splitlines()[0]
        self.password = line.partition(":")[2]
        authority = Authority("Correspondents CA", at=NOW - timedelta(days=1))
        self.people = {
            address: authority.issue(address, kind=kind)
            for address, kind in (
                ("carol@market.example", "rsa-2048"),
                ("dave@market.example", "ec-p256"),
                ("erin@market.example", "ec-p256"),
                ("frank@other.example", "rsa-2048"),
            )
        }
        with self.database() as database:
            database.add(authority.certificate, "Correspondents", trust=TrustFlags.parse(",C,"), domains=("*",), at=NOW)
            for address, key in self.people.items():
                assert key.certificate is not None
                database.add(key.certificate, address, at=NOW)

    def database(self) -> CertDb:
        return CertDb.open(str(self.gateway.directory / "mailsec.db"), password=self.password.encode())

    def submit(self, number: str, *recipients: str, header: str = "") -> list[bytes]:
        """Alice sends; what arrived at the next hop."""
        message_id = f"<{number}@test>"
        text = f"From: alice@example.org\r\n{header}Subject: hi\r\nMessage-ID: {message_id}\r\n\r\n"
        with self.gateway.client("submission") as client:
            assert client.sendmail("alice@example.org", list(recipients), text.encode() + SECRET + b"\r\n") == {}
        until(lambda: sum(len(one.recipients) for one in self.inbox.of(message_id)) == len(recipients), 30, "delivery")
        return [one.octets for one in self.inbox.of(message_id)]

    def command(self, *arguments: str) -> dict:
        command = [sys.executable, "-m", "mailsec", *arguments, "--json", "-c", str(self.gateway.configuration)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with Inbox() as inbox:
        scene = Scene(tmp_path_factory.mktemp("encrypted"), inbox)
        try:
            scene.gateway.start()
            yield scene
        finally:
            scene.gateway.close()


@pytest.fixture
def openssl(tmp_path):
    """openssl(octets, key): what it decrypts; b"" where it cannot."""
    program = shutil.which("openssl")
    if program is None:
        pytest.skip("openssl is absent")

    def run(octets: bytes, key) -> bytes:
        private = key._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        for name, data in (("message", octets), ("key", private), ("recip", pem(key.certificate, "CERTIFICATE"))):
            (tmp_path / name).write_bytes(data)
        command = [program, "cms", "-decrypt", "-in", "message", "-inkey", "key", "-recip", "recip"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=30, check=False)
        return done.stdout if done.returncode == 0 else b""

    return run


def sealed(octets: bytes):
    message = index_message(BytesOctets(octets))
    part = read_parts(message)
    assert part.content_type.name == "application/pkcs7-mime"
    return read_enveloped_data(b"".join(decode(part.encoding, message.octets.blocks(part.body_start, part.end))))


def test_a_copy_for_all_whom_the_header_shows_and_one_for_the_hidden_one(scene, openssl):
    carol, dave, erin = (scene.people[f"{name}@market.example"] for name in ("carol", "dave", "erin"))
    found = scene.submit(
        "fan-out",
        "carol@market.example",
        "dave@market.example",
        "erin@market.example",
        header="To: carol@market.example\r\nCc: dave@market.example\r\nBcc: erin@market.example\r\n",
    )
    assert len(found) == 2
    shared, hidden = sorted(found, key=lambda octets: -len(sealed(octets).recipients))
    serials = [{one.serial for one in sealed(octets).recipients} for octets in (shared, hidden)]
    assert serials == [{load_certificate(key.certificate).serial for key in keys} for keys in ((carol, dave), (erin,))]
    for octets in found:
        assert SECRET not in octets and sealed(octets).algorithm == "aes-128-gcm" and b"erin" not in octets.partition(b"\r\nDate")[2]
    assert SECRET in openssl(shared, carol) and SECRET in openssl(shared, dave) and SECRET in openssl(hidden, erin)
    assert openssl(shared, erin) == openssl(hidden, carol) == b""


def test_a_partner_is_agreed_with_and_the_running_gateway_follows(scene, openssl):
    (plain,) = scene.submit("before", "frank@other.example", header="To: frank@other.example\r\n")
    assert b"multipart/signed" in plain and SECRET in plain
    agreed = scene.command("partner", "set", "other.example", "encrypt=required", "profile=pss")
    assert (agreed["partner"], agreed["settings"]) == ("@other.example", {"encrypt": "required", "profile": "pss"})
    attempts = iter(range(100))
    until(lambda: SECRET not in scene.submit(f"after-{next(attempts)}", "frank@other.example")[0], 20, "the partner's settings")
    (octets,) = scene.submit("agreed", "frank@other.example", header="To: frank@other.example\r\n")
    assert SECRET in openssl(octets, scene.people["frank@other.example"])
    with scene.gateway.client("submission") as client, pytest.raises(smtplib.SMTPDataError) as caught:
        client.sendmail("alice@example.org", ["nobody@other.example"], b"From: alice@example.org\r\n\r\n" + SECRET + b"\r\n")
    assert caught.value.smtp_code == 550 and b"no certificate of nobody@other.example is known" in caught.value.smtp_error


def test_which_certificate_is_used_and_why_no_other(scene):
    found = scene.command("cert", "find", "carol@market.example")
    assert found["certificates"][0]["certificate"]["addresses"] == ["carol@market.example"] and found["others"] == []
    assert "edi-energy" in found["certificates"][0]["profiles"] and "cnsa2" not in found["certificates"][0]["profiles"]
    command = [sys.executable, "-m", "mailsec", "cert", "find", "nobody@market.example", "-c", str(scene.gateway.configuration)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "no certificate of nobody@market.example is known" in done.stdout.replace("\n", " ")


def test_explain_tells_the_level_of_each_value_and_the_certificate(scene, tmp_path):
    letter = tmp_path / "letter.eml"
    letter.write_text("From: alice@example.org\nTo: carol@market.example\n\nhi\n")
    told = scene.command("explain", str(letter), "--origin", "submission")
    steps = {step["name"]: step["text"] for step in told["steps"]}
    assert 'encrypt required (rule "market")' in steps["settings"] and 'profile edi-energy (rule "market")' in steps["settings"]
    assert "from database): used" in steps["certificate"] and "encrypt to 1 certificate" in steps["plan"]
