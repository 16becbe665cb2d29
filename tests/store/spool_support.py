"""A runtime over asyncio, and rows to put into spools: loaded by the tests of the spool, and by the processes that they kill."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import time
from datetime import UTC, datetime

from mailsec.model.address import Address
from mailsec.model.octets import Segments
from mailsec.model.queue import NewEntry, State
from mailsec.model.session import Envelope, Origin, Recipient

KEY = b"0123456789abcdef0123456789abcdef"


class Signal:
    def __init__(self):
        self.future = asyncio.get_running_loop().create_future()

    @property
    def fired(self):
        return self.future.done()

    def fire(self, value=None):
        if not self.future.done():
            self.future.set_result(value)

    async def wait(self):
        return await asyncio.shield(self.future)


class Runtime:
    """As much of `interfaces.Runtime` as a spool needs; its clock can be moved."""

    def __init__(self):
        self.ahead = 0.0
        self.threads = concurrent.futures.ThreadPoolExecutor(2)
        self.tasks = set()

    def now(self):
        return datetime.fromtimestamp(time.time() + self.ahead, UTC)

    def monotonic(self):
        return time.monotonic() + self.ahead

    def random(self, octets):
        return os.urandom(octets)

    async def sleep(self, seconds):
        await asyncio.sleep(seconds)

    def start(self, coroutine, name):
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def signal(self):
        return Signal()

    def in_thread(self, function, *args, lane="default"):
        return asyncio.get_running_loop().run_in_executor(self.threads, function, *args)


def entry(id, body=b"Subject: x\r\n\r\nbody\r\n", *, state=State.READY, recipients=("bob@example.net",), **more):
    """A row; `body` are octets or segments."""
    more.setdefault("header", b"Subject: x\r\n")
    return NewEntry(
        id=id,
        state=state,
        envelope=Envelope(Address.parse("alice@example.org"), tuple(Recipient(Address.parse(one)) for one in recipients)),
        segments=body if isinstance(body, Segments) else Segments.of(body),
        received_at=datetime(2026, 11, 22, 1, 2, 3, tzinfo=UTC),
        origin=more.pop("origin", Origin.SUBMISSION),
        listener="submission",
        **more,
    )
