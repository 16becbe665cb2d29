"""Which rows are due, and which of them are taken with care.

The one invariant: a row is never begun more often than it is counted. What was in the hands of a process that died comes back at once; what
was there three times comes alone, so that it takes no other mail with it, and is held in the end (poison messages).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Container
from typing import Any

from mailsec.store.spool_rows import WHOLE

__all__ = ["OPERATOR", "begin_raw", "begin_ready", "come_back", "expired_held", "recover"]

_SUSPECTS = 2
"""So many times as often as makes a READY row suspect it is begun: others that were in hand beside it are delivered by then."""

OPERATOR = "held by the operator"
"""The reason of what a person keeps back."""


def recover(connection: sqlite3.Connection, now: float) -> None:
    """What the last owner had in its hands is due at once, and counted."""
    connection.execute(
        "UPDATE entry SET next_attempt = ?, begun = begun + (state = 'ready' AND paused = 0) WHERE next_attempt IS NULL AND state != 'held'",
        (now,),
    )


def come_back(connection: sqlite3.Connection, now: float, latest: float) -> None:
    """The clock was set back: rows that are due later than any row can be are due now."""
    connection.execute("UPDATE entry SET next_attempt = ? WHERE state IN ('raw', 'ready') AND next_attempt > ?", (now, latest))


def begin_raw(connection: sqlite3.Connection, now: float, limit: int, most: int) -> list[tuple[Any, ...]]:
    """RAW rows that are due (values of `WHOLE`), each with its attempt counted; those that were begun `most` times and never ended are held."""
    begun_rows: list[tuple[Any, ...]] = []
    query = f"SELECT begun, {WHOLE} FROM entry WHERE state = 'raw' AND next_attempt <= ? ORDER BY next_attempt LIMIT ?"  # noqa: S608 - ours
    for begun, *values in connection.execute(query, (now, limit)).fetchall():
        if begun >= most:
            connection.execute(
                "UPDATE entry SET state = 'held', next_attempt = NULL, begun = 0, reason = ? WHERE row = ?",
                (f"its processing was begun {begun} times and never ended", values[0]),
            )
            continue
        connection.execute("UPDATE entry SET begun = begun + 1, attempts = attempts + 1, next_attempt = NULL WHERE row = ?", (values[0],))
        begun_rows.append(tuple(values))
    return begun_rows


def begin_ready(
    connection: sqlite3.Connection, now: float, limit: int, in_hand: Container[int], most: int, *, alone: bool
) -> tuple[list[tuple[Any, ...]], int | None]:
    """READY rows that are due (values of `WHOLE`); and the number of a suspect, which comes where nothing else does and no other is out (`alone`)."""
    query = f"SELECT {WHOLE} FROM ready WHERE next_attempt <= ? AND begun < ? ORDER BY next_attempt LIMIT ?"  # noqa: S608 - names of ours
    rows = [values for values in connection.execute(query, (now, most, limit)).fetchall() if values[0] not in in_hand]
    if rows:
        connection.executemany("UPDATE entry SET next_attempt = NULL WHERE row = ?", [(values[0],) for values in rows])
        return rows, None
    if not alone:
        return [], None
    query = f"SELECT begun, {WHOLE} FROM ready WHERE next_attempt <= ? AND begun >= ? ORDER BY begun LIMIT 1"  # noqa: S608 - names of ours
    for begun, *values in connection.execute(query, (now, most)).fetchall():
        if begun >= _SUSPECTS * most:
            reason = f"its delivery was begun {begun} times and never ended"
            connection.execute("UPDATE entry SET paused = 1, next_attempt = NULL, begun = 0, reason = ? WHERE row = ?", (reason, values[0]))
        elif values[0] not in in_hand:
            connection.execute("UPDATE entry SET next_attempt = NULL, begun = begun + 1 WHERE row = ?", (values[0],))
            return [tuple(values)], values[0]
    return [], None


def expired_held(connection: sqlite3.Connection, before: float, limit: int) -> list[tuple[Any, ...]]:
    """HELD rows (values of `WHOLE`) of people whom we may tell, received before then, and not held by a person."""
    query = (
        f"SELECT {WHOLE} FROM entry WHERE state = 'held' AND received_at <= ? AND origin IN ('submission', 'trusted') "  # noqa: S608 - ours
        "AND reverse_path IS NOT NULL AND rule != 'report' AND reason != ? AND wish IS NULL ORDER BY received_at LIMIT ?"
    )
    return connection.execute(query, (before, OPERATOR, limit)).fetchall()
