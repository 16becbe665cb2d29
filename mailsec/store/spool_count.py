"""How many rows a spool has, by state: for metrics, every few seconds. Only indexes are read, since the rows themselves may be 100,000."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from mailsec.store.spool_faults import storage_fault
from mailsec.store.spool_rows import connect

__all__ = ["QueueCount", "count_rows"]

_FIRST_ROWS = 16


class QueueCount(NamedTuple):
    """Rows by state, those left out that are in somebody's hands at the moment."""

    raw: int
    """As received: they wait to be processed."""
    ready: int
    """As they leave: they wait for their next attempt."""
    held: int
    """They wait for a person."""
    paused: int
    """Ready ones that a person keeps back."""
    oldest: float
    """When the oldest was received (POSIX seconds), as far as the order of the rows tells; 0 where there is none."""


def count_rows(path: str) -> QueueCount:
    """Count the rows of the spool in the file `path`. Blocks; raise StoreError."""
    connection = None
    try:
        connection = connect(path, read_only=True)
        due = dict(connection.execute("SELECT state, count(*) FROM entry WHERE next_attempt IS NOT NULL GROUP BY state").fetchall())
        kept = {
            state: (number, waiting)
            for state, number, waiting in connection.execute(
                "SELECT state, count(*), sum(next_attempt IS NOT NULL) FROM entry WHERE state = 'held' OR paused = 1 GROUP BY state"
            )
        }
        oldest = connection.execute(
            "SELECT min(received_at) FROM (SELECT received_at FROM entry ORDER BY row LIMIT ?)", (_FIRST_ROWS,)
        ).fetchone()[0]
    except sqlite3.Error as fault:
        raise storage_fault(fault, "counting the queue") from fault
    finally:
        if connection is not None:
            connection.close()
    paused = sum(number for state, (number, _) in kept.items() if state != "held")
    ready = due.get("ready", 0) - kept.get("ready", (0, 0))[1]
    raw = due.get("raw", 0) - kept.get("raw", (0, 0))[1]
    return QueueCount(raw, ready, kept.get("held", (0, 0))[0], paused, oldest or 0.0)
