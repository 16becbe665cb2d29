"""Which rows are due: after a crash, after the clock was set, and after a row has taken its worker down again and again."""

from __future__ import annotations

import asyncio
import dataclasses
import sqlite3
import time

import pytest

from mailsec.errors import StoreError
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.queue import RecipientState, State
from mailsec.store.spool_queue import list_queue, make_wish
from mailsec.store.spool_rows import SCHEMA_VERSION
from tests.store.spool_support import entry
from tests.store.test_spool import spool_of


def crash(spool):
    """What a kill leaves: nothing is given back."""
    spool.close()


def test_a_ready_row_that_takes_its_worker_down_comes_alone_and_is_paused_in_the_end(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        await spool.commit([entry("poison"), *(entry(f"good{number}") for number in range(40))])
        seen = []
        for _ in range(12):
            while taken := await spool.take_ready():
                ids = [row.entry.id for row in taken]
                seen.append(ids)
                if "poison" in ids:
                    break
                for row in taken:
                    spool.finish(row.row)
                await spool.flush()
            crash(spool)
            spool = spool_of(tmp_path)
        # Three times it came with others; then by itself, behind all of them.
        assert [len(ids) > 1 for ids in seen if "poison" in ids][:3] == [True, True, True]
        assert ["poison"] in seen and len([ids for ids in seen if "poison" in ids]) <= 6
        (left,) = list_queue(tmp_path)
        assert left.id == "poison" and left.paused and "never ended" in left.reason
        spool.close()

    asyncio.run(play())


def test_a_suspect_that_is_delivered_or_tried_in_order_is_one_no_more(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        await spool.commit([entry("slow")])
        for _ in range(3):
            await spool.take_ready()
            crash(spool)
            spool = spool_of(tmp_path)
        (row,) = await spool.take_ready()
        await spool.settle(row.row, [(RecipientState.WAITING, "450 busy")], next_attempt=0.0)
        await spool.commit([entry("other")])
        assert {row.entry.id for row in await spool.take_ready()} == {"slow", "other"}
        spool.close()

    asyncio.run(play())


def test_a_clock_that_was_ahead_leaves_no_row_waiting_for_years(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        spool.runtime.ahead = 10 * 365 * 86400.0
        await spool.commit([entry("a"), entry("r", state=State.RAW)])
        (row,) = await spool.take_ready()
        await spool.settle(row.row, [(RecipientState.WAITING, "450 busy")], next_attempt=spool.runtime.now().timestamp() + 60)
        (raw,) = await spool.take_raw()
        await spool.postpone(raw.entry.id, need="token:x", reason="out")
        spool.runtime.ahead = 0.0
        assert await spool.take_ready() == [] and await spool.take_raw() == []
        await spool.come_back(7200.0)
        assert [row.entry.id for row in await spool.take_ready()] == ["a"]
        assert [row.entry.id for row in await spool.take_raw()] == ["r"]
        # What waits in order waits on.
        await spool.settle(row.row, [(RecipientState.WAITING, "450 busy")], next_attempt=spool.runtime.now().timestamp() + 3600)
        await spool.come_back(7200.0)
        assert await spool.take_ready() == []
        spool.close()

    asyncio.run(play())


def test_a_spool_of_an_older_mailsec_is_read_and_gets_what_it_lacks(tmp_path):
    async def play():
        spool = spool_of(tmp_path)
        await spool.commit([entry("old")])
        spool.close()
        connection = sqlite3.connect(tmp_path / "spool-0.sqlite")
        connection.executescript("ALTER TABLE entry DROP COLUMN delayed; PRAGMA user_version = 1")
        connection.close()
        spool = spool_of(tmp_path)
        (row,) = await spool.take_ready()
        assert row.entry.id == "old" and not row.delayed
        await spool.settle(row.row, [(RecipientState.WAITING, "450")], next_attempt=0.0, delayed=True)
        (row,) = await spool.take_ready()
        assert row.delayed
        assert spool._connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        spool.close()

    asyncio.run(play())


def test_a_spool_over_its_ceiling_refuses_for_now_and_takes_mail_again_by_itself(tmp_path):
    async def play():
        limits = dataclasses.replace(DEFAULT_LIMITS, spooled_messages=5)
        spool = spool_of(tmp_path, limits=limits)
        await spool.commit([entry(f"m{number}") for number in range(3)])
        await spool.commit([entry("raw", state=State.RAW), entry("held", state=State.HELD)])
        with pytest.raises(StoreError) as full:
            spool.check_room()
        assert (full.value.reply.code, full.value.reply.enhanced) == (451, "4.3.2")
        with pytest.raises(StoreError):
            await spool.commit([entry("more")])
        # What takes the place of something else is not refused.
        (raw,) = await spool.take_raw()
        await spool.commit([entry("done")], replaces=raw.entry.id)
        for row in await spool.take_ready():
            spool.finish(row.row)
        await spool.flush()
        spool.check_room()
        # What is counted is what is there, also after a restart and a deletion by hand.
        make_wish(tmp_path, list_queue(tmp_path), "delete", now=time.time)
        await spool.carry_out_wishes()
        assert spool.writer.rows == len(list_queue(tmp_path)) == 0
        spool.close()
        spool = spool_of(tmp_path, limits=limits)
        await spool.commit([entry("a"), entry("b")])
        assert spool.writer.rows == 2
        spool.close()

    asyncio.run(play())
