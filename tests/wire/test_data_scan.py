"""The short cut to lines that begin with a dot finds what the whole scan finds."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from mailsec.wire.smtp.data import _dot_line

_WHOLE_SCAN = re.compile(rb"\r\n\.").search


@given(st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"x" * 30]), max_size=30).map(b"".join))
def test_every_dot_line_is_found(data):
    expected, found = _WHOLE_SCAN(data), _dot_line(data)
    assert (found and found.start()) == (expected and expected.start())
