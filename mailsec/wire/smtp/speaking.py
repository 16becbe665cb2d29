"""How an SMTP server says things: what it asks of its driver, replies, refusals that count, and goodbyes (RFC 5321 §3.8, §4.2).

The one invariant: `Ask`, `StartTls` and `Close` are the last of what is asked of the driver at once.
"""

from __future__ import annotations

from functools import lru_cache

from mailsec.errors import Reply
from mailsec.model.requests import Deadline, Send
from mailsec.wire.conversation import Conversation, LastWords
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


class Speaking(Conversation[State, Reply]):
    """What all parts of a server share."""

    def __init__(self, settings: ServerSettings) -> None:
        last = LastWords(words.LONG_LINE, words.BARE_LF, words.TOO_MANY_ERRORS)
        super().__init__(settings.limits, last, closed=State.CLOSED, handshake=State.TLS, tls=settings.tls)
        self.settings = settings
        self.client = questions.ClientState()
        self._command_deadline = Deadline(self._limits.command_timeout)
        self._data_deadline = Deadline(self._limits.data_timeout)

    def _wait(self) -> None:
        self._requests.append(self._command_deadline)

    def _say(self, reply: Reply) -> None:
        self._requests.append(_send(reply))

    def _say_answer(self, reply: Reply) -> None:
        """A reply of the layer above. RFC 5321 §3.8: 421 announces that the connection is closed."""
        self._say(reply)
        if reply.code == 421:
            self._close()

    def _stop_if_draining(self) -> None:
        # RFC 5321 §3.8: a server that shuts down answers 421.
        if self._draining and self.state not in _AMID:
            self._leave(words.STOPPING)
