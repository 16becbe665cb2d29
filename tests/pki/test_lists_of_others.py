"""Attacks with lists and responses of authorities that exist below the same anchor, and have no say about this certificate."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp
from pki_authorities import NOW, dn, issue, key, usage
from test_revocation import DAY, answer, checked, crl, partition, revocation, serial

from mailsec.model.verdict import Revocation

LISTS = usage("key_cert_sign", "crl_sign")


@pytest.fixture(scope="module")
def evil(root):
    """An authority that may vouch for addresses of evil.example only, which hinders nobody from making namesakes."""
    limits = x509.NameConstraints([x509.RFC822Name("evil.example")], None)
    return issue("Evil", root, LISTS, (limits, True), ca=True)


def test_a_namesake_made_by_another_authority_below_the_anchor_clears_nobody(root, evil):
    authority = issue("Victim", root, LISTS, ca=True, label="victim")
    bob = issue("Bob", authority)
    namesake = issue("Victim", evil, usage("crl_sign"), label="victim of evil")
    everything_else = [crl(evil), crl(authority, serial(bob))]
    status = revocation(bob, authority, root, crl(evil), crl(namesake), intermediates=[evil, namesake])
    assert status is Revocation.UNKNOWN
    assert revocation(bob, authority, root, crl(namesake), *everything_else, intermediates=[evil, namesake]) is Revocation.REVOKED


def test_a_namesake_of_the_signer_of_indirect_lists_clears_nobody(root, evil):
    authority = issue("Indirect", root, LISTS, ca=True)
    issuer = [x509.DirectoryName(dn("List maker"))]
    points = x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier("http://crl.example/i")], None, None, issuer)]
    )
    bob = issue("Bob", authority, points)
    point = partition(name="http://crl.example/i", indirect=True)
    for maker, status in ((root, Revocation.GOOD), (evil, Revocation.UNKNOWN)):
        lists = issue("List maker", maker, usage("crl_sign"), label=f"lists of {maker.label}")
        assert revocation(bob, authority, root, crl(lists, point=point), crl(evil), intermediates=[evil, lists]) is status, maker.label


def test_an_indirect_list_speaks_of_the_issuer_that_each_entry_names_and_of_no_other(root):
    """Two authorities use one maker of lists; a number that one of them revoked says nothing about the other's certificate."""
    lists = issue("Shared lists", root, usage("crl_sign"))
    issuer = [x509.DirectoryName(dn("Shared lists"))]
    points = x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier("http://crl.example/s")], None, None, issuer)]
    )
    one, two = (issue(name, root, LISTS, ca=True) for name in ("One", "Two"))
    bob = issue("Bob", one, points)
    point = partition(name="http://crl.example/s", indirect=True)
    for owner, status in ((one, Revocation.REVOKED), (two, Revocation.GOOD)):
        entry = [(x509.CertificateIssuer([x509.DirectoryName(owner.subject)]), True)]
        listed = crl(lists, serial(bob), point=point, entry_extra=entry)
        assert revocation(bob, one, root, listed, intermediates=[lists]) is status


def test_a_key_that_the_authority_had_before_still_signs_its_lists(root):
    """Roll-over: the new key is certified by the old one, and lists come with either."""
    old = issue("Rolling", root, LISTS, ca=True, label="old key")
    new = issue("Rolling", old, LISTS, ca=True, label="new key")
    bob = issue("Bob", new)
    for signer in (old, new):
        given = [crl(root), crl(signer)]
        assert checked(bob, new, old, root=root, crls=given).checks[0].revocation is Revocation.GOOD
    # The other way round: certificates of the old key, lists of the new one.
    assert checked(issue("Eve", old), old, new, root=root, crls=[crl(root), crl(new)]).checks[0].revocation is Revocation.GOOD


def test_a_responder_of_one_authority_does_not_answer_for_another(root):
    one, two = (issue(f"Responding {name}", root, LISTS, ca=True) for name in ("one", "two"))
    bob = issue("Bob", two)
    purpose = x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.OCSP_SIGNING])
    for authority, status in ((one, Revocation.UNKNOWN), (two, Revocation.GOOD)):
        responder = issue("Responder", authority, purpose, x509.OCSPNoCheck(), label=f"responder of {authority.label}")
        given = answer(bob, two, responder=responder, certificates=[responder])
        assert revocation(bob, two, root, responses=[given], intermediates=[one]) is status


def test_of_two_answers_about_one_certificate_revoked_counts(root, authority, alice):
    from asn1crypto import core as asn1_core
    from asn1crypto import ocsp as asn1_ocsp

    def both(first: ocsp.OCSPCertStatus, second: ocsp.OCSPCertStatus, **more) -> bytes:
        outer = asn1_ocsp.OCSPResponse.load(answer(alice, authority, first))
        other = asn1_ocsp.OCSPResponse.load(answer(alice, authority, second, **more)).response_data["responses"][0]
        basic = outer["response_bytes"]["response"].parsed
        basic["tbs_response_data"]["responses"].append(other)
        tbs = basic["tbs_response_data"].dump(force=True)
        basic["signature"] = key(authority.label).sign(tbs, ec.ECDSA(hashes.SHA256()))
        outer["response_bytes"]["response"] = asn1_core.ParsableOctetString(basic.dump(force=True))
        return outer.dump(force=True)

    good, revoked = ocsp.OCSPCertStatus.GOOD, ocsp.OCSPCertStatus.REVOKED
    for order in ((good, revoked), (revoked, good)):
        assert revocation(alice, authority, root, responses=[both(*order)]) is Revocation.REVOKED
    # One that has ended says nothing either way.
    assert revocation(alice, authority, root, responses=[both(good, revoked, this=NOW - 3 * DAY, until=NOW - DAY)]) is Revocation.GOOD
