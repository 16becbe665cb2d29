"""How an SMTP server says things: what it asks of its driver, replies, refusals that count, and goodbyes (RFC 5321 §3.8, §4.2).

The one invariant: `Ask`, `StartTls` and `Close` are the last of what is asked of the driver at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from mailsec.errors import Reply
from mailsec.model.requests import Ask, Close, Deadline, Request, Send, StartTls
from mailsec.wire.smtp import questions, words
from mailsec.wire.smtp.offers import ServerSettings
from mailsec.wire.smtp.replies import encode_reply
from mailsec.wire.smtp.states import State

__all__ = ["Speaking"]

_AMID = frozenset({State.CLOSED, State.TLS, State.DATA, State.CHUNK, State.BDAT})
"""Where nobody is told that we are about to stop: a message is being received, or nothing can be said."""


@lru_cache(maxsize=256)
def _send(reply: Reply) -> Send:
    return Send(encode_reply(reply))


class Speaking:
    """What all parts of a server share."""

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.state = State.CLOSED
        self.client = questions.ClientState()
        self._limits = settings.limits
        self._requests: list[Request] = []
        self._buffer = b""
        self._at = 0
        self._answered: Callable[[Any], None] | None = None
        self._bad = 0
        self._draining = False
        self._command_deadline = Deadline(self._limits.command_timeout)
        self._data_deadline = Deadline(self._limits.data_timeout)

    def _take(self) -> list[Request]:
        requests, self._requests = self._requests, []
        return requests

    def _say(self, reply: Reply) -> None:
        self._requests.append(_send(reply))

    def _refuse(self, reply: Reply) -> None:
        """A refusal that counts: guessing, scanning, and clients of other protocols end soon."""
        self._bad += 1
        self._say(reply)
        if self._bad >= self._limits.bad_commands:
            self._say(words.TOO_MANY_ERRORS)
            self._close()

    def _say_answer(self, reply: Reply) -> None:
        """A reply of the layer above. RFC 5321 §3.8: 421 announces that the connection is closed."""
        self._say(reply)
        if reply.code == 421:
            self._close()

    def _stop_if_draining(self) -> None:
        # RFC 5321 §3.8: a server that shuts down answers 421.
        if self._draining and self.state not in _AMID:
            self._say(words.STOPPING)
            self._close()

    def _ask(self, question: object, answered: Callable[[Any], None]) -> None:
        self._answered = answered
        self._requests.append(Ask(question))

    def _close(self, abort: bool = False) -> None:
        self.state = State.CLOSED
        self._buffer, self._at = b"", 0
        self._requests.append(Close(abort))

    def _handshake(self) -> None:
        self.state = State.TLS
        self._requests += [Deadline(self._limits.handshake_timeout), StartTls()]
