"""docs/flow.md names functions that exist, where it says that they are."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "flow.md").read_text()
PLACES = {
    "Pipeline": "gateway.pipeline",
    "SmtpConversation": "gateway.conversation",
    "PluginManager": "plugins",
    "Spool": "interfaces",
    "Admission": "gateway.admission",
}


def named() -> list[tuple[str, str]]:
    """(dotted name, module) of everything that the page names as code with a module, or as a method of a known class."""
    found = {(name, module) for name, module in re.findall(r"`([A-Za-z_.]+)` \(((?:[a-z_0-9]+\.)*[a-z_0-9]+)\)", PAGE)}
    found |= {
        (name, PLACES[name.split(".")[0]]) for name in re.findall(r"`([A-Z][A-Za-z]+\.[a-z_]+)`", PAGE) if name.split(".")[0] in PLACES
    }
    return sorted(found)


@pytest.mark.parametrize(("name", "module"), named())
def test_function_is_where_the_page_says(name, module):
    value = importlib.import_module(f"mailsec.{module}")
    for part in name.split("."):
        value = getattr(value, part)


def test_page_is_read():
    assert len(named()) > 30
