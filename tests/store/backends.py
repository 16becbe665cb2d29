"""Which tests run on which database: every one that uses the fixture `db` or `path` on both, these on SQLite alone."""

from __future__ import annotations

import pytest

__all__ = ["sqlite_only"]

sqlite_only = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
