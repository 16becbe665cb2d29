"""A mailsec that runs for a measurement: `mailsec serve` with two workers, a trusted listener, and a next hop that swallows."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_der_x509_certificate

from mailsec.app.commands.init import make_directory
from mailsec.model.address import Address
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of
from tests.bench.load import Sink
from tests.peers.postfix import free_port, wait_for_port

__all__ = ["running", "signing_files"]

SENDER = Address.parse("alice@example.org")

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
origin = "trusted"
senders = ["@example.org"]

[[rule]]
name = "everybody"
sign = "{sign}"

[relay]
next_hop = "smtp://[127.0.0.1]:{sink}"
"""


def _issue(kind: str) -> tuple[bytes, bytes, bytes]:
    """A CA certificate, a certificate of the sender, and its key (PKCS#8 DER)."""
    at = datetime.now(UTC)
    ca_key, key = make_key("ec-p256"), make_key(kind)
    ca = make_ca(common_name="figures", key=ca_key, at=at, random=os.urandom)
    certificate = issue_mail(IssuedBy(ca, ca_key), addresses=[SENDER], public_key=public_key_of(key), at=at, random=os.urandom)
    return ca, certificate, key


def signing_files(directory: Path) -> tuple[Path, Path]:
    """PEM files of a certificate and its RSA-2048 key, readable by the user that a pipe filter runs as."""
    _, certificate, key = _issue("rsa-2048")
    certificate_file, key_file = directory / "certificate.pem", directory / "key.pem"
    certificate_file.write_bytes(load_der_x509_certificate(certificate).public_bytes(serialization.Encoding.PEM))
    loaded = serialization.load_der_private_key(key, None)
    pem = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key_file.write_bytes(loaded.private_bytes(*pem))
    for path in (directory, certificate_file, key_file):
        path.chmod(0o755)
    return certificate_file, key_file


@contextlib.contextmanager
def running(directory: Path, sink: Sink, *, sign: bool, key: str) -> Iterator[tuple[int, int]]:
    """Yield the port and the supervisor's process id."""
    make_directory(str(directory))
    passphrase = directory / "passphrase"
    passphrase.write_text("internal:figures\n")
    passphrase.chmod(0o600)
    at = datetime.now(UTC)
    ca, certificate, private_key = _issue(key)
    with CertDb.create(str(directory / "mailsec.db"), b"figures", at=at) as database:
        database.add(ca, "CA", trust=TrustFlags.parse("C,C,"), domains=["example.org"], source="issued", at=at)
        database.add(certificate, "alice", source="issued", private_key=private_key, at=at)
    port = free_port()
    configuration = directory / "mailsec.toml"
    configuration.write_text(CONFIGURATION.format(port=port, sign="required" if sign else "never", sink=sink.port))
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
