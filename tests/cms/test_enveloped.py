"""What is encrypted opens for its recipients and nobody else; what was changed does not open."""

from __future__ import annotations

import os
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from hypothesis import given, settings
from hypothesis import strategies as st
from people import MemoryScratch, person

from mailsec.algorithms.ciphers import CIPHERS, WRAPS, cipher_identifier
from mailsec.algorithms.profiles import OAEP_SHA256 as OAEP
from mailsec.algorithms.profiles import PKCS1_V1_5 as PKCS1
from mailsec.asn1 import writer
from mailsec.asn1.reader import read_single
from mailsec.asn1.writer import to_der
from mailsec.cms import rc2
from mailsec.cms.compressed import compress, decompress, read_compressed_data
from mailsec.cms.content_cipher import encrypt as encrypt_pieces
from mailsec.cms.decrypt import Opened, SecretKey, open_content
from mailsec.cms.encrypt import encrypt_content
from mailsec.cms.enveloped import read_enveloped_data
from mailsec.cms.key_wrap import derived_content_key, wrap_key
from mailsec.errors import CmsError, CryptoError, LimitExceeded, MailsecError
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.model.limits import Limits
from mailsec.model.mechanism import TransportMechanism
from mailsec.model.octets import Segments

BACKEND = SoftwareBackend()
CONTENT = b"Content-Type: text/plain\r\n\r\nsecret text\r\n"
KINDS = ["rsa-2048", "p256", "p384", "p521", "brainpool256", "brainpool384", "x25519", "x448", "ml-kem-768", "ml-kem-1024"]


def encrypt(*kinds: str, content: bytes = CONTENT, **options) -> bytes:
    certificates = [person(kind).certificate for kind in kinds]
    return run_now(encrypt_content(Segments((content,)), certificates, backend=BACKEND, random=os.urandom, **options)).join()


def decrypt(cms: bytes, *kinds: str, **options) -> Opened:
    return run_now(open_content(read_enveloped_data(cms), [person(kind) for kind in kinds], scratch=MemoryScratch, **options))


def content_of(opened: Opened) -> bytes:
    assert opened.content is not None, opened.reasons
    return bytes(opened.content.view(0, len(opened.content)))


@pytest.mark.parametrize("cipher", ["aes-128-cbc", "aes-192-cbc", "aes-256-cbc", "aes-128-gcm", "aes-256-gcm"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_encrypted_opens(kind, cipher):
    cms = encrypt(kind, cipher=cipher)
    assert CONTENT[-15:] not in cms
    assert to_der(read_single(cms, 0x30)) == cms
    opened = decrypt(cms, kind)
    assert content_of(opened) == CONTENT
    assert opened.algorithm == cipher
    assert opened.reasons == ()


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 31, 32, 100_000, 262_143, 262_144, 700_000])
@pytest.mark.parametrize("cipher", ["aes-256-cbc", "aes-256-gcm"])
def test_content_of_every_size_opens(size, cipher):
    content = os.urandom(size)
    cms = encrypt("p256", content=content, cipher=cipher)
    assert content_of(decrypt(cms, "p256")) == content


def test_iterating_twice_gives_the_same_octets():
    content = Segments((b"x" * 600_000,))
    for cipher in ("aes-256-cbc", "aes-256-gcm"):
        segments = run_now(encrypt_content(content, [person("p256").certificate], backend=BACKEND, random=os.urandom, cipher=cipher))
        assert len(segments) == len(segments.join())
        assert segments.join() == segments.join()


def test_several_recipients_open_it_each_with_their_key():
    cms = encrypt("rsa-2048", "p256", "x25519", "ml-kem-768", transport=OAEP, cipher="aes-256-gcm")
    for kind in ("rsa-2048", "p256", "x25519", "ml-kem-768"):
        assert content_of(decrypt(cms, kind)) == CONTENT


@pytest.mark.parametrize(
    "transport",
    [PKCS1, OAEP, TransportMechanism("rsaes-oaep", "sha1", "sha1"), TransportMechanism("rsaes-oaep", "sha512", "sha256", b"label")],
)
def test_every_key_transport_opens(transport):
    assert content_of(decrypt(encrypt("rsa-2048", transport=transport), "rsa-2048")) == CONTENT


def test_a_key_that_is_not_among_the_recipients_says_so():
    opened = decrypt(encrypt("p256"), "p384", "rsa-2048")
    assert opened.content is None
    assert [reason.code for reason in opened.reasons] == ["no-key"]


@pytest.mark.parametrize("kind", ["ed25519", "ml-dsa-65"])
def test_keys_that_only_sign_receive_nothing(kind):
    with pytest.raises(CryptoError):
        encrypt(kind)


def test_legacy_ciphers_are_not_written():
    for cipher in ("3des-cbc", "rc2-128-cbc", "aes-256-ccm", "unknown"):
        with pytest.raises(CryptoError):
            encrypt("p256", cipher=cipher)
    with pytest.raises(CryptoError):
        encrypt()


# -- attacks ------------------------------------------------------------------------------------------------------------------


class Watched(MemoryScratch):
    made: ClassVar[list] = []

    def __init__(self):
        super().__init__()
        Watched.made.append(self)


@pytest.mark.parametrize("position", [0, 100, -1])
def test_a_changed_octet_of_gcm_releases_nothing(position):
    content = b"x" * 1000
    cms = bytearray(encrypt("p256", content=content, cipher="aes-256-gcm"))
    start = read_enveloped_data(bytes(cms)).content.content_start
    cms[position if position < 0 else start + position] ^= 1
    Watched.made = []
    opened = run_now(open_content(read_enveloped_data(bytes(cms)), [person("p256")], scratch=Watched))
    assert opened.content is None
    assert [reason.code for reason in opened.reasons] == ["cannot-decrypt"]
    assert all(one.discarded and not one.sealed for one in Watched.made)
    assert Watched.made


def test_every_failure_of_a_content_key_is_the_same_answer():
    # A wrapped key that was changed, one of another length, one for another key: one reason, one amount of work.
    good = encrypt("rsa-2048", cipher="aes-256-gcm")
    recipient = read_enveloped_data(good).recipients[0]
    answers = set()
    other = run_now(BACKEND.wrap(person("rsa-2048").public_key, PKCS1, b"k" * 16))
    garbled = bytes((recipient.encrypted_key[0] ^ 1,)) + recipient.encrypted_key[1:]
    for wrapped in (garbled, other, b"\0" * 256, b"\xff" * 256):
        cms = good.replace(recipient.encrypted_key, wrapped)
        Watched.made = []
        opened = run_now(open_content(read_enveloped_data(cms), [person("rsa-2048")], scratch=Watched))
        answers.add((opened.content, opened.reasons))
        assert len(Watched.made) == 1
    assert len(answers) == 1


def test_one_broken_recipient_info_does_not_hide_another():
    cms = encrypt("rsa-2048", "p256")
    recipient = next(one for one in read_enveloped_data(cms).recipients if one.kind == "key-transport")
    broken = cms.replace(recipient.encrypted_key, b"\0" * 256)
    assert content_of(decrypt(broken, "rsa-2048", "p256")) == CONTENT


def test_private_keys_are_used_a_bounded_number_of_times():
    cms = encrypt(*["rsa-2048"] * 40, cipher="aes-256-gcm")
    wrapped = {recipient.encrypted_key for recipient in read_enveloped_data(cms).recipients}
    for one in wrapped:
        cms = cms.replace(one, b"\1" * 256)
    Watched.made = []
    opened = run_now(open_content(read_enveloped_data(cms), [person("rsa-2048")], scratch=Watched))
    assert opened.content is None
    assert len(Watched.made) == 10


def test_gcm_in_plain_enveloped_data_is_refused():
    cms = encrypt("p256", cipher="aes-256-gcm")
    parts = read_single(cms, 0x30).children()
    inner = [part.encoding for part in parts[1].only().children()]
    plain = writer.sequence(writer.oid("1.2.840.113549.1.7.3"), writer.explicit(0, writer.sequence(*inner[:-1])))
    opened = decrypt(plain, "p256")
    assert opened.content is None
    assert [reason.code for reason in opened.reasons] == ["cipher-misplaced"]


def test_a_short_tag_is_refused():
    cms = encrypt("p256", cipher="aes-256-gcm")
    enveloped = read_enveloped_data(cms)
    parts = [part.encoding for part in read_single(cms, 0x30).children()[1].only().children()]
    parts[-1] = writer.octet_string(enveloped.tag[:4])
    short = writer.sequence(writer.oid("1.2.840.113549.1.9.16.1.23"), writer.explicit(0, writer.sequence(*parts)))
    assert [reason.code for reason in decrypt(short, "p256").reasons] == ["tag-length-differs"]
    declared = short.replace(writer.integer(16), writer.integer(4), 1)
    assert decrypt(declared, "p256").content is None


def test_padding_of_cbc_is_checked_whole():
    cms = encrypt("p256", content=b"x" * 32)
    enveloped = read_enveloped_data(cms)
    start = enveloped.content.content_start
    # The block before the last is the mask of the padding's block: 16 octets of 0x10 become others.
    for position in range(16, 32):
        mutant = bytearray(cms)
        mutant[start + position] ^= 0x40
        assert decrypt(bytes(mutant), "p256").content is None


def test_too_many_recipients_are_a_limit():
    with pytest.raises(LimitExceeded) as caught:
        read_enveloped_data(encrypt("p256", "p384", "p521"), limits=Limits(cms_recipients=2))
    assert caught.value.limit == "cms_recipients"


def test_a_password_derivation_that_costs_hours_is_not_begun():
    from mailsec.cms.key_wrap import password_unwrap

    kdf = writer.sequence(writer.oid("1.2.840.113549.1.5.12"), writer.sequence(writer.octet_string(b"salt"), writer.integer(10**9)))
    cbc = writer.sequence(writer.oid("2.16.840.1.101.3.4.1.42"), writer.octet_string(b"i" * 16))
    algorithm = writer.sequence(writer.oid("1.2.840.113549.1.9.16.3.9"), cbc)
    with pytest.raises(LimitExceeded):
        password_unwrap(b"password", kdf, algorithm, b"w" * 32)


GOOD = {cipher: encrypt("p256", "rsa-2048", cipher=cipher) for cipher in ("aes-128-cbc", "aes-128-gcm")}


@settings(max_examples=300)
@given(
    st.sampled_from(sorted(GOOD)),
    st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=5),
    st.integers(0, 900),
)
def test_mutants_end_in_an_answer_or_our_errors(cipher, changes, cut):
    mutant = bytearray(GOOD[cipher])
    for position, value in changes:
        mutant[position % len(mutant)] = value
    for octets in (bytes(mutant), bytes(mutant[:cut])):
        try:
            opened = decrypt(octets, "p256")
        except MailsecError:
            continue
        assert opened.content is not None or opened.reasons


@given(st.binary(max_size=300))
def test_any_octets_end_in_a_value_or_our_errors(octets):
    for read in (read_enveloped_data, read_compressed_data):
        try:
            read(octets)
        except MailsecError:
            pass


# -- what only others write -----------------------------------------------------------------------------------------------------


def encrypted_data(algorithm: bytes, content: bytes, *, tag: bytes = b"") -> bytes:
    """EncryptedData; with a tag, AuthEnvelopedData for a shared key of identifier "id"."""
    info = writer.sequence(writer.oid("1.2.840.113549.1.7.1"), algorithm, writer.implicit(0, writer.octet_string(content)))
    if not tag:
        body = writer.sequence(writer.integer(0), info)
        return writer.sequence(writer.oid("1.2.840.113549.1.7.6"), writer.explicit(0, body))
    kek = writer.sequence(
        writer.integer(4),
        writer.sequence(writer.octet_string(b"id")),
        WRAPS["aes-128-wrap"].identifier,
        writer.octet_string(wrap_key(WRAPS["aes-128-wrap"], b"k" * 16, b"c" * 16)),
    )
    body = writer.sequence(writer.integer(0), writer.set_of(b"\xa2" + kek[1:]), info, writer.octet_string(tag))
    return writer.sequence(writer.oid("1.2.840.113549.1.9.16.1.23"), writer.explicit(0, body))


@pytest.mark.parametrize(("key", "nonce", "tag_length"), [(16, 12, 16), (16, 7, 12), (16, 13, 14)])
def test_ccm_is_opened(key, nonce, tag_length):
    sealed = AESCCM(b"c" * key, tag_length).encrypt(b"n" * nonce, CONTENT, b"")
    algorithm = cipher_identifier(CIPHERS["aes-128-ccm"], b"n" * nonce, tag_length)
    cms = encrypted_data(algorithm, sealed[:-tag_length], tag=sealed[-tag_length:])
    secret = SecretKey(b"k" * 16)
    opened = run_now(open_content(read_enveloped_data(cms), scratch=MemoryScratch, secret_keys=[secret]))
    assert content_of(opened) == CONTENT
    broken = cms[:-1] + bytes((cms[-1] ^ 1,))
    assert run_now(open_content(read_enveloped_data(broken), scratch=MemoryScratch, secret_keys=[secret])).content is None


def test_a_derived_content_key_is_opened_and_bound_to_its_algorithm():
    inner = cipher_identifier(CIPHERS["aes-128-cbc"], b"n" * 16)
    key = derived_content_key(b"c" * 16, inner)
    content = b"".join(encrypt_pieces(CIPHERS["aes-128-cbc"], key, b"n" * 16, [CONTENT]))
    derived = writer.sequence(writer.oid("1.2.840.113549.1.9.16.3.31"), inner)
    secret = SecretKey(b"c" * 16)
    for algorithm, good in ((derived, True), (inner, False)):
        enveloped = read_enveloped_data(encrypted_data(algorithm, content))
        opened = run_now(open_content(enveloped, scratch=MemoryScratch, secret_keys=[secret]))
        assert (opened.content is not None) == good


@pytest.mark.parametrize(
    ("key", "bits", "cipher", "plain"),
    [
        # RFC 2268 §5.
        ("ffffffffffffffff", 64, "278b27e42e2f0d49", "ffffffffffffffff"),
        ("3000000000000000", 64, "30649edf9be7d2c2", "1000000000000001"),
        ("88bca90e90875a7f0f79c384627bafb2", 64, "1a807d272bbe5db1", "0000000000000000"),
        ("88bca90e90875a7f0f79c384627bafb2", 128, "2269552ab0f85ca6", "0000000000000000"),
    ],
)
def test_rc2_is_that_of_its_rfc(key, bits, cipher, plain):
    words = rc2.expanded_key(bytes.fromhex(key), bits)
    assert rc2.decrypt_cbc(words, b"\0" * 8, bytes.fromhex(cipher)).hex() == plain


def test_rc2_and_ccm_over_large_content_are_a_limit():
    version = writer.sequence(writer.integer(58), writer.octet_string(b"i" * 8))
    algorithm = writer.sequence(writer.oid("1.2.840.113549.3.2"), version)
    enveloped = read_enveloped_data(encrypted_data(algorithm, b"x" * 1_100_000))
    opened = run_now(open_content(enveloped, scratch=MemoryScratch, secret_keys=[SecretKey(b"c" * 16)], allow_legacy=True))
    assert [(reason.code, reason.stage) for reason in opened.reasons] == [("content-too-large", "limits")]


@pytest.mark.parametrize("more", [0, 1])
def test_ccm_is_opened_up_to_16_mib_and_not_one_octet_more(more):
    """It is checked in one piece, in memory: nothing of it may be shown before (RFC 5084 §4, promise 9)."""
    size = 16 * 1024 * 1024 + more
    sealed = AESCCM(b"c" * 16, 16).encrypt(b"n" * 11, bytes(size), b"")
    cms = encrypted_data(cipher_identifier(CIPHERS["aes-128-ccm"], b"n" * 11, 16), sealed[:-16], tag=sealed[-16:])
    opened = run_now(open_content(read_enveloped_data(cms), scratch=MemoryScratch, secret_keys=[SecretKey(b"k" * 16)]))
    if more:
        assert opened.content is None and [(one.code, one.stage) for one in opened.reasons] == [("content-too-large", "limits")]
    else:
        assert opened.content is not None and len(opened.content) == size


# -- compression ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"x", b"text " * 1000, os.urandom(500_000)], ids=["empty", "one", "text", "random"])
def test_what_is_compressed_comes_out_again(content):
    segments = compress(Segments((content,)), MemoryScratch)
    cms = segments.join()
    assert len(segments) == len(cms)
    assert to_der(read_single(cms, 0x30)) == cms
    octets = decompress(read_compressed_data(cms), MemoryScratch)
    assert bytes(octets.view(0, len(octets))) == content


def test_a_bomb_costs_no_more_than_its_limit():
    cms = compress(Segments.produced(200_000_000, lambda: iter([b"\0" * 1_000_000] * 200)), MemoryScratch).join()
    Watched.made = []
    with pytest.raises(LimitExceeded) as caught:
        decompress(read_compressed_data(cms), Watched)
    assert caught.value.limit == "decompressed_ratio"
    assert Watched.made[0].discarded
    with pytest.raises(LimitExceeded) as caught:
        decompress(read_compressed_data(cms), MemoryScratch, limits=Limits(decompressed_ratio=10_000, decompressed_octets=1_000_000))
    assert caught.value.limit == "decompressed_octets"


def test_broken_and_cut_off_compressed_content_is_refused():
    cms = compress(Segments((os.urandom(1000),)), MemoryScratch).join()
    start = read_compressed_data(cms).content_start
    broken = cms[: start + 20] + b"\xff\xff\xff" + cms[start + 23 :]
    for mutant in (broken,):
        with pytest.raises(CmsError):
            decompress(read_compressed_data(mutant), MemoryScratch)
    cut = cms[:-4] + b"\0" * 4
    with pytest.raises(CmsError):
        decompress(read_compressed_data(cut), MemoryScratch)


def with_known_key(kind: str, key: bytes) -> bytes:
    """Content encrypted with a content key that the test knows."""
    certificate = person(kind).certificate
    assert certificate is not None
    content = Segments((CONTENT,))
    return run_now(encrypt_content(content, [certificate], backend=BACKEND, random=lambda size: key[:size])).join()


@pytest.mark.parametrize("kind", ["p256", "x25519", "ml-kem-768"])
def test_a_key_wrap_that_does_not_fit_opens_nothing_though_the_padding_is_right_by_chance(kind, monkeypatch):
    # One CBC text in 256 has a right padding under any key: here the random key is made to be such a one.
    key = bytes(range(32))
    monkeypatch.setattr("mailsec.cms.decrypt.AESGCM.generate_key", lambda bits: key)
    cms = with_known_key(kind, key)
    assert content_of(decrypt(cms, kind)) == CONTENT
    wrapped = read_enveloped_data(cms).recipients[0].encrypted_key
    changed = cms.replace(wrapped, bytes([wrapped[0] ^ 1]) + wrapped[1:])
    refused = decrypt(changed, kind)
    assert refused.content is None and [reason.code for reason in refused.reasons] == ["cannot-decrypt"]


def test_key_transport_tells_nobody_that_the_padding_of_rsa_was_wrong(monkeypatch):
    # RFC 3218 §2.3.2: what opens with the random key is the answer, as it would be with the true one.
    key = bytes(range(32))
    monkeypatch.setattr("mailsec.cms.decrypt.AESGCM.generate_key", lambda bits: key)
    cms = with_known_key("rsa-2048", key)
    wrapped = read_enveloped_data(cms).recipients[0].encrypted_key
    # Implicit rejection gives octets of another length, or random ones: with the length of a key they are used as such.
    changed = cms.replace(wrapped, b"\xff" * len(wrapped))
    assert content_of(decrypt(changed, "rsa-2048")) == CONTENT
