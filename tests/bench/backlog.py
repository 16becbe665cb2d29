"""The queue and the connections of a running gateway: 100,000 messages at the start, 10,000 idle clients."""

from __future__ import annotations

import contextlib
import math
import resource
import socket
import sqlite3
import tempfile
import time
from pathlib import Path

from tests.bench.load import peak_memory
from tests.peers.gateway import Gateway, until
from tests.peers.inbox import Inbox

__all__ = ["figures", "goals"]

MANY = 100_000
IDLE = 10_000
FIRST = f"{MANY:,} queued: seconds from the start to the first delivery"
MEMORY = f"{MANY:,} queued: MiB of the fullest worker"
CLIENTS = f"{IDLE:,} idle connections: MiB of all workers"
_LETTER = b"From: carol@partner.example\r\nTo: bob@example.org\r\nSubject: figures\r\n\r\n" + b"All of this is text.\r\n" * 180


def figures(scale: float) -> dict[str, float]:
    """Both, with a `scale` of the messages and connections."""
    return _backlog(max(1000, int(MANY * scale))) | _idle(max(500, int(IDLE * scale)))


def goals(limits: dict[str, float]) -> list[tuple[str, float, float, float]]:
    """What must be reached."""
    rows = [(FIRST, 5.0, 2.0), (MEMORY, 200.0, 100.0), (CLIENTS, 1024.0, 512.0)]
    return [(f"{name} (at most)", limits[name], must, aim) for name, must, aim in rows if not math.isnan(limits.get(name, math.nan))]


def _fill(path: Path, messages: int) -> None:
    """Make so many rows of the first that is there."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        columns = ",".join(name for _, name, *_ in connection.execute("PRAGMA table_info(entry)") if name not in ("row", "id"))
        (row,) = connection.execute("SELECT min(row) FROM entry").fetchone()
        connection.execute(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) INSERT INTO entry (id, "
            f"{columns}) SELECT 'm' || n, {columns} FROM numbers, entry WHERE entry.row = ?",
            (messages, row),
        )
        connection.execute("UPDATE entry SET next_attempt = 0")
        connection.commit()


def _backlog(messages: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="mailsec-bench-") as name, Inbox() as inbox:
        gateway = Gateway(Path(name) / "queue", inbox.port, workers=1, rule=[])
        inbox.stop()
        gateway.start()
        try:
            with gateway.client() as client:
                client.sendmail("carol@partner.example", ["bob@example.org"], _LETTER)
            until(gateway.waiting)
            gateway.kill()
            _fill(next((Path(name) / "queue" / "spool").glob("spool-*.sqlite")), messages)
            inbox.start()
            began = time.monotonic()
            gateway.start(ready=False)
            until(lambda: inbox.messages, 120, "the first delivery")
            first = time.monotonic() - began
            until(lambda: len(inbox.messages) > min(messages, 3000), 120, "some of them")
            # The supervisor's own peak is the key derivation of the pass phrase; a worker gets the key itself.
            return {FIRST: first, MEMORY: max(peak for pid in gateway.pids() for peak in peak_memory(pid).values())}
        finally:
            gateway.close()


def _idle(connections: int) -> dict[str, float]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < connections + 100:
        return {CLIENTS: math.nan}
    limits = {"connections": 20_000, "connections_per_address": 20_000}
    clients: list[socket.socket] = []
    with tempfile.TemporaryDirectory(prefix="mailsec-bench-") as name, Inbox() as inbox:
        gateway = Gateway(Path(name) / "idle", inbox.port, workers=2, gateway={"limits": limits})
        gateway.start()
        try:
            for _ in range(connections):
                client = socket.create_connection(("127.0.0.1", gateway.ports["internet"]), timeout=30)
                clients.append(client)
                assert client.recv(200).startswith(b"220 ")
            pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in gateway.pids())
            return {CLIENTS: pages * resource.getpagesize() / (1 << 20)}
        finally:
            for client in clients:
                client.close()
            gateway.close()
