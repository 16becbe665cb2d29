"""Wishes: what `mailsec queue` writes into a row, and how the owner carries it out.

The one invariant: a wish changes no state by itself. The command may be anybody with access to the files; the owner of the lock
decides what the wish means for the state that the row is in at that moment.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection
from typing import NamedTuple

from mailsec.store.spool_due import OPERATOR

__all__ = ["WISHES", "Wish", "carry_out"]

WISHES = ("hold", "release", "retry", "flush", "delete")

_AT_ONCE = 2000
"""Wishes that are carried out in one transaction: a hundred thousand at once would keep the mail waiting."""


class Wish(NamedTuple):
    """A wish that was carried out."""

    row: int
    word: str
    file: str | None


def carry_out(connection: sqlite3.Connection, now: float, in_hand: Collection[int] = ()) -> list[Wish]:
    """Carry out wishes, some at a time, but those for rows `in_hand` (raw rows that are being processed: they are replaced in a moment)."""
    done: list[Wish] = []
    query = "SELECT row, state, wish, file FROM entry WHERE wish IS NOT NULL LIMIT ?"
    for row, state, word, file in connection.execute(query, (_AT_ONCE + len(in_hand),)).fetchall():
        if row in in_hand:
            continue
        if word == "delete":
            connection.execute("DELETE FROM entry WHERE row = ?", (row,))
            done.append(Wish(row, word, file))
            continue
        if word == "hold" and state == "ready":
            # It stays ready: what leaves is made already. The relay's view does not show it while the flag is set.
            connection.execute("UPDATE entry SET paused = 1, reason = ? WHERE row = ?", (OPERATOR, row))
        elif word == "hold" and state == "raw":
            connection.execute("UPDATE entry SET state = 'held', next_attempt = NULL, reason = ? WHERE row = ?", (OPERATOR, row))
        elif word == "retry" and state == "ready":
            # As if it had just come in; what is under way is not begun a second time.
            connection.execute(
                "UPDATE entry SET paused = 0, next_attempt = ?, attempts = 0, begun = 0, reason = '', "
                "progress = replace(progress, '[\"failed\"', '[\"waiting\"') WHERE row = ? AND (paused = 1 OR next_attempt IS NOT NULL)",
                (now, row),
            )
        elif word == "retry" and state == "raw":
            connection.execute(
                "UPDATE entry SET next_attempt = ?, attempts = 0, begun = 0 WHERE row = ? AND next_attempt IS NOT NULL", (now, row)
            )
        elif word == "release" and state == "ready":
            # Recipients that nobody could be told about are tried again; inside a reply the pattern would be escaped.
            connection.execute(
                "UPDATE entry SET paused = 0, next_attempt = ?, reason = '', progress = replace(progress, '[\"failed\"', '[\"waiting\"') "
                "WHERE row = ? AND paused = 1",
                (now, row),
            )
        elif word in ("release", "retry") and state == "held":
            # Released means processed again, under the rules of that moment; nothing that is held ever becomes ready by itself.
            connection.execute(
                "UPDATE entry SET state = 'raw', begun = 0, next_attempt = ?, need = '', reason = '' WHERE row = ?", (now, row)
            )
        elif word == "flush":
            connection.execute(
                "UPDATE entry SET next_attempt = ? WHERE row = ? AND state != 'held' AND next_attempt IS NOT NULL", (now, row)
            )
        connection.execute("UPDATE entry SET wish = NULL WHERE row = ?", (row,))
        done.append(Wish(row, word, file))
    return done
