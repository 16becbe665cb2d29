"""The spool through its public face: durable rows, states, secrets at rest, wishes, faults of the disk."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mailsec.errors import LocalProtocolError, SchemaError, StorageFull, StoreError
from mailsec.model.address import Address
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.octets import Segments
from mailsec.model.queue import RecipientState, State
from mailsec.model.session import Envelope, Recipient
from mailsec.store import spool_files, spool_writer
from mailsec.store.spool import SqliteSpool, retry_delay
from tests.store import spool_support as support
from tests.store.spool_support import entry

PROJECT = Path(__file__).resolve().parents[2]
LARGE = os.urandom(700_000)


def spool_of(directory, *, index=0, key=support.KEY, reserve=0, limits=DEFAULT_LIMITS):
    spool = SqliteSpool(directory, index, key, support.Runtime(), limits, reserve=reserve)
    spool.open()
    return spool


def run(coroutine):
    return asyncio.run(coroutine)


def reopened(directory, **more):
    return spool_of(directory, **more)


def test_what_was_committed_is_there_after_the_process_was_gone(tmp_path):
    spool = spool_of(tmp_path)
    run(spool.commit([entry("a", b"one"), entry("b", LARGE, message_id="<m@x>", rule="r", recipients=("x@y.example", "z@y.example"))]))
    spool.close()

    async def look():
        again = reopened(tmp_path)
        rows = await again.take_ready()
        assert [row.entry.id for row in rows] == ["a", "b"]
        assert rows[0].octets.view(0, 10) == b"one"
        assert b"".join(rows[1].octets.blocks()) == LARGE
        assert rows[1].entry.segments.join() == LARGE
        expected = entry("b", LARGE, message_id="<m@x>", rule="r", recipients=("x@y.example", "z@y.example"))
        assert dataclasses.replace(rows[1].entry, segments=expected.segments) == expected
        assert await again.take_ready() == []
        again.close()

    run(look())


def test_every_field_of_an_envelope_comes_back(tmp_path):
    envelope = Envelope(
        None,
        (
            Recipient(Address('"a \\" b"', "exämple.org"), "NEVER", "rfc822;x"),
            Recipient(Address("postmaster", "")),
            Recipient(Address("ü", "[IPv6:::1]"), "SUCCESS,FAILURE"),
        ),
        12345,
        "8BITMIME",
        True,
        "HDRS",
        "QQ314159",
        "<>",
    )
    given = dataclasses.replace(
        entry("a", b"x", identity="alice", reason="why", verdict="pass", session=b'{"a": 1}', header=b"H: 1\r\n", sensitive=True),
        envelope=envelope,
    )

    async def play():
        spool = spool_of(tmp_path)
        await spool.commit([given])
        [row] = await spool.take_ready()
        assert dataclasses.replace(row.entry, segments=given.segments) == given
        spool.close()

    run(play())


def test_commits_that_wait_together_share_one_sync(tmp_path, monkeypatch):
    syncs = []
    real = os.fdatasync
    spool = spool_of(tmp_path)
    monkeypatch.setattr(spool_writer.os, "fdatasync", lambda descriptor: (syncs.append(descriptor), real(descriptor))[1])

    async def play():
        await asyncio.gather(*(spool.commit([entry(f"{n}", b"body %d" % n)]) for n in range(100)))
        assert len(syncs) == 1
        rows = [row for _ in range(4) for row in await spool.take_ready()]
        assert sorted(row.entry.segments.join() for row in rows) == sorted(b"body %d" % n for n in range(100))

    run(play())
    spool.close()


def test_fresh_rows_are_handed_over_in_memory_and_only_once_they_are_durable(tmp_path, monkeypatch):
    handed = []
    synced = []
    real = os.fdatasync
    spool = spool_of(tmp_path)
    monkeypatch.setattr(spool_writer.os, "fdatasync", lambda descriptor: (real(descriptor), synced.append(1))[0])
    spool.on_ready = lambda rows: handed.append((len(synced), rows))

    async def play():
        await spool.commit([entry("a", b"one"), entry("h", state=State.HELD), entry("r", state=State.RAW)])
        await asyncio.sleep(0)
        [(syncs_before, [row])] = handed
        assert syncs_before == 1
        assert row.entry.id == "a"
        assert bytes(row.octets.view(0, 9)) == b"one"
        assert await spool.take_ready() == []
        spool.finish(row.row)
        await spool.flush()
        assert count(tmp_path) == 2

    run(play())
    spool.close()


def count(directory, where="1"):
    connection = sqlite3.connect(f"file:{directory}/spool-0.sqlite?mode=ro", uri=True)
    try:
        return connection.execute(f"SELECT count(*) FROM entry WHERE {where}").fetchone()[0]
    finally:
        connection.close()


def wish(directory, id, word):
    connection = sqlite3.connect(f"{directory}/spool-0.sqlite")
    connection.execute("UPDATE entry SET wish = ? WHERE id = ?", (word, id))
    connection.commit()
    connection.close()


def test_what_was_in_hand_of_a_dead_process_is_due_again(tmp_path):
    spool = spool_of(tmp_path)
    spool.on_ready = lambda rows: None
    run(spool.commit([entry("a"), entry("b", state=State.RAW)]))
    run(spool.take_raw())
    spool.close()
    again = reopened(tmp_path)
    assert [row.entry.id for row in run(again.take_ready())] == ["a"]
    assert [row.entry.id for row in run(again.take_raw())] == ["b"]
    again.close()


def test_two_processes_cannot_own_one_spool(tmp_path):
    spool = spool_of(tmp_path)
    with pytest.raises(StoreError, match="another process"):
        spool_of(tmp_path)
    spool.close()
    spool_of(tmp_path).close()


def test_a_newer_spool_is_not_touched(tmp_path):
    spool_of(tmp_path).close()
    connection = sqlite3.connect(tmp_path / "spool-0.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SchemaError):
        spool_of(tmp_path)


# -- secrets at rest


@pytest.mark.parametrize("size", [100, 700_000])
@pytest.mark.parametrize("state", [State.RAW, State.HELD, State.READY])
def test_raw_held_and_decrypted_rows_are_unreadable_on_disk(tmp_path, state, size):
    word = b"attack at dawn, and tell nobody "
    body = (word * (size // len(word) + 1))[:size]
    header = b"Subject: the plan of attack\r\n"

    async def play():
        spool = spool_of(tmp_path)
        scratch = spool.scratch()
        scratch.append(body)
        octets = scratch.seal()
        await spool.commit(
            [entry("s", Segments.of(octets), state=state, secret=state is State.READY, header=header, session=b'{"peer": "secretpeer"}')]
        )
        scratch.discard()
        if state is State.HELD:
            wish(tmp_path, "s", "release")
            await spool.carry_out_wishes()
        rows = await (spool.take_ready() if state is State.READY else spool.take_raw())
        assert rows[0].entry.segments.join() == body
        assert rows[0].entry.header == header
        assert rows[0].entry.session == b'{"peer": "secretpeer"}'
        spool.close()

    run(play())
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"attack" not in data, path
            assert b"secretpeer" not in data, path


def test_a_changed_row_decides_nothing_and_keeps_nobody_waiting(tmp_path):
    spool = spool_of(tmp_path)
    run(spool.commit([entry("bad", state=State.RAW), entry("good", state=State.RAW)]))
    connection = sqlite3.connect(tmp_path / "spool-0.sqlite")
    connection.execute("UPDATE entry SET body = (SELECT body FROM entry WHERE id = 'good') WHERE id = 'bad'")
    connection.commit()
    connection.close()
    assert [row.entry.id for row in run(spool.take_raw())] == ["good"]
    assert count(tmp_path, "id = 'bad' AND state = 'held' AND reason LIKE '%changed%'") == 1
    spool.close()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("recipients", "not json"),
        ("recipients", "[3]"),
        ("recipients", "{}"),
        ("received_at", "soon"),
        ("origin", "moon"),
        ("progress", "[1]"),
    ],
)
@pytest.mark.parametrize("state", [State.RAW, State.READY])
def test_a_damaged_row_keeps_nobody_waiting(tmp_path, column, value, state):
    spool = spool_of(tmp_path)
    run(spool.commit([entry("bad", state=state), entry("good", state=state)]))
    connection = sqlite3.connect(tmp_path / "spool-0.sqlite")
    connection.execute(f"UPDATE entry SET {column} = ? WHERE id = 'bad'", (value,))
    connection.commit()
    connection.close()
    taken = run(spool.take_raw() if state is State.RAW else spool.take_ready())
    assert "good" in [row.entry.id for row in taken]
    if len(taken) == 1:
        assert count(tmp_path, "id = 'bad' AND paused = 1 AND reason LIKE '%cannot be read%'") == 1
    spool.close()


def test_without_the_data_key_secret_rows_are_refused_not_written_in_clear(tmp_path):
    spool = spool_of(tmp_path, key=None)
    with pytest.raises(StoreError, match="data key"):
        run(spool.commit([entry("a", state=State.RAW)]))
    assert count(tmp_path) == 0
    spool.close()


# -- raw rows


def test_a_row_that_takes_its_worker_down_three_times_is_held(tmp_path):
    spool = spool_of(tmp_path)
    run(spool.commit([entry("poison", state=State.RAW)]))
    for _ in range(3):
        assert [row.entry.id for row in run(spool.take_raw())] == ["poison"]
        spool.close()  # as a kill does: nothing was put back
        spool = reopened(tmp_path)
    assert run(spool.take_raw()) == []
    assert count(tmp_path, "state = 'held' AND reason LIKE '%begun 3 times%'") == 1
    spool.close()


def test_a_row_that_our_own_code_fails_on_three_times_is_held(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        await spool.commit([entry("r", state=State.RAW)])
        for _ in range(3):
            assert len(await spool.take_raw()) == 1
            await spool.postpone_failed("r", "unexpected error (KeyError)")
            assert await spool.take_raw() == []
            spool.runtime.ahead += 601
        assert await spool.take_raw() == []
        assert count(tmp_path, "state = 'held'") == 1
        spool.close()

    run(play())


def test_a_row_that_waits_in_order_is_never_held_for_it(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        await spool.commit([entry("r", state=State.RAW, need="token:HSM")])
        for attempt in range(8):
            [row] = await spool.take_raw()
            assert row.attempts == attempt
            await spool.postpone("r", need="token:HSM", reason="the token is out")
            assert await spool.take_raw() == []
            spool.runtime.ahead += 601
        spool.close()

    run(play())


def test_a_raw_row_waits_longer_each_time_and_is_woken_by_what_it_needs(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        woken = []
        spool.on_raw = lambda: woken.append(1)
        await spool.commit([entry("r", state=State.RAW)])
        assert woken
        await spool.take_raw()
        await spool.postpone("r", need="token:HSM", reason="out")
        await spool.wake("token:other")
        assert await spool.take_raw() == []
        await spool.wake("token:HSM")
        [row] = await spool.take_raw()
        assert row.entry.need == "token:HSM"
        await spool.hold("r", "needs a person")
        spool.runtime.ahead += 1e6
        assert await spool.take_raw() == []
        spool.close()

    run(play())


def test_a_processed_row_is_replaced_in_one_transaction(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        await spool.commit([entry("r", LARGE, state=State.RAW)])
        with pytest.raises(LocalProtocolError):
            await spool.commit([entry("r.1")], replaces="r")
        await spool.take_raw()
        await spool.commit([entry("r.1"), entry("r.2")], replaces="r")
        assert count(tmp_path) == 2
        assert sorted(row.entry.id for row in await spool.take_ready()) == ["r.1", "r.2"]
        assert list((tmp_path / "spool-0.bodies").iterdir()) == []
        spool.close()

    run(play())


def test_the_relay_is_never_handed_a_raw_or_held_row(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        handed = []
        spool.on_ready = handed.extend
        await spool.commit([entry("r", state=State.RAW), entry("h", state=State.HELD)])
        for word in ("flush", "release", "flush"):
            wish(tmp_path, "r", word)
            wish(tmp_path, "h", word)
            await spool.carry_out_wishes()
            spool.runtime.ahead += 10_000
            assert await spool.take_ready() == []
        assert handed == []
        assert sorted(row.entry.id for row in await spool.take_raw()) == ["h", "r"]
        spool.close()

    run(play())


# -- what became of ready rows


def test_progress_of_recipients_is_kept_with_the_next_attempt(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        await spool.commit([entry("a", recipients=("x@a.example", "y@a.example"))])
        [row] = await spool.take_ready()
        progress = ((RecipientState.DELIVERED, "250 ok"), (RecipientState.WAITING, "450 4.2.1 busy"))
        await spool.settle(row.row, progress, next_attempt=spool.runtime.now().timestamp() + 60)
        assert await spool.take_ready() == []
        spool.runtime.ahead += 61
        [row] = await spool.take_ready()
        assert row.attempts == 1
        assert row.progress == progress
        spool.close()

    run(play())


def test_a_report_is_committed_with_the_failure_that_it_reports(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        await spool.commit([entry("a", LARGE)])
        [row] = await spool.take_ready()
        await spool.settle(row.row, ((RecipientState.FAILED, "550 no"),), next_attempt=None, reports=[entry("a.dsn")])
        assert [row.entry.id for row in await spool.take_ready()] == ["a.dsn"]
        assert count(tmp_path) == 1
        assert list((tmp_path / "spool-0.bodies").iterdir()) == []
        spool.close()

    run(play())


def test_rows_that_are_given_back_are_read_again(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        handed = []
        spool.on_ready = handed.extend
        await spool.commit([entry("a", LARGE), entry("b")])
        await spool.give_back([row.row for row in handed])
        assert [row.entry.id for row in await spool.take_ready()] == ["a", "b"]
        spool.close()

    run(play())


def test_retries_come_later_each_time():
    assert [retry_delay(attempts, 60, 3600) for attempts in (1, 2, 3, 7, 1000)] == [60, 120, 240, 3600, 3600]


# -- wishes


def test_a_paused_row_stays_ready_and_waits(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        told = []
        spool.on_wish = lambda row: told.append(row) or True
        await spool.commit([entry("a")])
        wish(tmp_path, "a", "hold")
        assert await spool.carry_out_wishes() == 1
        assert await spool.carry_out_wishes() == 0
        assert told == [1]
        assert await spool.take_ready() == []
        assert count(tmp_path, "state = 'ready' AND paused = 1") == 1
        wish(tmp_path, "a", "release")
        await spool.carry_out_wishes()
        assert [row.entry.id for row in await spool.take_ready()] == ["a"]
        spool.close()

    run(play())


def test_a_deleted_row_takes_its_file_along(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        await spool.commit([entry("a", LARGE)])
        assert len(list((tmp_path / "spool-0.bodies").iterdir())) == 1
        wish(tmp_path, "a", "delete")
        await spool.carry_out_wishes()
        assert count(tmp_path) == 0
        assert list((tmp_path / "spool-0.bodies").iterdir()) == []
        spool.close()

    run(play())


def test_an_unknown_wish_changes_nothing(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        await spool.commit([entry("a", state=State.HELD)])
        wish(tmp_path, "a", "ready'; DROP TABLE entry")
        await spool.carry_out_wishes()
        assert count(tmp_path, "state = 'held' AND wish IS NULL") == 1
        spool.close()

    run(play())


# -- faults


def test_a_full_disk_is_452_and_it_recovers(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        await spool.commit([entry("before")])
        pages = spool._connection.execute("PRAGMA page_count").fetchone()[0]
        spool._connection.execute(f"PRAGMA max_page_count = {pages + 3}")
        results = await asyncio.gather(*(spool.commit([entry(f"{n}", b"x" * 30_000)]) for n in range(5)), return_exceptions=True)
        assert [type(result) for result in results] == [StorageFull] * 5
        assert results[0].reply.code == 452
        spool._connection.execute("PRAGMA max_page_count = 1000000")
        await spool.commit([entry("after", b"x" * 30_000)])
        assert [row.entry.id for row in await spool.take_ready()] == ["before", "after"]
        spool.close()

    run(play())


def test_a_full_disk_while_a_large_body_is_written_leaves_nothing(tmp_path, monkeypatch):
    async def play():
        spool = spool_of(tmp_path)

        def full(descriptor, chunk):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("mailsec.store.scratch.os.write", full)
            with pytest.raises(StorageFull):
                await spool.commit([entry("a", LARGE)])
        assert list((tmp_path / "spool-0.bodies").iterdir()) == []
        assert count(tmp_path) == 0
        await spool.commit([entry("a", LARGE)])
        spool.close()

    run(play())


def test_too_little_room_is_seen_before_a_message_is_taken(tmp_path):
    async def play():
        spool = spool_of(tmp_path, reserve=1 << 60)
        with pytest.raises(StorageFull):
            spool.check_room()
        with pytest.raises(StorageFull):
            await spool.commit([entry("a")])
        await asyncio.sleep(0.05)
        spool.close()

    run(play())


def test_large_messages_that_never_end_leave_the_room_that_deletions_need(tmp_path):
    spool = spool_of(tmp_path, reserve=1 << 60)
    scratch = spool.scratch()
    scratch.append(b"x" * 1000)  # in memory
    with pytest.raises(StorageFull):
        scratch.append(LARGE * 4)
    scratch.discard()
    spool.close()


def test_promise_1_a_commit_that_waited_while_a_sync_failed_is_not_promised(tmp_path, monkeypatch):
    """The log is a chain: behind pages that never reached the disk nothing of it can be read back after a loss of power."""
    in_sync, go_on = threading.Event(), threading.Event()
    real, failures = os.fdatasync, []

    def fails_once(descriptor):
        if not failures:
            failures.append(descriptor)
            in_sync.set()
            assert go_on.wait(10)
            raise OSError(5, "Input/output error")
        real(descriptor)

    async def play():
        spool = spool_of(tmp_path)
        monkeypatch.setattr(spool_writer.os, "fdatasync", fails_once)
        first = asyncio.ensure_future(spool.commit([entry("a")]))
        await asyncio.to_thread(in_sync.wait, 10)
        second = asyncio.ensure_future(spool.commit([entry("b")]))
        await asyncio.sleep(0)
        go_on.set()
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(result) for result in results] == [StoreError, StoreError]
        # It recovers: what is committed now is copied into the database first.
        spool.runtime.ahead += 10
        await spool.commit([entry("c")])
        spool.close()

    run(play())


def test_after_a_failed_sync_nothing_is_promised_until_it_is_mended(tmp_path, monkeypatch):
    async def play():
        spool = spool_of(tmp_path)

        def fails(descriptor):
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(spool_writer.os, "fdatasync", fails)
            for id in ("a", "b"):
                with pytest.raises(StoreError):
                    await spool.commit([entry(id)])
        # It mends itself: what the failed sync left in doubt is written afresh before anything is promised again.
        spool.runtime.ahead += 2
        await spool.commit([entry("c")])
        assert (tmp_path / "spool-0.sqlite").read_bytes().count(b"Subject: x\r\n\r\nbody") == 1
        spool.close()

    run(play())


def test_a_disk_that_is_really_full_is_452_and_it_recovers(tmp_path):
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("a file system of a few megabytes needs root and mount namespaces")
    command = (
        f"mount -t tmpfs -o size=16m tmpfs {tmp_path} && exec {sys.executable} {Path(__file__).with_name('spool_full_disk.py')} {tmp_path}"
    )
    run = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command], capture_output=True, env={**os.environ, "PYTHONPATH": str(PROJECT)}, timeout=60
    )
    assert run.returncode == 0, run.stderr.decode()[-2000:]


def test_a_read_only_spool_is_451(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        await spool.commit([entry("a")])
        spool._connection.execute("PRAGMA query_only = ON")
        with pytest.raises(StoreError) as caught:
            await spool.commit([entry("b")])
        assert caught.value.reply.code == 451
        spool._connection.execute("PRAGMA query_only = OFF")
        await spool.commit([entry("b")])
        spool.close()

    run(play())


def test_one_row_that_cannot_be_written_does_not_take_the_others_with_it(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        results = await asyncio.gather(
            spool.commit([entry("a")]),
            spool.commit([entry("\udcff")]),
            spool.commit([entry("c")]),
            return_exceptions=True,
        )
        assert results[0] is None
        assert isinstance(results[1], StoreError)
        assert results[2] is None
        assert [row.entry.id for row in await spool.take_ready()] == ["a", "c"]
        spool.close()

    run(play())


def test_a_command_that_holds_the_lock_delays_and_harms_nothing(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        other = sqlite3.connect(tmp_path / "spool-0.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        task = asyncio.ensure_future(spool.commit([entry("a")]))
        await asyncio.sleep(0.1)
        assert not task.done()
        other.execute("COMMIT")
        await task
        other.close()
        spool.close()

    run(play())


def test_the_log_is_checkpointed_and_does_not_grow_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(spool_writer, "_CHECKPOINT_OCTETS", 200_000)

    async def play():
        spool = spool_of(tmp_path)
        for round in range(40):
            await asyncio.gather(*(spool.commit([entry(f"{round}.{n}", b"x" * 4000)]) for n in range(10)))
            for row in await spool.take_ready():
                spool.finish(row.row)
        await spool.flush()
        assert (tmp_path / "spool-0.sqlite-wal").stat().st_size < 2_000_000
        assert count(tmp_path) == 0
        spool.close()

    run(play())


def test_leftovers_are_removed_at_the_next_start(tmp_path):
    spool = spool_of(tmp_path)
    run(spool.commit([entry("a", LARGE)]))
    spool.close()
    (tmp_path / "spool-0.bodies" / "999.body").write_bytes(b"left over")
    (tmp_path / "spool-0.bodies" / "7.body.new").write_bytes(b"half")
    again = reopened(tmp_path)
    assert [path.name for path in (tmp_path / "spool-0.bodies").iterdir()] == ["1.body"]
    again.close()


def test_a_file_system_that_cannot_name_unnamed_files(tmp_path, monkeypatch):
    monkeypatch.setattr("mailsec.store.scratch.os.O_TMPFILE", os.O_DIRECTORY | 0o100000000)

    async def play():
        spool = spool_of(tmp_path)
        scratch = spool.scratch()
        scratch.append(LARGE)
        await spool.commit([entry("a", Segments.of(scratch.seal()))])
        [row] = await spool.take_ready()
        assert row.entry.segments.join() == LARGE
        assert [path.name for path in (tmp_path / "spool-0.bodies").iterdir()] == ["1.body"]
        spool.close()

    run(play())


def test_what_is_there_already_is_named_not_copied(tmp_path, monkeypatch):
    def never(*arguments):
        raise AssertionError("copied")

    async def play():
        spool = spool_of(tmp_path)
        scratch = spool.scratch()
        scratch.append(LARGE)
        octets = scratch.seal()
        monkeypatch.setattr(spool_files.BodyFiles, "_copy", never)
        await spool.commit([entry("a", Segments.of(octets)), entry("b", Segments.of(octets))])
        scratch.discard()
        rows = await spool.take_ready()
        assert [row.entry.segments.join() for row in rows] == [LARGE, LARGE]
        spool.close()

    run(play())
