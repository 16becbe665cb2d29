"""Path and OCSP cases that others wrote (beside the checkout): no false accept, and every false reject is listed here with its reason."""

from __future__ import annotations

import base64
import datetime as dt
import json
import re

import pytest
from pki_authorities import BACKEND, NOW

from mailsec.algorithms.profiles import PROFILES
from mailsec.model.trust import Anchor
from mailsec.model.verdict import Reason
from mailsec.pki.anchors import is_self_signed
from mailsec.pki.budget import Budget
from mailsec.pki.evidence import RevocationEvidence
from mailsec.pki.identity import matches_host
from mailsec.pki.ocsp import OcspRules, is_of_issuer, responder_of
from mailsec.pki.path import PathOptions, validate
from mailsec.x509.certificate import load_certificate
from mailsec.x509.ocsp import read_ocsp_response

pytestmark = pytest.mark.vectors
_PEM = re.compile(rb"-----BEGIN (?:TRUSTED CERTIFICATE|CERTIFICATE|X509 CRL)-----(.*?)-----END", re.DOTALL)
ALL = ("email", "tls-server", "tls-client")


def pem(text: str | bytes) -> list[bytes]:
    data = text.encode() if isinstance(text, str) else text
    return [base64.b64decode(found) for found in _PEM.findall(data)]


# A leaf whose keyUsage is keyCertSign alone is no TLS server (RFC 5280 §4.2.1.3); the case is about its pathLenConstraint.
LIMBO_FALSE_REJECTS = {"pathlen::validation-ignores-pathlen-in-leaf"}


def test_x509_limbo(vectors):
    wrong = set()
    for case in json.loads((vectors / "x509-limbo" / "limbo.json").read_text())["testcases"]:
        (peer,) = map(load_certificate, pem(case["peer_certificate"]))
        crls = [der for text in case["crls"] for der in pem(text)]
        result = validate(
            peer,
            anchors=[Anchor(der, purposes=ALL) for text in case["trusted_certs"] for der in pem(text)],
            intermediates=[load_certificate(der) for text in case["untrusted_intermediates"] for der in pem(text)],
            at=dt.datetime.fromisoformat(case["validation_time"] or "2024-06-01T00:00:00Z"),
            purpose="tls-server" if case["validation_kind"] == "SERVER" else "tls-client",
            backend=BACKEND,
            options=PathOptions(max_depth=case["max_chain_depth"], check_revocation=bool(crls)),
            evidence=RevocationEvidence(crls),
        )
        name = case["expected_peer_name"]
        accepted = result.accepted and (name is None or matches_host(peer, name["value"]))
        if accepted is not (case["expected_result"] == "SUCCESS"):
            wrong.add(case["id"])
    assert wrong == LIMBO_FALSE_REJECTS


PURPOSES = {"sslserver": "tls-server", "sslclient": "tls-client", "": "any"}


def test_openssl_verify(vectors):
    folder = vectors / "openssl-verify"
    wrong = []
    for row in json.loads((folder / "expected.json").read_text()):
        # Other purposes are not ours; the rest of the suite is about OpenSSL's own options.
        if not row["portable"] or row["purpose"] not in PURPOSES:
            continue
        given = [der for name in row["anchors"] for der in pem((folder / name).read_bytes())]
        others = [der for name in row["intermediates"] for der in pem((folder / name).read_bytes())]
        trusted = [der for der in given if is_self_signed(load_certificate(der), BACKEND)]
        result = validate(
            load_certificate(pem((folder / row["cert"]).read_bytes())[0]),
            anchors=[Anchor(der, purposes=ALL) for der in trusted],
            intermediates=[load_certificate(der) for der in [*others, *given] if der not in trusted],
            at=NOW,
            purpose=PURPOSES[row["purpose"]],
            backend=BACKEND,
        )
        if result.accepted is not row["valid"]:
            wrong.append((row["id"], [reason.message for reason in result.reasons]))
    assert wrong == []


def test_openssl_ocsp(vectors):
    """Signature and authorisation: the issuer is an anchor; the issuer of the certificate in question may stand below it."""
    folder = vectors / "openssl-ocsp"
    wrong = []
    for row in json.loads((folder / "expected.json").read_text()):
        at = dt.datetime.fromisoformat(row["at"])
        response = read_ocsp_response(base64.b64decode((folder / row["ors"]).read_bytes()))
        (anchor,) = map(load_certificate, pem((folder / row["issuer"]).read_bytes()))
        extras = [load_certificate(der) for der in pem((folder / row["extra"]).read_bytes())]
        rules = OcspRules(PROFILES["legacy"], check_responder=not row["no_cert_checks"])
        asked = {"anchors": [Anchor(anchor.der)], "intermediates": extras, "at": at, "purpose": "any", "backend": BACKEND}
        below = [extra for extra in extras if validate(extra, **asked, options=PathOptions(profile=PROFILES["legacy"])).valid]
        accepted = any(
            all(is_of_issuer(single, issuer) for single in response.responses)
            and not isinstance(responder_of(response, issuer, at=at, backend=BACKEND, budget=Budget(), rules=rules), Reason)
            for issuer in (anchor, *below)
        )
        if accepted is not row["valid"]:
            wrong.append(row["id"])
    assert wrong == []
