"""What is on hold for long: its sender is told in its place, or the postmaster reminded, over a real spool."""

from __future__ import annotations

import dataclasses
import time
from datetime import timedelta

import pytest

from mailsec.app.overdue import Overdue
from mailsec.model.octets import Segments
from mailsec.model.queue import NewEntry, State
from mailsec.model.session import Envelope, Origin, Recipient
from mailsec.store.spool import SqliteSpool
from mailsec.store.spool_queue import list_queue, make_wish
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


def test_only_what_is_on_hold_for_long_is_reported(spool):
    old, new = timedelta(days=6), timedelta(days=1)
    rows = [
        entry("old", State.HELD, old),
        entry("new", State.HELD, new),
        entry("ready", State.READY, old),
        entry("report", State.HELD, old, "report"),
    ]
    spool.runtime.run(spool.commit(rows))
    overdue = Overdue(spool, spool.runtime, settings())
    assert spool.runtime.run(overdue.remind()) == 1
    taken = spool.runtime.run(spool.take_ready())
    (report,) = [one for one in taken if one.entry.rule == "report"]
    text = report.entry.segments.join()
    assert b"why old" in text and b"why new" not in text and b"secret" not in text


def test_the_sender_is_told_of_what_nobody_released_and_the_report_stands_in_its_place(spool, tmp_path):
    old = timedelta(days=6)
    silent = entry("silent", State.HELD, old)
    envelope = Envelope(silent.envelope.reverse_path, tuple(Recipient(one.address, "NEVER") for one in silent.envelope.recipients))
    rows = [
        entry("old", State.HELD, old),
        entry("new", State.HELD, timedelta(days=1)),
        dataclasses.replace(silent, envelope=envelope),
        dataclasses.replace(entry("internet", State.HELD, old), origin=Origin.INTERNET),
        dataclasses.replace(entry("null", State.HELD, old), envelope=values.envelope(None, "bob@example.net")),
    ]
    spool.runtime.run(spool.commit(rows))
    overdue = Overdue(spool, spool.runtime, settings())
    assert spool.runtime.run(overdue.give_up()) == 1
    assert {one.id for one in list_queue(tmp_path)} == {"new", "silent", "internet", "null", "old.expired"}
    (report,) = spool.runtime.run(spool.take_ready())
    text = report.entry.segments.join()
    assert [str(one.address) for one in report.entry.envelope.recipients] == ["alice@example.org"]
    assert b"why old" in text and b"Status: 4.4.7" in text and b"Action: failed" in text and b"secret" not in text
    assert spool.runtime.run(overdue.give_up()) == 0


def test_what_a_person_keeps_back_or_has_just_released_is_not_given_up(spool, tmp_path):
    rows = [entry(id, State.RAW if id == "kept" else State.HELD, timedelta(days=6)) for id in ("kept", "released")]
    spool.runtime.run(spool.commit(rows))
    make_wish(tmp_path, [one for one in list_queue(tmp_path) if one.id == "kept"], "hold", now=time.time)
    spool.runtime.run(spool.carry_out_wishes())
    make_wish(tmp_path, [one for one in list_queue(tmp_path) if one.id == "released"], "release", now=time.time)
    overdue = Overdue(spool, spool.runtime, settings())
    assert spool.runtime.run(overdue.give_up()) == 0
    assert {one.id for one in list_queue(tmp_path)} == {"kept", "released"}
