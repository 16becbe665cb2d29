"""What is looked for in the reader's copy is found wherever blocks begin and end."""

from __future__ import annotations

import re
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from mailsec.model.octets import BytesOctets
from mailsec.smime.clear import _scan


class Blocks(BytesOctets):
    """Octets in blocks of a few."""

    size = 3

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        for at in range(start, len(self.data) if end is None else end, self.size):
            yield self.data[at : at + self.size]


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"a", b"\0"]), max_size=14).map(b"".join), st.integers(1, 5))
def test_the_scan_finds_what_a_look_at_the_whole_finds(data: bytes, size: int) -> None:
    octets = Blocks(data)
    octets.size = size
    loose, nul, dot = _scan(octets)
    assert loose == (data.count(b"\r") != data.count(b"\r\n") or data.count(b"\n") != data.count(b"\r\n"))
    assert nul == (b"\0" in data)
    if not loose:
        assert dot == (re.search(rb"(?:\A|\r\n)\.(?:\r\n|\Z)", data) is not None)
    assert (loose, nul) == _scan(BytesOctets(data))[:2]


@given(
    st.integers(1, 80),
    st.integers(0, 9000),
    st.sampled_from([b"", b"\r", b"\n", b"\r\n", b"\r\n.\r\n", b".", b"\0", b"\r\r\n", b"\n\r", b"\r\n.", b".\r\n"]),
    st.sampled_from([997, 4096, 5000, 100_000]),
)
def test_nothing_hides_among_thousands_of_equal_lines(width: int, at: int, hidden: bytes, size: int) -> None:
    """Attack: a second message behind megabytes of base64, which are looked over quickly."""
    data = (b"A" * width + b"\r\n") * (9000 // (width + 2))
    at = min(at, len(data))
    data = data[:at] + hidden + data[at:]
    octets = Blocks(data)
    octets.size = size
    loose, nul, dot = _scan(octets)
    assert loose == (data.count(b"\r") != data.count(b"\r\n") or data.count(b"\n") != data.count(b"\r\n"))
    assert nul == (b"\0" in data)
    if not loose:
        assert dot == (re.search(rb"(?:\A|\r\n)\.(?:\r\n|\Z)", data) is not None)
