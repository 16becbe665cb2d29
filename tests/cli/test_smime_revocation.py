"""`mailsec smime verify` with lists: revoked and unknown are not trusted, and a list that the message brings is judged like any other."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_der_private_key

from mailsec.app import cli
from mailsec.app.output import Output
from mailsec.keys.files import pem
from mailsec.model.address import Address
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

AT = dt.datetime.now(dt.UTC)


def run(*arguments: object) -> tuple[int, dict]:
    out, err = io.StringIO(), io.StringIO()
    code = cli.run([str(argument) for argument in arguments], Output(out, err))
    return code, json.loads(out.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("revocation")
    ca_key, key = make_key("ec-p256"), make_key("ec-p256")
    ca = make_ca(common_name="Test CA", key=ca_key, at=AT, random=os.urandom)
    issued = IssuedBy(ca, ca_key)
    alice = issue_mail(issued, addresses=[Address.parse("alice@example.org")], public_key=public_key_of(key), at=AT, random=os.urandom)
    parsed, signer = x509.load_der_x509_certificate(ca), load_der_private_key(ca_key, None)
    for name, serials in {"good": (), "bad": (x509.load_der_x509_certificate(alice).serial_number,)}.items():
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(parsed.subject)
            .last_update(AT - dt.timedelta(hours=1))
            .next_update(AT + dt.timedelta(days=1))
            .add_extension(x509.CRLNumber(1), False)
        )
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(AT - dt.timedelta(hours=1)).build()
            builder = builder.add_revoked_certificate(entry)
        (folder / f"{name}.crl").write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / "ca.pem").write_bytes(pem(ca, "CERTIFICATE"))
    (folder / "alice.pem").write_bytes(pem(alice, "CERTIFICATE"))
    (folder / "alice.key").write_bytes(pem(key, "PRIVATE KEY"))
    (folder / "message.eml").write_text("From: alice@example.org\nSubject: x\n\nGood day.\n")
    arguments = ("--key", folder / "alice.key", "--cert", folder / "alice.pem", "-o", folder / "signed.eml", folder / "message.eml")
    assert run("smime", "sign", "--json", *arguments)[0] == 0
    return folder


@pytest.mark.parametrize(
    ("options", "code", "revocation", "chain_valid"),
    [
        ((), 0, "not-checked", True),
        (("--crl", "good.crl"), 0, "good", True),
        (("--crl", "bad.crl"), 1, "revoked", False),
        (("--require-crl",), 1, "unknown", True),
    ],
)
def test_revocation_decides(folder, options, code, revocation, chain_valid):
    options = [folder / option if option.endswith(".crl") else option for option in options]
    exit_code, verdict = run("smime", "verify", "--json", "--anchor", folder / "ca.pem", *options, folder / "signed.eml")
    assert (exit_code, verdict["revocation"], verdict["chain_valid"]) == (code, revocation, chain_valid)
    assert verdict["signature_valid"] is True and verdict["trusted"] is (code == 0)
    assert revocation not in ("revoked", "unknown") or verdict["reasons"]


def test_an_anchor_that_is_not_self_signed_needs_partial_chain(folder):
    arguments = ("smime", "verify", "--json", "--anchor", folder / "alice.pem", folder / "signed.eml")
    assert run(*arguments)[0] == 1
    assert run(*arguments, "--partial-chain")[0] == 0
