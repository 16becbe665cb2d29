"""A process that commits and relays until it is killed: `relay_victim.py SPOOL PORT MESSAGES`. Run by test_relay_crash.py.

It prints "ack ID" after each commit has returned. With no messages it delivers what is there, and ends when the spool is empty.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from datetime import UTC, datetime

from tests.store import spool_support as support


async def main(reactor, directory, port, messages):
    from mailsec.model.queue import State
    from mailsec.model.settings import GatewaySettings, NextHop, RelaySettings
    from mailsec.net.relay import Relay
    from mailsec.net.runtime import TwistedRuntime
    from mailsec.store.spool import SqliteSpool
    from mailsec.store.spool_queue import list_queue

    runtime = TwistedRuntime(reactor)
    relay = RelaySettings(NextHop("smtp", "127.0.0.1", port, tls="none"), retry_first=0.3, connections_per_hop=3)
    settings = GatewaySettings("gw.example.org", ("example.org",), "gw.example.org", "postmaster@example.org", (), relay)
    spool = SqliteSpool(directory, 0, support.KEY, runtime, reserve=0)
    spool.open()
    start = spool._next_row * 1000
    Relay(spool, runtime, settings).start()

    async def client(number):
        for turn in range(messages):
            id = f"{start + turn}.{number}"
            body = f"Subject: {id}\r\n\r\n".encode() + b"x\r\n" * (100_000 if turn % 50 == 3 else 100)
            entry = support.entry(id, body, secret=turn % 3 == 1, state=State.READY)
            await spool.commit([dataclasses.replace(entry, received_at=datetime.now(UTC))])
            os.write(1, f"ack {id}\n".encode())

    if messages:
        await runtime.gather([client(number) for number in range(4)])
    while list_queue(directory):
        await runtime.sleep(0.1)


if __name__ == "__main__":
    from twisted.internet import defer, task

    task.react(lambda reactor, *arguments: defer.Deferred.fromCoroutine(main(reactor, *arguments)), (sys.argv[1], *map(int, sys.argv[2:])))
