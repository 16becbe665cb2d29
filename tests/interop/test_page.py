"""`docs/interop.md` is what the cells say."""

from __future__ import annotations

from tests.interop.cells import PEERS
from tests.interop.rows import ROWS
from tests.interop.table import PAGE, page


def test_the_page_is_what_the_cells_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python -m tests.interop.table"


def test_names_of_the_lists_are_those_of_rows() -> None:
    names = {row.name for row in ROWS}
    written = {row.name for row in ROWS if row.written}
    assert len(names) == len(ROWS)
    for peer in PEERS:
        assert set(peer.cannot_write) <= names and set(peer.cannot_read) <= written, peer.name
