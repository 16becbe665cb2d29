"""Transfer encodings and line ends: in blocks as in one piece, strict about garbage."""

from __future__ import annotations

import base64
import quopri
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import MimeError
from mailsec.mime.lines import is_crlf, regular_lines, to_crlf
from mailsec.mime.transfer import base64_length, base64_segments, decode, encode_base64, encode_quoted_printable
from mailsec.model.octets import BytesOctets, Segments


class Chopped(BytesOctets):
    """Octets whose blocks are `size` octets long."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self.size = size

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[bytes | memoryview]:
        view = memoryview(self.data)[start:end]
        for at in range(0, len(view), self.size):
            yield view[at : at + self.size]


def chop(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(st.binary(max_size=400), st.integers(1, 90))
def test_base64_of_any_blocks_is_the_base64_of_the_whole(data: bytes, size: int) -> None:
    encoded = b"".join(encode_base64(chop(data, size)))
    assert encoded == base64.encodebytes(data).replace(b"\n", b"\r\n")
    assert len(encoded) == base64_length(len(data))
    assert b"".join(decode("base64", chop(encoded, size))) == data


@pytest.mark.parametrize("size", [0, 1, 56, 57, 58, 57 * 4096 - 1, 57 * 4096, 57 * 4096 + 1, 1_000_000])
def test_base64_segments_have_the_length_that_they_say(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    content = Segments.of(BytesOctets(data[:size]))
    segments = base64_segments(content)
    assert len(segments.join()) == len(segments) == base64_length(size)
    assert base64.b64decode(segments.join()) == data[:size] and segments.join() == segments.join()
    assert b"".join(encode_base64(chop(data[:size], 4096) if size else [])) == segments.join()


@pytest.mark.parametrize(
    "data", [b"QUJD!", b"QU=JD", b"QUI=QUI=", b"Q", b"QUJDQ", b"====", b"QUJ\x00D", b"QUI=\r\nQUI=", "ÄQUJD".encode(), b"QUJ=\r\n="]
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_garbage_in_base64_is_refused(data: bytes, size: int) -> None:
    with pytest.raises(MimeError):
        b"".join(decode("base64", chop(data, size)))


@given(
    st.integers(1, 25).map(lambda quanta: quanta * 4),
    st.integers(0, 3000),
    st.sampled_from([b"!", b"=", b"-", b"\0", b"\xe4", b"\r", b"\n", b"A", b" ", b"", b"\r\n", b"=\r\n", b"QQ==\r\n"]),
    st.booleans(),
    st.sampled_from([7, 333, 4096]),
)
def test_the_fast_look_at_regular_lines_takes_nothing_that_the_strict_one_refuses(
    width: int, at: int, changed: bytes, replaces: bool, size: int
) -> None:
    line = (b"QUJDREVGR0hJ" * 10)[:width] + b"\r\n"
    data = line * (3000 // len(line))
    at = min(at, len(data))
    data = data[:at] + changed + data[at + (len(changed) if replaces else 0) :]
    plain = data.translate(None, b" \t\r\n")
    valid = re.fullmatch(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:[A-Za-z0-9+/]|[A-Za-z0-9+/]=|==)?)?", plain)
    expected = base64.b64decode(plain + b"=" * (-len(plain) % 4)) if valid else None
    try:
        found: bytes | None = b"".join(decode("base64", chop(data, size)))
    except MimeError:
        found = None
    assert found == expected


@given(st.lists(st.sampled_from([b"\r\n", b"ab", b"a", b"abc", b"\r", b"\n"]), max_size=12).map(b"".join))
def test_lines_of_one_width_are_what_the_definition_says(data: bytes) -> None:
    lines = data.split(b"\r\n")
    width = len(lines[0])
    regular = (
        width > 0 and lines[-1] == b"" and len(lines) > 1 and all(len(line) == width and not set(line) & {10, 13} for line in lines[:-1])
    )
    assert regular_lines(data) == (width if regular else 0)


def test_blanks_in_base64_and_missing_padding_at_the_end_are_ignored() -> None:
    assert b"".join(decode("base64", [b" QU\r\n\tJ", b"D\r\n\r\n", b"QQ"])) == b"ABCA"


text = st.lists(
    st.sampled_from([b"a", b" ", b"\t", b"\r\n", b"\r", b"\n", b"=", b"From ", b"\x00", b"\xe4", b".", b"x" * 75, b"y" * 80, b"\xff" * 30]),
    max_size=40,
).map(b"".join)


@given(text, st.integers(1, 60))
def test_quoted_printable_is_exact_short_and_transport_proof(data: bytes, size: int) -> None:
    encoded = encode_quoted_printable(data)
    assert quopri.decodestring(encoded) == data
    assert b"".join(decode("quoted-printable", chop(encoded, size))) == data
    assert encoded.isascii() and b"\x00" not in encoded
    for line in encoded.split(b"\r\n"):
        assert len(line) <= 76 and b"\r" not in line and b"\n" not in line
        assert not line.startswith(b"From ") and not line.endswith((b" ", b"\t"))


def test_unknown_encodings_are_refused_and_known_ones_pass() -> None:
    assert b"".join(decode("8bit", [b"\xff"])) == b"\xff"
    with pytest.raises(MimeError):
        decode("x-uuencode", [b""])


ends = st.lists(st.sampled_from([b"\r\n", b"\r", b"\n", b"a", b"bc"]), max_size=30).map(b"".join)


@given(ends, st.integers(1, 5))
def test_line_ends_become_crlf_across_blocks(data: bytes, size: int) -> None:
    octets = Chopped(data, size)
    expected = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    assert is_crlf(octets) == (data == expected)
    segments = to_crlf(octets)
    assert segments.join() == expected and len(segments) == len(expected)
