"""What plugins cost that have nothing to say: the same message with none and with ten that answer every hook by None."""

from __future__ import annotations

import time
from typing import Any

__all__ = ["figures"]

_MESSAGES = 400
_ROUNDS = 7
_IDLE = 10


def _idle() -> object:
    from mailsec.hookspecs import hookimpl

    class Idle:
        @hookimpl
        def check_message(self, transaction, original, smime):
            return None

        @hookimpl
        def plan_protection(self, transaction, candidates, findings, plan):
            return None

        @hookimpl
        def decide_message(self, transaction, verdict, findings):
            return None

        @hookimpl
        def annotate_message(self, transaction, verdict, segments):
            return None

        @hookimpl
        def record_event(self, event):
            return None

    return Idle()


def figures() -> dict[str, float]:
    """Microseconds a message, the gateway's own part left out: the best of several rounds, taken in turns."""
    from mailsec.testing.gateway import MemoryGateway

    gateways = {0: MemoryGateway(), _IDLE: MemoryGateway(*(_idle() for _ in range(_IDLE)))}
    best = dict.fromkeys(gateways, float("inf"))
    for _ in range(_ROUNDS):
        for count, gateway in gateways.items():
            best[count] = min(best[count], _seconds(gateway))
    return {"ten idle plugins, a message (us)": (best[_IDLE] - best[0]) / _MESSAGES * 1e6}


def _seconds(gateway: Any) -> float:
    """What so many messages took of the processor; what they left behind is thrown away."""
    text = "From: alice@example.org\r\nTo: bob@example.net\r\nSubject: x\r\n\r\nhello\r\n"
    gateway.spool.rows.clear()
    gateway.events.clear()
    start = time.process_time()
    for _ in range(_MESSAGES):
        gateway.trust(text)
    return time.process_time() - start
