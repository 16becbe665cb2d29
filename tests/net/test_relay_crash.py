"""kill -9 of a process that takes and relays mail: every message that was acknowledged arrives, some of them twice (promise 1)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.net.relay_peer import Peer

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]


@pytest.fixture
def peer():
    peer = Peer({"RCPT": lambda: "450 4.2.1 sometimes" if random.random() < 0.05 else "250 ok"})
    yield peer
    peer.close()


def run(directory, peer, messages, *, point="", seconds=30.0):
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "MAILSEC_CRASH_POINT": point}
    command = [sys.executable, HERE / "relay_victim.py", directory, str(peer.port), str(messages)]
    # Unbuffered: what follows the first line is left for communicate().
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    timed_out, arrived_before = False, -1
    # On a busy machine the start alone may take longer than a random instant.
    first = process.stdout.readline() if messages and not point else b""
    while True:
        try:
            out, err = process.communicate(timeout=seconds)
            break
        except subprocess.TimeoutExpired:
            # How much three lives have taken in depends on the machine: who empties the queue may go on while it does.
            if not messages and len(peer.messages) > arrived_before:
                arrived_before = len(peer.messages)
                continue
            timed_out = True
            process.kill()
    if messages:
        assert process.returncode == -signal.SIGKILL, err[-2000:]
        assert not (timed_out and point), f"{point} was never reached"
    else:
        assert process.returncode == 0, (timed_out, err[-2000:])
    return {line.split()[1] for line in (first + out).decode().splitlines(keepends=True) if line.startswith("ack ") and line.endswith("\n")}


def arrived(peer):
    ids = [octets.split(b"\r\n", 1)[0].removeprefix(b"Subject: ").decode() for _, _, octets in peer.messages]
    for id, (_, _, octets) in zip(ids, peer.messages, strict=True):
        assert octets in (f"Subject: {id}\r\n\r\n".encode() + b"x\r\n" * lines for lines in (100, 100_000)), id
    return ids


@pytest.mark.parametrize("point", ["relay.delivery.before:3", "relay.delivery.after:5", "spool.sync.after:4", "spool.delete.after"])
def test_kill_at(tmp_path, peer, point):
    acknowledged = run(tmp_path, peer, 500, point=point)
    run(tmp_path, peer, 0)
    assert acknowledged <= set(arrived(peer))


def test_kill_at_random_instants_again_and_again(tmp_path, peer):
    acknowledged = set()
    for _ in range(3):
        acknowledged |= run(tmp_path, peer, 100_000, seconds=1.2 + random.random())
    run(tmp_path, peer, 0, seconds=60)
    ids = arrived(peer)
    assert len(acknowledged) > 20
    assert acknowledged <= set(ids)
    assert len(ids) < 3 * len(set(ids))
