"""The page of reasons lists every code that these rooms give."""

from __future__ import annotations

import re
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def test_every_code_of_cms_and_algorithms_is_on_the_page():
    page = (PROJECT / "docs" / "reasons.md").read_text()
    codes = set()
    for room in ("cms", "algorithms"):
        for source in (PROJECT / "mailsec" / room).glob("*.py"):
            codes |= set(re.findall(r"(?:_Refused|Reason)\(\s*\"([a-z-]+)\"", source.read_text()))
    assert len(codes) > 20
    assert not {code for code in codes if f"`{code}`" not in page}
