"""Signed messages that lie: each is refused for its own reason."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import AT, person, private_key
from test_sign_verify import BACKEND, CONTENT, sign, verify

from mailsec.algorithms import table
from mailsec.asn1 import writer
from mailsec.asn1.reader import read_single
from mailsec.cms import attributes
from mailsec.cms.signed import ID_DATA, read_signed_data
from mailsec.cms.verify import verify_signers
from mailsec.errors import CmsError, LimitExceeded, MailsecError
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareKey
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.mechanism import SignatureMechanism
from mailsec.x509.certificate import load_certificate

KEY = person("p256")
SHA256 = table.digest_identifier("sha256")
CONTENT_TYPE = attributes.attribute(attributes.CONTENT_TYPE, writer.oid(ID_DATA))
ECDSA = SignatureMechanism("ecdsa", "sha256")
DIGEST = hashlib.sha256(CONTENT).digest()
MESSAGE_DIGEST = attributes.attribute(attributes.MESSAGE_DIGEST, writer.octet_string(DIGEST))


def build(
    members=(CONTENT_TYPE, MESSAGE_DIGEST),
    *,
    key: SoftwareKey = KEY,
    mechanism: SignatureMechanism = ECDSA,
    content: bytes | None = None,
    content_type: str = ID_DATA,
    digest_algorithm: bytes = SHA256,
    digest_algorithms: tuple[bytes, ...] = (SHA256,),
    signature_algorithm: bytes = b"",
    signed_as: bytes = b"",
    sent_as: bytes = b"",
    sid: bytes = b"",
    certificates: tuple[bytes, ...] | None = None,
    infos: int = 1,
    signed_octets: bytes | None = None,
) -> bytes:
    """A SignedData whose every part can be told to lie; the signature itself is right."""
    if members is None:
        attrs = b""
        data = CONTENT if content is None else content
    else:
        body = b"".join(sorted(members))
        data = signed_as or writer.header(0x31, len(body)) + body
        attrs = sent_as or writer.header(0xA0, len(body)) + body
    signature = run_now(key.sign(mechanism, data if signed_octets is None else signed_octets))
    facts = load_certificate(key.certificate)
    info = writer.sequence(
        writer.integer(1),
        sid or writer.sequence(facts.issuer.der, writer.integer(facts.serial)),
        digest_algorithm,
        attrs,
        signature_algorithm or table.signer_identifier(mechanism),
        writer.octet_string(signature),
    )
    encapsulated = b"" if content is None else writer.explicit(0, writer.octet_string(content))
    chosen = (key.certificate,) if certificates is None else certificates
    signed = writer.sequence(
        writer.integer(1),
        writer.set_of(*digest_algorithms),
        writer.sequence(writer.oid(content_type), encapsulated),
        b"\xa0" + writer.set_of(*chosen)[1:],
        writer.header(0x31, len(info) * infos) + info * infos,
    )
    return writer.sequence(writer.oid("1.2.840.113549.1.7.2"), writer.explicit(0, signed))


def codes(cms: bytes, content: bytes | None = CONTENT, **options) -> list[str]:
    """The reasons of the only signer; empty where it is intact without any."""
    (result,) = verify(cms, content, **options)
    assert result.intact == (not [reason for reason in result.reasons if reason.stage in ("integrity", "limits")])
    return [reason.code for reason in result.reasons]


def test_the_builder_itself_makes_good_signatures():
    assert codes(build()) == []
    assert codes(build(None), CONTENT) == []
    assert codes(build(content=CONTENT), None) == []


def test_a_swapped_content_type_is_refused():
    other = attributes.attribute(attributes.CONTENT_TYPE, writer.oid("1.2.840.113549.1.9.16.1.4"))
    assert codes(build((other, MESSAGE_DIGEST))) == ["content-type-differs"]
    assert codes(build(content_type="1.2.840.113549.1.9.16.1.4")) == ["content-type-differs"]


def test_a_missing_content_type_is_refused():
    assert codes(build((MESSAGE_DIGEST,))) == ["content-type-missing"]


def test_a_missing_message_digest_is_refused():
    assert codes(build((CONTENT_TYPE,))) == ["message-digest-missing"]


def test_two_message_digests_are_refused():
    other = attributes.attribute(attributes.MESSAGE_DIGEST, writer.octet_string(b"x" * 32))
    assert codes(build((CONTENT_TYPE, MESSAGE_DIGEST, other))) == ["attribute-repeated"]
    assert codes(build((CONTENT_TYPE, MESSAGE_DIGEST, MESSAGE_DIGEST))) == ["attribute-repeated"]


def test_a_message_digest_with_two_values_is_refused():
    two = writer.sequence(writer.oid(attributes.MESSAGE_DIGEST), writer.set_of(writer.octet_string(DIGEST), writer.octet_string(b"x" * 32)))
    assert codes(build((CONTENT_TYPE, two))) == ["attribute-repeated"]
    none = writer.sequence(writer.oid(attributes.MESSAGE_DIGEST), writer.set_of())
    assert codes(build((CONTENT_TYPE, none))) == ["attribute-repeated"]


def test_a_message_digest_of_another_type_is_refused():
    other = attributes.attribute(attributes.MESSAGE_DIGEST, writer.utf8_string("digest"))
    assert codes(build((CONTENT_TYPE, other))) == ["signature-unreadable"]


def test_empty_signed_attributes_are_refused():
    assert codes(build(())) == ["content-type-missing"]


def test_signed_attributes_sent_as_the_content_of_another_message_are_refused():
    # The victim signed `attrs`; the attacker sends them as content of a message without attributes: the signature is right.
    body = b"".join(sorted((CONTENT_TYPE, MESSAGE_DIGEST)))
    attrs = writer.header(0x31, len(body)) + body
    cms = build(None, content=attrs)
    assert codes(cms, None) == ["content-is-attributes"]
    assert codes(build(None, signed_octets=attrs), attrs) == ["content-is-attributes"]
    # The same in one-octet pieces.
    (result,) = verify_signers(read_signed_data(build(None, signed_octets=attrs)), [bytes((octet,)) for octet in attrs], backend=BACKEND)
    assert [reason.code for reason in result.reasons] == ["content-is-attributes"]


def test_content_of_another_type_without_signed_attributes_is_refused():
    assert codes(build(None, content=CONTENT, content_type="1.2.840.113549.1.9.16.1.4"), None) == ["signed-attributes-missing"]


def test_attributes_that_are_not_der_but_signed_in_der_are_read_and_reported():
    body = b"".join(sorted((CONTENT_TYPE, MESSAGE_DIGEST), reverse=True))
    assert codes(build(sent_as=writer.header(0xA0, len(body)) + body)) == ["attributes-not-der"]
    assert codes(build(sent_as=b"\xa0\x80" + body + b"\0\0")) == ["attributes-not-der"]


def test_attributes_signed_as_they_were_sent_though_not_in_der_are_right():
    body = b"".join(sorted((CONTENT_TYPE, MESSAGE_DIGEST), reverse=True))
    size = len(body)
    assert codes(build(sent_as=writer.header(0xA0, size) + body, signed_as=writer.header(0x31, size) + body)) == []


def test_an_attribute_that_was_not_signed_is_not_believed():
    body = b"".join(sorted((CONTENT_TYPE, MESSAGE_DIGEST, attributes.attribute(attributes.SIGNING_TIME, writer.time(AT)))))
    assert codes(build(sent_as=writer.header(0xA0, len(body)) + body)) == ["signature-wrong"]


def test_exchanged_algorithms_are_refused():
    protection = attributes.algorithm_protection(
        table.digest_identifier("sha512"), table.signer_identifier(SignatureMechanism("ecdsa", "sha512"))
    )
    assert codes(build((CONTENT_TYPE, MESSAGE_DIGEST, protection))) == ["algorithms-exchanged"]


def test_protected_algorithms_that_differ_in_null_only_are_the_same():
    digest = writer.sequence(writer.oid("2.16.840.1.101.3.4.2.1"), writer.NULL)
    protection = attributes.algorithm_protection(digest, table.signer_identifier(SignatureMechanism("ecdsa", "sha256")))
    assert codes(build((CONTENT_TYPE, MESSAGE_DIGEST, protection))) == []


def test_an_algorithm_protection_that_is_none_is_refused():
    protection = attributes.attribute(attributes.ALGORITHM_PROTECTION, writer.sequence())
    assert codes(build((CONTENT_TYPE, MESSAGE_DIGEST, protection))) == ["signature-unreadable"]


def test_an_exchanged_certificate_is_refused():
    # Another certificate of the same key, issuer and serial number: the signature itself is right.
    from cryptography.hazmat.primitives import serialization
    from people import issue

    key = serialization.load_der_private_key(private_key("p256"), None)
    other = issue(key, "somebody-else", load_certificate(KEY.certificate).serial)
    named = attributes.signing_certificate(KEY.certificate)
    assert codes(build((CONTENT_TYPE, MESSAGE_DIGEST, named), certificates=(other,))) == ["certificate-exchanged"]
    # Where both are there, the one that was named is taken.
    cms = build((CONTENT_TYPE, MESSAGE_DIGEST, named), certificates=(other, KEY.certificate))
    (result,) = verify(cms, CONTENT)
    assert result.intact
    assert result.certificate == KEY.certificate


@pytest.mark.parametrize("version", [1, 2])
def test_signing_certificate_attributes_are_honoured(version):
    for der, expected in ((KEY.certificate, []), (person("p384").certificate, ["certificate-exchanged"])):
        if version == 1:
            value = writer.sequence(writer.octet_string(hashlib.sha1(der).digest()))
            kind = attributes.SIGNING_CERTIFICATE
        else:
            value = writer.sequence(table.digest_identifier("sha512"), writer.octet_string(hashlib.sha512(der).digest()))
            kind = attributes.SIGNING_CERTIFICATE_V2
        named = attributes.attribute(kind, writer.sequence(writer.sequence(value)))
        assert codes(build((CONTENT_TYPE, MESSAGE_DIGEST, named))) == expected


def test_a_forged_certificate_of_the_same_issuer_and_serial_does_not_hide_the_right_one():
    from cryptography.hazmat.primitives.asymmetric import ec
    from people import issue

    serial = load_certificate(KEY.certificate).serial
    forged = [issue(ec.generate_private_key(ec.SECP256R1()), f"forged-{number}", serial) for number in range(3)]
    (result,) = verify(build(certificates=(*forged, KEY.certificate)), CONTENT)
    assert result.intact
    assert result.certificate == KEY.certificate


def test_a_bag_of_certificates_costs_a_bounded_number_of_checks():
    from cryptography.hazmat.primitives.asymmetric import ec
    from people import issue

    serial = load_certificate(KEY.certificate).serial
    shared = ec.generate_private_key(ec.SECP256R1())
    forged = tuple(issue(shared, f"forged-{number}", serial) for number in range(30))

    class Counting:
        calls = 0

        def hash(self, digest):
            return BACKEND.hash(digest)

        def check_key(self, *arguments):
            return BACKEND.check_key(*arguments)

        def verify(self, *arguments):
            Counting.calls += 1
            return False

    results = verify_signers(read_signed_data(build(certificates=forged, infos=20)), [CONTENT], backend=Counting())
    assert Counting.calls <= 200
    assert not any(result.intact for result in results)
    assert results[-1].reasons[0].code == "limit-signature-checks"


def test_an_unlisted_digest_is_refused():
    assert codes(build(digest_algorithms=())) == ["digest-not-listed"]
    assert codes(build(digest_algorithms=(table.digest_identifier("sha512"),))) == ["digest-not-listed"]


def test_an_unknown_digest_is_named():
    (result,) = verify(build(digest_algorithm=writer.sequence(writer.oid("1.2.840.113549.2.4"))), CONTENT)
    assert not result.intact
    assert "1.2.840.113549.2.4" in result.reasons[0].message


def test_an_ecdsa_signature_over_another_digest_is_refused():
    algorithm = table.algorithm_identifier(SignatureMechanism("ecdsa", "sha512"))
    assert codes(build(signature_algorithm=algorithm)) == ["signature-unreadable"]


def test_pss_parameters_that_lie_are_refused():
    key = person("rsa-2048")
    pss = SignatureMechanism("rsassa-pss", "sha256", "sha256", 32)
    assert codes(build(key=key, mechanism=pss)) == []
    for lie in (
        SignatureMechanism("rsassa-pss", "sha256", "sha256", 20),
        SignatureMechanism("rsassa-pss", "sha256", "sha1", 32),
        SignatureMechanism("rsassa-pkcs1-v1_5", "sha256"),
    ):
        assert codes(build(key=key, mechanism=pss, signature_algorithm=table.signer_identifier(lie))) == ["signature-wrong"]
    other = table.algorithm_identifier(SignatureMechanism("rsassa-pss", "sha512", "sha256", 32))
    assert codes(build(key=key, mechanism=pss, signature_algorithm=other)) == ["signature-unreadable"]


def test_a_detached_signature_that_brings_another_content_is_refused():
    cms = build(content=CONTENT)
    assert codes(cms, CONTENT) == []
    other = build(content=b"another content")
    assert codes(other, CONTENT) == ["content-differs"]
    assert codes(cms, b"another content") == ["content-differs"]


def test_unsigned_attributes_are_never_trusted():
    cms = sign(KEY)
    signed = read_signed_data(cms)
    info = signed.signer_infos[0]
    time = attributes.attribute(attributes.SIGNING_TIME, writer.time(AT.replace(year=2001)))
    start = cms.rindex(info.signature) - 2
    whole = cms[cms.index(b"\x02\x01\x01", cms.index(KEY.certificate) + len(KEY.certificate)) : start + 2 + len(info.signature)]
    altered = writer.sequence(whole, b"\xa1" + writer.set_of(time)[1:])
    rebuilt = writer.sequence(
        writer.oid("1.2.840.113549.1.7.2"),
        writer.explicit(
            0,
            writer.sequence(
                writer.integer(1),
                writer.set_of(SHA256),
                writer.sequence(writer.oid(ID_DATA)),
                b"\xa0" + writer.set_of(KEY.certificate)[1:],
                writer.set_of(altered),
            ),
        ),
    )
    (result,) = verify(rebuilt, CONTENT)
    assert result.intact
    assert result.signing_time == AT


def test_eddsa_without_attributes_is_over_the_content_itself():
    key = person("ed25519")
    sha512 = table.digest_identifier("sha512")
    good = {"key": key, "mechanism": SignatureMechanism("ed25519"), "digest_algorithm": sha512, "digest_algorithms": (sha512,)}
    assert codes(build(None, content=CONTENT, **good), None) == []
    # A signature over the digest is one over other octets.
    assert codes(build(None, content=CONTENT, signed_octets=hashlib.sha512(CONTENT).digest(), **good), None) == ["signature-wrong"]


def test_a_broken_signer_beside_a_good_one_does_not_hide_it():
    cms = sign(KEY)
    signed = read_signed_data(cms)
    assert signed.signer_infos[0].problem is None
    outer = read_single(cms, 0x30).children()[1].only()
    parts = [part.encoding for part in outer.children()]
    info = outer.children()[-1].children()[0].encoding
    parts[-1] = writer.set_of(info, writer.sequence(writer.integer(1)))
    rebuilt = writer.sequence(writer.oid("1.2.840.113549.1.7.2"), writer.explicit(0, writer.sequence(*parts)))
    results = verify(rebuilt, CONTENT)
    assert sorted(result.intact for result in results) == [False, True]
    assert "signer-unreadable" in [reason.code for result in results for reason in result.reasons]


def test_unreadable_certificates_are_kept_and_do_not_hide_the_signer():
    junk = writer.sequence(b"\xff\xff\xff")
    cms = build(certificates=(junk, writer.sequence(), KEY.certificate))
    assert codes(cms) == []
    assert junk in read_signed_data(cms).certificates


# -- size and depth -------------------------------------------------------------------------------------------------------------


def test_too_many_signers_are_a_limit():
    with pytest.raises(LimitExceeded) as caught:
        read_signed_data(build(infos=21))
    assert caught.value.limit == "signers"


def test_too_many_certificates_are_a_limit():
    with pytest.raises(LimitExceeded) as caught:
        read_signed_data(build(certificates=tuple(writer.sequence(writer.integer(number)) for number in range(101))))
    assert caught.value.limit == "certificates"


def test_too_many_attributes_are_a_limit():
    many = [attributes.attribute(f"1.2.3.{number}", writer.NULL) for number in range(80)]
    assert codes(build((CONTENT_TYPE, MESSAGE_DIGEST, *many))) == ["limit-attributes"]


def test_a_huge_object_identifier_in_an_attribute_is_refused():
    huge = writer.sequence(writer.header(6, 200_000) + b"\xff" * 199_999 + b"\1", writer.set_of(writer.NULL))
    assert codes(build((CONTENT_TYPE, MESSAGE_DIGEST, huge))) == ["signature-unreadable"]


def test_deep_nesting_in_an_attribute_is_not_walked():
    value = writer.NULL
    for _ in range(1000):
        value = writer.sequence(value)
    deep = attributes.attribute("1.2.3", value)
    assert codes(build((CONTENT_TYPE, MESSAGE_DIGEST, deep))) == []
    # Only where the first check fails are they encoded anew, and there depth is a limit.
    body = b"".join(sorted((CONTENT_TYPE, MESSAGE_DIGEST, deep), reverse=True))
    assert codes(build((CONTENT_TYPE, MESSAGE_DIGEST, deep), sent_as=writer.header(0xA0, len(body)) + body)) == ["limit-asn1-depth"]


def test_a_million_tiny_chunks_of_content_are_a_limit():
    chunks = b"\x24\x80" + b"\x04\x01x" * 1_000_000 + b"\0\0"
    encapsulated = writer.sequence(writer.oid(ID_DATA), writer.explicit(0, chunks))
    signed = writer.sequence(writer.integer(1), writer.set_of(SHA256), encapsulated, writer.set_of())
    with pytest.raises(LimitExceeded):
        read_signed_data(writer.sequence(writer.oid("1.2.840.113549.1.7.2"), writer.explicit(0, signed)))


def test_a_content_that_is_no_octet_string_is_refused():
    encapsulated = writer.sequence(writer.oid(ID_DATA), writer.explicit(0, writer.utf8_string("x")))
    signed = writer.sequence(writer.integer(1), writer.set_of(SHA256), encapsulated, writer.set_of())
    with pytest.raises(CmsError):
        read_signed_data(writer.sequence(writer.oid("1.2.840.113549.1.7.2"), writer.explicit(0, signed)))


@given(st.binary(max_size=300))
def test_any_octets_end_in_signed_data_or_our_errors(octets):
    try:
        verify(octets, CONTENT)
    except MailsecError:
        pass


GOOD = build(content=CONTENT)


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(0, len(GOOD) - 1), st.integers(0, 255)), min_size=1, max_size=6), st.integers(0, len(GOOD)))
def test_mutants_end_in_a_verdict_or_our_errors(changes, cut):
    mutant = bytearray(GOOD)
    for position, value in changes:
        mutant[position] = value
    for octets in (bytes(mutant), bytes(mutant[:cut])):
        try:
            for result in verify(octets):
                assert not result.intact or result.certificate is not None
        except MailsecError:
            pass


def test_signers_with_many_digests_cost_four_hashes_of_the_content():
    class Counting:
        asked: ClassVar[list[str]] = []

        def hash(self, digest):
            Counting.asked.append(digest)
            return BACKEND.hash(digest)

        def check_key(self, *arguments):
            return BACKEND.check_key(*arguments)

        def verify(self, *arguments):
            return BACKEND.verify(*arguments)

    names = ("sha256", "sha384", "sha512", "sha224", "sha3-256", "sha3-512")
    signed = read_signed_data(build())
    (info,) = signed.signer_infos
    algorithms = [table.digest_identifier(name) for name in names]
    many = dataclasses.replace(
        signed, digests=names, signer_infos=(info, *(dataclasses.replace(info, digest_algorithm=one) for one in algorithms))
    )
    results = verify_signers(many, [CONTENT], backend=Counting())
    assert results[0].intact and not any(one.intact for one in results[2:])
    assert sorted(Counting.asked) == sorted(names[:4])
    assert [one.reasons[0].code for one in results[-2:]] == ["limit-digests", "limit-digests"]


def test_eddsa_without_attributes_over_large_content_is_refused_with_that_reason():
    """It hashes the content itself, which must be in memory as a whole: above 16 MiB none is spent on it."""
    assert DEFAULT_LIMITS.whole_content_octets == 16 * 1024 * 1024
    key = person("ed25519")
    sha512 = table.digest_identifier("sha512")
    good = {"key": key, "mechanism": SignatureMechanism("ed25519"), "digest_algorithm": sha512, "digest_algorithms": (sha512,)}
    cms = build(None, content=CONTENT, **good)
    assert codes(cms, None, limits=dataclasses.replace(DEFAULT_LIMITS, whole_content_octets=len(CONTENT))) == []
    assert codes(cms, None, limits=dataclasses.replace(DEFAULT_LIMITS, whole_content_octets=len(CONTENT) - 1)) == ["content-too-large"]


def test_an_algorithm_that_is_not_known_leaves_open_whether_the_content_was_changed():
    """SLH-DSA (RFC 9814), say: nothing was shown to be wrong. RFC 7281 §3: neutral, where it is not known."""
    unknown = writer.sequence(writer.oid("2.16.840.1.101.3.4.3.20"))
    for cms in (build(signature_algorithm=unknown), build(digest_algorithm=writer.sequence(writer.oid("1.2.840.113549.2.4")))):
        (result,) = verify(cms, CONTENT)
        assert not result.intact and [(reason.code, reason.stage) for reason in result.reasons] == [("signature-unreadable", "parse")]
