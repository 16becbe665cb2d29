"""A spool and a relay in the reactor of the tests: what test_relay*.py drive."""

from __future__ import annotations

import dataclasses
import time
from datetime import UTC, datetime

from mailsec.model.settings import GatewaySettings, RelaySettings
from mailsec.net.relay import Relay
from mailsec.net.runtime import TwistedRuntime
from mailsec.store.spool import SqliteSpool
from mailsec.store.spool_queue import list_queue, make_wish
from tests.store import spool_support as support

BODY = b"From: alice@example.org\r\nSubject: x\r\n\r\nhello\r\n.dot\r\n"


def entry(id, body=BODY, **more):
    more.setdefault("message_id", f"<{id}@example.org>")
    made = support.entry(id, body, **more)
    return dataclasses.replace(made, received_at=datetime.now(UTC))


class Gateway:
    """A spool, a relay and their runtime, in the reactor of the tests."""

    def __init__(self, loop, directory, next_hop, **relay):
        self.loop = loop
        self.directory = directory
        self.settings = GatewaySettings(
            hostname="gw.example.org",
            domains=("example.org",),
            authserv_id="gw.example.org",
            postmaster="postmaster@example.org",
            listeners=(),
            relay=RelaySettings(next_hop=next_hop, **{"retry_first": 0.4, "retry_longest": 2.0, "connect_timeout": 3.0, **relay}),
        )
        self.relay = None

    def start(self, resolve=None, roots=None):
        def begin():
            self.runtime = TwistedRuntime(self.loop.reactor, roots=roots)
            if resolve is not None:
                self.runtime.resolve = resolve
            self.spool = SqliteSpool(self.directory, 0, support.KEY, self.runtime, reserve=0)
            self.spool.open()
            self.relay = Relay(self.spool, self.runtime, self.settings)
            self.relay.start()

        self.loop.call(begin)
        return self

    def commit(self, *entries):
        self.loop.call(self.spool.commit, list(entries))

    def queue(self):
        return {one.id: one for one in list_queue(self.directory)}

    def wish(self, word, *ids):
        make_wish(self.directory, [one for one in self.queue().values() if one.id in ids], word, now=time.time)

    def stop(self, seconds=5.0):
        async def end():
            await self.relay.stop(seconds)
            self.spool.close()

        if self.relay is not None:
            self.loop.call(end)
            self.relay = None
