"""A process that commits, delivers and deletes until it is killed: `spool_victim.py DIRECTORY`. Run by test_spool_crash.py.

It prints "ack ID" after each commit has returned, and "out ID" before it lets a row go: whatever has an "ack" and no "out" must be there.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys

from tests.store import spool_support as support


def body_of(id: str) -> bytes:
    """Every fifth body is large; all can be told from their id."""
    size = 300_000 if int(id.split(".")[0]) % 5 == 0 else 3000
    digest = hashlib.sha256(id.encode()).digest()
    return (digest * (size // 32 + 1))[:size]


async def main(directory: str) -> None:
    from mailsec.model.octets import Segments
    from mailsec.model.queue import State
    from mailsec.store import spool_writer
    from mailsec.store.crashpoints import crash_point
    from mailsec.store.spool import SqliteSpool

    spool_writer._CHECKPOINT_OCTETS = 300_000
    spool = SqliteSpool(directory, 0, support.KEY, support.Runtime(), reserve=0)
    delivered = []

    def relay(rows):
        crash_point("relay.delivery.before")
        for row in rows:
            if int(row.entry.id.split(".")[0]) % 3:
                os.write(1, f"out {row.entry.id}\n".encode())
                crash_point("relay.delivery.after")
                delivered.append(row.entry.id)
                spool.finish(row.row)

    spool.on_ready = relay
    spool.open()
    start = spool._next_row * 1000

    async def client(number: int) -> None:
        for turn in range(10_000):
            id = f"{start + turn}.{number}"
            body = body_of(id)
            state = (State.READY, State.READY, State.RAW, State.HELD)[turn % 4]
            if number % 2:
                scratch = spool.scratch()
                scratch.append(body)
                await spool.commit([support.entry(id, Segments.of(scratch.seal()), state=state)])
            else:
                await spool.commit([support.entry(id, body, state=state)])
            os.write(1, f"ack {id}\n".encode())

    await asyncio.gather(*(client(number) for number in range(4)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
