"""The worker's loop over waiting rows: one row that our own code cannot process keeps no other waiting, and is not forgotten."""

from __future__ import annotations

from types import SimpleNamespace

from mailsec.app import worker as module
from mailsec.app.worker import WorkerProcess
from mailsec.errors import StorageFull, StoreError
from mailsec.testing.runtime import FakeRuntime


class Pipeline:
    def __init__(self) -> None:
        self.processed: list[str] = []

    async def resume(self, row):
        if row.entry.id == "bug":
            raise KeyError("a mistake of ours, with a secret in its text")
        if row.entry.id == "later":
            raise StoreError("not now")
        self.processed.append(row.entry.id)


class Spool:
    def __init__(self, *turns) -> None:
        self.turns = list(turns)
        self.put_back: list[tuple[str, str, str]] = []
        self.full = 0

    async def take_raw(self, limit):
        turn = self.turns.pop(0) if self.turns else []
        if isinstance(turn, Exception):
            raise turn
        return [SimpleNamespace(entry=SimpleNamespace(id=name)) for name in turn]

    async def postpone(self, id, *, need, reason):
        if self.full:
            self.full -= 1
            raise StorageFull("no room")
        self.put_back.append(("postponed", id, reason))

    async def postpone_failed(self, id, reason):
        self.put_back.append(("failed", id, reason))


def run(spool: Spool) -> Pipeline:
    """The loop, until the spool has nothing more to give."""
    runtime, pipeline = FakeRuntime(), Pipeline()
    worker = WorkerProcess.__new__(WorkerProcess)
    worker._stopping = worker._retiring = False
    worker.parts = SimpleNamespace(runtime=runtime, pipeline=pipeline, spool=spool)

    async def loop():
        task = runtime.start(worker._resume(), "resume")
        while spool.turns or spool.full:
            await runtime.sleep(1)
        await runtime.sleep(1)
        worker._stopping = True
        worker._rows.fire()
        await task

    runtime.run(loop())
    assert runtime.failures == []
    return pipeline


def test_row_that_breaks_our_code_keeps_no_other_waiting_and_its_attempt_is_counted():
    spool = Spool(["bug", "one", "later", "two"], ["three"])
    assert run(spool).processed == ["one", "two", "three"]
    assert sorted(spool.put_back) == [("failed", "bug", "unexpected error (KeyError)"), ("postponed", "later", "not now")]


def test_spool_that_breaks_our_code_does_not_end_the_loop():
    assert run(Spool(ValueError("a mistake of ours"), StoreError("away"), ["one"])).processed == ["one"]


def test_row_that_cannot_be_put_back_on_a_full_disk_is_put_back_later():
    spool = Spool(["later"], ["one"])
    spool.full = 3
    assert run(spool).processed == ["one"]
    assert spool.put_back == [("postponed", "later", "not now")]
    assert module._RESUME_SECONDS > 1
