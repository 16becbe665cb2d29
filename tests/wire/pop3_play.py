"""Plays transcripts (`pop3_dialogs/*.dialog`) and octets against the POP3 server core, without a socket.

A transcript is a text file; its lines begin with:

    #    a comment
    set  settings of the server (`PopSettings`, `Limits`): name=value …
    C:   a line of the client (CRLF is added)
    B:   octets of the client with Python's escapes, nothing added
    S:   the line that the server says (… at the end: only the beginning is compared)
    T:   the TLS handshake happens here
    X:   the server closes

The maildrop holds two messages; alice's password is "secret".
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mailsec.errors import MailsecError
from mailsec.model.limits import Limits
from mailsec.model.octets import Segments
from mailsec.model.requests import Ask, Close, Deadline, Send, StartTls, Stream
from mailsec.model.session import TlsInfo
from mailsec.wire.pop3 import questions
from mailsec.wire.pop3.questions import Response
from mailsec.wire.pop3.server import PopServer, PopSettings

TLS = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
DIALOGS = Path(__file__).parent / "pop3_dialogs"
MESSAGES = [b"Subject: one\r\n\r\n.dots\r\n..\r\n.\r\n", b"Subject: two\r\n\r\nno line end"]


class Driver:
    """Carries out what a server core asks for, and remembers it."""

    def __init__(self, settings: PopSettings | None = None, messages: list[bytes] | None = None, refuse: Any = None) -> None:
        self.core = PopServer(settings or PopSettings("gw.example.org"))
        self.messages = MESSAGES if messages is None else messages
        self.refuse = refuse
        self.said = b""
        self.asked: list[Any] = []
        self.deleted: set[int] = set()
        self.updated = False
        self.closed = False
        self.handshakes = 0
        self.largest = 0
        self.deadline: float | None = None
        self._carry_out(self.core.connection_made())

    def answer(self, question: Any) -> object:
        self.asked.append(question)
        if isinstance(question, questions.Connected):
            return None
        if self.refuse is not None:
            return self.refuse
        if isinstance(question, questions.Login):
            credentials = question.credentials
            right = (credentials.login, credentials.secret) == ("alice", b"secret")
            return Response(True, "logged in") if right else None
        number = question.number
        if number > len(self.messages) or number in self.deleted:
            return Response(False, "no such message")
        left = [n for n in range(1, len(self.messages) + 1) if n not in self.deleted]
        match question.verb:
            case "STAT":
                return Response(True, f"{len(left)} {sum(len(self.messages[n - 1]) for n in left)}")
            case "LIST" if number:
                return Response(True, f"{number} {len(self.messages[number - 1])}")
            case "LIST" | "UIDL":
                return Response(True, body=Segments.of(b"".join(b"%d x%d\r\n" % (n, n) for n in left)))
            case "RETR":
                return Response(True, body=Segments.of(self.messages[number - 1]))
            case "TOP":
                head, _, body = self.messages[number - 1].partition(b"\r\n\r\n")
                lines = body.splitlines(keepends=True)[: question.lines]
                return Response(True, body=Segments.of(head + b"\r\n\r\n" + b"".join(lines)))
            case "DELE":
                self.deleted.add(number)
            case "RSET":
                self.deleted.clear()
            case "QUIT":
                self.updated = True
                return Response(True, "goodbye")
        return Response(True)

    def _carry_out(self, requests: Iterable[Any]) -> None:
        while requests:
            following: Iterable[Any] = ()
            for request in requests:
                assert not following and not self.closed, "nothing stands behind an Ask, a Stream or a Close"
                if isinstance(request, Send):
                    self.said += request.data
                elif isinstance(request, Ask):
                    following = self.core.answer(self.answer(request.question))
                elif isinstance(request, Close):
                    self.closed = True
                elif isinstance(request, Deadline):
                    self.deadline = request.seconds
                elif isinstance(request, Stream):
                    try:
                        for piece in request.segments:
                            self.largest = max(self.largest, len(piece))
                            self.said += piece
                    except MailsecError:
                        self.closed = True
                    else:
                        following = self.core.streamed()
                else:
                    assert isinstance(request, StartTls)
                    self.handshakes += 1
            requests = following

    def feed(self, data: bytes) -> Driver:
        if not self.closed:
            self._carry_out(self.core.receive_data(data))
        return self

    def handshake(self) -> Driver:
        self._carry_out(self.core.tls_started(TLS))
        return self

    def wait(self) -> None:
        """The deadline passes."""
        self._carry_out(self.core.deadline_passed())

    def drain(self) -> None:
        self._carry_out(self.core.drain())


def logged_in(**more: Any) -> Driver:
    """A driver whose client is alice, under TLS."""
    driver = Driver(more.pop("settings", None) or PopSettings("gw.example.org", tls="implicit"), **more).handshake()
    driver.feed(b"USER alice\r\nPASS secret\r\n")
    driver.said = b""
    return driver


@dataclass
class Dialog:
    settings: PopSettings
    stretches: list[bytes] = field(default_factory=lambda: [b""])
    """What the client says, cut where a handshake happens."""
    expected: list[str] = field(default_factory=list)
    closes: bool = False


def read_dialog(path: Path) -> Dialog:
    dialog = Dialog(PopSettings("gw.example.org"))
    for line in path.read_text("utf-8").splitlines():
        kind, text = line[:2], line[3:]
        if not line or line.startswith("#"):
            continue
        if line.startswith("set "):
            dialog.settings = _set(dialog.settings, line[4:].split())
        elif kind == "C:":
            dialog.stretches[-1] += text.encode() + b"\r\n"
        elif kind == "B:":
            dialog.stretches[-1] += text.encode().decode("unicode_escape").encode("latin-1")
        elif kind == "S:":
            dialog.expected.append(text)
        elif kind == "T:":
            dialog.stretches.append(b"")
        elif kind == "X:":
            dialog.closes = True
        else:
            raise AssertionError(f"{path}: {line}")
    return dialog


def _set(settings: PopSettings, words: list[str]) -> PopSettings:
    limits = {f.name for f in fields(Limits)}
    for word in words:
        name, value = word.split("=")
        if name in limits:
            settings = replace(settings, limits=replace(settings.limits, **{name: int(value)}))
        else:
            settings = replace(settings, **{name: value})
    return settings


def play(dialog: Dialog, cut: Any, trailing: bytes = b"") -> Driver:
    """Play it, the client's octets cut by `cut(octets) -> pieces`."""
    driver = Driver(dialog.settings)
    for number, stretch in enumerate(dialog.stretches):
        if number or dialog.settings.tls == "implicit":
            driver.handshake()
        last = number == len(dialog.stretches) - 1
        for piece in cut(stretch + (trailing if last else b"")):
            driver.feed(piece)
    return driver
