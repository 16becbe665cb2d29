"""The session with a mailbox's own server: requests go out, responses come back, in one connection for one reader.

The one invariant: QUIT is said there only where the reader has said it here; a session that ends otherwise is cut off, and deletes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mailsec.errors import MailsecError, Unavailable
from mailsec.interfaces import Runtime, Signal
from mailsec.wire.pop3.client import PopClient, PopClientSettings
from mailsec.wire.pop3.questions import Ended, NextRequests, Request, Response

__all__ = ["UpstreamSession"]


class UpstreamSession:
    """One login at one server."""

    def __init__(self, runtime: Runtime, *, connect_timeout: float = 30.0) -> None:
        self.ended: Ended | None = None
        """How it ended."""
        self._runtime = runtime
        self._connect_timeout = connect_timeout
        self._connection: Any = None
        self._next: Signal | None = None
        self._waiting: Signal | None = None
        self._aborted = False

    async def open(self, addresses: Sequence[str], settings: PopClientSettings) -> None:
        """Connect to the first of `addresses` that answers, and log in. Raise MailsecError; `ended` then says what the server said."""
        for number, address in enumerate(addresses, 1):
            waiting = self._waiting = self._runtime.signal()
            try:
                self._connection = await self._runtime.connect(address, PopClient(settings), self._ask, timeout=self._connect_timeout)
            except Unavailable:
                if number == len(addresses):
                    raise
                continue
            if self._aborted:
                self._connection.abort()
            await waiting.wait()
            self._check()
            return
        raise Unavailable("no address to connect to", stage="mailbox")

    async def request(self, *wanted: Request) -> tuple[Response, ...]:
        """The responses to `wanted`, in their order. Raise MailsecError where the server has gone, or breaks the protocol."""
        self._check()
        waiting, following = self._runtime.signal(), self._next
        assert following is not None
        self._waiting = waiting
        following.fire(wanted)
        responses: tuple[Response, ...] | None = await waiting.wait()
        if responses is None:
            self._check()
            raise Unavailable("the mailbox's server is gone", stage="mailbox")
        return responses

    async def quit(self) -> Response:
        """Say QUIT, and return what the server says to it. Raise MailsecError where it says nothing."""
        self._check()
        waiting, following = self._runtime.signal(), self._next
        assert following is not None
        self._waiting = waiting
        following.fire((Request("QUIT"),))
        await waiting.wait()
        ended = self.ended
        if ended is None or ended.response is None:
            raise (ended.error if ended is not None else None) or Unavailable("the mailbox's server did not answer QUIT", stage="mailbox")
        return ended.response

    def has_ended(self) -> bool:
        """True where nothing more can be asked."""
        return self.ended is not None

    def abort(self) -> None:
        """Cut it off without QUIT."""
        self._aborted = True
        if self._connection is not None and self.ended is None:
            self._connection.abort()

    def _ask(self, question: object) -> object:
        if isinstance(question, NextRequests):
            following = self._next = self._runtime.signal()
            self._tell(question.responses)
            return following.wait()
        if isinstance(question, Ended):
            self.ended = question
            self._tell(None)
        return None

    def _tell(self, responses: tuple[Response, ...] | None) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.fire(responses)

    def _check(self) -> None:
        if self.ended is not None:
            error: MailsecError = self.ended.error or Unavailable("the mailbox's server has closed the connection", stage="mailbox")
            raise error
