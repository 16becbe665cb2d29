"""`docs/interop.md`, made from the cells: `python -m tests.interop.table` writes it, and a test holds the page against them."""

from __future__ import annotations

from pathlib import Path

from tests.interop.cells import PEERS, Cell, cells
from tests.interop.rows import ROWS, SECTIONS

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "interop.md"

_HEAD = """\
# What is exchanged with which programs

Every cell is a test (`tests/interop`): one side writes, the other reads, and the content must be the same. `make test` runs those with
OpenSSL, `make interop` all of them. The list of cells makes both the tests and this page; to write the page anew:
`python -m tests.interop.table`.

- **yes**: covered. What a peer writes is read without a remark (legacy algorithms: only where they are allowed, refused and named
  otherwise), and a changed octet of content is found out, on both sides.
- **no** and a number: the peer cannot, for the reason below. The tests run such a cell too, and it must fail with the version named here;
  a newer version may do it.
- **·**: mailsec reads this and never writes it.

Versions: {versions}.
"""


def _columns() -> str:
    heads = [f"{peer.name} → mailsec | mailsec → {peer.name}" for peer in PEERS]
    return f"| | {' | '.join(heads)} |\n|---{'|---' * 2 * len(PEERS)}|\n"


def page() -> str:
    """The page as it must be."""
    found: dict[tuple[str, str, str], Cell] = {(one.row.name, one.peer.name, one.direction): one for one in cells()}
    reasons: dict[tuple[str, str], int] = {}
    parts = [_HEAD.format(versions=", ".join(peer.version for peer in PEERS))]

    def mark(row: str, peer: str, direction: str) -> str:
        cell = found.get((row, peer, direction))
        if cell is None:
            return "·"
        if not cell.why_not:
            return "yes"
        return f"no ({reasons.setdefault((peer, cell.why_not), len(reasons) + 1)})"

    for section in SECTIONS:
        lines = [f"\n## {section[0].upper()}{section[1:]}\n\n", _columns()]
        for row in ROWS:
            if row.section == section:
                marks = [mark(row.name, peer.name, direction) for peer in PEERS for direction in ("from", "to")]
                lines.append(f"| {row.title} | {' | '.join(marks)} |\n")
        parts += lines
    parts.append("\n## Why not\n\n")
    parts += [f"{number}. {peer}: {reason}.\n" for (peer, reason), number in reasons.items()]
    parts.append(_SUMS.format(yes=sum(not one.why_not for one in found.values()), no=sum(bool(one.why_not) for one in found.values())))
    return "".join(parts)


_SUMS = """
{yes} cells are covered, {no} cannot be.

ML-DSA, ML-KEM, X25519 and X448 have no peer among these versions. What mailsec writes of them is read with the ASN.1 modules of the RFCs
(pyasn1-alt-modules), and its keys are derived a second time from those structures (`tests/interop/test_structures.py`).
"""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
