"""What each trust letter allows: our verdicts beside those of `certutil -V` on an NSS database with the same certificates and letters.

Each case has an authority of its own with a leaf for mail and one for a TLS server and client; letters stand on the authority or on the leaf.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from mailsec.keys.files import pem
from mailsec.keys.software import SoftwareBackend
from mailsec.model.trust import TrustFlags
from mailsec.pki.path import PathOptions, validate
from mailsec.store.certdb import CertDb
from mailsec.x509.certificate import load_certificate
from mailsec.x509.issue import make_ca, make_key
from mailsec.x509.private_keys import load_private

NOW = datetime.now(UTC).replace(microsecond=0)
PURPOSES = {"S": ("email-sign", "email"), "V": ("tls-server", "tls-server"), "C": ("tls-client", "tls-client")}
"""certutil's usages: e-mail signer, TLS server, TLS client."""

# Letters on the authority, letters on the leaf.
CASES = [
    (",,", ",,"),
    ("C,C,C", ",,"),
    (",C,", ",,"),
    ("C,,", ",,"),
    ("T,,", ",,"),
    ("CT,,", ",,"),
    ("c,c,", ",,"),
    ("P,P,", ",,"),
    ("p,p,p", ",,"),
    (",p,", ",,"),
    ("CT,Cp,", ",,"),
    (",,", "P,P,"),
    (",,", ",P,"),
    ("CT,C,", "p,p,"),
    ("CT,C,", ",p,"),
    ("p,p,", "P,P,"),
    (",,", "C,C,"),
]

STRICTER = {("CT,Cp,", ",,"): [False, True, True]}
"""Where we say no and certutil yes: p beside another letter of the same field. Whoever writes p means it."""


@dataclass(frozen=True)
class Case:
    name: str
    letters: tuple[str, str]
    authority: bytes
    leaf: bytes


def make(number: int, letters: tuple[str, str]) -> Case:
    """A leaf for everything: mail, server and client, so that only the letters decide."""
    key, own = make_key("ec-p256"), load_private(make_key("ec-p256"))
    authority = make_ca(common_name=f"CA {number}", key=key, at=NOW, random=os.urandom)
    above = x509.load_der_x509_certificate(authority)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"leaf{number}.example.org")])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(above.subject)
        .public_key(own.public_key())
        .serial_number(1000 + number)
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=100))
        .add_extension(
            x509.SubjectAlternativeName([x509.RFC822Name(f"a{number}@example.org"), x509.DNSName(f"leaf{number}.example.org")]), False
        )
        .add_extension(x509.KeyUsage(True, False, False, False, True, False, False, False, False), True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION, ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
            False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                above.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            False,
        )
    )
    leaf = builder.sign(load_private(key), SHA256()).public_bytes(Encoding.DER)
    return Case(f"{number}", letters, authority, leaf)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return [make(number, letters) for number, letters in enumerate(CASES)]


@pytest.fixture(scope="module")
def of_nss(cases, need, tmp_path_factory) -> dict[tuple[str, str], bool]:
    certutil = need("certutil", "libnss3-tools")
    directory = tmp_path_factory.mktemp("nss")
    database = f"sql:{directory}"
    subprocess.run([certutil, "-N", "--empty-password", "-d", database], check=True, capture_output=True)
    lines = []
    for case in cases:
        for what, der, letters in (("ca", case.authority, case.letters[0]), ("leaf", case.leaf, case.letters[1])):
            file = directory / f"{what}{case.name}.pem"
            file.write_bytes(pem(der, "CERTIFICATE"))
            lines.append(f"-A -n {what}{case.name} -t {letters} -i {file}")
    (directory / "batch").write_text("\n".join(lines) + "\n")
    subprocess.run([certutil, "-B", "-i", directory / "batch", "-d", database], check=True, capture_output=True, timeout=120)
    verdicts = {}
    for case in cases:
        for usage in PURPOSES:
            done = subprocess.run(
                [certutil, "-V", "-n", f"leaf{case.name}", "-u", usage, "-e", "-d", database], capture_output=True, text=True
            )
            verdicts[case.name, usage] = done.returncode == 0
    return verdicts


@pytest.fixture(scope="module")
def of_ours(cases, tmp_path_factory) -> dict[tuple[str, str], bool]:
    directory = tmp_path_factory.mktemp("ours")
    directory.chmod(0o700)
    verdicts = {}
    with CertDb.create(str(directory / "x.db"), b"", at=NOW) as database:
        for case in cases:
            for what, der, letters in (("ca", case.authority, case.letters[0]), ("leaf", case.leaf, case.letters[1])):
                trust = TrustFlags.parse(letters)
                database.add(der, f"{what}{case.name}", trust=trust, domains=("*",) if trust.email_anchor else (), at=NOW)
        intermediates = [load_certificate(der) for der in database.authorities()]
        for usage, (purpose, of) in PURPOSES.items():
            anchors, distrusted = database.anchors(of), database.distrusted(of)
            options = PathOptions(distrusted=frozenset(hashlib.sha256(der).digest() for der in distrusted), check_revocation=False)
            for case in cases:
                result = validate(
                    load_certificate(case.leaf),
                    anchors=anchors,
                    intermediates=intermediates,
                    at=NOW,
                    purpose=purpose,
                    backend=SoftwareBackend(),
                    options=options,
                )
                verdicts[case.name, usage] = result.valid
    return verdicts


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{ca} above {leaf}" for ca, leaf in CASES])
def test_each_triple_allows_what_certutil_says(of_ours, of_nss, number):
    ours, theirs = ([verdicts[f"{number}", usage] for usage in PURPOSES] for verdicts in (of_ours, of_nss))
    assert ours == STRICTER.get(CASES[number], theirs)
    assert all(theirs) or CASES[number] not in STRICTER


def test_the_page_says_what_the_letters_mean():
    """docs/database.md has a row for each letter that is tested here."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "database.md").read_text()
    for letter in "pPcCTuw":
        assert f"| `{letter}` |" in page
