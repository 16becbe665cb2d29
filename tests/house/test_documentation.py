"""The documentation tells the truth: standards, limits and the size of modules are held against the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from mailsec.model.limits import DEFAULT_LIMITS, Limits

PROJECT = Path(__file__).resolve().parents[2]
SOURCES = sorted((PROJECT / "mailsec").rglob("*.py")) + sorted((PROJECT / "plugins").glob("*/mailsec_*/**/*.py"))


def standards() -> dict[str, tuple[str, str]]:
    """RFC number to (state, title) of docs/standards.tsv."""
    rows = (PROJECT / "docs" / "standards.tsv").read_text().splitlines()
    return {number: (state, title) for number, state, title in (row.split("\t") for row in rows[1:])}


def test_every_rfc_that_the_code_cites_is_listed_with_its_state():
    listed = standards()
    cited: dict[str, str] = {}
    for source in SOURCES:
        for number in re.findall(r"RFC (\d{3,5})", source.read_text()):
            cited.setdefault(number, str(source.relative_to(PROJECT)))
    missing = {number: place for number, place in cited.items() if number not in listed}
    assert not missing, f"cited, but not in docs/standards.tsv: {missing}"


def test_the_states_of_standards_are_words_that_the_page_defines():
    assert {state for state, _ in standards().values()} <= {"yes", "partly", "read", "planned", "cited"}


def test_limits_page_lists_every_limit_with_its_default():
    page = (PROJECT / "docs" / "limits.md").read_text()
    for field in dataclasses.fields(Limits):
        value = getattr(DEFAULT_LIMITS, field.name)
        assert re.search(rf"^\| `{field.name}` \| {re.escape(f'{value:,}')} \|", page, re.MULTILINE), field.name


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_module_is_one_afternoon_to_read(source: Path):
    lines = source.read_text().splitlines()
    assert len(lines) <= 500, f"{source.name} has {len(lines)} lines: split it by what it knows"
    assert not lines or lines[0].startswith(('"""', "#!", "#")), "a module says first what it is"
