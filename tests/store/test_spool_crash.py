"""kill -9 at every named crash point, and at random instants: whatever was acknowledged is there, whole and readable (promise 1)."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mailsec.store.crashpoints import CRASH_POINTS
from mailsec.store.spool import SqliteSpool
from mailsec.store.spool_adopt import adopt_orphans
from tests.store import spool_support as support
from tests.store import spool_victim as victim

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]


WORKING = [point for point in CRASH_POINTS if not point.startswith("adopt.")]


def run_victim(directory, point="", seconds=20.0):
    """What the victim acknowledged and let go before it died."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "MAILSEC_CRASH_POINT": point}
    process = subprocess.Popen([sys.executable, HERE / "spool_victim.py", directory], env=environment, stdout=subprocess.PIPE, bufsize=0)
    # On a busy machine the start alone may take longer than a random instant.
    first = process.stdout.readline() if not point else b""
    try:
        out, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, _ = process.communicate()
        assert not point, f"{point} was never reached"
    assert process.returncode == -signal.SIGKILL, out[-300:]
    lines = [line.split() for line in (first + out).decode().splitlines(keepends=True) if line.endswith("\n")]
    return {id for word, id in lines if word == "ack"}, {id for word, id in lines if word == "out"}


def check(directory, acknowledged, gone, index=0):
    """Every acknowledged row is there with its octets, or was let go; and nothing is left over."""

    async def play():
        spool = SqliteSpool(directory, index, support.KEY, support.Runtime(), reserve=0)
        spool.open()
        connection = spool._connection
        connection.execute("UPDATE entry SET wish = 'release' WHERE state = 'held'")
        await spool.carry_out_wishes()
        found = {}
        while rows := await spool.take_ready(1000) + await spool.take_raw(1000):
            for row in rows:
                found[row.entry.id] = row.entry.segments.join()
        for id, body in found.items():
            assert body == victim.body_of(id), id
        assert acknowledged - gone <= found.keys()
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        files = {path.name for path in (Path(directory) / f"spool-{index}.bodies").iterdir()}
        assert files == {name for (name,) in connection.execute("SELECT file FROM entry WHERE file IS NOT NULL")}
        spool.close()

    asyncio.run(play())


@pytest.mark.parametrize("point", WORKING)
def test_kill_at(tmp_path, point):
    acknowledged, gone = run_victim(tmp_path, f"{point}:{random.randint(2, 6)}" if "checkpoint" not in point else point)
    check(tmp_path, acknowledged, gone)


def test_kill_at_random_instants_again_and_again(tmp_path):
    acknowledged, gone = set(), set()
    for _ in range(4):
        more, let_go = run_victim(tmp_path, seconds=0.2 + random.random())
        assert not more & acknowledged
        acknowledged |= more
        gone |= let_go
    assert len(acknowledged) > 20
    check(tmp_path, acknowledged, gone)


def fill(directory, index, ids):
    async def play():
        spool = SqliteSpool(directory, index, support.KEY, support.Runtime(), reserve=0)
        spool.open()
        states = list(support.State)
        await spool.commit([support.entry(id, victim.body_of(id), state=states[number % 3]) for number, id in enumerate(ids)])
        spool.close()

    asyncio.run(play())


def test_orphans_are_adopted_by_a_worker_that_lives(tmp_path):
    ids = [f"{number}.0" for number in range(100)]
    fill(tmp_path, 3, ids)
    fill(tmp_path, 2, ["7.1"])
    fill(tmp_path, 1, ["8.1"])

    async def play():
        living = SqliteSpool(tmp_path, 1, support.KEY, support.Runtime(), reserve=0)
        living.open()
        held = SqliteSpool(tmp_path, 2, support.KEY, support.Runtime(), reserve=0)
        held.open()
        assert await adopt_orphans(living, range(2)) == 100  # spool 2 has an owner
        assert await adopt_orphans(living, range(2)) == 0
        held.close()
        assert await adopt_orphans(living, range(2)) == 1
        living.close()

    asyncio.run(play())
    assert sorted(path.name for path in tmp_path.glob("*.sqlite")) == ["spool-1.sqlite"]
    check(tmp_path, {*ids, "7.1", "8.1"}, set(), index=1)


def test_kill_while_orphans_are_adopted(tmp_path):
    ids = [f"{number}.0" for number in range(100)]
    fill(tmp_path, 3, ids)
    script = (
        "import asyncio, runpy, sys\n"
        f"support = runpy.run_path({str(HERE / 'spool_support.py')!r})\n"
        "from mailsec.store.spool import SqliteSpool\nfrom mailsec.store.spool_adopt import adopt_orphans\n"
        "async def main():\n"
        "    spool = SqliteSpool(sys.argv[1], 0, support['KEY'], support['Runtime'](), reserve=0)\n"
        "    spool.open()\n    await adopt_orphans(spool, range(1))\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "MAILSEC_CRASH_POINT": "adopt.copied"}
    run = subprocess.run([sys.executable, "-c", script, tmp_path], env=environment, timeout=60)
    assert run.returncode == -signal.SIGKILL
    fill(tmp_path, 0, [])

    async def again():
        spool = SqliteSpool(tmp_path, 0, support.KEY, support.Runtime(), reserve=0)
        spool.open()
        await adopt_orphans(spool, range(1))
        spool.close()

    asyncio.run(again())
    check(tmp_path, set(ids), set())


def test_a_crash_point_that_is_not_armed_does_nothing():
    started = time.monotonic()
    from mailsec.store.crashpoints import crash_point

    for point in CRASH_POINTS:
        crash_point(point)
    assert time.monotonic() - started < 5
