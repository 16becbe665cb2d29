"""The part tree: RFC 2046's grammar to the octet, and trees that were made to hurt."""

from __future__ import annotations

import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import LimitExceeded
from mailsec.mime.charsets import text_of
from mailsec.mime.index import index_message
from mailsec.mime.parts import read_entity, read_parts, walk
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.message import Part
from mailsec.model.octets import BytesOctets

HEAD = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'


def tree(data: bytes) -> Part:
    return read_parts(index_message(BytesOctets(data)))


def bodies(data: bytes) -> list[bytes]:
    return [data[child.start : child.end] for child in tree(data).children]


pieces = st.lists(
    st.sampled_from(
        [b"\r\n", b"--b", b"--b--", b"--bb", b"--", b" ", b"x", b"\r\n--b\r\n", b"Content-Type: multipart/mixed; boundary=bb\r\n", b"\n"]
    ),
    max_size=40,
).map(b"".join)


@given(pieces)
def test_children_lie_within_their_parent_in_order(body: bytes) -> None:
    data = HEAD + body
    for part in walk(tree(data)):
        at = part.body_start
        assert part.start <= part.header_end <= part.body_start <= part.end
        for child in part.children:
            assert at <= child.start and child.end <= part.end
            at = child.end


def test_the_first_part_of_multipart_signed_is_exactly_what_was_signed() -> None:
    signed = b"Content-Type: text/plain\r\n\r\ntext \r\n\r\n"
    data = (
        b"Content-Type: multipart/signed; boundary=b\r\n\r\npreamble\r\n--b\r\n" + signed + b"\r\n--b\r\n\r\nsig\r\n--b--\r\nepilogue\r\n"
    )
    assert bodies(data) == [signed, b"\r\nsig"]
    assert tree(data).problems == ()


@pytest.mark.parametrize(
    ("body", "expected", "problems"),
    [
        (b"--b\r\n\r\none\r\n--b--", [b"\r\none"], ()),
        (b"--b \t\r\n\r\none\r\n--b-- \t\r\n", [b"\r\none"], ()),
        (b"--b\r\n\r\none\r\n--bb\r\n--b--\r\n", [b"\r\none\r\n--bb"], ()),
        (b"--bb\r\n--b\r\n\r\none\r\n--b--x\r\n--b--\r\n", [b"\r\none\r\n--b--x"], ()),
        (b"--b\r\n\r\none\r\n--b\r\n\r\ntwo", [b"\r\none", b"\r\ntwo"], ("no-close-delimiter",)),
        (b"--b\r\n--b\r\n--b--", [b"", b""], ()),
        (b"--b\r\nno empty line\r\n--b--", [b"no empty line"], ()),
        (b"x--b\r\n", [], ("no-parts",)),
        (b"\n--b\n", [], ("no-parts",)),
        (b"", [], ("no-parts",)),
        (b"--b--\r\n", [], ("no-parts",)),
        (b"--b", [b""], ("no-close-delimiter",)),
        (b"--b\r\n\r\none\r\n--b--\r\n--b\r\n\r\nafter the end\r\n--b--", [b"\r\none"], ()),
    ],
)
def test_boundaries(body: bytes, expected: list[bytes], problems: tuple[str, ...]) -> None:
    assert bodies(HEAD + body) == expected
    assert tree(HEAD + body).problems == problems or not expected


def test_an_inner_boundary_that_begins_with_the_outer_one() -> None:
    data = (
        HEAD + b"--b\r\nContent-Type: multipart/alternative; boundary=bb\r\n\r\n--bb\r\n\r\none\r\n--bb\r\n\r\ntwo\r\n--bb--\r\n"
        b"--b\r\n\r\nthree\r\n--b--\r\n"
    )
    root = tree(data)
    assert [len(child.children) for child in root.children] == [2, 0]


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"Content-Type: multipart/mixed\r\n", "no-boundary"),
        (b'Content-Type: multipart/mixed; boundary=""\r\n', "no-boundary"),
        (b"Content-Type: multipart/mixed; boundary=" + b"x" * 300 + b"\r\n", "bad-boundary"),
        (b"Content-Type: text/plain\r\nContent-Type: text/html\r\n", "duplicate-content-type"),
        (b"Content-Transfer-Encoding: 7bit\r\nContent-Transfer-Encoding: base64\r\n", "duplicate-content-transfer-encoding"),
        (b"Content-Type: ;\r\n", "bad-content-type"),
        (b"Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: base64\r\n", "encoded-multipart"),
    ],
)
def test_contradictions_are_told(header: bytes, problem: str) -> None:
    assert problem in tree(header + b"\r\n--b\r\n\r\nx\r\n--b--\r\n").problems


def test_labels() -> None:
    part = tree(
        b"Content-Type: application/octet-stream; name=a.bin\r\nContent-Transfer-Encoding: BASE64 (c)\r\n"
        b"Content-Disposition: attachment; filename*=utf-8''%C3%A4.p7m\r\n\r\n"
    )
    assert (part.encoding, part.disposition, part.filename) == ("base64", "attachment", "ä.p7m")
    assert tree(b"\r\n").content_type.name == "text/plain" and tree(b"\r\n").encoding == "7bit"


def test_a_message_within_a_message_is_a_child_and_a_digest_holds_messages() -> None:
    inner = b"Subject: inner\r\n\r\nhello"
    part = tree(b"Content-Type: message/rfc822\r\n\r\n" + inner)
    assert part.children[0].fields[0].name == "subject"
    digest = tree(b"Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\n" + inner + b"\r\n--b--")
    assert digest.children[0].content_type.name == "message/rfc822" and digest.children[0].children[0].fields[0].name == "subject"


def nested(depth: int) -> bytes:
    opening = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(depth))
    return opening + b"\r\nx\r\n" + b"".join(b"--b%d--\r\n" % level for level in reversed(range(depth)))


def test_a_thousand_nested_multiparts_are_over_a_limit_in_no_time() -> None:
    assert len(walk(tree(nested(49)))) == 50
    began = time.process_time()
    with pytest.raises(LimitExceeded) as error:
        tree(nested(1000) + b"x" * 1_000_000)
    assert error.value.limit == "mime_depth" and time.process_time() - began < 1


@pytest.mark.parametrize(
    "body",
    [
        b"--b\r\n" * 200_000,
        b"--b\r\n\r\n" * 200_000,
        b"--b " * 200_000,
        b"--bx\r\n" * 200_000,
        b"--b" + b" " * 1_000_000,
        b"\r\n--b" * 200_000,
    ],
)
def test_bodies_made_of_delimiters_cost_linear_time(body: bytes) -> None:
    began = time.process_time()
    try:
        tree(HEAD + body)
    except LimitExceeded as error:
        limit = error.limit
        assert limit == "mime_parts"
    assert time.process_time() - began < 2


def test_limits_are_arguments() -> None:
    data = HEAD + b"--b\r\n\r\n1\r\n--b\r\n\r\n2\r\n--b--"
    with pytest.raises(LimitExceeded):
        read_entity(BytesOctets(data), 0, len(data), dataclasses.replace(DEFAULT_LIMITS, mime_parts=2))


def test_a_part_s_header_does_not_reach_into_the_next_part() -> None:
    data = HEAD + b"--b\r\nContent-Type: text/plain\r\n--b\r\n\r\nnext\r\n--b--"
    first, second = tree(data).children
    assert first.body_start == first.end and data[first.start : first.end] == b"Content-Type: text/plain"
    assert data[second.body_start : second.end] == b"next"


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\r\nhello\r\nworld\r\n", "hello\nworld"),
        (b"Content-Type: text/plain; charset=iso-8859-1\r\n\r\n\xe4\r\n\r\n", "ä\n"),
        (b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nw6Q=\r\n", "ä"),
        (b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A4 =\r\nb \r\n", "ä b"),
        (b"Content-Type: text/html\r\n\r\nx", None),
        (HEAD + b"--b\r\nContent-Type: text/html\r\n\r\nh\r\n--b\r\n\r\nplain\r\n--b--", "plain"),
        (b"Content-Transfer-Encoding: base64\r\n\r\n!!!\r\n", "!!!"),
        (b"Content-Type: message/rfc822\r\n\r\n\r\nx", None),
    ],
)
def test_the_text_that_a_person_reads(data: bytes, text: str | None) -> None:
    assert text_of(BytesOctets(data), tree(data)) == text
