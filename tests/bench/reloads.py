"""Reloads under load: clients send without a pause, over connections that stay and over new ones, while the gateway is reloaded again and again.

What counts is what a client sees: a refused or reset connection, a 421, any other failure.
"""

from __future__ import annotations

import contextlib
import smtplib
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from mailsec.app.control_socket import ask
from tests.bench import gateway
from tests.bench.load import Sink

__all__ = ["figures", "goals"]

_DROPPED = "reload under load: connections dropped"
_LETTER = b"From: alice@example.org\r\nTo: bob@example.net\r\nSubject: reload\r\n\r\n" + b"x" * 62 + b"\r\n"


class _Client(threading.Thread):
    """Sends until it is told to stop; `each` messages over one connection."""

    def __init__(self, port: int, each: int, over: threading.Event) -> None:
        super().__init__()
        self.sent = self.dropped = 0
        self._port, self._each, self._over = port, each, over

    def run(self) -> None:
        while not self._over.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self._port, local_hostname="client.example", timeout=60) as client:
                    for _ in range(self._each):
                        if self._over.is_set():
                            break
                        client.sendmail("alice@example.org", ["bob@example.net"], _LETTER)
                        self.sent += 1
            except (OSError, smtplib.SMTPException):
                self.dropped += 1


@contextlib.contextmanager
def _flow(port: int) -> Iterator[list[_Client]]:
    over = threading.Event()
    clients = [_Client(port, each, over) for each in (1, 1, 1, 200, 200, 10_000)]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        over.set()
        for client in clients:
            client.join(120)


def figures(*, reloads: int = 5) -> dict[str, float]:
    """Connections that were dropped by so many reloads, messages a second meanwhile, and how long a reload takes."""
    with tempfile.TemporaryDirectory(prefix="mailsec-bench-") as name:
        directory, sink = Path(name) / "gateway", Sink()
        with gateway.running(directory, sink, sign=False, key="ec-p256") as (port, _), _flow(port) as clients:
            time.sleep(1)
            seconds = []
            began, before = time.monotonic(), sum(client.sent for client in clients)
            for _ in range(reloads):
                start = time.monotonic()
                answer = ask(str(directory / "run"), {"do": "reload"}, seconds=300)
                assert answer["ok"], answer
                seconds.append(time.monotonic() - start)
                time.sleep(0.5)
            took, sent = time.monotonic() - began, sum(client.sent for client in clients) - before
        dropped = sum(client.dropped for client in clients)
    return {
        _DROPPED: float(dropped),
        "reload under load: messages/s meanwhile, 6 clients": sent / took,
        "reload under load: seconds until the new generation serves": sorted(seconds)[len(seconds) // 2],
    }


def goals(limits: dict[str, float]) -> list[tuple[str, float, float, float]]:
    """None may be dropped."""
    return [(f"{_DROPPED} (at most)", limits[_DROPPED], 0, 0)] if _DROPPED in limits else []
