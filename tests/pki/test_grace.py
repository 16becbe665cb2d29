"""Evidence past its nextUpdate counts for a while where that was asked for, and never against evidence that is current."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

import pytest
from cryptography.x509 import ocsp
from pki_authorities import NOW, ask, issue
from test_revocation import CHECK, DAY, answer, crl, serial

from mailsec.model.verdict import Revocation
from mailsec.pki.cache import PathCache
from mailsec.pki.evidence import RevocationEvidence

LATE = replace(CHECK, evidence_grace=7 * DAY)
REVOKED = ocsp.OCSPCertStatus.REVOKED
OLD = {"this": NOW - 9 * DAY, "until": NOW - 6 * DAY}
OLDER = {"this": NOW - 20 * DAY, "until": NOW - 7 * DAY - dt.timedelta(hours=1)}


@pytest.fixture
def late(root, authority, alice):
    """The result for alice, with these lists and responses besides a current list of the root."""

    def judge(*crls, responses=(), options=LATE, **more):
        evidence = RevocationEvidence([crl(root), *crls], responses)
        return ask(alice, authority, anchors=[root], options=options, evidence=evidence, **more)

    return judge


def test_evidence_past_its_end_is_no_evidence_unless_grace_is_given(late, authority, alice):
    assert late(crl(authority, **OLD), options=CHECK).revocation is Revocation.UNKNOWN
    assert late(responses=[answer(alice, authority, **OLD)], options=CHECK).revocation is Revocation.UNKNOWN


def test_a_list_and_a_response_count_within_the_grace_and_newer_ones_are_still_asked_for(late, authority, alice):
    for result in (late(crl(authority, **OLD)), late(responses=[answer(alice, authority, **OLD)])):
        assert result.accepted and result.revocation is Revocation.GOOD
        assert [reason.code for reason in result.checks[0].reasons] == ["evidence-overdue"]
        assert {request.kind for request in result.missing} == {"ocsp", "crl"}
        assert all(request.certificate == alice.der for request in result.missing)
        assert result.valid_until == OLD["until"] + 7 * DAY


def test_beyond_the_grace_nothing_counts(late, authority, alice):
    assert late(crl(authority, **OLDER)).revocation is Revocation.UNKNOWN
    assert late(responses=[answer(alice, authority, **OLDER)]).revocation is Revocation.UNKNOWN


def test_revoked_by_evidence_past_its_end_is_revoked(late, authority, alice):
    assert late(crl(authority, serial(alice), **OLD)).revocation is Revocation.REVOKED
    assert late(responses=[answer(alice, authority, REVOKED, **OLD)]).revocation is Revocation.REVOKED


def test_evidence_that_is_current_is_never_outweighed_by_what_has_ended(late, authority, alice):
    for other in ({"crls": (crl(authority, **OLD),)}, {"responses": [answer(alice, authority, **OLD)]}):
        crls, responses = other.get("crls", ()), other.get("responses", [])
        assert late(crl(authority, serial(alice)), *crls, responses=responses).revocation is Revocation.REVOKED
        assert late(*crls, responses=[*responses, answer(alice, authority, REVOKED)]).revocation is Revocation.REVOKED
    # The other way round: what had been on hold is released.
    current = late(crl(authority), crl(authority, serial(alice), **OLD))
    assert current.revocation is Revocation.GOOD and not current.reasons and not current.missing


def test_a_response_that_promises_newer_ones_at_any_time_gets_no_grace(late, authority, alice):
    assert late(responses=[answer(alice, authority, this=NOW - 2 * DAY, until=None)]).revocation is Revocation.UNKNOWN


def test_a_delta_past_its_end_counts_with_its_list(late, authority, alice):
    base, delta = crl(authority, number=7, **OLD), crl(authority, serial(alice), number=8, delta=7, **OLD)
    assert late(base, delta).revocation is Revocation.REVOKED


def test_who_signed_it_must_be_valid_now(late, root, authority, alice):
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    gone = issue("Gone", authority, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), x509.OCSPNoCheck(), end=NOW - DAY)
    overdue = answer(alice, authority, responder=gone, certificates=[gone], **OLD)
    assert late(responses=[overdue]).revocation is Revocation.UNKNOWN


def test_a_kept_answer_ends_with_the_grace(late, authority):
    cache, evidence = PathCache(), crl(authority, **OLD)
    late(evidence, cache=cache)
    assert len(cache) == 1
    at = OLD["until"] + 7 * DAY + dt.timedelta(seconds=1)
    assert late(evidence, cache=cache, at=at).revocation is Revocation.UNKNOWN
