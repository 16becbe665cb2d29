"""An authority that issues for hosts and clients of TLS: honest certificates, and such as nobody should believe."""

from __future__ import annotations

import datetime as dt
import ssl
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.revocation.authority import DAY, Authority, usage

__all__ = ["Holder", "Issuer"]

PURPOSES = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
    "mail": ExtendedKeyUsageOID.EMAIL_PROTECTION,
}


class Holder:
    """A certificate with its key and its chain."""

    def __init__(self, key: Any, certificate: x509.Certificate, chain: tuple[bytes, ...] = ()) -> None:
        self.parsed = certificate
        self.der = certificate.public_bytes(Encoding.DER)
        self.chain = chain
        self.key = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        self.fingerprint = certificate.fingerprint(hashes.SHA256()).hex()
        spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        digest = hashes.Hash(hashes.SHA256())
        digest.update(spki)
        self.key_fingerprint = digest.finalize().hex()
        self.key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.pem = certificate.public_bytes(Encoding.PEM) + b"".join(
            x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain
        )

    def write(self, directory: Path, name: str = "tls") -> tuple[str, str]:
        """Files with certificate (and chain) and key, as certbot leaves them."""
        directory.mkdir(exist_ok=True)
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_bytes(self.pem)
        key.touch(0o600)
        key.write_bytes(self.key_pem)
        return str(certificate), str(key)

    def client_context(self, ca_pem: str, directory: Path) -> ssl.SSLContext:
        """A client that shows this certificate."""
        context = ssl.create_default_context(cadata=ca_pem)
        context.load_cert_chain(*self.write(directory, f"client-{self.parsed.serial_number}"))
        return context


class Issuer(Authority):
    """Issues for TLS."""

    def issue(
        self,
        *hosts: str,
        addresses: tuple[str, ...] = (),
        purpose: str = "server",
        kind: str = "ec",
        begins: dt.timedelta = -2 * DAY,
        ends: dt.timedelta = 90 * DAY,
        key: Any = None,
        common_name: str = "",
    ) -> Holder:
        key = key or (ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048))
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name or (hosts or addresses or ("nobody",))[0])])
        builder = self._builder(name, key.public_key(), self.name, self.key)
        builder._not_valid_before, builder._not_valid_after = None, None
        builder = builder.not_valid_before((self.at + begins).replace(tzinfo=None)).not_valid_after((self.at + ends).replace(tzinfo=None))
        alternatives: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts] + [x509.RFC822Name(one) for one in addresses]
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), False)
        builder = builder.add_extension(x509.BasicConstraints(False, None), True)
        builder = builder.add_extension(usage("digital_signature"), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([PURPOSES[purpose]]), False)
        return Holder(key, builder.sign(self.key, hashes.SHA256()), (self.der,) if self.issuer else ())
