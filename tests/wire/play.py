"""Plays transcripts (`dialogs/*.dialog`) and octets against the SMTP server core, without a socket.

A transcript is a text file; its lines begin with:

    #    a comment
    set  settings of the server (`ServerSettings`, `Limits`): name=value …
    C:   a line of the client (CRLF is added)
    B:   octets of the client with Python's escapes, nothing added
    S:   the line that the server says (… at the end: only the beginning is compared)
    A:   QUESTION CODE ENHANCED TEXT: how the next such question is answered
    M:   a message that is received, with Python's escapes
    T:   the TLS handshake happens here
    X:   the server closes
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mailsec.errors import Reply
from mailsec.model.limits import Limits
from mailsec.model.requests import Ask, Body, Close, Deadline, EndOfBody, Send, StartTls
from mailsec.model.session import Identity, TlsInfo
from mailsec.wire.smtp import questions
from mailsec.wire.smtp.offers import ServerSettings
from mailsec.wire.smtp.server import SmtpServer

TLS = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
DIALOGS = Path(__file__).parent / "dialogs"


class Driver:
    """Carries out what a server core asks for, and remembers it."""

    def __init__(self, settings: ServerSettings | None = None, answers: dict[str, list[Reply]] | None = None) -> None:
        self.core = SmtpServer(settings or ServerSettings("gw.example.org"))
        self.answers = answers or {}
        self.said = b""
        self.messages: list[bytes] = []
        self.envelopes: list[Any] = []
        self.asked: list[object] = []
        self.body = b""
        self.closed = False
        self.deadline: float | None = None
        self._carry_out(self.core.connection_made())

    def answer(self, question: object) -> object:
        self.asked.append(question)
        name = type(question).__name__
        if self.answers.get(name):
            reply = self.answers[name].pop(0)
            if reply.code != 250:
                return reply
        if isinstance(question, questions.Authenticate):
            login = question.credentials.login
            return Identity(login, (login,)) if question.credentials.secret == b"secret" else None
        if isinstance(question, questions.MessageComplete):
            self.messages.append(self.body)
            self.envelopes.append(question.envelope)
            self.body = b""
            if question.each:
                return tuple(self._for(one) for one in question.envelope.recipients)
            return Reply(250, "2.0.0", "queued")
        if isinstance(question, questions.MessageAbandoned):
            self.body = b""
        return None

    def _for(self, recipient: Any) -> Reply:
        return Reply(452, "4.2.2", "full") if recipient.address.local_part == "full" else Reply(250, "2.0.0", "queued")

    def _carry_out(self, requests: Iterable[Any]) -> None:
        while requests:
            following: Iterable[Any] = ()
            for request in requests:
                assert not following and not self.closed, "nothing stands behind an Ask or a Close"
                if isinstance(request, Send):
                    self.said += request.data
                elif isinstance(request, Body):
                    self.body += bytes(request.chunk)
                elif isinstance(request, Ask):
                    following = self.core.answer(self.answer(request.question))
                elif isinstance(request, Close):
                    self.closed = True
                elif isinstance(request, Deadline):
                    self.deadline = request.seconds
                else:
                    assert isinstance(request, (EndOfBody, StartTls))
            requests = following

    def feed(self, data: bytes) -> None:
        if not self.closed:
            self._carry_out(self.core.receive_data(data))

    def handshake(self) -> None:
        self._carry_out(self.core.tls_started(TLS))

    def wait(self) -> None:
        """The deadline passes."""
        self._carry_out(self.core.deadline_passed())


@dataclass
class Dialog:
    settings: ServerSettings
    stretches: list[bytes] = field(default_factory=lambda: [b""])
    """What the client says, cut where a handshake happens."""
    expected: list[str] = field(default_factory=list)
    answers: dict[str, list[Reply]] = field(default_factory=dict)
    messages: list[bytes] = field(default_factory=list)
    closes: bool = False


def read_dialog(path: Path) -> Dialog:
    dialog = Dialog(ServerSettings("gw.example.org"))
    for line in path.read_text("utf-8").splitlines():
        kind, text = line[:2], line[3:]
        if not line or line.startswith("#"):
            continue
        if line.startswith("set "):
            dialog.settings = _set(dialog.settings, line[4:].split())
        elif kind == "C:":
            dialog.stretches[-1] += text.encode() + b"\r\n"
        elif kind == "B:":
            dialog.stretches[-1] += _unescape(text)
        elif kind == "S:":
            dialog.expected.append(text)
        elif kind == "A:":
            question, code, enhanced, words = text.split(" ", 3)
            dialog.answers.setdefault(question, []).append(Reply(int(code), enhanced, words))
        elif kind == "M:":
            dialog.messages.append(_unescape(text))
        elif kind == "T:":
            dialog.stretches.append(b"")
        elif kind == "X:":
            dialog.closes = True
        else:
            raise AssertionError(f"{path}: {line}")
    return dialog


def _unescape(text: str) -> bytes:
    return text.encode().decode("unicode_escape").encode("latin-1")


def _set(settings: ServerSettings, words: list[str]) -> ServerSettings:
    limits = {f.name for f in fields(Limits)}
    for word in words:
        name, value = word.split("=")
        read: Any = int(value) if value.isdigit() else value == "true" if value in ("true", "false") else value
        if name in limits:
            settings = replace(settings, limits=replace(settings.limits, **{name: read}))
        else:
            settings = replace(settings, **{name: read})
    return settings


def play(dialog: Dialog, cut: Any, trailing: bytes = b"") -> Driver:
    """Play it, the client's octets cut by `cut(octets) -> pieces`."""
    driver = Driver(dialog.settings, {name: list(replies) for name, replies in dialog.answers.items()})
    for number, stretch in enumerate(dialog.stretches):
        if number or dialog.settings.tls == "implicit":
            driver.handshake()
        last = number == len(dialog.stretches) - 1
        for piece in cut(stretch + (trailing if last else b"")):
            driver.feed(piece)
    return driver


def matches(expected: list[str], said: bytes) -> bool:
    lines = said.decode().split("\r\n")[:-1]
    return len(lines) == len(expected) and all(
        line.startswith(want[:-1]) if want.endswith("…") else line == want for line, want in zip(lines, expected, strict=True)
    )


def whole(octets: bytes) -> list[bytes]:
    return [octets] if octets else []


def octet_by_octet(octets: bytes) -> list[bytes]:
    return [octets[i : i + 1] for i in range(len(octets))]


def line_by_line(octets: bytes) -> list[bytes]:
    return octets.splitlines(keepends=True)
