"""Walking large structures: the same content whatever the chunking, in constant memory and linear time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.asn1 import writer
from mailsec.asn1.stream import Walker
from mailsec.errors import Asn1Error, LimitExceeded, MailsecError
from mailsec.model.octets import BytesOctets, Octets


class FileLike:
    """Octets that are not bytes: counts what is read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.largest = 0
        self.total = 0

    def __len__(self) -> int:
        return len(self.data)

    def view(self, start: int, end: int) -> memoryview:
        piece = memoryview(self.data)[start:end]
        self.largest = max(self.largest, len(piece))
        self.total += len(piece)
        return piece

    def find(self, pattern: bytes, start: int = 0, end: int | None = None) -> int:
        return self.data.find(pattern, start, len(self.data) if end is None else end)

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        end = len(self.data) if end is None else min(end, len(self.data))
        for position in range(start, end, 262144):
            yield self.view(position, min(position + 262144, end))


@st.composite
def chunked(draw: st.DrawFn, depth: int = 3) -> tuple[bytes, bytes]:
    """A string in some encoding of X.690 §8.7, and its value."""
    if depth == 0 or draw(st.booleans()):
        value = draw(st.binary(max_size=300))
        return writer.octet_string(value), value
    pieces = draw(st.lists(chunked(depth=depth - 1), max_size=4))
    content = b"".join(piece for piece, _ in pieces)
    value = b"".join(value for _, value in pieces)
    if draw(st.booleans()):
        return writer.header(0x24, len(content)) + content, value
    return b"\x24\x80" + content + b"\0\0", value


@given(chunked(), st.binary(max_size=20), st.booleans())
def test_a_string_of_any_chunking_is_the_same_string(string: tuple[bytes, bytes], behind: bytes, as_file: bool) -> None:
    encoding, value = string
    data = encoding + behind
    octets: Octets = FileLike(data) if as_file else BytesOctets(data)
    walker = Walker(octets)
    span = walker.string()
    assert len(span) == len(value)
    assert b"".join(span.blocks()) == value
    assert b"".join(span.blocks()) == value
    assert walker.position == len(encoding)


@given(st.binary(max_size=200), st.booleans())
def test_walking_any_octets_ends_in_a_value_or_our_errors(data: bytes, as_file: bool) -> None:
    octets: Octets = FileLike(data) if as_file else BytesOctets(data)
    walker = Walker(octets)
    try:
        walker.enter(0x30)
        while walker.tag:
            walker.take()
        walker.leave()
    except MailsecError:
        pass
    try:
        span = Walker(octets).string()
        assert len(span) == len(b"".join(span.blocks()))
    except MailsecError:
        pass


@pytest.mark.parametrize("indefinite", [False, True])
def test_50_megabytes_in_chunks_are_walked_in_constant_memory(indefinite: bool) -> None:
    chunk = writer.octet_string(b"x" * 4096)
    content = chunk * 12_800
    data = b"\x24\x80" + content + b"\0\0" if indefinite else writer.header(0x24, len(content)) + content
    octets = FileLike(b"\x30\x80" + data + writer.integer(1) + b"\0\0")
    walker = Walker(octets)
    walker.enter(0x30)
    span = walker.string()
    assert walker.take().content == b"\x01"
    walker.leave()
    assert len(span) == 4096 * 12_800
    assert octets.largest <= 65_536
    assert octets.total < 1.2 * len(octets)
    assert sum(map(len, span.blocks())) == len(span)


def test_a_large_primitive_string_is_not_read_to_find_its_end() -> None:
    octets = FileLike(writer.octet_string(b"x" * 10_000_000) + writer.integer(1))
    walker = Walker(octets)
    walker.string()
    walker.take()
    assert octets.total < 200_000


def test_a_million_tiny_chunks_are_a_limit() -> None:
    with pytest.raises(LimitExceeded) as caught:
        Walker(BytesOctets(b"\x24\x80" + b"\x04\x01x" * 1_000_000 + b"\0\0")).string()
    assert caught.value.limit == "asn1_elements"


def test_strings_within_strings_without_end_are_a_limit() -> None:
    with pytest.raises(LimitExceeded) as caught:
        Walker(BytesOctets(b"\x24\x80" * 1_000_000)).string()
    assert caught.value.limit == "asn1_depth"


def test_structure_over_the_limit_is_not_copied() -> None:
    for data in (writer.octet_string(b"x" * 5_000_000), b"\x24\x80" + writer.octet_string(b"x" * 5_000_000) + b"\0\0"):
        with pytest.raises(LimitExceeded) as caught:
            Walker(FileLike(data)).take()
        assert caught.value.limit == "cms_metadata_octets"


def test_more_elements_than_belong_there_are_refused() -> None:
    for data in (writer.sequence(writer.integer(1), writer.integer(2)), b"\x30\x80\x02\x01\x01\x02\x01\x02\0\0"):
        walker = Walker(BytesOctets(data))
        walker.enter(0x30)
        walker.take()
        with pytest.raises(Asn1Error):
            walker.leave()
