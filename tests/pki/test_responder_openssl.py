"""`openssl ocsp` answers our requests: itself the authority, a responder that it appointed, PSS; and what it says is believed or not."""

from __future__ import annotations

import datetime as dt
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from pki_authorities import BACKEND, END, Party, issue, key

from mailsec.model.verdict import Revocation
from mailsec.pki.budget import Budget
from mailsec.pki.ocsp import OcspRules, judge_ocsp, ocsp_request

NOW = dt.datetime.now(dt.UTC)
LIFE = {"start": NOW - dt.timedelta(days=300), "end": NOW + dt.timedelta(days=300)}


@pytest.fixture(scope="module")
def responding(need, tmp_path_factory):
    """Answers a request as `openssl ocsp` does; the responder is the authority itself, or `signer` with its key."""
    openssl = need("openssl")
    folder = tmp_path_factory.mktemp("ocsp")
    root = issue("OCSP root", ca=True, **LIFE)

    def answer(request: bytes, *known: tuple[Party, bool], signer: Party = root, private=None, options=()) -> bytes:
        lines = []
        for party, revoked in known:
            number = f"{party.certificate.serial:X}"
            number = number.zfill(len(number) + len(number) % 2)
            when = f"{NOW:%y%m%d%H%M%SZ},keyCompromise" if revoked else ""
            lines.append(f"{'R' if revoked else 'V'}\t{END:%y%m%d%H%M%SZ}\t{when}\t{number}\tunknown\t/CN=x\n")
        (folder / "index.txt").write_text("".join(lines))
        (folder / "request").write_bytes(request)
        (folder / "root.pem").write_bytes(root.parsed.public_bytes(Encoding.PEM))
        (folder / "signer.pem").write_bytes(signer.parsed.public_bytes(Encoding.PEM))
        pkcs8 = (private or key(signer.label)).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / "signer.key").write_bytes(pkcs8)
        done = subprocess.run(
            [
                openssl, "ocsp", "-index", "index.txt", "-CA", "root.pem", "-rsigner", "signer.pem", "-rkey", "signer.key",
                "-ndays", "1", "-reqin", "request", "-respout", "response", *options,
            ],
            cwd=folder, capture_output=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return (folder / "response").read_bytes()

    answer.root = root
    return answer


def judge(octets: bytes, party: Party, root: Party, **rules) -> Revocation:
    instant = NOW + dt.timedelta(minutes=1)
    return judge_ocsp(
        octets, party.certificate, root.certificate, at=instant, backend=BACKEND, budget=Budget(), rules=OcspRules(**rules)
    ).revocation


def test_openssl_understands_our_request_and_we_its_answer(responding):
    root = responding.root
    bob, eve, stranger = (issue(name, root, **LIFE) for name in ("Bob", "Eve", "Stranger"))
    known = (bob, False), (eve, True)
    for party, status in ((bob, Revocation.GOOD), (eve, Revocation.REVOKED), (stranger, Revocation.UNKNOWN)):
        nonce = bytes(range(32))
        octets = responding(ocsp_request(party.certificate, root.certificate, nonce=nonce), *known)
        assert judge(octets, party, root, nonce=nonce) is status
        assert judge(octets, party, root, nonce=bytes(32)) is Revocation.UNKNOWN, "an answer to another question"
        assert judge(octets, bob if party is not bob else eve, root) is Revocation.UNKNOWN, "an answer about somebody else"


@pytest.mark.parametrize("options", [(), ("-rsigopt", "rsa_padding_mode:pss"), ("-rmd", "sha384"), ("-resp_key_id",)], ids=" ".join)
def test_an_appointed_responder_with_rsa(responding, options):
    root = responding.root
    private = rsa.generate_private_key(65537, 2048)
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    appointed = issue("Responder", root, purpose, x509.OCSPNoCheck(), public_key=private.public_key(), **LIFE)
    nobody = issue("Responder", root, public_key=private.public_key(), **LIFE)
    bob = issue("Bob", root, **LIFE)
    request = ocsp_request(bob.certificate, root.certificate)
    for signer, status in ((appointed, Revocation.GOOD), (nobody, Revocation.UNKNOWN)):
        octets = responding(request, (bob, False), signer=signer, private=private, options=options)
        assert judge(octets, bob, root) is status
