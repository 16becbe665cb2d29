"""A mailsec that runs for a measurement: `mailsec serve` with two workers, a trusted listener, and a next hop that swallows."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_der_x509_certificate

from mailsec.app.commands.init import make_directory
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.mime.index import index_message
from mailsec.model.address import Address
from mailsec.model.octets import BytesOctets
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.model.trust import TrustFlags
from mailsec.smime.protect import protect_message
from mailsec.store.certdb import CertDb
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of
from tests.bench.load import Sink
from tests.peers.postfix import free_port, wait_for_port

__all__ = ["LETTER", "running", "signing_files"]

SENDER = Address.parse("alice@example.org")
CORRESPONDENT = Address.parse("bob@example.net")

LETTER = "letter.eml"
"""In the directory of a gateway that opens mail: 4 KiB that bob has signed and encrypted for alice."""

GCM = "fips-algorithms"
"""A profile that encrypts with AES-256-GCM, whatever is known of the recipient."""

CONFIGURATION = """\
[gateway]
hostname = "gw.example.org"
domains = ["example.org"]
workers = 2

[database]
location = "mailsec.db"

[passphrase]
method = "file"
file = "passphrase"

[[listener]]
address = "127.0.0.1:{port}"
origin = "{origin}"
{more}
[[rule]]
name = "everybody"
sign = "{sign}"
encrypt = "{encrypt}"
profile = "{profile}"

[relay]
next_hop = "smtp://[127.0.0.1]:{sink}"
"""


@dataclass(frozen=True)
class _People:
    """A CA, and certificates of alice and bob with their keys (PKCS#8 DER)."""

    ca: bytes
    certificate: bytes
    key: bytes
    theirs: bytes
    their_key: bytes


def _issue(kind: str) -> _People:
    at = datetime.now(UTC)
    ca_key, key, their_key = make_key("ec-p256"), make_key(kind), make_key(kind)
    ca = make_ca(common_name="figures", key=ca_key, at=at, random=os.urandom)
    alice, bob = (
        issue_mail(IssuedBy(ca, ca_key), addresses=[address], public_key=public_key_of(one), at=at, random=os.urandom)
        for address, one in ((SENDER, key), (CORRESPONDENT, their_key))
    )
    return _People(ca, alice, key, bob, their_key)


async def _inline(cost: int, function: Callable[..., object], *arguments: object) -> object:
    return function(*arguments)


def _letter(people: _People) -> bytes:
    line = b"Minutes of the meeting, as they were agreed upon by everybody.\r\n"
    head = b"From: bob@example.net\r\nTo: alice@example.org\r\nSubject: minutes\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
    protected = protect_message(
        index_message(BytesOctets(head + line * (4096 // len(line)))),
        ProtectionPlan(sign=True, encrypt=True, profile=GCM),
        signers=[SoftwareKey("bob", people.their_key, certificate=people.theirs)],
        recipients=[EncryptionRecipient(people.certificate)],
        backend=SoftwareBackend(),
        random=os.urandom,
        work=_inline,  # type: ignore[arg-type]  # what is small is never handed over
        at=datetime.now(UTC),
    )
    return run_now(protected).join()


def signing_files(directory: Path) -> tuple[Path, Path]:
    """PEM files of a certificate and its RSA-2048 key, readable by the user that a pipe filter runs as."""
    people = _issue("rsa-2048")
    certificate, key = people.certificate, people.key
    certificate_file, key_file = directory / "certificate.pem", directory / "key.pem"
    certificate_file.write_bytes(load_der_x509_certificate(certificate).public_bytes(serialization.Encoding.PEM))
    loaded = serialization.load_der_private_key(key, None)
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key_file.write_bytes(loaded.private_bytes(*pem))
    for path in (directory, certificate_file, key_file):
        path.chmod(0o755)
    return certificate_file, key_file


@contextlib.contextmanager
def running(
    directory: Path, sink: Sink, *, sign: bool, key: str, encrypt: bool = False, opening: bool = False, proxy: bool = False
) -> Iterator[tuple[int, int]]:
    """Yield the port and the supervisor's process id. `opening`: mail comes in from outside, and LETTER lies in `directory`. `proxy`: proxy mode."""
    make_directory(str(directory))
    passphrase = directory / "passphrase"
    passphrase.write_text("internal:figures\n")
    passphrase.chmod(0o600)
    at = datetime.now(UTC)
    people = _issue(key)
    with CertDb.create(str(directory / "mailsec.db"), b"figures", at=at) as database:
        domains = ["example.org", "example.net"]
        database.add(people.ca, "CA", trust=TrustFlags.parse("C,C,"), domains=domains, source="issued", at=at)
        database.add(people.certificate, "alice", source="issued", private_key=people.key, at=at)
        database.add(people.theirs, "bob", at=at)
    if opening:
        (directory / LETTER).write_bytes(_letter(people).replace(b"\r\n", b"\n"))
    port = free_port()
    configuration = directory / "mailsec.toml"
    values = {
        "origin": "internet" if opening else "trusted",
        "more": ('tls = "none"\n' if opening else 'senders = ["@example.org"]\n') + ("proxy = true\n" if proxy else ""),
        "sign": "required" if sign else "never",
        "encrypt": "required" if encrypt else "never",
        "profile": GCM if encrypt else "default",
    }
    configuration.write_text(CONFIGURATION.format(port=port, sink=sink.port, **values))
    # As an administrator runs it: the log goes to a file.
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mailsec", "serve", "-c", str(configuration)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            wait_for_port(port, 30, process)
            # Both workers take connections from the shared socket; give the second a moment to be there too.
            time.sleep(1.0)
            yield port, process.pid
        except Exception:
            sys.stderr.write((directory / "log").read_text(errors="replace")[-3000:])
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
