"""Promise 1 on real sockets: whatever is killed, and whenever, every message that was acknowledged with 250 arrives.

The gateway is killed while mail comes in and goes out: a worker, the supervisor, or all of it, at random instants; and a worker at
each named crash point. It may deliver twice; never zero times.
"""

from __future__ import annotations

import os
import random
import re
import signal
import smtplib
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import PROJECT, Served, until

MESSAGES = 60
SENDERS = 3
LARGE = 12
"""Of these, so many are large enough to lie in files beside the spool."""


class Destination:
    """An independent mail server (aiosmtpd) in a process of its own, delivering into a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mailsec.app.demo.destination", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
        self.port = int(self.process.stdout.readline())
        self._seen: dict[str, str] = {}

    def arrived(self) -> set[str]:
        for path in (self.directory / "new").iterdir():
            if path.name not in self._seen:
                self._seen[path.name] = re.search(rb"(?im)^message-id: <([^>]*)>", path.read_bytes()).group(1).decode()
        return set(self._seen.values())

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)


class Senders:
    """Mail programs: what was not acknowledged is sent again, what was is never sent twice by them."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.accepted: list[str] = []
        self._pending = [f"{index}" for index in range(MESSAGES)]
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(SENDERS)]
        self._until = time.monotonic() + 60
        for thread in self._threads:
            thread.start()

    def finish(self) -> list[str]:
        for thread in self._threads:
            thread.join(70)
        assert len(self.accepted) == MESSAGES, f"only {len(self.accepted)} messages were accepted"
        return self.accepted

    def _work(self) -> None:
        client = None
        while time.monotonic() < self._until:
            with self._lock:
                if not self._pending:
                    break
                number = self._pending.pop()
            body = "x" * 76 + "\r\n"
            lines = 4000 if int(number) < LARGE else 20
            text = f"From: a@elsewhere.example\r\nTo: b@example.org\r\nMessage-ID: <{number}>\r\n\r\n{body * lines}"
            while time.monotonic() < self._until:
                try:
                    if client is None:
                        client = smtplib.SMTP("127.0.0.1", self.port, timeout=3)
                    client.sendmail("a@elsewhere.example", ["b@example.org"], text)
                    with self._lock:
                        self.accepted.append(number)
                    break
                except (smtplib.SMTPException, OSError):
                    if client is not None:
                        client.close()
                    client = None
                    time.sleep(0.05)
        if client is not None:
            client.close()


@pytest.fixture
def destination(tmp_path) -> Iterator[Destination]:
    made = Destination(tmp_path / "maildir")
    yield made
    made.close()


@pytest.fixture
def gateway(tmp_path, destination) -> Iterator[Served]:
    folder = tmp_path / "gateway"
    folder.mkdir()
    made = Served(folder, destination.port, workers=2)
    yield made
    made.kill()


def kill(pid: int) -> None:
    """kill -9, unless it is dead already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def all_arrive(destination: Destination, accepted: list[str]) -> None:
    until(
        lambda: set(accepted) <= destination.arrived(),
        60,
        f"the accepted messages; {len(set(accepted) - destination.arrived())} are missing",
    )


@pytest.mark.parametrize("victim", ["worker", "supervisor", "everything"])
def test_promise_1_nothing_is_lost_when_this_is_killed(gateway, destination, victim):
    gateway.start().ready()
    senders = Senders(gateway.port)
    chance = random.Random(victim)
    for _ in range(3):
        until(lambda: senders.accepted or not senders._pending, 30)
        time.sleep(chance.uniform(0.02, 0.3))
        workers = list(gateway.workers().values())
        if victim == "worker":
            kill(chance.choice(workers))
            continue
        gateway.process.kill()
        if victim == "everything":
            for pid in workers:
                kill(pid)
        gateway.kill()
        gateway.log.rename(gateway.log.with_suffix(f".{time.monotonic()}"))
        gateway.start().ready()
    all_arrive(destination, senders.finish())


POINTS = ["spool.file.linked", "spool.sync.after", "relay.delivery.after"]
MORE_POINTS = ["spool.file.written", "spool.commit.before", "spool.commit.after", "spool.delete.after", "relay.delivery.before"]


# Several seconds each: `make test` takes the three that differ most, `make interop` all.
@pytest.mark.parametrize("point", [*POINTS, *(pytest.param(point, marks=pytest.mark.interop) for point in MORE_POINTS)])
def test_promise_1_nothing_is_lost_when_workers_die_at(point, gateway, destination, monkeypatch):
    # Each life of a worker ends when it comes to the point for the fifth time; large bodies are few.
    rare = point.startswith(("spool.file", "spool.delete"))
    monkeypatch.setenv("MAILSEC_CRASH_POINT", f"{point}:{1 if rare else 5}")
    gateway.start().ready()
    senders = Senders(gateway.port)
    until(lambda: gateway.has("worker died; it is replaced"), 40, f"a death at {point}")
    # Then they are well again: the supervisor and all are replaced by ones that do not die there.
    gateway.kill()
    gateway.log.rename(gateway.log.with_suffix(".armed"))
    monkeypatch.delenv("MAILSEC_CRASH_POINT")
    gateway.start().ready()
    all_arrive(destination, senders.finish())
