"""A player of dialogs: drives a protocol core as the gateway does, without a socket, and says what is wrong with what the core asks for.

A transcript is text; its lines begin with:

    #    a comment
    C:   a line of the peer (the line end is added)
    B:   octets of the peer with Python's escapes, nothing added
    S:   a line that the core says (… at the end: only the beginning is compared)
    R:   octets that the core says, with Python's escapes
    T:   the TLS handshake happens here
    D:   the deadline passes here
    X:   the core closes the connection

The one invariant: a transcript says the same whether it is played whole or octet by octet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from mailsec.errors import MailsecError
from mailsec.interfaces import Conversation, ProtocolCore
from mailsec.model.requests import Ask, Body, Close, Deadline, EndOfBody, Request, Send, StartTls, Stream
from mailsec.model.session import TlsInfo

__all__ = ["TLS", "Player", "play"]

TLS = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
"""What a handshake comes to here."""
_ENDING = (Ask, Stream, StartTls, Close)


class Player:
    """One connection. `run` drives what a conversation returns to await (`FakeRuntime.run`)."""

    def __init__(self, core: ProtocolCore, conversation: Conversation, run: Callable[[Awaitable[Any]], Any]) -> None:
        self.core = core
        self.conversation = conversation
        self.said = b""
        self.asked: list[object] = []
        self.closed = False
        self.deadline: float | None = None
        self.in_handshake = False
        """True where the core has asked for TLS, and `handshake` was not called yet."""
        self._run = run
        self._carry_out(core.connection_made())

    def feed(self, data: bytes) -> None:
        """The peer says something; nobody hears it where the connection is closed."""
        assert not self.in_handshake or self.closed, "the peer speaks before the handshake"
        if not self.closed:
            self._carry_out(self.core.receive_data(data))

    def handshake(self) -> None:
        """The handshake for which the core has asked is done."""
        assert self.in_handshake, "the core has not asked for TLS"
        self.in_handshake = False
        self._carry_out(self.core.tls_started(TLS))

    def wait(self) -> None:
        """The deadline passes."""
        assert self.deadline is not None, "the core has set no deadline: it would wait for ever"
        if not self.closed:
            self._carry_out(self.core.deadline_passed())

    def lose(self) -> None:
        """The peer is gone."""
        for request in self.core.connection_lost("connection closed"):
            assert isinstance(request, Ask), "nobody is there any more: only questions may follow"
        self.conversation.closed()
        self.closed = True

    def _carry_out(self, requests: Iterable[Request]) -> None:
        waiting: Sequence[Request] = tuple(requests)
        while waiting:
            following: Sequence[Request] = ()
            for number, request in enumerate(waiting):
                assert isinstance(request, Request), f"a {type(request).__name__} is no request of mailsec.model.requests"
                last = number == len(waiting) - 1
                assert last or not isinstance(request, _ENDING), f"something stands behind {type(request).__name__}"
                following = self._one(request)
            waiting = following

    def _one(self, request: Request) -> Sequence[Request]:
        if isinstance(request, Send):
            self.said += request.data
        elif isinstance(request, Stream):
            self.said += b"".join(bytes(piece) for piece in request.segments)
            return tuple(self.core.streamed())
        elif isinstance(request, Body):
            self.conversation.body(request.chunk)
        elif isinstance(request, EndOfBody):
            self.conversation.end_of_body()
        elif isinstance(request, Ask):
            self.asked.append(request.question)
            return tuple(self.core.answer(self._answer(request.question)))
        elif isinstance(request, Close):
            self.closed = True
        elif isinstance(request, Deadline):
            self.deadline = request.seconds
        else:
            self.in_handshake = True
        return ()

    def _answer(self, question: object) -> object:
        """As the gateway gives it: an error of ours is its reply."""
        try:
            answer: Any = self.conversation.ask(question)
            return self._run(answer) if hasattr(answer, "__await__") else answer
        except MailsecError as error:
            return error.reply


def play(
    transcript: str,
    open_: Callable[[], tuple[ProtocolCore, Conversation]],
    run: Callable[[Awaitable[Any]], Any],
    *,
    line_end: bytes = b"\r\n",
) -> None:
    """Play a transcript, whole and octet by octet; raise AssertionError where the core says something else."""
    steps = [(line[:2], line[3:]) for line in transcript.splitlines() if line.strip() and not line.startswith("#")]
    for size in (0, 1):
        player = Player(*open_(), run)
        heard = 0
        for kind, text in steps:
            if kind in ("C:", "B:"):
                octets = text.encode() + line_end if kind == "C:" else _unescape(text)
                for start in range(0, len(octets), size or len(octets)):
                    player.feed(octets[start : start + (size or len(octets))])
            elif kind == "T:":
                player.handshake()
            elif kind == "D:":
                player.wait()
            elif kind == "X:":
                assert player.closed, "the core does not close the connection"
            elif kind == "R:":
                wanted = _unescape(text)
                said = player.said[heard : heard + len(wanted)]
                assert said == wanted, f"the core says {said!r}, and not {wanted!r}"
                heard += len(wanted)
            else:
                assert kind == "S:", f"no line of a transcript: {kind} {text}"
                end = player.said.find(line_end, heard)
                said_line = player.said[heard : end if end >= 0 else None].decode("utf-8", "replace")
                fits = said_line.startswith(text[:-1]) if text.endswith("…") else said_line == text
                assert end >= 0 and fits, f"the core says {said_line!r}, and not {text!r}"
                heard = end + len(line_end)
        assert heard == len(player.said), f"the core says more: {player.said[heard:]!r}"
        player.lose()


def _unescape(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")
