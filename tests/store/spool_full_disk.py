"""A process whose spool is on a file system of 16 MiB: `spool_full_disk.py DIRECTORY`. Run by test_spool.py; exit code 0 is "all was well"."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from mailsec.errors import StorageFull
from mailsec.store import spool_writer
from mailsec.store.spool import SqliteSpool
from tests.store import spool_support as support


async def main(directory: str) -> None:
    spool_writer._CHECKPOINT_OCTETS = 1_000_000
    runtime = support.Runtime()
    spool = SqliteSpool(directory, 0, support.KEY, runtime, reserve=8_000_000)
    spool.open()
    taken = []

    async def fill(turns):
        """How many of so many messages were refused with 452."""
        refused = 0
        for turn in range(turns):
            runtime.ahead += 1
            try:
                await spool.commit([support.entry(f"{turn}", os.urandom(300_000 if turn % 2 else 50_000))])
                taken.append(turn)
            except StorageFull:
                refused += 1
        return refused

    assert await fill(80) > 20
    assert len(taken) > 10
    # Another program takes the reserve too.
    with (Path(directory) / "others").open("wb", buffering=0) as others:
        try:
            while True:
                others.write(bytes(4096))
        except OSError:
            pass
    assert await fill(5) == 5
    # Mail can go on nevertheless: to be taken by the relay, and to be deleted.
    rows = []
    for _ in range(3):
        try:
            rows += await spool.take_ready(1000)
        except StorageFull:
            runtime.ahead += 2
    assert len(rows) == len(taken)
    assert all(row.entry.segments.join() for row in rows)
    for row in rows:
        spool.finish(row.row)
    await spool.flush()
    assert not list((Path(directory) / "spool-0.bodies").iterdir())
    (Path(directory) / "others").unlink()
    for _ in range(5):
        runtime.ahead += 2
        try:
            await spool.commit([support.entry("after", os.urandom(300_000))])
            break
        except StorageFull:
            await asyncio.sleep(0.2)
    else:
        raise AssertionError("it does not recover")
    spool.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
