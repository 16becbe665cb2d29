"""The milter protocol as a sans-IO core (`interfaces.ProtocolCore`): packets in, `model.requests` out.

The one invariant: a message is answered once, at its end, and what breaks the protocol ends the connection: the MTA then does with the
message what `milter_default_action` says, which is to try again later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_address
from typing import Any

from mailsec.errors import RemoteProtocolError, Reply
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.requests import Ask, Body, Close, Deadline, EndOfBody, Request, Send, Stream
from mailsec.model.session import TlsInfo
from mailsec.wire.smtp.commands import client_name
from mailsec_milter.incoming import Incoming
from mailsec_milter.macros import Macros
from mailsec_milter.negotiation import Terms, negotiate
from mailsec_milter.packets import PacketReader, frames, number, packet
from mailsec_milter.questions import Abandoned, Answer, Broken, Change, GoOn, Received, Working
from mailsec_milter.words import LARGEST_CHUNK, Command, Word

__all__ = ["MilterCore"]

# Where the conversation stands.
_NEW, _READY, _CLIENT, _ENVELOPE, _HEADER, _BODY = range(6)
_IN_MESSAGE = (_ENVELOPE, _HEADER, _BODY)
_ANY = (_READY, _CLIENT, *_IN_MESSAGE)
_ALLOWED = {
    Command.NEGOTIATE: (_NEW,),
    Command.MACRO: _ANY,
    Command.CONNECT: (_READY, _CLIENT),
    Command.HELO: (_CLIENT,),
    Command.MAIL: (_CLIENT, *_IN_MESSAGE),
    Command.RCPT: (_ENVELOPE,),
    Command.DATA: (_ENVELOPE,),
    Command.HEADER: (_ENVELOPE, _HEADER),
    Command.END_OF_HEADER: (_ENVELOPE, _HEADER),
    Command.BODY: (_BODY,),
    Command.END_OF_MESSAGE: (_BODY,),
    Command.UNKNOWN: (_CLIENT, *_IN_MESSAGE),
    Command.ABORT: _ANY,
    Command.QUIT_NEW_CONNECTION: _ANY,
    Command.QUIT: (_NEW, *_ANY),
}
_PLACES = ("before negotiation", "before a client", "outside a message", "in an envelope", "in a header", "in a body")
_IDLE = 7210.0
"""Seconds without a packet: an MTA keeps the connection while its client thinks, and libmilter waits as long."""
_OURS = Reply(451, "4.3.0", "local error, try again later")


class MilterCore:
    """One connection of an MTA. `hostname` is whose name a path without a domain gets; a `stranger` is closed at once."""

    def __init__(self, hostname: str, limits: Limits = DEFAULT_LIMITS, *, stranger: bool = False) -> None:
        self._stranger = stranger
        self._hostname = hostname
        self._limits = limits
        self._packets = PacketReader()
        self._macros = Macros()
        self._terms = Terms(0, 0, 0)
        self._place = _NEW
        self._draining = False
        self._closed = False
        self._asked: object = None
        self._incoming: Incoming | None = None
        self._peer: tuple[str, int] = ("", 0)
        self._helo = ""
        self._daemon = ""
        self._host = ""
        self._tls: dict[str, str] = {}
        self._login: tuple[str, str] = ("", "")
        self._steps: dict[bytes, Callable[[bytes], Iterator[Request]]] = {
            Command.NEGOTIATE: self._negotiate,
            Command.MACRO: self._macro,
            Command.CONNECT: self._connect,
            Command.HELO: self._greet,
            Command.MAIL: self._mail,
            Command.RCPT: self._rcpt,
            Command.DATA: self._nothing,
            Command.HEADER: self._field,
            Command.END_OF_HEADER: self._end_of_header,
            Command.BODY: self._chunk,
            Command.END_OF_MESSAGE: self._end,
            Command.UNKNOWN: self._nothing,
            Command.ABORT: self._abort,
            Command.QUIT_NEW_CONNECTION: self._new_connection,
            Command.QUIT: self._quit,
        }

    # -- interfaces.ProtocolCore ------------------------------------------------------------------------------------------------

    def connection_made(self) -> Iterable[Request]:
        if self._stranger:
            # Attack: whoever reaches the port says {auth_authen} and has a message signed.
            self._asked = Broken("not an MTA that may connect", "peers of [plugin.milter] says who may")
            return [Ask(self._asked)]
        return [Deadline(_IDLE)]

    def receive_data(self, data: bytes) -> Iterable[Request]:
        self._packets.feed(data)
        return self._go_on([Deadline(_IDLE)])

    def answer(self, value: Any) -> Iterable[Request]:
        asked, self._asked = self._asked, None
        if isinstance(asked, Broken):
            self._closed = True
            return [Close(abort=True)]
        if isinstance(asked, Abandoned):
            return self._go_on([])
        if isinstance(value, Working):
            self._asked = GoOn()
            return [Send(packet(Word.PROGRESS)), Ask(self._asked)]
        self._place, self._incoming = _CLIENT, None
        if not isinstance(value, Answer):
            return self._go_on([Send(packet(Word.REPLY_CODE, _told(value)))])
        said = b"".join(self._change(one) for one in value.changes)
        if value.quarantine:
            said += packet(Word.QUARANTINE, _line(value.quarantine) + b"\0")
        if value.body is None:
            return self._go_on([Send(said + packet(Word.CONTINUE))])
        return [Send(said), Stream(frames(Word.REPLACE_BODY, value.body, LARGEST_CHUNK))]

    def streamed(self) -> Iterable[Request]:
        return self._go_on([Send(packet(Word.CONTINUE))])

    def tls_started(self, info: TlsInfo) -> Iterable[Request]:
        return ()

    def deadline_passed(self) -> Iterable[Request]:
        self._closed = True
        return [Close()]

    def connection_lost(self, reason: str) -> Iterable[Request]:
        return ()

    def drain(self) -> Iterable[Request]:
        """Say goodbye as soon as no message is under way: the MTA connects again for its next client."""
        self._draining = True
        return self._go_on([])

    # -- packets ----------------------------------------------------------------------------------------------------------------

    def _go_on(self, requests: list[Request]) -> list[Request]:
        """Read packets until something is asked, or there is none."""
        try:
            while self._asked is None and not self._closed:
                if self._draining and self._place <= _READY:
                    self._closed = True
                    requests.append(Close())
                    break
                found = self._packets.next()
                if found is None:
                    break
                command, data = found
                if self._place not in _ALLOWED.get(command, ()):
                    raise RemoteProtocolError(f"command {command!r} {_PLACES[self._place]}", hint="is that an MTA?")
                # A question ends what a core returns; what the MTA is told goes before it.
                requests.extend(sorted(self._steps[command](data), key=lambda one: isinstance(one, Ask)))
        except RemoteProtocolError as error:
            self._asked = Broken(error.message, error.hint)
            requests.append(Ask(self._asked))
        return requests

    def _go(self, command: bytes) -> Iterator[Request]:
        if self._terms.answers(command):
            yield Send(packet(Word.CONTINUE))

    def _negotiate(self, data: bytes) -> Iterator[Request]:
        self._terms = negotiate(data)
        self._place = _READY
        yield Send(packet(Command.NEGOTIATE, self._terms.packed()))

    def _macro(self, data: bytes) -> Iterator[Request]:
        self._macros.define(data)
        yield from ()

    def _connect(self, data: bytes) -> Iterator[Request]:
        macros = self._macros.take(Command.CONNECT)
        self._forget_client()
        self._daemon, self._host = macros.get("daemon_name", ""), macros.get("j", "")
        self._peer = _peer(data)
        self._place = _CLIENT
        yield from self._go(Command.CONNECT)

    def _greet(self, data: bytes) -> Iterator[Request]:
        macros = self._macros.take(Command.HELO)
        # RFC 3207 §4.2: after STARTTLS the client greets anew, and what it said before is forgotten.
        self._helo = client_name(data.removesuffix(b"\0"))
        self._tls = {name: macros[name] for name in ("tls_version", "cipher", "cipher_bits") if macros.get(name)}
        yield from self._go(Command.HELO)

    def _mail(self, data: bytes) -> Iterator[Request]:
        macros = self._macros.take(Command.MAIL)
        yield from self._go(Command.MAIL)
        yield from self._drop()
        self._login = (macros.get("auth_authen", ""), macros.get("auth_type", ""))
        self._incoming = Incoming(self._hostname, self._limits, leading_space=self._terms.leading_space)
        self._incoming.mail(data)
        self._place = _ENVELOPE

    def _rcpt(self, data: bytes) -> Iterator[Request]:
        self._message().rcpt(data)
        yield from self._go(Command.RCPT)

    def _field(self, data: bytes) -> Iterator[Request]:
        self._place = _HEADER
        yield from _body(self._message().field(data))
        yield from self._go(Command.HEADER)

    def _end_of_header(self, data: bytes) -> Iterator[Request]:
        self._place = _BODY
        yield from _body(self._message().end_of_header())
        yield from self._go(Command.END_OF_HEADER)

    def _chunk(self, data: bytes) -> Iterator[Request]:
        message = self._message()
        yield from _body(message.body(data))
        if message.fault is not None and self._terms.skips:
            yield Send(packet(Word.SKIP))
        else:
            yield from self._go(Command.BODY)

    def _end(self, data: bytes) -> Iterator[Request]:
        message = self._message()
        if data:
            yield from _body(message.body(data))
        queue_id = self._macros.take(Command.END_OF_MESSAGE).get("i", "")
        envelope = message.complete()
        if message.fault is not None:
            fault = message.fault
            yield Send(packet(Word.REPLY_CODE, _told(fault)))
            yield from self._drop()
            return
        peer, port = self._peer
        login, mechanism = self._login
        self._asked = Received(
            peer, port, self._helo, envelope, login, mechanism, self._daemon, queue_id, self._tls, self._terms.quarantines,
            self._host,
        )  # fmt: skip
        yield EndOfBody()
        yield Ask(self._asked)

    def _nothing(self, data: bytes) -> Iterator[Request]:
        yield from self._go(Command.DATA)

    def _abort(self, data: bytes) -> Iterator[Request]:
        self._macros.forget(Command.MAIL, Command.RCPT, Command.END_OF_MESSAGE)
        yield from self._drop()

    def _new_connection(self, data: bytes) -> Iterator[Request]:
        yield from self._drop()
        self._macros.forget()
        self._place = _READY

    def _quit(self, data: bytes) -> Iterator[Request]:
        self._closed = True
        yield Close()

    # -- a message --------------------------------------------------------------------------------------------------------------

    def _message(self) -> Incoming:
        assert self._incoming is not None  # the place says so
        return self._incoming

    def _drop(self) -> Iterator[Request]:
        """The message that is under way, if there is one, is not wanted any more. Nothing may stand behind this."""
        if self._place in _IN_MESSAGE:
            self._place = _CLIENT
        incoming, self._incoming = self._incoming, None
        if incoming is not None and incoming.size:
            self._asked = Abandoned()
            yield Ask(self._asked)

    def _forget_client(self) -> None:
        """Another SMTP client may come on this connection; nothing of this one is its own."""
        self._peer, self._helo, self._daemon, self._host, self._tls, self._login = ("", 0), "", "", "", {}, ("", "")

    def _change(self, change: Change) -> bytes:
        value = change.value
        if not self._terms.leading_space and value[:1] in (b" ", b"\t"):
            value = value[1:]
        if change.kind == "insert":
            return packet(Word.INSERT_HEADER, number(change.place) + change.name + b"\0" + value + b"\0")
        if change.kind == "change":
            return packet(Word.CHANGE_HEADER, number(change.place) + change.name + b"\0" + value + b"\0")
        return packet(Word.ADD_HEADER, change.name + b"\0" + value + b"\0")


def _body(octets: bytes) -> Iterator[Request]:
    if octets:
        yield Body(octets)


def _peer(data: bytes) -> tuple[str, int]:
    """The client's address of a CONNECT: name, family, port, address. Raise RemoteProtocolError where it is cut off."""
    _, nul, rest = data.partition(b"\0")
    family = rest[:1]
    if not nul or family not in (b"U", b"L", b"4", b"6") or (family != b"U" and (len(rest) < 4 or not rest.endswith(b"\0"))):
        raise RemoteProtocolError("a client without an address")
    if family == b"U":
        return "", 0
    port, text = int.from_bytes(rest[1:3], "big"), rest[3:-1].decode("latin-1")
    if family == b"L":
        return f"unix:{_NO_TEXT.sub('?', text)}", 0
    text = text.removeprefix("IPv6:")
    try:
        return str(ip_address(text)), port
    except ValueError:
        raise RemoteProtocolError("a client whose address is none") from None


_NO_TEXT = re.compile(r"[^!-~]")


def _told(value: object) -> bytes:
    """The data of a reply code: "550 5.7.1 text". What is no refusal is a failure of ours: try again."""
    reply = value if isinstance(value, Reply) and 400 <= value.code <= 599 else _OURS
    enhanced = reply.enhanced if reply.enhanced[:1] == str(reply.code)[0] else f"{reply.code // 100}.0.0"
    # A per cent sign begins a directive in the MTA's format, and two are one sign.
    return b"%d %s %s\0" % (reply.code, enhanced.encode("ascii", "replace"), _line(reply.text).replace(b"%", b"%%"))


def _line(text: str) -> bytes:
    """One line of printable US-ASCII: a line end would begin another one of the MTA's reply."""
    return re.sub(r"[^ -~]+", " ", text).encode("ascii")[:400].strip() or b"refused"
