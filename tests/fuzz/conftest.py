"""The people whose messages the fuzzers change."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from .world import make_world


@pytest.fixture(scope="session")
def world() -> SimpleNamespace:
    """A CA, Alice with two keys, Bob, their CMS objects and messages."""
    return make_world()
