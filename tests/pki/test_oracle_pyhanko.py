"""Generated chains with lists and OCSP responses, judged by us and by pyhanko-certvalidator, which asks for the status of everything.

Differences, not generated: pyhanko looks at responses only for certificates that name a responder, not at those produced after the instant
of the judgement, and takes lists without a number.
"""

from __future__ import annotations

import asyncio
import datetime as dt

import pytest
from cryptography.x509 import ocsp
from hypothesis import given, settings
from hypothesis import strategies as st
from pki_authorities import ask, issue, usage
from test_revocation import aia, answer, crl, serial

from mailsec.model.verdict import Revocation
from mailsec.pki.evidence import RevocationEvidence
from mailsec.pki.path import PathOptions

pyhanko = pytest.importorskip("pyhanko_certvalidator", reason="pip install pyhanko-certvalidator")

# Responses are produced now, and pyhanko takes none that was produced after the instant of the judgement.
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(hours=1)
DAY = dt.timedelta(days=1)
LIFE = {"start": NOW - 9 * DAY, "end": NOW + 9 * DAY}
WINDOWS = {"current": (NOW - DAY, NOW + DAY), "ended": (NOW - 3 * DAY, NOW - DAY), "future": (NOW + DAY, NOW + 3 * DAY)}


@st.composite
def evidence(draw):
    """What there is about one certificate."""
    return {
        "kind": draw(st.sampled_from(["crl", "crl", "ocsp", "ocsp", "none"])),
        "revoked": draw(st.sampled_from([False, False, False, True])),
        "window": draw(st.sampled_from(["current"] * 6 + ["ended", "future"])),
        "other_key": draw(st.sampled_from([False] * 6 + [True])),
    }


def theirs(chain, crls, responses) -> bool:
    from asn1crypto import crl as asn1_crl
    from asn1crypto import ocsp as asn1_ocsp
    from asn1crypto import x509 as asn1_x509
    from pyhanko_certvalidator import CertificateValidator, ValidationContext
    from pyhanko_certvalidator.errors import PathError, RevokedError, ValidationError

    loaded = [asn1_x509.Certificate.load(party.der) for party in chain]
    context = ValidationContext(
        trust_roots=loaded[:1],
        other_certs=loaded[1:-1],
        crls=[asn1_crl.CertificateList.load(item) for item in crls],
        ocsps=[asn1_ocsp.OCSPResponse.load(item) for item in responses],
        moment=NOW,
        allow_fetching=False,
        revocation_mode="require",
    )
    validator = CertificateValidator(loaded[-1], intermediate_certs=loaded[1:-1], validation_context=context)
    try:
        asyncio.run(validator.async_validate_usage(set()))
    except (PathError, RevokedError, ValidationError):
        return False
    return True


@settings(max_examples=120)
@given(st.lists(evidence(), min_size=1, max_size=3))
def test_pyhanko_agrees(specs):
    count = len(specs)
    signs = usage("key_cert_sign", "crl_sign")
    chain = [issue("Pyhanko root", None, (signs, True), ca=True, label="pyhanko 0", **LIFE)]
    for index in range(1, count):
        chain.append(issue(f"Pyhanko {index}", chain[-1], (signs, True), aia(), ca=True, label=f"pyhanko {index}", **LIFE))
    chain.append(issue("Pyhanko Bob", chain[-1], (usage("digital_signature"), True), aia(), addresses=("bob@example.org",), **LIFE))
    crls, responses = [], []
    for index, spec in enumerate(specs):
        issuer, subject = chain[index], chain[index + 1]
        this, until = WINDOWS[spec["window"]]
        if spec["kind"] == "crl":
            sign = "pyhanko mallory" if spec["other_key"] else None
            crls.append(crl(issuer, *([serial(subject)] if spec["revoked"] else []), this=this, until=until, sign_with=sign))
        elif spec["kind"] == "ocsp":
            status = ocsp.OCSPCertStatus.REVOKED if spec["revoked"] else ocsp.OCSPCertStatus.GOOD
            octets = answer(subject, issuer, status, this=this, until=until)
            # A bit of the signature, which stands last.
            responses.append(octets[:-1] + bytes((octets[-1] ^ 1,)) if spec["other_key"] else octets)
    ours = ask(
        chain[-1],
        *chain[1:-1],
        anchors=[chain[0]],
        at=NOW,
        options=PathOptions(check_revocation=True),
        evidence=RevocationEvidence(crls, responses),
    )
    assert ours.accepted is theirs(chain, crls, responses), ours.reasons
    expected = all(
        spec["kind"] != "none" and spec["window"] == "current" and not spec["other_key"] and not spec["revoked"] for spec in specs
    )
    assert ours.accepted is expected and (ours.revocation is Revocation.GOOD) is expected
