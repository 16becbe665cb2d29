"""What mailsec signs, read by other people's programs: NSS (Thunderbird's library) and gpgsm (GnuPG)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailsec.cms.sign import detached, opaque, sign_content, signer_for
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.model.address import Address
from mailsec.model.octets import Segments
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

pytestmark = pytest.mark.interop

CONTENT = b"Content-Type: text/plain; charset=us-ascii\r\n\r\nread me elsewhere\r\n"


class Signed:
    """One signed content, in both forms, and the CA that vouches for it."""

    def __init__(self, kind: str, directory: Path) -> None:
        at = datetime.now(UTC) - timedelta(hours=1)
        ca_key, key = make_key("rsa-2048"), make_key(kind)
        self.ca = make_ca(common_name="Interop CA", key=ca_key, at=at, random=os.urandom)
        alice = Address.parse("alice@example.org")
        certificate = issue_mail(IssuedBy(self.ca, ca_key), addresses=[alice], public_key=public_key_of(key), at=at, random=os.urandom)
        signer = signer_for(SoftwareKey("alice", key, certificate=certificate, chain=(self.ca,)))
        running = SoftwareBackend().hash(signer.digest)
        running.update(CONTENT)
        info = run_now(sign_content(signer, running.digest(), at=datetime.now(UTC)))
        self.content = directory / "content"
        self.content.write_bytes(CONTENT)
        self.changed = directory / "changed"
        self.changed.write_bytes(CONTENT.replace(b"read", b"lead"))
        self.detached = directory / "detached.p7s"
        self.detached.write_bytes(detached([signer], [info]))
        self.opaque = directory / "opaque.p7m"
        self.opaque.write_bytes(opaque(Segments((CONTENT,)), [signer], [info]).join())
        self.ca_file = directory / "ca.der"
        self.ca_file.write_bytes(self.ca)


@pytest.fixture(params=["rsa-2048", "rsa-3072", "ec-p256", "ec-p384"])
def signed(request: pytest.FixtureRequest, tmp_path: Path) -> Signed:
    return Signed(request.param, tmp_path)


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([str(part) for part in command], capture_output=True, timeout=60, stdin=subprocess.DEVNULL, **options)


def nss(need: Callable[..., str], signed: Signed, directory: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    database = directory / "nss"
    database.mkdir()
    certutil, cmsutil = need("certutil", "libnss3-tools"), need("cmsutil", "libnss3-tools")
    run(certutil, "-N", "-d", f"sql:{database}", "--empty-password").check_returncode()
    run(certutil, "-A", "-d", f"sql:{database}", "-n", "ca", "-t", ",C,", "-i", signed.ca_file).check_returncode()
    return lambda *arguments: run(cmsutil, "-D", "-d", f"sql:{database}", *arguments)


def test_nss_reads_a_detached_signature(need, signed: Signed, tmp_path: Path):
    decode = nss(need, signed, tmp_path)
    good = decode("-i", signed.detached, "-c", signed.content)
    assert good.returncode == 0, good.stderr
    assert decode("-i", signed.detached, "-c", signed.changed).returncode != 0


def test_nss_reads_an_opaque_signature(need, signed: Signed, tmp_path: Path):
    read = nss(need, signed, tmp_path)("-i", signed.opaque)
    assert read.returncode == 0, read.stderr
    assert read.stdout == CONTENT


@pytest.fixture
def gpgsm(need, signed: Signed, tmp_path_factory: pytest.TempPathFactory):
    program = need("gpgsm")
    # The agent's socket lies in the home directory, and its path must be short.
    home = tmp_path_factory.mktemp("g")
    home.chmod(0o700)
    import hashlib

    fingerprint = hashlib.sha1(signed.ca, usedforsecurity=False).hexdigest().upper()
    (home / "trustlist.txt").write_text(f"{fingerprint} S relax\n")
    common = (program, "--homedir", home, "--batch", "--disable-crl-checks", "--disable-dirmngr")
    run(*common, "--import", signed.ca_file)
    yield lambda *arguments: run(*common, *arguments)
    run("gpgconf", "--homedir", home, "--kill", "all")


def test_gpgsm_reads_a_detached_signature(gpgsm, signed: Signed):
    good = gpgsm("--verify", signed.detached, signed.content)
    assert good.returncode == 0, good.stderr
    assert b"Good signature" in good.stderr
    assert gpgsm("--verify", signed.detached, signed.changed).returncode != 0


def test_gpgsm_reads_an_opaque_signature(gpgsm, signed: Signed):
    good = gpgsm("--verify", signed.opaque)
    assert good.returncode == 0, good.stderr
    assert b"Good signature" in good.stderr
