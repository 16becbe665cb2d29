"""What S/MIME is measured beside: each peer does one operation for some seconds, and says how many messages and CPU seconds that was.

`openssl cms` is started for each message, as filters do; the others do all messages in one process. A peer that is not here, or cannot do
an operation, says why.
"""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["PEERS", "Absent", "Measured"]

Measured = tuple[int, float]
"""Messages, and the CPU seconds that they took."""


class Absent(Exception):
    """The peer is not here, or cannot do it: the text says why."""


def counted(do: Callable[[], object], seconds: float, *, warm: int = 20) -> Measured:
    """In this process."""
    for _ in range(warm):
        do()
    count, start, end = 0, time.process_time(), time.perf_counter() + seconds
    while time.perf_counter() < end:
        do()
        count += 1
    return count, time.process_time() - start


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _openssl(operation: str, folder: Path, seconds: float) -> Measured:
    arguments = {
        "sign": ["-sign", "-in", "plain", "-signer", "alice.pem", "-inkey", "alice.key", "-md", "sha256"],
        "verify": ["-verify", "-in", "signed", "-CAfile", "ca.pem"],
        "encrypt": ["-encrypt", "-aes-256-gcm", "-in", "plain", "alice.pem"],
        "encrypt-cbc": ["-encrypt", "-aes-256-cbc", "-in", "plain", "alice.pem"],
        "decrypt": ["-decrypt", "-in", "gcm", "-inkey", "alice.key", "-recip", "alice.pem"],
        "decrypt-cbc": ["-decrypt", "-in", "cbc", "-inkey", "alice.key", "-recip", "alice.pem"],
    }[operation]

    def do() -> None:
        subprocess.run(["openssl", "cms", *arguments], cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    try:
        do()
    except (OSError, subprocess.CalledProcessError) as error:
        raise Absent(f"openssl cms: {error}") from None
    start, (count, _) = _children(), counted(do, seconds, warm=0)
    return count, _children() - start


def _pyca(operation: str, folder: Path, seconds: float) -> Measured:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.ciphers.algorithms import AES256
    from cryptography.hazmat.primitives.serialization import pkcs7
    from cryptography.x509 import load_pem_x509_certificate

    plain, sealed = (folder / "plain").read_bytes(), (folder / "cbc").read_bytes()
    certificate = load_pem_x509_certificate((folder / "alice.pem").read_bytes())
    key = serialization.load_pem_private_key((folder / "alice.key").read_bytes(), None)
    detached = [pkcs7.PKCS7Options.DetachedSignature]

    def sign() -> bytes:
        builder = pkcs7.PKCS7SignatureBuilder().set_data(plain).add_signer(certificate, key, hashes.SHA256())  # type: ignore[arg-type]
        return builder.sign(serialization.Encoding.SMIME, detached)

    def encrypt() -> bytes:
        builder = pkcs7.PKCS7EnvelopeBuilder().set_data(plain).add_recipient(certificate).set_content_encryption_algorithm(AES256)
        return builder.encrypt(serialization.Encoding.SMIME, [])

    def decrypt() -> bytes:
        return pkcs7.pkcs7_decrypt_smime(sealed, certificate, key, [])  # type: ignore[arg-type]

    do = {"sign": sign, "encrypt-cbc": encrypt, "decrypt-cbc": decrypt}.get(operation)
    if do is None:
        raise Absent("pyca's pkcs7 module cannot do it")
    return counted(do, seconds)


def _endesive(operation: str, folder: Path, seconds: float) -> Measured:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.x509 import load_pem_x509_certificate
        from endesive import email
    except Exception as error:
        raise Absent(f"endesive: {error}") from None
    plain = (folder / "plain").read_bytes()
    certificate = load_pem_x509_certificate((folder / "alice.pem").read_bytes())
    key = serialization.load_pem_private_key((folder / "alice.key").read_bytes(), None)
    sealed = (folder / "cbc").read_text()
    operations: dict[str, Callable[[], object]] = {
        "sign": lambda: email.sign(plain, key, certificate, [], "sha256", pss=False),
        "encrypt-cbc": lambda: email.encrypt(plain, [certificate], "aes256_cbc"),
        "decrypt-cbc": lambda: email.decrypt(sealed, key),
    }
    if operation not in operations:
        raise Absent("endesive cannot do it")
    return counted(operations[operation], seconds, warm=3)


_HERE = Path(__file__).parent
_DEBIAN_PYTHON = "/usr/bin/python3"
_JARS = [Path("/usr/share/java") / f"{name}.jar" for name in ("bcprov", "bcutil", "bcpkix", "bcmail")]


def _process(command: list[str], what: str) -> Measured:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise Absent(f"{what}: {error}") from None
    if done.returncode:
        raise Absent(f"{what}: {done.stderr.strip().splitlines()[-1] if done.stderr.strip() else done.returncode}")
    count, seconds = done.stdout.split()
    return int(count), float(seconds)


def _m2crypto(operation: str, folder: Path, seconds: float) -> Measured:
    words = {"sign": "sign", "verify": "verify", "encrypt-cbc": "encrypt", "decrypt-cbc": "decrypt"}
    if operation not in words:
        raise Absent("PKCS #7, which M2Crypto speaks, has no GCM")
    return _process([_DEBIAN_PYTHON, str(_HERE / "m2crypto.py"), words[operation], str(folder), str(seconds)], "python3-m2crypto")


def _bouncy_castle(operation: str, folder: Path, seconds: float) -> Measured:
    if operation.endswith("-cbc"):
        raise Absent("measured with GCM")
    missing = [jar.name for jar in _JARS if not jar.exists()]
    if missing:
        raise Absent(f"libbcmail-java: {', '.join(missing)} not here")
    path = ":".join(map(str, (*_JARS, folder)))
    if not (folder / "BouncyCastle.class").exists():
        try:
            subprocess.run(["javac", "-nowarn", "-d", str(folder), "-cp", path, str(_HERE / "BouncyCastle.java")], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise Absent(f"javac: {error}") from None
    return _process(["java", "-cp", path, "BouncyCastle", operation, str(folder), str(seconds)], "java")


PEERS: dict[str, Callable[[str, Path, float], Measured]] = {
    "openssl cms, started for each": _openssl,
    "M2Crypto": _m2crypto,
    "pyca pkcs7": _pyca,
    "endesive": _endesive,
    "Bouncy Castle, warm": _bouncy_castle,
}
"""Peers by name: (operation, folder, seconds) to what was measured; raises Absent."""
