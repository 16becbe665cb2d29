"""What is signed verifies; what was changed does not, and says why."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from people import AT, authority_der, person

from mailsec.algorithms.profiles import PROFILES
from mailsec.asn1.reader import read_single
from mailsec.asn1.writer import to_der
from mailsec.cms.sign import certs_only, detached, opaque, sign_content, signer_for
from mailsec.cms.signed import read_signed_data
from mailsec.cms.verify import verify_signers
from mailsec.errors import CryptoError, KeyUnavailable, MailsecError
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.model.octets import Segments

BACKEND = SoftwareBackend()
CONTENT = b"Content-Type: text/plain\r\n\r\nsigned text\r\n"
GOOD = ["rsa-2048", "rsa-3072", "p256", "p384", "p521", "brainpool256", "brainpool384", "ed25519", "ed448", "ml-dsa-65"]


def digest_of(name: str, content: bytes) -> bytes:
    running = BACKEND.hash(name)
    running.update(content)
    return running.digest()


def sign(*keys, content: bytes = CONTENT, form: str = "detached", profile: str = "default", at: datetime = AT) -> bytes:
    chosen = PROFILES[profile]
    if profile == "legacy":
        chosen = replace(chosen, signing_bits=512)
    signers = [signer_for(key, chosen) for key in keys]
    infos = [run_now(sign_content(signer, digest_of(signer.digest, content), at=at)) for signer in signers]
    if form == "detached":
        return detached(signers, infos)
    return opaque(Segments((content,)), signers, infos).join()


def verify(cms: bytes, content: bytes | None = None, **options):
    blocks = None if content is None else [content]
    return verify_signers(read_signed_data(cms), blocks, backend=BACKEND, **options)


@pytest.mark.parametrize("profile", ["default", "pss"])
@pytest.mark.parametrize("form", ["detached", "opaque"])
@pytest.mark.parametrize("kind", GOOD)
def test_what_is_signed_verifies(kind, form, profile):
    key = person(kind)
    cms = sign(key, form=form, profile=profile)
    (result,) = verify(cms, CONTENT if form == "detached" else None)
    assert result.intact, result.reasons
    assert result.reasons == ()
    assert result.certificate == key.certificate
    assert result.signing_time == AT
    assert result.capabilities == PROFILES[profile].capabilities(key)
    if kind.startswith("rsa"):
        assert result.signature == ("rsassa-pss" if profile == "pss" else "rsassa-pkcs1-v1_5")
        assert result.digest == "sha256"


@pytest.mark.parametrize("form", ["detached", "opaque"])
def test_what_is_written_is_der(form):
    cms = sign(person("rsa-2048"), person("p256"), form=form)
    assert to_der(read_single(cms, 0x30)) == cms
    # The attributes stand under an IMPLICIT tag, where a general reader cannot know that they are a SET OF.
    for info in read_signed_data(cms).signer_infos:
        members = [member.encoding for member in info.signed_attributes.children()]
        assert members == sorted(members)


def test_an_opaque_message_passes_its_content_through_and_knows_its_length():
    big = b"x" * 300_000
    signer = signer_for(person("p256"))
    info = run_now(sign_content(signer, hashlib.sha256(big).digest(), at=AT))
    segments = opaque(Segments.produced(len(big), lambda: iter([big[:100_000], big[100_000:]])), [signer], [info])
    assert len(segments) == len(segments.join())
    signed = read_signed_data(segments.join())
    assert b"".join(signed.content_blocks()) == big
    assert verify(segments.join())[0].intact


@pytest.mark.parametrize("size", [0, 1, 100, 127, 128, 200, 255, 256, 65_000, 65_535, 65_536, 70_000])
def test_lengths_of_every_size_are_right(size):
    content = b"x" * size
    cms = sign(person("p256"), content=content, form="opaque")
    read_single(cms, 0x30)
    assert verify(cms)[0].intact


def test_a_signature_in_2050_has_a_generalized_time():
    at = datetime(2050, 1, 2, 3, 4, 5, tzinfo=UTC)
    cms = sign(person("p256"), at=at)
    (result,) = verify(cms, CONTENT)
    assert result.intact
    assert result.signing_time == at


def test_a_changed_word_is_found():
    (result,) = verify(sign(person("rsa-2048")), CONTENT.replace(b"text\r", b"word\r"))
    assert not result.intact
    assert [reason.code for reason in result.reasons] == ["digest-differs"]


def test_every_changed_octet_of_a_signature_is_found():
    key = person("p256")
    cms = sign(key)
    signed = read_signed_data(cms)
    info = signed.signer_infos[0]
    start = cms.index(info.signed_attributes.encoding)
    for position in range(start, len(cms)):
        mutant = bytearray(cms)
        mutant[position] ^= 0x01
        try:
            results = verify(bytes(mutant), CONTENT)
        except MailsecError:
            continue
        assert not any(result.intact for result in results), position


def test_two_signers_are_judged_each_alone():
    one, two = person("rsa-2048"), person("p256")
    cms = sign(one, two)
    results = verify(cms, CONTENT)
    assert [result.intact for result in results] == [True, True]
    signed = read_signed_data(cms)
    at = cms.index(signed.signer_infos[0].signature)
    broken = cms[:at] + bytes((cms[at] ^ 1,)) + cms[at + 1 :]
    assert sorted(result.intact for result in verify(broken, CONTENT)) == [False, True]


def test_a_signer_whose_certificate_is_not_in_the_message_is_found_among_others():
    key = person("p256")
    signer = signer_for(key)
    info = run_now(sign_content(signer, hashlib.sha256(CONTENT).digest(), at=AT))
    other = signer_for(person("p384"))
    cms = detached([other], [info]).replace(bytes.fromhex("0609608648016503040202"), bytes.fromhex("0609608648016503040201"), 1)
    (result,) = verify(cms, CONTENT)
    assert [reason.code for reason in result.reasons] == ["certificate-missing"]
    (result,) = verify(cms, CONTENT, extra_certificates=[key.certificate])
    assert result.intact


def test_a_detached_signature_without_its_content_says_so():
    (result,) = verify(sign(person("p256")))
    assert [reason.code for reason in result.reasons] == ["content-missing"]


def test_short_rsa_keys_are_intact_and_not_accepted():
    key = person("rsa-1024")
    with pytest.raises(CryptoError):
        signer_for(key)
    cms = sign(key, profile="legacy")
    (result,) = verify(cms, CONTENT)
    assert result.intact
    assert [(reason.code, reason.stage) for reason in result.reasons] == [("weak-key", "policy")]
    (result,) = verify(cms, CONTENT, profile=PROFILES["legacy"])
    assert result.reasons == ()


def test_a_key_without_a_certificate_does_not_sign():
    from people import private_key

    from mailsec.keys.software import SoftwareKey

    with pytest.raises(KeyUnavailable):
        signer_for(SoftwareKey("bare", private_key("p256")))


def test_a_certs_only_message_is_read():
    signed = read_signed_data(certs_only([authority_der(), person("p256").certificate]))
    assert set(signed.certificates) == {authority_der(), person("p256").certificate}
    assert signed.signer_infos == ()
    assert verify(certs_only([authority_der()]), b"") == ()
