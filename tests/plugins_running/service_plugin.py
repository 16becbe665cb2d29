"""A plugin file for tests/plugins_running/test_services.py: the service "lines" (sans-IO) and the service "twisted" (a ready factory)."""

from __future__ import annotations

import sys

from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineReceiver

from mailsec.hookspecs import hookimpl
from mailsec.model.requests import Ask, Close, Deadline, Send, StartTls


class Lines:
    """Answers each line; some lines are orders."""

    def __init__(self, session):
        self.session, self.rest, self.tls = session, b"", None

    def connection_made(self):
        return [Deadline(60), Send(f"hello {self.session.peer} {self.tls.version if self.tls else 'in clear'}\n".encode())]

    def receive_data(self, data):
        line, end, self.rest = (self.rest + data).partition(b"\n")
        if not end:
            self.rest = line
            return []
        if line == b"raise":
            raise RuntimeError("the plugin is broken")
        if line == b"exit":
            sys.exit(1)
        if line == b"rubbish":
            return ["rubbish"]
        if line == b"tls":
            return [Send(b"go ahead\n"), StartTls()]
        if line == b"quit":
            return [Send(b"bye\n"), Close()]
        return [*([Send(b"wait\n")] if line.startswith(b"wait") else []), Ask(line.decode())]

    def answer(self, value):
        return [Send(f"{value}\n".encode())]

    def streamed(self):
        return []

    def tls_started(self, info):
        self.tls = info
        return [] if self.session.listener.endswith("implicit") else self.connection_made()

    def deadline_passed(self):
        return [Close()]

    def connection_lost(self, reason):
        return []


class Answers:
    def __init__(self, gateway):
        self.gateway = gateway

    async def ask(self, question):
        if question.startswith("wait"):
            await self.gateway.runtime.sleep(float(question[4:]))
            return "waited"
        identity = await self.gateway.identity(question)
        return "nobody" if identity is None else f"{identity.name} is {','.join(identity.addresses)}"

    def body(self, chunk): ...

    def end_of_body(self): ...

    def closed(self): ...


class LinesService:
    name = "lines"

    def __init__(self, gateway):
        self.gateway = gateway

    def open(self, session):
        return Lines(session), Answers(self.gateway)


class Echo(LineReceiver):
    delimiter = b"\n"

    def connectionMade(self):
        self.sendLine(b"hello from " + self.factory.host)

    def lineReceived(self, line):
        if line == b"raise":
            raise RuntimeError("the plugin is broken")
        self.sendLine(b"you said " + line)


class TwistedService:
    name = "twisted"

    def __init__(self, gateway):
        self.host = gateway.settings.hostname.encode()

    def factory(self):
        factory = Factory.forProtocol(Echo)
        factory.host = self.host
        return factory


class plugin:
    @hookimpl
    def register_tcp_services(self, gateway):
        return [LinesService(gateway), TwistedService(gateway)]
