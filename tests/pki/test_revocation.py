"""Revocation: lists and OCSP responses that may be believed, and one test for each way in which they may not."""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import replace
from itertools import count

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st
from pki_authorities import BACKEND, NOW, START, Party, ask, codes, dn, issue, key, usage

from mailsec.interfaces import Evidence
from mailsec.model.verdict import Revocation
from mailsec.pki.budget import Budget
from mailsec.pki.evidence import RevocationEvidence
from mailsec.pki.ocsp import OcspRules, judge_ocsp, ocsp_request
from mailsec.pki.path import PathOptions
from mailsec.x509.crl import load_crl

DAY = dt.timedelta(days=1)
CHECK = PathOptions(check_revocation=True)
_NUMBERS = count(1)


def crl(
    issuer: Party,
    *revoked: int,
    this=NOW - DAY,
    until=NOW + DAY,
    reason=None,
    number: int | None = 0,
    delta: int | None = None,
    point=None,
    sign_with=None,
    extra=(),
    entry_extra=(),
) -> bytes:
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject).last_update(this).next_update(until)
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(this)
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), False)
        for extension, critical in entry_extra:
            entry = entry.add_extension(extension, critical)
        builder = builder.add_revoked_certificate(entry.build())
    if number is not None:
        builder = builder.add_extension(x509.CRLNumber(number or next(_NUMBERS)), False)
    if delta is not None:
        builder = builder.add_extension(x509.DeltaCRLIndicator(delta), True)
    if point is not None:
        builder = builder.add_extension(point, True)
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key(sign_with or issuer.label), hashes.SHA256()).public_bytes(Encoding.DER)


def answer(
    certificate: Party,
    issuer: Party,
    status=ocsp.OCSPCertStatus.GOOD,
    *,
    responder: Party | None = None,
    this=NOW - DAY,
    until=NOW + DAY,
    certificates=(),
    sign_with=None,
    by_key=False,
    nonce=None,
    algorithm=None,
) -> bytes:
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    responder = responder or issuer
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=certificate.parsed,
        issuer=issuer.parsed,
        algorithm=algorithm or hashes.SHA1(),
        cert_status=status,
        this_update=this,
        next_update=until,
        revocation_time=this if revoked else None,
        revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
    )
    encoding = ocsp.OCSPResponderEncoding.HASH if by_key else ocsp.OCSPResponderEncoding.NAME
    builder = builder.responder_id(encoding, responder.parsed)
    if certificates:
        builder = builder.certificates([party.parsed for party in certificates])
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), False)
    return builder.sign(key(sign_with or responder.label), hashes.SHA256()).public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def delegate(authority) -> Party:
    return issue("Responder", authority, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]), x509.OCSPNoCheck())


def serial(party: Party) -> int:
    return party.certificate.serial


def checked(end, *intermediates, root, crls=(), responses=(), **more):
    return ask(end, *intermediates, anchors=[root], options=CHECK, evidence=RevocationEvidence(crls, responses), **more)


def revocation(end, authority, root, *crls, responses=(), intermediates=()):
    """The status of the end entity; the authority's own is good."""
    result = checked(end, authority, *intermediates, root=root, crls=[crl(root), *crls], responses=responses)
    assert result.valid
    return result.checks[0].revocation


# -- as a whole ---------------------------------------------------------------------------------------------------------------


def test_not_checked_is_a_choice(root, authority, alice):
    assert ask(alice, authority, anchors=[root]).revocation is Revocation.NOT_CHECKED


SKIP = replace(CHECK, skip_sourceless=True)


def aia(url="http://ocsp.example/", method=x509.oid.AuthorityInformationAccessOID.OCSP):
    return x509.AuthorityInformationAccess([x509.AccessDescription(method, x509.UniformResourceIdentifier(url))])


def cdp(url="http://crl.example/"):
    return x509.CRLDistributionPoints([x509.DistributionPoint([x509.UniformResourceIdentifier(url)], None, None, None)])


def test_a_certificate_that_names_no_source_is_not_checked_where_that_was_chosen(root, authority, alice):
    result = ask(alice, authority, anchors=[root], options=SKIP)
    assert result.accepted and result.revocation is Revocation.NOT_CHECKED
    assert {request.certificate for request in result.missing} == {alice.der, authority.der}, "it may be asked after all the same"


@pytest.mark.parametrize("source", [aia(), cdp(), cdp("ldap://ca.example/"), x509.FreshestCRL(list(cdp()))])
def test_a_certificate_that_names_a_source_is_unknown_without_evidence(root, authority, source):
    end = issue("Named", authority, source, addresses=("alice@example.org",))
    result = ask(end, authority, anchors=[root], options=SKIP)
    assert result.valid and not result.accepted and result.revocation is Revocation.UNKNOWN
    assert [check.revocation.value for check in result.checks] == ["unknown", "not-checked", "not-checked"]


def test_where_issuers_are_is_no_source_of_a_status(root, authority):
    end = issue("Issuers", authority, aia(method=x509.oid.AuthorityInformationAccessOID.CA_ISSUERS), addresses=("alice@example.org",))
    assert ask(end, authority, anchors=[root], options=SKIP).revocation is Revocation.NOT_CHECKED


def test_what_is_at_hand_and_not_believed_is_not_the_same_as_nothing(root, authority, alice):
    for evidence in (
        RevocationEvidence([crl(authority, until=NOW - DAY, this=NOW - 2 * DAY)]),
        RevocationEvidence([crl(authority, sign_with="somebody")]),
        RevocationEvidence(responses=[answer(alice, authority, until=NOW - DAY, this=NOW - 2 * DAY)]),
        RevocationEvidence(doubtful=[alice.certificate.fingerprint]),
    ):
        assert ask(alice, authority, anchors=[root], options=SKIP, evidence=evidence).revocation is Revocation.UNKNOWN
    other = RevocationEvidence(responses=[answer(authority, root)])
    assert ask(alice, authority, anchors=[root], options=SKIP, evidence=other).revocation is Revocation.NOT_CHECKED


def test_revoked_counts_also_where_no_source_is_named(root, authority, alice):
    result = ask(alice, authority, anchors=[root], options=SKIP, evidence=RevocationEvidence([crl(authority, serial(alice))]))
    assert result.revocation is Revocation.REVOKED


def test_good_needs_evidence_for_every_certificate(root, authority, alice):
    good = checked(alice, authority, root=root, crls=[crl(root), crl(authority)])
    assert good.accepted and good.revocation is Revocation.GOOD and good.valid_until == NOW + DAY and good.missing == ()
    lacking = checked(alice, authority, root=root, crls=[crl(authority)])
    assert lacking.valid and not lacking.accepted and lacking.revocation is Revocation.UNKNOWN
    assert codes(lacking) == ["revocation-unknown"]
    assert [(request.kind, request.certificate) for request in lacking.missing] == [("ocsp", authority.der), ("crl", authority.der)]


def test_a_revoked_authority_takes_its_certificates_along(root, authority, alice):
    result = checked(alice, authority, root=root, crls=[crl(root, serial(authority)), crl(authority)])
    assert result.valid and not result.accepted and result.revocation is Revocation.REVOKED
    assert codes(result) == ["revoked"]


def test_missing_evidence_says_where_it_is(root):
    point = x509.CRLDistributionPoints(
        [
            x509.DistributionPoint(
                [x509.UniformResourceIdentifier("http://crl.example/a.crl"), x509.UniformResourceIdentifier("ldap://x/")], None, None, None
            )
        ]
    )
    access = x509.AuthorityInformationAccess(
        [x509.AccessDescription(x509.AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://ocsp.example/"))]
    )
    bob = issue("Bob", root, point, access)
    requests = {request.kind: request.urls for request in checked(bob, root=root).missing}
    assert requests == {"ocsp": ("http://ocsp.example/",), "crl": ("http://crl.example/a.crl", "ldap://x/")}


def test_evidence_from_sources_is_sorted_by_kind(root, authority, alice):
    brought = [
        Evidence("crl", crl(authority), "x", NOW),
        Evidence("ocsp", answer(authority, root), "y", NOW),
        Evidence("issuer", b"?", "z", NOW),
    ]
    result = ask(alice, authority, anchors=[root], options=CHECK, evidence=RevocationEvidence.of(brought))
    assert result.revocation is Revocation.GOOD


def test_revoked_by_a_list_counts_although_ocsp_says_good(root, authority, alice):
    assert revocation(alice, authority, root, crl(authority, serial(alice)), responses=[answer(alice, authority)]) is Revocation.REVOKED


@pytest.mark.parametrize("newest_first", [True, False])
def test_an_older_list_that_still_holds_does_not_hide_who_was_revoked_since(root, authority, alice, newest_first):
    old, new = crl(authority, this=NOW - 2 * DAY, number=1), crl(authority, serial(alice), this=NOW - DAY / 2, number=2)
    lists = (new, old) if newest_first else (old, new)
    assert revocation(alice, authority, root, *lists) is Revocation.REVOKED


# -- lists --------------------------------------------------------------------------------------------------------------------


def test_revoked_with_reason_and_time(root, authority, alice):
    octets = crl(authority, 1, serial(alice), 99, reason=x509.ReasonFlags.certificate_hold)
    result = checked(alice, authority, root=root, crls=[crl(root), octets])
    assert codes(result) == ["revoked"] and "certificateHold" in result.reasons[0].message and "2026-05-31" in result.reasons[0].message


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"until": NOW - dt.timedelta(seconds=1)}, "crl-stale"),
        ({"this": NOW + dt.timedelta(minutes=5, seconds=1), "until": NOW + DAY}, "crl-not-yet-valid"),
        ({"sign_with": "somebody else"}, "crl-issuer"),
        ({"number": None, "extra": [(x509.AuthorityKeyIdentifier(b"x", None, None), False)]}, "crl-number"),
        ({"extra": [(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"), True)]}, "unknown-critical-extension"),
    ],
)
def test_a_list_that_may_not_be_believed(root, authority, alice, changes, code):
    result = checked(alice, authority, root=root, crls=[crl(root), crl(authority, **changes)])
    assert codes(result) == ["revocation-unknown", code]


def test_who_is_on_a_list_that_has_ended_stays_revoked_but_for_a_hold(root, authority, alice):
    ended = {"this": NOW - 30 * DAY, "until": NOW - 20 * DAY}
    compromised, hold = x509.ReasonFlags.key_compromise, x509.ReasonFlags.certificate_hold
    for reason, status in ((None, Revocation.REVOKED), (compromised, Revocation.REVOKED), (hold, Revocation.UNKNOWN)):
        old = crl(authority, serial(alice), reason=reason, **ended)
        assert revocation(alice, authority, root, old) is status, reason
    # It says nothing in favour of the others, and nothing at all where another signed it, or where a newer one is at hand.
    assert revocation(alice, authority, root, crl(authority, 1, **ended)) is Revocation.UNKNOWN
    assert revocation(alice, authority, root, crl(authority, serial(alice), sign_with="somebody else", **ended)) is Revocation.UNKNOWN
    assert revocation(alice, authority, root, crl(authority, serial(alice), **ended), crl(authority)) is Revocation.GOOD
    # What it says needs no newer list to hold: nothing is asked again because of it.
    result = checked(alice, authority, root=root, crls=[crl(root), crl(authority, serial(alice), **ended)])
    assert codes(result) == ["revoked"] and result.missing == ()


def test_edges_of_the_clock(root, authority, alice):
    second = dt.timedelta(seconds=1)
    for this, until, status in (
        (NOW + dt.timedelta(minutes=5), NOW + DAY, Revocation.GOOD),
        (NOW - DAY, NOW, Revocation.GOOD),
        (NOW - DAY, NOW - second, Revocation.UNKNOWN),
    ):
        assert revocation(alice, authority, root, crl(authority, this=this, until=until)) is status
    for this, until, status in (
        (NOW + dt.timedelta(minutes=5), NOW + DAY, Revocation.GOOD),
        (NOW + dt.timedelta(minutes=5, seconds=1), NOW + DAY, Revocation.UNKNOWN),
        (NOW - DAY, NOW - dt.timedelta(minutes=5), Revocation.GOOD),
        (NOW - DAY, NOW - dt.timedelta(minutes=5, seconds=1), Revocation.UNKNOWN),
        (NOW - DAY, None, Revocation.GOOD),
        (NOW - DAY - second, None, Revocation.UNKNOWN),
    ):
        assert revocation(alice, authority, root, responses=[answer(alice, authority, this=this, until=until)]) is status


def test_unknown_critical_entry_extension_spoils_the_list(root, authority, alice):
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\x00")
    assert revocation(alice, authority, root, crl(authority, 4711, entry_extra=[(extension, True)])) is Revocation.UNKNOWN
    assert revocation(alice, authority, root, crl(authority, 4711, entry_extra=[(extension, False)])) is Revocation.GOOD


def test_an_authority_whose_key_may_not_sign_lists(root):
    authority = issue("No lists", root, usage("key_cert_sign"), ca=True)
    assert revocation(issue("Bob", authority), authority, root, crl(authority)) is Revocation.UNKNOWN


def test_a_namesake_of_the_authority_signs_no_lists(root, authority, alice):
    namesake = issue("Authority", issue("Elsewhere", ca=True), usage("crl_sign"), ca=True, label="namesake")
    forged = crl(namesake)
    assert revocation(alice, authority, root, forged, intermediates=[namesake]) is Revocation.UNKNOWN


def test_a_key_for_lists_of_the_same_authority(root, authority, alice):
    lists = issue("Authority", root, usage("crl_sign"), label="list key")
    assert revocation(alice, authority, root, crl(lists), intermediates=[lists]) is Revocation.GOOD
    revoked = checked(alice, authority, lists, root=root, crls=[crl(root, serial(lists)), crl(lists)])
    assert revoked.checks[0].revocation is Revocation.UNKNOWN


def partition(only="", reasons=None, indirect=False, name=None):
    return x509.IssuingDistributionPoint(
        full_name=[x509.UniformResourceIdentifier(name)] if name else None,
        relative_name=None,
        only_contains_user_certs=only == "user",
        only_contains_ca_certs=only == "ca",
        only_some_reasons=reasons,
        indirect_crl=indirect,
        only_contains_attribute_certs=only == "attribute",
    )


@pytest.mark.parametrize(("only", "status"), [("user", Revocation.GOOD), ("ca", Revocation.UNKNOWN), ("attribute", Revocation.UNKNOWN)])
def test_lists_for_one_kind_of_certificate(root, authority, alice, only, status):
    assert revocation(alice, authority, root, crl(authority, point=partition(only))) is status


def test_lists_that_together_speak_of_every_reason(root, authority, alice):
    flags = [reason for reason in x509.ReasonFlags if reason not in (x509.ReasonFlags.unspecified, x509.ReasonFlags.remove_from_crl)]
    first = crl(authority, point=partition(reasons=frozenset(flags[:3])))
    second = crl(authority, point=partition(reasons=frozenset(flags[3:])))
    assert revocation(alice, authority, root, first) is Revocation.UNKNOWN
    assert revocation(alice, authority, root, first, second) is Revocation.GOOD


def test_a_list_of_another_distribution_point(root, authority):
    points = x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier("http://crl.example/1")], None, None, None)]
    )
    bob = issue("Bob", authority, points)
    assert revocation(bob, authority, root, crl(authority, point=partition(name="http://crl.example/2"))) is Revocation.UNKNOWN
    assert revocation(bob, authority, root, crl(authority, point=partition(name="http://crl.example/1"))) is Revocation.GOOD


def test_indirect_lists(root, authority):
    lists = issue("Lists", root, usage("crl_sign"))
    points = x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier("http://crl.example/i")], None, None, [x509.DirectoryName(dn("Lists"))])]
    )
    bob = issue("Bob", authority, points)
    point = partition(name="http://crl.example/i", indirect=True)
    belongs = [(x509.CertificateIssuer([x509.DirectoryName(authority.subject)]), True)]
    assert revocation(bob, authority, root, crl(lists, 5, point=point), intermediates=[lists]) is Revocation.GOOD
    # The number alone is not enough: the entry belongs to the issuer that it names.
    assert revocation(bob, authority, root, crl(lists, serial(bob), point=point), intermediates=[lists]) is Revocation.GOOD
    listed = crl(lists, serial(bob), point=point, entry_extra=belongs)
    assert revocation(bob, authority, root, listed, intermediates=[lists]) is Revocation.REVOKED
    # A list that does not say that it is indirect is not.
    assert (
        revocation(bob, authority, root, crl(lists, point=partition(name="http://crl.example/i")), intermediates=[lists])
        is Revocation.UNKNOWN
    )


def test_deltas(root, authority, alice):
    base = crl(authority, number=10)
    held = crl(authority, serial(alice), number=10)
    newer = crl(authority, serial(alice), number=11, delta=10)
    lifted = crl(authority, serial(alice), number=12, delta=10, reason=x509.ReasonFlags.remove_from_crl)
    assert revocation(alice, authority, root, base, newer) is Revocation.REVOKED
    assert revocation(alice, authority, root, held, newer, lifted) is Revocation.GOOD
    assert revocation(alice, authority, root, newer) is Revocation.UNKNOWN
    # One for another base, one that is older, one that somebody else signed: not used.
    assert revocation(alice, authority, root, base, crl(authority, serial(alice), number=12, delta=11)) is Revocation.GOOD
    assert revocation(alice, authority, root, base, crl(authority, serial(alice), number=10, delta=9)) is Revocation.GOOD
    forged = crl(authority, serial(alice), number=12, delta=10, reason=x509.ReasonFlags.remove_from_crl, sign_with="mallory")
    assert revocation(alice, authority, root, held, forged) is Revocation.REVOKED


def test_a_list_of_100000_entries_is_searched_in_milliseconds(authority):
    first = 0x4000000000000000
    time_of = b"\x17\x0d260101000000Z"
    entries = b"".join(b"\x30\x19\x02\x08" + (first + index).to_bytes(8, "big") + time_of for index in range(100_000))
    whole = replace(load_crl(crl(authority, first)), der=entries, entries=(0, len(entries)))
    before = time.process_time()
    assert whole.find(first + 99_999, whole.issuer).serial == first + 99_999
    assert whole.find(first + 100_000, whole.issuer) is None
    # Measured: 2 ms. Reading every entry takes 400.
    assert time.process_time() - before < 0.1


@pytest.mark.parametrize("number", [0, 1, 127, 128, 255, 256, -1, -127, -128, -129, -256, 2**159 - 1, 2**160])
def test_every_serial_number_is_found(authority, number):
    size = (number if number >= 0 else ~number).bit_length() // 8 + 1
    octets = number.to_bytes(size, "big", signed=True)
    entry = b"\x02" + bytes([size]) + octets + b"\x17\x0d260101000000Z"
    entries = b"\x30" + bytes([len(entry)]) + entry
    whole = replace(load_crl(crl(authority, 5)), der=entries * 3, entries=(0, 3 * len(entries)))
    assert whole.find(number, whole.issuer) == (number, START, "unspecified")
    assert whole.find(number + 2**80, whole.issuer) is None


# -- OCSP ---------------------------------------------------------------------------------------------------------------------


def judge(octets, alice, authority, **rules):
    return judge_ocsp(octets, alice.certificate, authority.certificate, at=NOW, backend=BACKEND, budget=Budget(), rules=OcspRules(**rules))


@pytest.mark.parametrize("by_key", [True, False])
@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256()], ids=["sha1", "sha256"])
def test_an_answer_of_the_issuer_itself(authority, alice, by_key, algorithm):
    assert judge(answer(alice, authority, by_key=by_key, algorithm=algorithm), alice, authority).revocation is Revocation.GOOD


def test_revoked_and_unknown(authority, alice):
    status = judge(answer(alice, authority, ocsp.OCSPCertStatus.REVOKED), alice, authority)
    assert (status.revocation, status.reason, status.revoked_at) == (Revocation.REVOKED, "keyCompromise", NOW - DAY)
    unknown = judge(answer(alice, authority, ocsp.OCSPCertStatus.UNKNOWN), alice, authority)
    assert unknown.revocation is Revocation.UNKNOWN and unknown.reasons[0].code == "ocsp-unknown"


def test_a_delegated_responder(authority, alice, delegate):
    octets = answer(alice, authority, responder=delegate, certificates=[delegate])
    assert judge(octets, alice, authority).revocation is Revocation.GOOD
    lacking = judge(answer(alice, authority, responder=delegate), alice, authority)
    assert lacking.reasons[0].code == "ocsp-responder-not-found"


def test_responders_that_nobody_appointed(root, authority, alice):
    purpose = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    stranger = issue("Stranger", ca=True)
    for responder, code in [
        (issue("No purpose", authority), "extended-key-usage"),
        (issue("Any purpose", authority, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])), "extended-key-usage"),
        (issue("Of the root", root, purpose), "ocsp-unauthorised"),
        (issue("Of a stranger", stranger, purpose), "ocsp-unauthorised"),
        (issue("Claims it", authority, purpose, sign_with="mallory"), "ocsp-unauthorised"),
        (issue("Expired", authority, purpose, end=START + DAY), "expired"),
        (issue("Other usage", authority, purpose, usage("key_encipherment")), "key-usage"),
    ]:
        status = judge(answer(alice, authority, responder=responder, certificates=[responder]), alice, authority)
        assert (status.revocation, status.reasons[0].code) == (Revocation.UNKNOWN, code)


def test_a_revoked_responder(root, authority, alice):
    responder = issue("Revocable", authority, x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING]))
    octets = answer(alice, authority, responder=responder, certificates=[responder])
    assert revocation(alice, authority, root, responses=[octets]) is Revocation.GOOD
    # Without id-pkix-ocsp-nocheck its own status counts. The list, which speaks of Alice too, would hide that: ask the response alone.
    revoked = judge_ocsp(
        octets,
        alice.certificate,
        authority.certificate,
        at=NOW,
        backend=BACKEND,
        budget=Budget(),
        delegate_status=lambda _: Revocation.REVOKED,
    )
    assert (revoked.revocation, revoked.reasons[0].code) == (Revocation.UNKNOWN, "ocsp-responder-revoked")


def test_a_default_responder_of_our_choice(authority, alice):
    chosen = issue("Chosen", ca=True)
    octets = answer(alice, authority, responder=chosen)
    assert judge(octets, alice, authority).revocation is Revocation.UNKNOWN
    assert judge(octets, alice, authority, responders=(chosen.der,)).revocation is Revocation.GOOD


def test_an_answer_about_another_certificate(authority, alice):
    assert judge(answer(issue("Bob", authority), authority), alice, authority).reasons[0].code == "ocsp-other-certificate"


def test_an_answer_about_the_same_number_of_another_issuer(root, authority, alice):
    other = issue("Authority", root, ca=True, label="other key")
    assert judge(answer(alice, other), alice, authority).reasons[0].code == "ocsp-other-certificate"


@pytest.mark.parametrize(
    ("this", "until", "code"),
    [
        (NOW - 2 * DAY, NOW - DAY, "ocsp-stale"),
        (NOW + DAY, NOW + 2 * DAY, "ocsp-not-yet-valid"),
        (NOW - 2 * DAY, None, "ocsp-stale"),
        (NOW - DAY / 2, None, None),
        (NOW + dt.timedelta(minutes=4), NOW + DAY, None),
    ],
)
def test_stale_and_future_answers(authority, alice, this, until, code):
    status = judge(answer(alice, authority, this=this, until=until), alice, authority)
    assert [reason.code for reason in status.reasons] == ([code] if code else [])
    assert status.revocation is (Revocation.UNKNOWN if code else Revocation.GOOD)


def test_a_replayed_answer(authority, alice):
    octets = answer(alice, authority, nonce=b"1" * 32)
    assert judge(octets, alice, authority, nonce=b"2" * 32).reasons[0].code == "ocsp-replayed"
    assert judge(octets, alice, authority, nonce=b"1" * 32).revocation is Revocation.GOOD
    # RFC 9654 §2.1: most responders ignore nonces.
    assert judge(answer(alice, authority), alice, authority, nonce=b"1" * 32).revocation is Revocation.GOOD


def test_an_answer_with_a_critical_extension_that_is_not_known(authority, alice):
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(alice.parsed, authority.parsed, hashes.SHA1(), ocsp.OCSPCertStatus.GOOD, NOW - DAY, NOW + DAY, None, None)
        .responder_id(ocsp.OCSPResponderEncoding.NAME, authority.parsed)
    )
    for critical in (True, False):
        extended = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), critical)
        status = judge(extended.sign(key(authority.label), hashes.SHA256()).public_bytes(Encoding.DER), alice, authority)
        assert status.revocation is (Revocation.UNKNOWN if critical else Revocation.GOOD)
        assert [reason.code for reason in status.reasons] == (["unknown-critical-extension"] if critical else [])


def test_a_changed_answer(authority, alice):
    octets = bytearray(answer(alice, authority, ocsp.OCSPCertStatus.UNKNOWN))
    octets[octets.index(b"\x82\x00")] = 0x80
    assert judge(bytes(octets), alice, authority).reasons[0].code == "ocsp-signature"


@pytest.mark.parametrize("status", [1, 2, 3, 5, 6, 9])
def test_errors_are_not_signed_and_mean_nothing(authority, alice, status):
    assert judge(bytes([0x30, 3, 0x0A, 1, status]), alice, authority).reasons[0].code == "ocsp-error"


def test_a_request_that_others_can_read(authority, alice):
    request = ocsp.load_der_ocsp_request(ocsp_request(alice.certificate, authority.certificate, nonce=b"n" * 32))
    assert request.serial_number == serial(alice) and isinstance(request.hash_algorithm, hashes.SHA1)
    assert request.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"n" * 32
    expected = ocsp.OCSPRequestBuilder().add_certificate(alice.parsed, authority.parsed, hashes.SHA1()).build()
    assert ocsp_request(alice.certificate, authority.certificate) == expected.public_bytes(Encoding.DER)


def test_a_request_of_the_lightweight_profile_names_its_certificate_with_sha_256_and_nothing_else(authority, alice):
    """RFC 9919 §3.1.1: one Request, SHA-256 in CertID, no extensions."""
    expected = ocsp.OCSPRequestBuilder().add_certificate(alice.parsed, authority.parsed, hashes.SHA256()).build()
    assert ocsp_request(alice.certificate, authority.certificate, hash_name="sha256") == expected.public_bytes(Encoding.DER)


# -- any octets ---------------------------------------------------------------------------------------------------------------

_ROOT = issue("Fuzz root", ca=True)
_BOB = issue("Fuzz Bob", _ROOT)
_LIST, _ANSWER = crl(_ROOT, 1, 2, serial(_BOB)), answer(_BOB, _ROOT)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([_LIST, _ANSWER]), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3), st.integers(0, 600))
def test_any_octets_end_in_a_status(base, changes, cut):
    octets = bytearray(base)
    for index, value in changes:
        octets[index % len(octets)] = value
    for data in (bytes(octets), bytes(octets[:cut])):
        assert judge(data, _BOB, _ROOT).revocation in (Revocation.GOOD, Revocation.UNKNOWN)
        if data != _ANSWER:
            result = checked(_BOB, root=_ROOT, crls=[data])
            assert result.revocation is not Revocation.GOOD
