"""The daily reminder of what is on hold, over a real spool."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mailsec.app.overdue import Overdue
from mailsec.model.octets import Segments
from mailsec.model.queue import NewEntry, State
from mailsec.model.session import Origin
from mailsec.store.spool import SqliteSpool
from mailsec.testing import values
from mailsec.testing.gateway import settings
from mailsec.testing.runtime import EPOCH, FakeRuntime


@pytest.fixture
def spool(tmp_path):
    tmp_path.chmod(0o700)
    runtime = FakeRuntime()
    spool = SqliteSpool(str(tmp_path), 0, b"k" * 32, runtime)
    spool.open()
    yield spool
    spool.close()


def entry(id: str, state: State, age: timedelta, rule: str = "r") -> NewEntry:
    envelope = values.envelope("alice@example.org", "bob@example.net")
    octets = Segments.of(b"Subject: secret\r\n\r\nsecret\r\n")
    return NewEntry(
        id, state, envelope, octets, EPOCH - age, Origin.SUBMISSION, "l", state is not State.READY, reason=f"why {id}", rule=rule
    )


def test_only_what_is_on_hold_for_long_is_reported(spool, tmp_path):
    old, new = timedelta(days=6), timedelta(days=1)
    rows = [
        entry("old", State.HELD, old),
        entry("new", State.HELD, new),
        entry("ready", State.READY, old),
        entry("report", State.HELD, old, "report"),
    ]
    spool.runtime.run(spool.commit(rows))
    overdue = Overdue(str(tmp_path), spool, spool.runtime, settings())
    assert spool.runtime.run(overdue.remind()) == 1
    taken = spool.runtime.run(spool.take_ready())
    (report,) = [one for one in taken if one.entry.rule == "report"]
    text = report.entry.segments.join()
    assert b"why old" in text and b"why new" not in text and b"secret" not in text
