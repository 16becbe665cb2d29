"""A process that takes one message of 100 MiB into a spool and relays it: `relay_large.py SPOOL PORT SECRET`. Run by test_relay_large.py.

It prints its peak memory in MiB before and after.
"""

from __future__ import annotations

import dataclasses
import sys
from datetime import UTC, datetime
from pathlib import Path

from tests.store import spool_support as support


def peak() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024


async def main(reactor, directory, port, secret):
    from mailsec.model.octets import Segments
    from mailsec.model.settings import GatewaySettings, NextHop, RelaySettings
    from mailsec.net.relay import Relay
    from mailsec.net.runtime import TwistedRuntime
    from mailsec.store.spool import SqliteSpool

    runtime = TwistedRuntime(reactor)
    relay = RelaySettings(NextHop("smtp", "127.0.0.1", int(port), tls="none"))
    settings = GatewaySettings("gw.example.org", ("example.org",), "gw.example.org", "postmaster@example.org", (), relay)
    spool = SqliteSpool(directory, 0, support.KEY, runtime, reserve=0)
    spool.open()
    relay = Relay(spool, runtime, settings)
    relay.start()
    print(peak())
    scratch = spool.scratch()
    chunk = (b"x" * 76 + b"\r\n") * 800
    while len(scratch) < 100 * 1024 * 1024:
        scratch.append(chunk)
    entry = support.entry("large", Segments.of(scratch.seal()), secret=secret == "secret")
    await spool.commit([dataclasses.replace(entry, received_at=datetime.now(UTC))])
    scratch.discard()
    while not relay.delivered:
        await runtime.sleep(0.05)
    print(peak())


if __name__ == "__main__":
    from twisted.internet import defer, task

    task.react(lambda reactor, *arguments: defer.Deferred.fromCoroutine(main(reactor, *arguments)), sys.argv[1:])
