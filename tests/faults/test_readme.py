"""The page of faults names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent


def test_every_test_that_the_page_names_is_there():
    named = set(re.findall(r"`(test_\w+)`", (TESTS / "faults" / "README.md").read_text()))
    there = {name for path in TESTS.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)}
    assert len(named) > 30
    assert named <= there, sorted(named - there)
