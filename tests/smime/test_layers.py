"""What counts as an S/MIME layer, under which label, and what is within it."""

from __future__ import annotations

import base64
from types import SimpleNamespace

import pytest

from mailsec.cms.sign import certs_only, opaque, sign_content, signer_for
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.index import index_message
from mailsec.mime.parts import read_parts
from mailsec.model.octets import BytesOctets, Segments
from mailsec.model.verdict import SmimeWord
from mailsec.smime.layers import find_layer

HEAD = b"From: alice@example.org\r\n"


def encoded(der: bytes) -> bytes:
    return b"Content-Transfer-Encoding: base64\r\n\r\n" + base64.encodebytes(der).replace(b"\n", b"\r\n")


def signed_object(smime: SimpleNamespace, content: bytes, key: object) -> bytes:
    signer = signer_for(key)
    digest = SoftwareBackend().hash(signer.digest)
    digest.update(content)
    return opaque(Segments((content,)), [signer], [run_now(sign_content(signer, digest.digest(), at=smime.at))]).join()


@pytest.mark.parametrize(
    "label",
    [
        b"application/pkcs7-mime; smime-type=signed-data; name=smime.p7m",
        b"application/x-pkcs7-mime",
        b"Application/PKCS7-MIME; smime-type=enveloped-data",
        b'application/octet-stream; name="smime.p7m"',
        b"application/octet-stream\r\nContent-Disposition: attachment; filename*=us-ascii''SMIME.P7M",
    ],
)
def test_labels_of_opaque_signatures(people: SimpleNamespace, smime: SimpleNamespace, label: bytes) -> None:
    der = signed_object(smime, b"Content-Type: text/plain\r\n\r\nhello\r\n", people.alice)
    verdict = smime.judge(HEAD + b"Content-Type: " + label + b"\r\n" + encoded(der), people.ca)
    # RFC 8551 §3.2.2: the type is that of the object; what the label says is a hint.
    assert verdict.trusted and verdict.text == "hello" and not verdict.encrypted


@pytest.mark.parametrize(
    "label", [b"application/octet-stream; name=a.bin", b"application/pdf; name=smime.p7m", b"text/plain; name=smime.p7m"]
)
def test_other_labels_are_no_layer(people: SimpleNamespace, smime: SimpleNamespace, label: bytes) -> None:
    der = signed_object(smime, b"\r\nhello", people.alice)
    assert not smime.peel(HEAD + b"Content-Type: " + label + b"\r\n" + encoded(der)).layers


@pytest.mark.parametrize("encoding", ["binary", "no label", "quoted-printable"])
def test_transfer_encodings_of_opaque_signatures(people: SimpleNamespace, smime: SimpleNamespace, encoding: str) -> None:
    der = signed_object(smime, b"Content-Type: text/plain\r\n\r\nhello\r\n", people.alice)
    head = HEAD + b"Content-Type: application/pkcs7-mime\r\n"
    if encoding == "binary":
        data = head + b"Content-Transfer-Encoding: binary\r\n\r\n" + der
    elif encoding == "no label":
        data = head + b"\r\n" + base64.b64encode(der)
    else:
        data = head + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n" + b"=\r\n".join(b"=%02X" % octet for octet in der)
    assert smime.judge(data, people.ca).trusted


def test_content_that_was_signed_with_lf_is_shown_as_text(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    der = signed_object(smime, b"Content-Type: text/plain\n\nhello\nworld\n", people.alice)
    verdict = smime.judge(HEAD + b"Content-Type: application/pkcs7-mime\r\n" + encoded(der), people.ca)
    assert verdict.trusted and verdict.text == "hello\nworld"


def test_certs_only_is_not_signed(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    der = certs_only([people.alice.certificate, people.ca.der])
    result = smime.peel(HEAD + b"Content-Type: application/pkcs7-mime; smime-type=certs-only; name=smime.p7c\r\n" + encoded(der))
    assert not result.signed and result.layers[0].type == "certs-only" and len(result.layers[0].certificates) == 2
    assert smime.judge(HEAD + b"Content-Type: application/pkcs7-mime\r\n" + encoded(der)).word is SmimeWord.NONE


def test_signed_data_without_signers_is_not_intact(smime: SimpleNamespace) -> None:
    # SignedData with content and no SignerInfo: somebody stripped the signature.
    from mailsec.asn1 import writer

    inner = writer.sequence(writer.oid("1.2.840.113549.1.7.1"), writer.explicit(0, writer.octet_string(b"\r\nhi")))
    body = writer.sequence(writer.integer(1), writer.set_of(), inner, writer.set_of())
    der = writer.sequence(writer.oid("1.2.840.113549.1.7.2"), writer.explicit(0, body))
    verdict = smime.judge(HEAD + b"Content-Type: application/pkcs7-mime\r\n" + encoded(der))
    assert verdict.signed and verdict.signature_valid is False and not verdict.trusted and verdict.word is SmimeWord.FAIL


def test_a_wrapped_message_gives_its_text_and_its_header(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    inner = b"Content-Type: message/rfc822\r\n\r\nSubject: inside\r\nFrom: alice@example.org\r\nContent-Type: text/plain\r\n\r\nwrapped\r\n"
    verdict = smime.judge(smime.sign(HEAD + inner, people.alice), people.ca)
    assert verdict.trusted and verdict.text == "wrapped" and verdict.protected_headers["subject"] == "inside"
    der = signed_object(smime, b'Content-Type: text/plain; hp="clear"\r\nSubject: protected\r\n\r\nhello', people.alice)
    found = smime.judge(HEAD + b"Content-Type: application/pkcs7-mime\r\n" + encoded(der), people.ca)
    assert dict(found.protected_headers) == {"subject": "protected"}


def test_large_opaque_content_goes_through_a_scratch(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    content = b"Content-Type: text/plain\n\n" + b"x" * 70 + b"\n" * 1 + b"line\n" * 100_000
    result = smime.peel(HEAD + b"Content-Type: application/pkcs7-mime\r\n" + encoded(signed_object(smime, content, people.alice)))
    assert result.layers[0].signers[0].intact and result.text is not None and result.text.endswith("line\nline")


def test_the_first_of_several_signed_parts_is_checked_and_none_is_trusted(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    der = signed_object(smime, b"\r\nhello", people.alice)
    part = b"Content-Type: application/pkcs7-mime\r\n" + encoded(der)
    data = HEAD + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + part + b"\r\n--b\r\n" + part + b"\r\n--b--\r\n"
    verdict = smime.judge(data, people.ca)
    assert len(verdict.layers) == 1 and verdict.signature_valid and not verdict.trusted


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b'multipart/signed; boundary=b; protocol="application/pkcs7-signature"', True),
        (b"multipart/signed; boundary=b; protocol=application/x-pkcs7-signature", True),
        (b"multipart/signed; boundary=b", True),
        (b'multipart/signed; boundary=b; protocol="application/pgp-signature"', False),
        (b"multipart/mixed; boundary=b", False),
    ],
)
def test_which_multiparts_are_signed(header: bytes, found: bool) -> None:
    data = b"Content-Type: " + header + b"\r\n\r\n--b\r\n\r\nx\r\n--b\r\nContent-Type: application/pkcs7-signature\r\n\r\ny\r\n--b--"
    layer = find_layer(read_parts(index_message(BytesOctets(data))))
    assert (layer is not None) == found and (layer is None or (layer.detached and layer.covers_all))
