"""Certificates and keys for tests: one CA, and people with keys of every kind; made once a process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, mldsa, mlkem, rsa, x448, x25519
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailsec.keys.software import SoftwareKey
from mailsec.model.octets import BytesOctets

AT = datetime(2026, 11, 22, 6, 0, 0, tzinfo=UTC)

KINDS = {
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-1024": lambda: rsa.generate_private_key(65537, 1024),
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "brainpool256": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "brainpool384": lambda: ec.generate_private_key(ec.BrainpoolP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ed448": ed448.Ed448PrivateKey.generate,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
    "x25519": x25519.X25519PrivateKey.generate,
    "x448": x448.X448PrivateKey.generate,
    "ml-kem-768": mlkem.MLKEM768PrivateKey.generate,
    "ml-kem-1024": mlkem.MLKEM1024PrivateKey.generate,
    "brainpool512": lambda: ec.generate_private_key(ec.BrainpoolP512R1()),
    "secp256k1": lambda: ec.generate_private_key(ec.SECP256K1()),
    "ml-dsa-44": mldsa.MLDSA44PrivateKey.generate,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey.generate,
    "dsa-2048": lambda: dsa.generate_private_key(2048),
    "p224": lambda: ec.generate_private_key(ec.SECP224R1()),
}


def pkcs8(key) -> bytes:
    return key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def pem(der: bytes, label: str) -> bytes:
    import base64

    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(der) + f"-----END {label}-----\n".encode()


@cache
def authority():
    """(certificate, key) of the CA."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Example"), x509.NameAttribute(NameOID.COMMON_NAME, "Test CA")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(AT - timedelta(days=900))
        .not_valid_after(AT + timedelta(days=36500))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def issue(key, name: str, serial: int) -> bytes:
    ca, ca_key = authority()
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(AT - timedelta(days=900))
        .not_valid_after(AT + timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(f"{name}@example.org")]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def authority_der() -> bytes:
    return authority()[0].public_bytes(serialization.Encoding.DER)


def person(kind: str, number: int = 0) -> SoftwareKey:
    """A key of this kind with a certificate: always the same one for the same arguments."""
    return _person(kind, number)


@cache
def _person(kind: str, number: int) -> SoftwareKey:
    key = KINDS[kind]()
    serial = 1000 + 100 * number + list(KINDS).index(kind)
    return SoftwareKey(f"{kind}-{number}", pkcs8(key), certificate=issue(key, f"{kind}-{number}", serial), chain=(authority_der(),))


def private_key(kind: str, number: int = 0) -> bytes:
    """PKCS#8 of that person."""
    return pkcs8(person(kind, number)._key)


class MemoryScratch:
    """A Scratch in memory, which remembers what was done with it."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.sealed = self.discarded = False

    def append(self, chunk: bytes | memoryview) -> None:
        assert not self.sealed and not self.discarded
        self.pieces.append(bytes(chunk))

    def __len__(self) -> int:
        return sum(map(len, self.pieces))

    def seal(self) -> BytesOctets:
        assert not self.discarded
        self.sealed = True
        return BytesOctets(b"".join(self.pieces))

    def discard(self) -> None:
        self.discarded = True
        self.pieces = []
