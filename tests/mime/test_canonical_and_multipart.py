"""What we sign survives transport, decodes to what it was, and an inner signature is never touched (promise 3)."""

from __future__ import annotations

import re
from email import message_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import MimeError
from mailsec.mime.canonical import LineCheck, is_transport_proof, span_is_proof, transport_proof
from mailsec.mime.index import index_message
from mailsec.mime.multipart import content_header, find_boundary, micalg, multipart_signed, outer_header, pkcs7_mime, with_content
from mailsec.mime.parts import read_parts, walk
from mailsec.mime.transfer import decode
from mailsec.model.octets import BytesOctets, Segments

lines = st.lists(
    st.sampled_from(
        [
            b"a",
            b" ",
            b"\t",
            b"\r\n",
            b"\r\n",
            b"\r",
            b"\n",
            b"From ",
            b"\r\nFrom ",
            b"\x00",
            b"\xe4",
            b".",
            b"x" * 499,
            b"y" * 997,
            b"z" * 998,
            b"=",
            b"w" * 999,
        ]
    ),
    max_size=30,
).map(b"".join)


def proof_by_definition(data: bytes) -> bool:
    if not data.isascii() or b"\0" in data or re.search(rb"\r(?!\n)|(?<!\r)\n", data):
        return False
    return all(len(line) <= 998 and not line.endswith((b" ", b"\t")) and not line.startswith(b"From ") for line in data.split(b"\r\n"))


@given(lines, st.integers(1, 700))
def test_the_fast_scan_says_what_the_definition_says(data: bytes, size: int) -> None:
    assert span_is_proof(BytesOctets(data), 0, len(data)) == proof_by_definition(data)
    check = LineCheck()
    for at in range(0, len(data), size):
        check.update(data[at : at + size])
    assert check.end() == proof_by_definition(data)


@pytest.mark.parametrize(
    "data",
    [
        b"a\t\r\nb",
        b"a \r\nb",
        b"a\t",
        b"a ",
        b"a\nb",
        b"a\rb",
        b"a\n",
        b"\n",
        b"\r",
        b"From a",
        b"a\r\nFrom b",
        b"\x80",
        b"\x00",
        b"x" * 999,
        b"x" * 999 + b"\r\n",
        b"a\r\n" + b"x" * 999 + b"\r\nb\r\n",
        b"a\r\n" * 300 + b"x" * 999 + b"\r\n",
    ],
)
def test_what_transports_touch_is_seen_wherever_blocks_end(data: bytes) -> None:
    for size in range(1, len(data) + 1):
        check = LineCheck()
        for at in range(0, len(data), size):
            check.update(data[at : at + size])
        assert not check.end(), size
    assert not span_is_proof(BytesOctets(data), 0, len(data))


@pytest.mark.parametrize(
    "data", [b"x" * 998, b"x" * 998 + b"\r\n", b"a\r\n" * 300 + b"x" * 998 + b"\r\nb", b"", b"\r\n", b">From a", b"From"]
)
def test_what_no_transport_touches_is_proof(data: bytes) -> None:
    assert span_is_proof(BytesOctets(data), 0, len(data))


def canonical(data: bytes) -> bytes:
    octets = BytesOctets(data)
    part = read_parts(index_message(octets))
    segments = transport_proof(octets, part)
    written = segments.join()
    assert len(segments) == len(written)
    return written


def leaves(data: bytes) -> list[tuple[str, bytes]]:
    octets = BytesOctets(data)
    return [
        (part.content_type.name, b"".join(decode(part.encoding, octets.blocks(part.body_start, part.end))))
        for part in walk(read_parts(index_message(octets)))
        if not part.children
    ]


@pytest.mark.parametrize("kind", [b"text/plain; charset=utf-8", b"application/octet-stream"])
@pytest.mark.parametrize("encoding", [None, b"7bit", b"8bit", b"binary"])
@given(body=lines)
def test_a_leaf_becomes_proof_and_decodes_to_what_it_was(kind: bytes, encoding: bytes | None, body: bytes) -> None:
    data = b"Content-Type: " + kind + b"\r\n" + (b"Content-Transfer-Encoding: " + encoding + b"\r\n" if encoding else b"") + b"\r\n" + body
    written = canonical(data)
    octets = BytesOctets(written)
    assert is_transport_proof(octets, read_parts(index_message(octets)))
    assert leaves(written) == leaves(data)
    if proof_by_definition(body) and encoding in (None, b"7bit"):
        assert written == data


def mixed(*parts: bytes, kind: bytes = b"multipart/mixed", label: bytes = b"") -> bytes:
    return (
        b"Content-Type: "
        + kind
        + b"; boundary=b\r\n"
        + label
        + b"\r\n"
        + b"".join(b"--b\r\n" + part + b"\r\n" for part in parts)
        + b"--b--\r\n"
    )


def test_only_the_leaves_that_need_it_are_written_anew() -> None:
    good = b"Content-Type: text/plain; \r\n charset=us-ascii\r\n\r\nas it is"
    data = mixed(
        good,
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nsome more text \xc3\xa4",
        b"\r\nFrom here ",
    )
    written = canonical(data)
    assert (
        good in written
        and b"Content-Transfer-Encoding: quoted-printable\r\n\r\nsome more text =C3=A4\r\n" in written
        and b"\r\n=46rom here=20\r\n" in written
    )
    assert leaves(written) == leaves(data)


def test_labels_of_8bit_over_7bit_content_are_made_true() -> None:
    data = mixed(b"Content-Transfer-Encoding: 8BIT\r\n\r\nplain", label=b"Content-Transfer-Encoding: binary\r\n")
    octets = BytesOctets(data)
    assert not is_transport_proof(octets, read_parts(index_message(octets)))
    assert b"8BIT" not in canonical(data) and b"binary" not in canonical(data) and canonical(data).count(b"Encoding: 7bit") == 2


@pytest.mark.parametrize(
    "inner",
    [
        b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: binary\r\n\r\n\x30\x82",
        b"Content-Type: application/x-pkcs7-signature\r\n\r\nQUJD ",
        b"Content-Type: multipart/signed; boundary=c\r\n\r\n--c\r\n\r\n\xc3\xa4\r\n--c\r\n\r\ns\r\n--c--",
        b"Content-Type: multipart/encrypted; boundary=c\r\n\r\n--c\r\n\r\nFrom x\r\n--c--",
        b"Content-Type: multipart/mixed; boundary=c\r\n\r\nFrom me\r\n--c\r\n\r\n\r\n--c--",
        b"Content-Type: multipart/mixed; boundary=c\r\n\r\nno parts \r\n",
        b'Content-Type: text/plain; name="\xc3\xa4"\r\n\r\nx',
        b"Content-Type: text/plain\r\nContent-Transfer-Encoding: x-uu\r\n\r\nx \r\n",
        b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\nx \r\n",
        b"Content-Transfer-Encoding: base64\r\n\r\nnot base64! \r\n",
    ],
)
def test_what_cannot_be_made_proof_is_told_so_that_it_is_signed_opaque(inner: bytes) -> None:
    with pytest.raises(MimeError):
        canonical(mixed(inner))


def test_an_inner_signed_part_beside_a_bad_leaf_comes_through_octet_for_octet() -> None:
    inner = b"Content-Type: multipart/signed; boundary=c\r\n\r\n--c\r\n\r\nsigned\r\n--c\r\n\r\ns\r\n--c--"
    assert inner in canonical(mixed(inner, b"\r\n\xff\xff\xff"))


def test_encoded_leaves_with_damaged_line_ends_are_encoded_again() -> None:
    data = mixed(
        b"Content-Transfer-Encoding: base64\r\n\r\nQUJD \r\nREVG\t", b"Content-Transfer-Encoding: quoted-printable\r\n\r\na=20\t\r\nb"
    )
    assert leaves(canonical(data)) == leaves(data) and b"QUJDREVG" in canonical(data)


def test_large_text_is_streamed_as_base64() -> None:
    data = b"Content-Type: text/plain\r\n\r\n" + "ä line of text\r\n".encode() * 120_000
    assert leaves(canonical(data)) == leaves(data) and b"base64" in canonical(data)[:200]


MESSAGE = (
    b"Received: from x\r\n\tby y \r\nSubject : odd  subject \r\nContent-type: text/plain;\r\n charset=us-ascii\r\nno field\r\nMime-Version: 1.0\r\n"
    b"X: 1\r\nContent-Language: de\r\nMIME-Version: 1.0\r\nFrom: a@b.example\r\n\r\nbody\r\n"
)


def test_outer_fields_keep_every_octet_and_content_fields_move() -> None:
    message = index_message(BytesOctets(MESSAGE))
    entity = Segments((content_header(message), b"body\r\n"))
    signed = with_content(message, multipart_signed(entity, b"DER" * 100, micalg="sha-256", boundary="=_x")).join()
    outer = b"Received: from x\r\n\tby y \r\nSubject : odd  subject \r\nno field\r\nMime-Version: 1.0\r\nX: 1\r\nFrom: a@b.example\r\n"
    assert signed.startswith(outer + b"Content-Type: multipart/signed;")
    root = read_parts(index_message(BytesOctets(signed)))
    first, second = root.children
    assert (
        signed[first.start : first.end]
        == entity.join()
        == (b"Content-type: text/plain;\r\n charset=us-ascii\r\nContent-Language: de\r\n\r\nbody\r\n")
    )
    assert dict(root.content_type.parameters) == {"protocol": "application/pkcs7-signature", "micalg": "sha-256", "boundary": "=_x"}
    assert second.content_type.name == "application/pkcs7-signature" and second.filename == "smime.p7s"
    assert b"".join(decode(second.encoding, [signed[second.body_start : second.end]])) == b"DER" * 100
    independent = message_from_bytes(signed.replace(b"no field\r\n", b"").replace(b"Subject :", b"Subject:"))
    assert independent.get_payload(1).get_payload(decode=True) == b"DER" * 100


def test_opaque_frame() -> None:
    message = index_message(BytesOctets(MESSAGE))
    written = with_content(message, pkcs7_mime(Segments((b"\x30" * 1000,)), smime_type="signed-data")).join()
    part = read_parts(index_message(BytesOctets(written)))
    assert part.content_type.name == "application/pkcs7-mime" and part.content_type.parameters["smime-type"] == "signed-data"
    assert part.filename == "smime.p7m" and b"".join(decode("base64", [written[part.body_start :]])) == b"\x30" * 1000


@pytest.mark.parametrize(
    "data", [b"", b"\r\n", b"\r\nbody", b"Subject: x", b"Content-Type: text/plain", b" odd\r\n\r\nbody", b"Content-Type: a/b\r\n\r\n"]
)
def test_frames_around_messages_that_hardly_are_some(data: bytes) -> None:
    message = index_message(BytesOctets(data))
    entity = Segments((content_header(message), data[message.body_start :]))
    signed = with_content(message, multipart_signed(entity, b"D", micalg="sha-256", boundary="=_x")).join()
    again = index_message(BytesOctets(signed))
    root = read_parts(again)
    assert again.values("mime-version") == ["1.0"] and len(root.children) == 2
    assert signed[root.children[0].start : root.children[0].end] == entity.join()
    assert b"".join(bytes(piece) if isinstance(piece, bytes) else b"".join(piece) for piece in outer_header(message)).endswith(b"\r\n")


def test_a_boundary_never_occurs_in_what_it_bounds_even_if_chance_repeats_itself() -> None:
    taken = {b"=_" + b"00" * 16, b"=_" + b"00" * 16 + b"_1"}
    assert find_boundary(bytes, lambda mark: mark in taken).encode() not in taken
    assert find_boundary(bytes, lambda mark: False) == "=_" + "00" * 16


def test_micalg_words() -> None:
    assert (
        micalg(["sha256"]) == "sha-256"
        and micalg(["sha256", "sha256", "sha512"]) == "sha-256,sha-512"
        and micalg(["sha3-256"]) == "unknown"
    )
