"""The worker's loop over waiting rows: one row that our own code cannot process does not keep the others waiting."""

from __future__ import annotations

from types import SimpleNamespace

from mailsec.app.worker import WorkerProcess
from mailsec.errors import StoreError
from mailsec.testing.runtime import FakeRuntime


def test_row_that_breaks_our_code_keeps_no_other_waiting():
    processed, postponed = [], []

    class Pipeline:
        async def resume(self, row):
            if row.entry.id == "bug":
                raise KeyError("a mistake of ours")
            if row.entry.id == "later":
                raise StoreError("not now")
            processed.append(row.entry.id)

    class Spool:
        async def postpone(self, id, *, need, reason):
            postponed.append((id, reason))

    runtime = FakeRuntime()
    worker = WorkerProcess.__new__(WorkerProcess)
    worker.parts = SimpleNamespace(runtime=runtime, pipeline=Pipeline(), spool=Spool())
    rows = [SimpleNamespace(entry=SimpleNamespace(id=name)) for name in ("bug", "one", "later", "two")]
    runtime.run(worker._resume_all(rows))
    assert processed == ["one", "two"] and postponed == [("later", "not now")]
    assert [type(error) for error in runtime.failures] == [KeyError]
