"""A spool in which one call of the operating system after the other fails or kills: `every_call.py KIND ERROR DIRECTORY STEP`, under interposer.c.

KIND is sync, name, remove, write or open; ERROR is kill, EIO or ENOSPC. For each N it plays the same day of a spool in a process of its own, in which
call number N is the one; then it opens what is left, and looks for what was promised. STEP 1 plays every N, STEP 5 every fifth. It prints how many it
played, and the first N that there was no call for. Run by test_every_call.py.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import hashlib
import os
import shutil
import sys
import traceback
from pathlib import Path

from mailsec.errors import StoreError
from mailsec.model.octets import Segments
from mailsec.model.queue import RecipientState, State
from mailsec.store import spool_writer
from mailsec.store.spool import SqliteSpool
from mailsec.store.spool_adopt import adopt_orphans
from tests.store import spool_support as support

KINDS = ("none", "sync", "name", "remove", "write", "open")
spool_writer._CHECKPOINT_OCTETS = 60_000
spool_writer._RETRY_DELAY = 0.01
spool_writer._DISCARD_DELAY = 0.001


def body_of(id: str) -> bytes:
    size = 300_000 if "large" in id else 3000
    digest = hashlib.sha256(id.encode()).digest()
    return (digest * (size // 32 + 1))[:size]


class Day:
    """What is done, and what was promised and let go."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.told = os.open(f"{directory}.told", os.O_RDWR | os.O_CREAT | os.O_APPEND)

    def tell(self, word: str, id: str) -> None:
        os.writev(self.told, [f"{word} {id}\n".encode()])  # no write() that could be the one

    async def commit(self, spool: SqliteSpool, *ids: str, state: State = State.READY, replaces: str = "") -> bool:
        entries = []
        for id in ids:
            scratch = spool.scratch()
            scratch.append(body_of(id))
            entries.append(support.entry(id, Segments.of(scratch.seal()), state=state))
        try:
            if replaces:
                self.tell("out", replaces)
            await spool.commit(entries, replaces=replaces)
        except StoreError:
            return False
        for id in ids:
            self.tell("ack", id)
        return True

    async def play(self) -> None:
        """A day: mail comes in small and large, waits, is delivered, deleted, moved from a spool that nobody owns any more."""
        spool = SqliteSpool(self.directory, 0, support.KEY, support.Runtime(), reserve=0)
        spool.open()
        for turn in range(2):
            await self.commit(spool, f"{turn}-small-1", f"{turn}-large-1")
            await self.commit(spool, f"{turn}-raw", f"{turn}-raw-large", state=State.RAW)
            await self.commit(spool, f"{turn}-held-large", state=State.HELD)
            for row in await self.later(spool.take_ready):
                if "large" in row.entry.id or turn:
                    self.tell("out", row.entry.id)
                    spool.finish(row.row)
                else:
                    await self.later(
                        lambda row=row: spool.settle(row.row, [(RecipientState.WAITING, "450 later")], next_attempt=2_000_000_000.0)
                    )
            for row in await self.later(spool.take_raw):
                await self.commit(spool, f"{row.entry.id}-done-large", replaces=row.entry.id)
            await self.later(spool.flush)
        if Path(f"{self.directory}/spool-1.sqlite").exists():
            await self.later(lambda: adopt_orphans(spool, {0}))
        await self.later(lambda: self.must(spool, "last-large"))
        spool.close()

    async def must(self, spool: SqliteSpool, id: str) -> None:
        if not await self.commit(spool, id):
            raise StoreError("not yet")

    async def later(self, do):
        """Once more where it could not be done: a fault passes, and everything goes on by itself (promise 10)."""
        for _ in range(20):
            try:
                return await do()
            except StoreError:
                await asyncio.sleep(0.02)
        raise AssertionError("it does not recover")


def orphan(directory: str) -> None:
    """A spool of a worker that there is no more."""

    async def fill() -> None:
        spool = SqliteSpool(directory, 1, support.KEY, support.Runtime(), reserve=0)
        spool.open()
        await spool.commit([support.entry(id, body_of(id)) for id in ("orphan", "orphan-large")])
        spool.close()

    asyncio.run(fill())


async def check(day: Day, acknowledged: set[str], gone: set[str]) -> None:
    spool = SqliteSpool(day.directory, 0, support.KEY, support.Runtime(), reserve=0)
    spool.open()
    await adopt_orphans(spool, {0})
    connection = spool._connection
    connection.execute("UPDATE entry SET wish = 'retry'")
    while await spool.carry_out_wishes():
        pass
    found = {}
    while rows := await spool.take_ready(1000) + await spool.take_raw(1000):
        for row in rows:
            found[row.entry.id] = row.entry.segments.join()
    wrong = [id for id, body in found.items() if body != body_of(id)]
    lost = acknowledged - gone - found.keys()
    assert not wrong and not lost, f"lost {sorted(lost)}, changed {wrong}"
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    files = {path.name for path in Path(f"{day.directory}/spool-0.bodies").iterdir()}
    named = {name for (name,) in connection.execute("SELECT file FROM entry WHERE file IS NOT NULL")}
    assert named <= files, "a row names a file that is not there"
    spool.close()


def one(kind: int, number: int, error: int, directory: str) -> bool:
    """Play a day in which that call strikes; False where there was no such call."""
    shutil.rmtree(directory, ignore_errors=True)
    Path(directory).mkdir(parents=True)
    Path(f"{directory}.told").unlink(missing_ok=True)
    orphan(directory)
    day = Day(directory)
    child = os.fork()
    if child == 0:
        interposer = ctypes.CDLL(None)
        interposer.mailsec_arm(kind, ctypes.c_long(number), error)
        try:
            asyncio.run(day.play())
        except BaseException as failure:
            # What cannot be opened is not started: nothing was promised then, and the next start finds what was there before.
            if not isinstance(failure, StoreError):
                traceback.print_exc()
                os._exit(3)
        os._exit(0 if interposer.mailsec_seen() >= number else 4)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 4, -9), f"call {number} of {KINDS[kind]}: the process ended with {code}"
    told = [line.split() for line in Path(f"{directory}.told").read_text().splitlines()]
    acknowledged = {id for word, id in told if word == "ack"} | {"orphan", "orphan-large"}
    gone = {id for word, id in told if word == "out"}
    # A row that is replaced is promised until its successor is; either will do.
    gone -= {id for id in gone if id.endswith(("raw", "raw-large"))} - {id.removesuffix("-done-large") for id in acknowledged}
    try:
        asyncio.run(check(day, acknowledged, gone))
    except AssertionError as failure:
        raise AssertionError(f"call {number} of {KINDS[kind]} with {error or 'kill'}: {failure}") from failure
    return code != 4


def main() -> None:
    kind, error, directory, step = KINDS.index(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
    number = 1 + int.from_bytes(os.urandom(2), "big") % step
    played = 0
    while one(kind, number, 0 if error == "kill" else getattr(errno, error), directory):
        number += step
        played += 1
    print(played, number)


if __name__ == "__main__":
    main()
