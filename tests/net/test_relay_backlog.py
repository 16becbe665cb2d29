"""A hundred thousand messages in the queue at the start: the first is delivered at once, and a bounded part of them is in memory."""

from __future__ import annotations

import sqlite3

from mailsec.net import relay
from tests.net.relay_gateway import entry
from tests.peers.gateway import until

MANY = 100_000


def fill(directory):
    """Make a hundred thousand rows of the one that is there."""
    connection = sqlite3.connect(directory / "spool-0.sqlite")
    columns = [name for _, name, *_ in connection.execute("PRAGMA table_info(entry)") if name not in ("row", "id")]
    connection.execute(
        "WITH RECURSIVE numbers(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) "
        f"INSERT INTO entry (row, id, {','.join(columns)}) SELECT n, 'm' || n, {','.join(columns)} FROM numbers, entry WHERE entry.row = 1",
        (MANY,),
    )
    connection.commit()
    connection.close()


def test_100000_messages_at_the_start(gateway, peers):
    peer = peers()
    one = gateway(peer).start()
    one.loop.call(lambda: setattr(one.spool, "on_ready", None))
    one.commit(entry("m1"))
    one.stop()
    assert peer.messages == [] or len(peer.messages) == 1
    directory = one.directory
    fill(directory)
    most = 0
    one.start()

    def delivered():
        nonlocal most
        most = max(most, len(one.relay._rows))
        return len(peer.messages) > 300

    until(delivered, 60)
    assert 0 < most <= relay._BACKLOG_ROWS
    # New mail does not stand behind all the old.
    one.commit(entry("new", b"Subject: new\r\n\r\nnew\r\n"))
    until(lambda: any(b"Subject: new" in octets for _, _, octets in list(peer.messages)), 60)
    one.stop(0.5)
