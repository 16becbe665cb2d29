"""What our authority issues is clean under the linter for the CA/Browser Forum's S/MIME Baseline Requirements, and its lists under RFC 5280's.

The linter asks for a policy of the Forum, and for addresses of list and issuer; a private authority gives its own with `--policy` and `--crl-url`.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
from datetime import UTC, datetime

import pytest

from mailsec.keys.files import pem
from mailsec.model.address import Address
from mailsec.model.trust import IssuedCertificate
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of
from mailsec.x509.issue_crl import issue_crl

AT = datetime.now(UTC)
STRICT_MAILBOX = "2.23.140.1.5.1.3"
MULTIPURPOSE_MAILBOX = "2.23.140.1.5.1.2"
NOTHING_BUT_GOOD = {"pkix.subject_key_identifier_method_1_identified"}


@pytest.fixture(scope="module")
def lint(tmp_path_factory):
    pytest.importorskip("pkilint")
    directory = tmp_path_factory.mktemp("lint")

    def run(program: str, octets: bytes, label: str, *arguments: str) -> set[str]:
        # In this process: the linter takes two seconds to import.
        path = directory / "object.pem"
        path.write_bytes(pem(octets, label))
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            importlib.import_module(f"pkilint.bin.{program}").main(["lint", *arguments, "-f", "JSON", str(path)])
        found = json.loads(said.getvalue())["results"]
        return {finding["code"] for result in found for finding in result["finding_descriptions"]}

    return run


def authority(policy: str = STRICT_MAILBOX, kind: str = "rsa-2048") -> IssuedBy:
    key = make_key(kind)
    certificate = make_ca(common_name="Example Mail CA", key=key, at=AT, random=os.urandom, organisation="Example")
    return IssuedBy(certificate, key, ("http://pki.example.org/ca.crl",), (), ("http://pki.example.org/ca.cer",), (policy,))


@pytest.fixture(scope="module")
def ca() -> IssuedBy:
    return authority()


@pytest.mark.parametrize(
    ("kind", "usage", "addresses"),
    [
        ("rsa-2048", "both", ["alice@example.org"]),
        ("rsa-3072", "encrypt", ["alice@example.org"]),
        ("ec-p256", "both", ["alice@example.org", "sales@example.org"]),
        ("ec-p384", "sign", ["alice@example.org"]),
        ("ed25519", "both", ["alice@example.org"]),
        ("ec-p256", "both", ["jörg@example.org"]),
        ("ec-p256", "both", ["a" * 60 + "@example.org"]),
    ],
)
def test_mail_certificates_are_clean_under_the_linter_of_the_baseline_requirements(ca, lint, kind, usage, addresses):
    parsed = [Address.parse(address) for address in addresses]
    public = public_key_of(make_key(kind))
    der = issue_mail(ca, addresses=parsed, public_key=public, at=AT, random=os.urandom, usage=usage)
    assert lint("lint_cabf_smime_cert", der, "CERTIFICATE", "-d") <= NOTHING_BUT_GOOD


def test_the_linter_finds_what_is_wrong(ca, lint):
    """A certificate that lives too long: the linter is really asked."""
    parsed = [Address.parse("alice@example.org")]
    der = issue_mail(ca, addresses=parsed, public_key=public_key_of(make_key("ec-p256")), at=AT, random=os.urandom, days=1000)
    assert any("validity_period" in code for code in lint("lint_cabf_smime_cert", der, "CERTIFICATE", "-d"))


def test_certificates_and_lists_are_clean_under_the_linter_of_rfc_5280(ca, lint):
    assert lint("lint_pkix_cert", ca.certificate, "CERTIFICATE") <= NOTHING_BUT_GOOD
    register = [
        IssuedCertificate(ca.certificate, 1234, None, AT, AT, "keyCompromise"),
        IssuedCertificate(ca.certificate, 99, None, AT, AT, "unspecified"),
        IssuedCertificate(ca.certificate, 100, None, AT),
    ]
    crl = issue_crl(ca, register, number=7, at=AT)
    assert lint("lint_crl", crl, "X509 CRL", "-t", "CRL", "-p", "PKIX") <= NOTHING_BUT_GOOD
