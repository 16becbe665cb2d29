"""What is answered, and when nothing is: judged by the reader that mailsec itself believes answers with, and by `cryptography`."""

from __future__ import annotations

import hashlib
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from mailsec.asn1 import writer
from mailsec.errors import ConfigurationError, Tampered, Unavailable
from mailsec.model.verdict import Revocation
from mailsec.pki.ocsp import ocsp_request
from mailsec.testing.authority import Authority
from mailsec.x509.certificate import load_certificate
from mailsec.x509.ocsp import read_ocsp_response
from mailsec_ocsp.requests import read_ocsp_request
from mailsec_ocsp.responses import INTERNAL_ERROR, MALFORMED_REQUEST, TRY_LATER, UNAUTHORIZED

SIGNERS = {"the authority itself": [], "an appointed key": ["OCSP"]}


@pytest.fixture(params=SIGNERS, ids=list(SIGNERS))
def signers(request, company) -> list[str]:
    company.appoint("OCSP")
    return SIGNERS[request.param]


def extension(oid: str, value: bytes, critical: bool = False) -> bytes:
    return writer.sequence(writer.oid(oid), writer.TRUE if critical else b"", writer.octet_string(value))


def request_of(*ids: bytes, extensions: bytes = b"") -> bytes:
    extra = writer.explicit(2, writer.sequence(extensions)) if extensions else b""
    return writer.sequence(writer.sequence(writer.sequence(*(writer.sequence(one) for one in ids)), extra))


def cert_id(company, serial: int) -> bytes:
    issuer = load_certificate(company.ca.certificate)
    one = read_ocsp_request(ocsp_request(issuer, issuer)).ids[0]
    algorithm = writer.sequence(writer.oid("1.3.14.3.2.26"), writer.NULL)
    return writer.sequence(
        algorithm, writer.octet_string(one.issuer_name_hash), writer.octet_string(one.issuer_key_hash), writer.integer(serial)
    )


def test_a_certificate_of_ours_is_good(company, signers):
    certificate = company.issue()
    answer = company.ask(company.responder(signers=signers), certificate)
    status = company.judged(answer, certificate)
    assert status.revocation is Revocation.GOOD and not status.reasons
    read = ocsp.load_der_ocsp_response(answer.octets)
    assert read.certificate_status is ocsp.OCSPCertStatus.GOOD and len(read.certificates) == len(signers)
    assert read.next_update_utc - read.this_update_utc == timedelta(hours=24)


@pytest.mark.parametrize("reason", ["unspecified", "keyCompromise", "certificateHold", "privilegeWithdrawn", "aACompromise"])
def test_a_revoked_certificate_is_revoked_with_its_reason_and_time(company, reason):
    certificate = company.issue()
    company.revoke(certificate, reason)
    read = ocsp.load_der_ocsp_response(company.ask(company.responder(), certificate).octets)
    assert read.certificate_status is ocsp.OCSPCertStatus.REVOKED and read.revocation_time_utc == company.runtime.now()
    assert (read.revocation_reason.value if read.revocation_reason else "unspecified") == reason


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()], ids=lambda one: one.name)
def test_a_certificate_may_be_named_by_every_hash(company, algorithm):
    certificate, responder = company.issue(), company.responder()
    subject, issuer = x509.load_der_x509_certificate(certificate.der), x509.load_der_x509_certificate(company.ca.certificate)
    request = ocsp.OCSPRequestBuilder().add_certificate(subject, issuer, algorithm).build()
    answer = company.answer(responder, request.public_bytes(Encoding.DER))
    read = ocsp.load_der_ocsp_response(answer.octets)
    assert read.certificate_status is ocsp.OCSPCertStatus.GOOD and read.hash_algorithm.name == algorithm.name
    assert company.judged(answer, certificate).revocation is Revocation.GOOD


def test_an_answer_is_kept_for_half_its_life(company):
    certificate, responder = company.issue(), company.responder(validity=2)
    first = company.ask(responder, certificate)
    company.runtime.advance(59 * 60)
    assert company.ask(responder, certificate).octets == first.octets
    company.runtime.advance(60)
    second = company.ask(responder, certificate)
    assert second.octets != first.octets and second.this_update == company.runtime.now()


def test_a_revocation_is_told_at_once_and_so_is_a_release_from_hold(company):
    certificate, responder = company.issue(), company.responder()
    good = company.ask(responder, certificate)
    company.revoke(certificate, "certificateHold")
    assert company.judged(company.ask(responder, certificate), certificate).revocation is Revocation.REVOKED
    company.register[certificate.serial] = company.register[certificate.serial].__class__(
        company.ca.certificate, certificate.serial, certificate.der, certificate.not_after
    )
    company.runtime.advance(1)
    released = company.ask(responder, certificate)
    assert company.judged(released, certificate).revocation is Revocation.GOOD and released.octets != good.octets


def test_what_was_never_issued_is_unknown(company, signers):
    stranger = load_certificate(company.ca.issue("eve@example.org").certificate)
    read = ocsp.load_der_ocsp_response(company.ask(company.responder(signers=signers), stranger).octets)
    assert read.certificate_status is ocsp.OCSPCertStatus.UNKNOWN


def test_what_was_never_issued_may_be_called_revoked(company):
    stranger = load_certificate(company.ca.issue("eve@example.org").certificate)
    answer = company.ask(company.responder(not_issued="revoked"), stranger)
    (single,) = read_ocsp_response(answer.octets).responses
    # RFC 6960 §2.2.
    assert (single.status, single.reason, single.revoked_at.timestamp()) == ("revoked", 6, 0)
    assert writer.oid("1.3.6.1.5.5.7.48.1.9") in answer.octets
    assert company.ask(company.responder(not_issued="unauthorized"), stranger).octets == UNAUTHORIZED


def test_a_certificate_of_somebody_else_is_not_spoken_about(company):
    other = Authority("CA")
    certificate = load_certificate(other.issue("dora@example.org").certificate)
    responder = company.responder()
    assert company.answer(responder, ocsp_request(certificate, load_certificate(other.certificate))).octets == UNAUTHORIZED


def test_several_certificates_of_one_authority_are_answered_together(company):
    certificates = [company.issue() for _ in range(3)]
    company.revoke(certificates[1])
    octets = request_of(*(cert_id(company, one.serial) for one in certificates))
    read = read_ocsp_response(company.answer(company.responder(), octets).octets)
    assert [single.status for single in read.responses] == ["good", "revoked", "good"]


@pytest.mark.parametrize("size", [1, 32, 128])
def test_a_nonce_comes_back_in_an_answer_of_its_own(company, size):
    certificate, responder = company.issue(), company.responder()
    answer = company.ask(responder, certificate, nonce=b"n" * size)
    assert read_ocsp_response(answer.octets).nonce == b"n" * size and not answer.for_everybody
    assert company.judged(answer, certificate).revocation is Revocation.GOOD
    assert read_ocsp_response(company.ask(company.responder(nonce=False), certificate, nonce=b"n" * size).octets).nonce is None


@pytest.mark.parametrize("size", [0, 129, 4000])
def test_attack_a_nonce_that_is_empty_or_too_long_is_malformed(company, size):
    assert company.ask(company.responder(), company.issue(), nonce=b"n" * size).octets == MALFORMED_REQUEST


def test_attack_a_nonce_of_a_megabyte_is_malformed(company):
    assert company.ask(company.responder(), company.issue(), nonce=b"n" * 2**20).octets == MALFORMED_REQUEST


@pytest.mark.parametrize("count", [17, 10_000])
def test_attack_ten_thousand_certificates_in_one_request_are_malformed(company, count):
    company.out = AssertionError("nobody is looked up")
    octets = request_of(*[cert_id(company, 7)] * count)
    assert company.answer(company.responder(), octets).octets == MALFORMED_REQUEST


def test_attack_nonces_without_end_cost_no_more_signatures_than_allowed(company):
    certificate, responder = company.issue(), company.responder(signatures_per_second=1)
    company.ask(responder, certificate)
    answers = [company.ask(responder, certificate, nonce=b"%08d" % number) for number in range(20)]
    assert len({answer.octets for answer in answers}) == 2
    assert company.judged(answers[-1], certificate).revocation is Revocation.GOOD
    company.runtime.advance(1)
    assert read_ocsp_response(company.ask(responder, certificate, nonce=b"n" * 16).octets).nonce == b"n" * 16


def test_attack_numbers_that_were_never_issued_cost_no_more_signatures_and_no_memory(company):
    responder = company.responder(signatures_per_second=1)
    answers = [company.answer(responder, request_of(cert_id(company, number))).octets for number in range(1, 30)]
    assert answers.count(TRY_LATER) == 27
    assert not responder._kept._answers


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x30\x80\x00\x00",
        b"\x30\x00",
        writer.sequence(writer.sequence(writer.sequence())),
        writer.NULL * 100,
    ],
)
def test_attack_octets_that_are_no_request_are_malformed(company, octets):
    assert company.answer(company.responder(), octets).octets == MALFORMED_REQUEST


def test_attack_what_is_critical_and_not_known_is_malformed(company):
    one = cert_id(company, company.issue().serial)
    responder = company.responder()
    assert company.answer(responder, request_of(one, extensions=extension("1.2.3", b"\5\0", critical=True))).octets == MALFORMED_REQUEST
    assert company.answer(responder, request_of(one, extensions=extension("1.2.3", b"\5\0"))).this_update


def test_attack_a_serial_number_of_another_sign_or_size_is_of_nobody(company):
    for serial in (-5, 0, 2**4000):
        answer = company.answer(company.responder(), request_of(cert_id(company, serial)))
        assert read_ocsp_response(answer.octets).responses[0].status == "unknown"


def test_a_register_that_cannot_be_read_signs_nothing(company):
    certificate, responder = company.issue(), company.responder()
    company.ask(responder, certificate)
    company.out = Unavailable("the database is away")
    assert company.ask(responder, certificate).octets == TRY_LATER
    company.out = Tampered("somebody wrote into it")
    assert company.ask(responder, certificate).octets == TRY_LATER


def test_a_token_that_is_out_gives_what_was_kept_while_it_holds(company):
    certificate, responder = company.issue(), company.responder(validity=2)
    kept = company.ask(responder, certificate)
    company.keys.clear()
    company.runtime.advance(90 * 60)
    assert company.ask(responder, certificate).octets == kept.octets
    company.revoke(certificate)
    assert company.ask(responder, certificate).octets == TRY_LATER
    company.runtime.advance(3600)
    assert company.ask(responder, certificate).octets == TRY_LATER


def test_an_answer_ends_no_later_than_the_certificate_of_whoever_signed_it(company):
    company.appoint("OCSP", days=1)
    certificate, responder = company.issue(), company.responder(signers=["OCSP"], validity=240)
    answer = company.ask(responder, certificate)
    assert answer.next_update == load_certificate(company.keys["OCSP"].certificate).not_after
    company.runtime.advance(2 * 86400)
    assert company.ask(responder, certificate).octets == INTERNAL_ERROR


def test_who_may_not_sign_is_told_at_start(company):
    start = lambda **settings: company.runtime.run(company.responder(**settings).check())  # noqa: E731
    start()
    company.appoint("OCSP")
    start(signers=["OCSP"])
    company.appoint("stranger", by=Authority("CA"))
    with pytest.raises(ConfigurationError, match="issued by somebody else"):
        start(signers=["stranger"])
    company.keys["dora"] = company.ca.issue("dora@example.org")
    with pytest.raises(ConfigurationError, match="lacks id-pkix-ocsp-nocheck"):
        start(signers=["dora"])
    start(signers=["stranger", "dora", "OCSP"])
    with pytest.raises(ConfigurationError, match=r"authorities: none"):
        start(authorities=["typo"])


def test_a_key_that_is_out_at_start_may_come_and_is_told_of_once_a_minute(company):
    certificate, responder = company.issue(), company.responder(signers=["OCSP"])
    company.runtime.run(responder.check())
    assert company.ask(responder, certificate).octets == company.ask(responder, certificate).octets == TRY_LATER
    assert [(one.name, one.fields["reason"]) for one in company.events] == [("ocsp cannot answer", "there is no key called 'OCSP'")]
    company.runtime.advance(60)
    company.ask(responder, certificate)
    assert len(company.events) == 2
    company.appoint("OCSP")
    assert company.judged(company.ask(responder, certificate), certificate).revocation is Revocation.GOOD


def test_a_renewed_authority_answers_for_both_of_its_keys(company):
    old, certificate = company.ca, company.issue()
    company.appoint("old OCSP")
    company.ca = Authority("CA")
    company.keys["CA"] = company.keys["new"] = company.appoint("new OCSP")
    company.authorities["CA"] = (company.ca.certificate, old.certificate)
    younger = company.issue()
    responder = company.responder(signers=["new OCSP", "old OCSP"])
    company.runtime.run(responder.check())
    assert company.judged(company.ask(responder, younger), younger).revocation is Revocation.GOOD
    company.ca = old
    assert company.judged(company.ask(responder, certificate), certificate).revocation is Revocation.GOOD
    # A number of the new key, asked for with the old one.
    assert read_ocsp_response(company.ask(responder, younger).octets).responses[0].status == "unknown"


def test_the_responder_is_named_by_its_key(company):
    read = ocsp.load_der_ocsp_response(company.ask(company.responder(), company.issue()).octets)
    key = x509.load_der_x509_certificate(company.ca.certificate).public_key()
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    assert read.responder_key_hash == hashlib.sha1(point).digest()
