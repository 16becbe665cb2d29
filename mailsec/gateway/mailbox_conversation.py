"""The gateway's half of a POP3 session: answers `wire.pop3.questions` of a reader from the mailbox's own server.

The one invariant: a message is deleted there only after the reader has said QUIT here. DELE is noted; what was noted goes out with QUIT, and
a session that ends otherwise, on either side, deletes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from functools import partial

from mailsec.errors import LimitExceeded, LocalProtocolError, MailsecError, Refused, Unavailable
from mailsec.gateway.login_turns import Password
from mailsec.gateway.mailbox import Copy
from mailsec.gateway.mailbox_login import Place, account_of, addresses_of, place_of
from mailsec.gateway.mailbox_upstream import UpstreamSession
from mailsec.gateway.pipeline import Pipeline
from mailsec.gateway.top import top_of
from mailsec.interfaces import Scratch
from mailsec.model.octets import Segments
from mailsec.model.session import Session
from mailsec.model.settings import MailboxSettings
from mailsec.model.verdict import Event
from mailsec.wire.pop3.client import PopClientSettings
from mailsec.wire.pop3.questions import Connected, Login, Request, Response

__all__ = ["MailboxConversation"]

_STATUS = re.compile(r"([0-9]{1,10}) ([0-9]{1,18})(?: |\Z)")
_ENTRY = re.compile(rb"([0-9]{1,10})[ \t]")
_AT_ONCE = 100
"""DELEs that are sent together."""

_OF_CERTIFICATES = "the server's certificate must name it, and lead to a CA of the system or of ca_file in [relay]"

_GONE = Response(False, "the mailbox is not reachable any more", "SYS/TEMP", closing=True)
_WAIT = Response(False, "too many wrong passwords, try again later", "SYS/TEMP")
_NO_SUCH = Response(False, "no such message")
_DELETED = Response(False, "that message was deleted")
_NOT_READ = Response(False, "the mailbox's server said something else")
_NOT_NOW = Response(False, "the message cannot be shown now, try again later", "SYS/TEMP")
_TOO_LARGE = Response(False, "the message is larger than is handled here", "SYS/PERM")
_TOO_MANY_DELETED = Response(False, "so many are deleted in this session already, say QUIT first", "SYS/TEMP")
_NOT_ALL_DELETED = Response(False, "some deleted messages were not removed")


class MailboxConversation:
    """One for each connection; an `interfaces.Conversation`."""

    def __init__(self, pipeline: Pipeline, session: Session, settings: MailboxSettings) -> None:
        self.session = session
        """As it is known at this moment."""
        self._pipeline = pipeline
        self._settings = settings
        self._upstream: UpstreamSession | None = None
        self._deleted: dict[int, int] = {}
        """Numbers of messages that are to be deleted, with their sizes as the server gives them."""
        self._kept: tuple[int, Copy, Scratch] | None = None
        """The message that was shown last: a client that asks for its TOP wants it whole next."""
        self._quitting = False

    def ask(self, question: object) -> object | Awaitable[object]:
        """Answer at once where nothing must be waited for."""
        if isinstance(question, Request):
            return self._answer(question)
        if isinstance(question, Login):
            return self._log_in(question)
        if isinstance(question, Connected):
            self.session = replace(self.session, tls=question.tls, protocol="POP3")
            return self._pipeline.admit_connection(self.session)
        raise LocalProtocolError(f"an unknown question: {type(question).__name__}")

    def body(self, chunk: bytes | memoryview) -> None:
        """Nothing is received by this side."""

    def end_of_body(self) -> None:
        """Nothing is received by this side."""

    def closed(self) -> None:
        """The reader is gone. Without their QUIT the mailbox stays as it is; a QUIT that is on its way is finished."""
        self._forget()
        if self._upstream is not None and not self._quitting:
            self._upstream.abort()

    # -- login ----------------------------------------------------------------------------------------------------------------

    async def _log_in(self, question: Login) -> Response | None:
        credentials = question.credentials
        # RFC 4616 §2: the authorisation identity says as whom to act; nobody acts as somebody else here.
        if credentials.authorisation not in ("", credentials.login):
            self._record("login refused", reason="to act as somebody else was asked for")
            return None
        turns, peer = self._pipeline.logins.turns, self.session.peer
        try:
            try:
                place = place_of(self._settings, credentials.login)
            except Refused as error:
                # Attack: a stranger looks for servers that we reach. That is guessing, too; and whoever shuts out guessers by the log must see it.
                turns.demand(peer, "")
                turns.failed(peer, "")
                self._record("login refused", reason=error.message, hint=error.hint)
                raise
            return await turns.look(peer, account_of(self._settings, place), partial(self._log_in_at, place, question))
        except Unavailable as error:
            # RFC 3206 §4: not "AUTH", which would have the reader asked for another password.
            self._record("login refused", reason=error.message)
            return _WAIT

    async def _log_in_at(self, place: Place, question: Login) -> tuple[Response, Password]:
        """The login at the mailbox's own server, and whether the password was right: None where that cannot be said."""
        credentials, runtime, upstream = question.credentials, self._pipeline.runtime, place.upstream
        session = replace(self.session, tls=question.tls, upstream=str(upstream))
        if self._pipeline.admission.lacks_certificate(session):
            # The password goes nowhere.
            return self._demanded(session), Password(None)
        settings = PopClientSettings(
            place.login,
            credentials.secret,
            tls=upstream.tls,
            server_name=upstream.server_name or upstream.host,
            peer=upstream.peer,
            implicit_tls=upstream.implicit_tls,
            utf8=question.utf8,
            limits=self._pipeline.settings.limits,
        )
        opened = UpstreamSession(runtime, connect_timeout=self._pipeline.settings.relay.connect_timeout)
        self._upstream = opened
        try:
            await opened.open(await addresses_of(runtime, place, self._settings), settings)
        except MailsecError as error:
            self._upstream = None
            refused = self._refused(session, opened, error)
            wrong = opened.ended is not None and opened.ended.login_refused and not _says_nothing(refused)
            return refused, Password(False if wrong else None)
        # The password was right: only now somebody is asked whose mailbox this is.
        try:
            identity = await self._pipeline.owner(session, place.login)
        except MailsecError as error:
            opened.abort()
            self._upstream = None
            return self._refused(session, opened, error), Password(True)
        session = replace(session, identity=identity)
        if self._pipeline.admission.admit_session(session) is not None:
            opened.abort()
            self._upstream = None
            return self._demanded(session), Password(True)
        self.session = session
        self._record("mailbox opened")
        return Response(True, "logged in"), Password(True, identity.account if identity is not None else "")

    def _demanded(self, session: Session) -> Response:
        self.session = replace(session, identity=None)
        self._record("login refused", reason="the session is not what the listener demands")
        return Response(False, "not with this certificate, or not this way", "SYS/PERM")

    def _refused(self, session: Session, opened: UpstreamSession, error: MailsecError) -> Response:
        ended = opened.ended
        self.session = session
        hint = error.hint or (_OF_CERTIFICATES if error.stage == "tls" else "")
        self._record("login refused", reason=error.message, hint=hint)
        if ended is not None and ended.login_refused and ended.response is not None:
            # RFC 3206 §4: what the server says of the credentials is for the reader; without a code it means that they are wrong.
            return Response(False, ended.response.text or "login refused", ended.response.code or "AUTH")
        return Response(False, "the mailbox's server cannot be reached now", "SYS/TEMP" if error.temporary else "SYS/PERM")

    def _record(self, name: str, **more: str) -> None:
        session = self.session
        fields = {
            "listener": session.listener,
            "peer": session.peer,
            "upstream": session.upstream,
            "user": session.identity.name if session.identity is not None else "",
        }
        self._pipeline.plugins.record(Event(name, self._pipeline.runtime.now(), fields | more))

    # -- commands -------------------------------------------------------------------------------------------------------------

    async def _answer(self, request: Request) -> Response:
        upstream = self._upstream
        if upstream is None or upstream.has_ended():
            return _GONE
        if request.number and request.number in self._deleted:
            return _DELETED
        try:
            return await self._carry_out(upstream, request)
        except MailsecError:
            # The server's end is told; a message that cannot be shown leaves the session as it is.
            if upstream.has_ended():
                return _GONE
            raise

    async def _carry_out(self, upstream: UpstreamSession, request: Request) -> Response:
        match request.verb:
            case "RETR" | "TOP":
                return await self._show(upstream, request)
            case "STAT":
                return self._without_deleted((await upstream.request(request))[0])
            case "LIST" | "UIDL" if not request.number:
                return await self._list(upstream, request)
            case "DELE":
                return await self._delete(upstream, request)
            case "RSET":
                self._deleted.clear()
                return Response(True)
            case "QUIT":
                return await self._quit(upstream)
            case _:
                return _passed((await upstream.request(request))[0])

    def _without_deleted(self, response: Response) -> Response:
        if not self._deleted or not response.ok:
            return _passed(response)
        match = _STATUS.match(response.text)
        if match is None:
            return _NOT_READ
        count, octets = int(match[1]) - len(self._deleted), int(match[2]) - sum(self._deleted.values())
        return Response(True, f"{max(count, 0)} {max(octets, 0)}")

    async def _list(self, upstream: UpstreamSession, request: Request) -> Response:
        scratch = self._pipeline.runtime.scratch()
        (response,) = await upstream.request(replace(request, into=scratch))
        if not response.ok:
            scratch.discard()
            return _passed(response)
        # The octets live as long as somebody reads them: a scratch in memory, or a file that is closed behind its last reader.
        listed = Segments.of(scratch.seal())
        if self._deleted:
            # Attack: a list of a million messages, asked for again and again: two seconds for all other readers of this worker, each time.
            runtime, arguments = self._pipeline.runtime, (listed, frozenset(self._deleted), self._pipeline.runtime.scratch())
            large = len(listed) > self._pipeline.settings.limits.bulk_threshold
            listed = await runtime.in_thread(_without, *arguments, lane="bulk") if large else _without(*arguments)
        return Response(True, body=listed)

    async def _delete(self, upstream: UpstreamSession, request: Request) -> Response:
        if len(self._deleted) >= self._pipeline.settings.limits.mailbox_deletes:
            return _TOO_MANY_DELETED
        # RFC 1939 §5: the message is deleted in the UPDATE state. That it is there, and how large, is asked now.
        (response,) = await upstream.request(Request("LIST", request.number))
        if not response.ok:
            return _passed(response)
        match = _STATUS.match(response.text)
        if match is None or int(match[1]) != request.number:
            return _NOT_READ
        self._deleted[request.number] = int(match[2])
        return Response(True, "will be deleted")

    async def _quit(self, upstream: UpstreamSession) -> Response:
        self._quitting = True
        self._forget()
        failed = False
        numbers = sorted(self._deleted)
        for start in range(0, len(numbers), _AT_ONCE):
            responses = await upstream.request(*[Request("DELE", number) for number in numbers[start : start + _AT_ONCE]])
            failed = failed or not all(response.ok for response in responses)
        response = await upstream.quit()
        if not response.ok or failed:
            return _NOT_ALL_DELETED
        return Response(True, "goodbye")

    # -- messages -------------------------------------------------------------------------------------------------------------

    async def _show(self, upstream: UpstreamSession, request: Request) -> Response:
        if self._kept is None or self._kept[0] != request.number:
            self._forget()
            refused = await self._fetch(upstream, request.number)
            if refused is not None:
                return refused
        assert self._kept is not None
        copy = self._kept[1]
        if request.verb == "TOP":
            limits = self._pipeline.settings.limits
            if len(copy.segments) > limits.message_size:
                # Attack: one TOP in each of many sessions that then idle, each with a gibibyte of the disk.
                self._forget()
            return Response(True, body=top_of(copy, request.lines, limits))
        # Whoever writes it holds it until it is written; a session that idles holds nothing.
        self._forget()
        return Response(True, f"{len(copy.segments)} octets", body=copy.segments)

    async def _fetch(self, upstream: UpstreamSession, number: int) -> Response | None:
        """Take the message out of the mailbox and make the reader's copy; a response where that cannot be."""
        pipeline = self._pipeline
        scratch = pipeline.runtime.scratch()
        limit = pipeline.settings.limits.mailbox_message_size
        (response,) = await upstream.request(Request("RETR", number, into=scratch, limit=limit))
        if not response.ok:
            scratch.discard()
            if isinstance(response.error, LimitExceeded):
                return _TOO_LARGE
            return _NOT_NOW if response.error is not None else _passed(response)
        copy = await pipeline.retrieve(self.session, scratch.seal(), loose=response.loose)
        self._kept = (number, copy, scratch)
        return None

    def _forget(self) -> None:
        """Let go of the message that was shown last. Its file closes when its last reader lets go of it."""
        self._kept = None


def _says_nothing(refused: Response) -> bool:
    """True where a refused login may have had the right password. Codes that nobody knows count as wrong ones."""
    # RFC 2449 §8.1: IN-USE and LOGIN-DELAY are told to who has the right one; RFC 3206 §4: SYS/… to anybody.
    return refused.code in ("IN-USE", "LOGIN-DELAY") or refused.code.startswith("SYS/")


def _passed(response: Response) -> Response:
    """A response of the mailbox's server, for the reader."""
    return Response(response.ok, response.text, response.code)


def _without(lines: Segments, deleted: frozenset[int], scratch: Scratch) -> Segments:
    """The lines about messages that are not deleted, in `scratch`."""
    for block in _left(lines, deleted):
        scratch.append(block)
    return Segments.of(scratch.seal())


def _left(lines: Segments, deleted: frozenset[int]) -> Iterator[bytes]:
    held = b""
    for block in lines:
        data = held + bytes(block)
        whole, _, held = data.rpartition(b"\r\n")
        if whole:
            yield b"".join(line + b"\r\n" for line in whole.split(b"\r\n") if _number(line) not in deleted)
    if held and _number(held) not in deleted:
        yield held


def _number(line: bytes) -> int:
    match = _ENTRY.match(line)
    return int(match[1]) if match is not None else 0
