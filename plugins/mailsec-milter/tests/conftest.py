"""An MTA that speaks the milter protocol to a core, without a socket; and a gateway in memory behind it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mailsec.errors import MailsecError
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.requests import Ask, Body, Close, EndOfBody, Send, Stream
from mailsec_milter.conversation import MilterConversation
from mailsec_milter.core import MilterCore
from mailsec_milter.questions import Answer, Received
from mailsec_milter.settings import MilterSettings
from tests.peers.logs import pytest_runtest_makereport  # noqa: F401 - pytest finds it here

ACTIONS, STEPS = 0x1FF, 0x1FFFFF
"""What Postfix offers."""
UNANSWERED = 0xFF080
LEADING_SPACE = 0x100000


def packet(command: str, data: bytes = b"") -> bytes:
    return struct.pack("!I", 1 + len(data)) + command.encode() + data


def offer(version: int = 6, actions: int = ACTIONS, steps: int = STEPS) -> bytes:
    return packet("O", struct.pack("!III", version, actions, steps))


def macros(command: str, **values: str) -> bytes:
    return packet("D", command.encode() + b"".join(b"{%s}\0%s\0" % (name.encode(), value.encode()) for name, value in values.items()))


def client(address: str = "192.0.2.7", name: str = "client.example.net") -> bytes:
    family = b"6" if ":" in address else b"4"
    connect = name.encode() + b"\0" + family + struct.pack("!H", 40000) + address.encode() + b"\0"
    return packet("C", connect) + packet("H", name.encode() + b"\0")


def header(fields: Iterable[tuple[str, str]]) -> bytes:
    return b"".join(packet("L", name.encode() + b"\0" + value.encode() + b"\0") for name, value in fields)


def message(octets: bytes, sender: str = "alice@example.org", *recipients: str, login: str = "") -> bytes:
    """What an MTA sends of one message whose header has blanks as they are (`LEADING_SPACE`)."""
    head, _, body = octets.replace(b"\r\n", b"\n").partition(b"\n\n")
    said = macros("M", auth_authen=login, auth_type="PLAIN") if login else b""
    said += packet("M", f"<{sender}>\0".encode())
    said += b"".join(packet("R", f"<{one}>\0".encode()) for one in recipients or ("bob@example.net",))
    lines: list[bytes] = []
    for line in head.split(b"\n"):
        if line[:1] in (b" ", b"\t"):
            lines[-1] += b"\n" + line
        else:
            lines.append(line)
    for line in lines:
        name, _, value = line.partition(b":")
        said += packet("L", name + b"\0" + value + b"\0")
    said += packet("N")
    whole = body.replace(b"\n", b"\r\n")
    said += b"".join(packet("B", whole[at : at + 65535]) for at in range(0, len(whole), 65535))
    return said + macros("E", i="4bXYZ") + packet("E")


class Mta:
    """Drives a core as `net.driver` does. `answers` to `Received` and `GoOn`, or a conversation that is asked."""

    def __init__(self, *answers: object, conversation: Any = None, run: Any = None, limits: Any = DEFAULT_LIMITS, **words: Any) -> None:
        self.core = MilterCore("gw.example.org", limits, **words)
        self.conversation = conversation
        self.run = run
        self.answers = list(answers)
        self.asked: list[Any] = []
        self.octets = b""
        self.said = b""
        self.closed = False
        self.fault: object = None
        self._carry_out(self.core.connection_made())

    def feed(self, *data: bytes, each: int = 0) -> Mta:
        """Give it octets, `each` at a time."""
        whole = b"".join(data)
        for at in range(0, len(whole), each or max(1, len(whole))):
            if not self.closed:
                self._carry_out(self.core.receive_data(whole[at : at + (each or len(whole))]))
        return self

    @property
    def packets(self) -> list[tuple[str, bytes]]:
        """What it has said."""
        found, at = [], 0
        while at < len(self.said):
            size = int.from_bytes(self.said[at : at + 4], "big")
            found.append((chr(self.said[at + 4]), self.said[at + 5 : at + 4 + size]))
            at += 4 + size
        assert at == len(self.said)
        return found

    @property
    def received(self) -> list[Received]:
        return [one for one in self.asked if isinstance(one, Received)]

    def _answer(self, question: object) -> object:
        self.asked.append(question)
        if self.fault is not None:
            fault, self.fault = self.fault, None
            return fault
        if self.conversation is not None:
            value = self.conversation.ask(question)
            return self.run(value) if hasattr(value, "__await__") else value
        if type(question).__name__ in ("Broken", "Abandoned"):
            if type(question).__name__ == "Abandoned":
                self.octets = b""
            return None
        return self.answers.pop(0) if self.answers else Answer()

    def _carry_out(self, requests: Iterable[Any]) -> None:
        requests = list(requests)
        for number, one in enumerate(requests):
            if isinstance(one, (Ask, Stream, Close)):
                assert number == len(requests) - 1, f"something stands behind {one}"
            if isinstance(one, Send):
                self.said += one.data
            elif isinstance(one, Body):
                self.octets += one.chunk
                if self.conversation is not None and self.fault is None:
                    try:
                        self.conversation.body(one.chunk)
                    except MailsecError as error:
                        self.fault = error.reply
            elif isinstance(one, EndOfBody) and self.conversation is not None:
                self.conversation.end_of_body()
            elif isinstance(one, Close):
                self.closed = True
            elif isinstance(one, Stream):
                self.said += b"".join(one.segments)
                self._carry_out(self.core.streamed())
            elif isinstance(one, Ask):
                self._carry_out(self.core.answer(self._answer(one.question)))


def applied(octets: bytes, packets: Sequence[tuple[str, bytes]]) -> bytes:
    """What an MTA makes of a message with the changes of a milter, as Postfix does it: numbers count what is there at that moment."""
    head, _, body = octets.partition(b"\r\n\r\n")
    fields: list[tuple[bytes, bytes]] = []
    for line in head.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            fields[-1] = (fields[-1][0], fields[-1][1] + b"\n" + line)
        else:
            name, _, value = line.partition(b":")
            fields.append((name, value))
    replaced = None
    for command, data in packets:
        if command == "b":
            replaced = (replaced or b"") + data
        elif command in "him":
            place = int.from_bytes(data[:4], "big") if command in "im" else 0
            name, value, _ = (data[4:] if command in "im" else data).split(b"\0")
            if command == "h":
                fields.append((name, value))
            elif command == "i":
                fields.insert(place, (name, value))
            else:
                numbers = [at for at, one in enumerate(fields) if one[0].lower() == name.lower()]
                at = numbers[place - 1]
                if value:
                    fields[at] = (fields[at][0], value)
                else:
                    del fields[at]
    lines = b"".join(b"%s:%s\r\n" % (name, value.replace(b"\n", b"\r\n")) for name, value in fields)
    return lines + b"\r\n" + (body if replaced is None else replaced)


class Behind:
    """A gateway in memory with a milter in front of it."""

    def __init__(self, gateway: Any, **settings: Any) -> None:
        self.gateway = gateway
        self.settings = MilterSettings.model_validate(settings)

    def mta(self, **words: Any) -> Mta:
        """A new connection of an MTA."""
        from mailsec.model.session import Origin
        from mailsec.testing import values

        session = values.session(Origin.INTERNET, peer="127.0.0.1", listener="milter")
        conversation = MilterConversation(self.gateway.pipeline, self.settings, session)
        return Mta(conversation=conversation, run=self.gateway.runtime.run, limits=self.gateway.settings.limits, **words)

    def passes(self, octets: bytes, *envelope: str, login: str = "", before: bytes = b"") -> tuple[list[tuple[str, bytes]], bytes]:
        """(what the milter says of a message, what the MTA has then)."""
        mta = self.mta().feed(offer(), before, client(), message(octets, *envelope, login=login))
        return mta.packets[1:], applied(octets, mta.packets[1:])


@pytest.fixture(scope="session")
def milter() -> SimpleNamespace:
    """What an MTA says, and what becomes of it."""
    return SimpleNamespace(
        Mta=Mta, Behind=Behind, packet=packet, offer=offer, macros=macros, client=client, header=header, message=message, applied=applied,
        ACTIONS=ACTIONS, STEPS=STEPS, UNANSWERED=UNANSWERED, LEADING_SPACE=LEADING_SPACE,
    )  # fmt: skip
