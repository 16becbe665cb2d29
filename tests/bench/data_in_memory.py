"""DATA alone, in memory: messages of 4 KiB, envelope commands not counted, through our SMTP server core and through stock `twisted.mail.smtp`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from twisted.internet.defer import succeed
from twisted.internet.testing import StringTransport
from twisted.mail import smtp
from zope.interface import implementer

from mailsec.errors import Reply
from mailsec.model.requests import Ask, Body, Request
from mailsec.wire.smtp import questions
from mailsec.wire.smtp.server import ServerSettings, SmtpServer

__all__ = ["rates"]

_BODY = b"".join(b"%03d %s\r\n" % (number, b"x" * 72) for number in range(52))
_MESSAGE = b"From: <alice@example.org>\r\nTo: <bob@example.net>\r\nSubject: figures\r\n\r\n" + _BODY + b".\r\n"
_ENVELOPE = b"MAIL FROM:<alice@example.org>\r\n", b"RCPT TO:<bob@example.net>\r\n", b"DATA\r\n"
_ACCEPTED = Reply(250, "2.6.0", "accepted")


def _ours(messages: int) -> tuple[int, float]:
    server = SmtpServer(ServerSettings("gw.example.org"))
    received = 0

    def drive(requests: list[Request]) -> None:
        nonlocal received
        for request in requests:
            kind = type(request)  # as `net.driver` does
            if kind is Body:
                received += len(request.chunk)  # type: ignore[union-attr]
            elif kind is Ask:
                drive(server.answer(_ACCEPTED if type(request.question) is questions.MessageComplete else None))  # type: ignore[union-attr]

    drive(server.connection_made())
    drive(server.receive_data(b"EHLO bench.example\r\n"))
    seconds = 0.0
    for _ in range(messages):
        for command in _ENVELOPE:
            drive(server.receive_data(command))
        start = time.perf_counter()
        drive(server.receive_data(_MESSAGE))
        seconds += time.perf_counter() - start
    return received, seconds


@implementer(smtp.IMessage)
class _Message:
    def __init__(self, count: list[int]) -> None:
        self.count = count
        self.lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)

    def eomReceived(self) -> object:
        self.count[0] += len(b"\r\n".join(self.lines)) + 2
        return succeed(None)

    def connectionLost(self) -> None:
        self.lines = []


@implementer(smtp.IMessageDelivery)
class _Delivery:
    def __init__(self, count: list[int]) -> None:
        self.count = count

    def receivedHeader(self, helo: object, origin: object, recipients: object) -> bytes:
        return b"Received: x"

    def validateFrom(self, helo: object, origin: object) -> object:
        return origin

    def validateTo(self, user: object) -> Callable[[], _Message]:
        return lambda: _Message(self.count)


def _stock(messages: int) -> tuple[int, float]:
    count = [0]
    server = smtp.ESMTP()
    server.delivery = _Delivery(count)
    transport = StringTransport()
    server.makeConnection(transport)
    server.setTimeout(None)
    server.dataReceived(b"EHLO bench.example\r\n")
    seconds = 0.0
    for _ in range(messages):
        for command in _ENVELOPE:
            server.dataReceived(command)
        start = time.perf_counter()
        server.dataReceived(_MESSAGE)
        seconds += time.perf_counter() - start
        transport.clear()
    return count[0], seconds


def rates(messages: int = 3000, rounds: int = 5) -> tuple[float, float]:
    """DATA phases per second, ours and stock: medians of runs that alternate."""
    figures: dict[Callable[[int], tuple[int, float]], list[float]] = {_ours: [], _stock: []}
    for _ in range(rounds):
        for run, rates_ in figures.items():
            received, seconds = run(messages)
            rates_.append(messages / seconds)
            assert received >= messages * len(_BODY), "a run lost octets"
    return statistics.median(figures[_ours]), statistics.median(figures[_stock])


if __name__ == "__main__":
    ours, stock = rates()
    print(f"ours {ours:,.0f}/s, stock {stock:,.0f}/s, ratio {ours / stock:.1f}")
