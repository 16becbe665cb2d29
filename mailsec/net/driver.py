"""Drives any `ProtocolCore` over a Twisted transport: requests in order, answers at once or later, back-pressure, TLS, one deadline.

The one invariant: while an `Ask` is open, or a `Stream` is being written, or a handshake is going on, or the peer does not take what was
said, the core is fed nothing. What arrives meanwhile waits here, bounded: above 64 KiB the transport is paused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import CoroutineType
from typing import Any

import structlog
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol, IHandshakeListener, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

from mailsec.errors import MailsecError, Reply
from mailsec.interfaces import Conversation, ProtocolCore
from mailsec.model.requests import Ask, Body, Close, Deadline, EndOfBody, Request, Send, StartTls, Stream
from mailsec.model.session import TlsInfo
from mailsec.net.alarm import Alarm
from mailsec.net.asked import Asked, deferred_of, deferred_of_any
from mailsec.net.handshake import Handshake, Judge, why_ended
from mailsec.net.tls_layer import say_last, start_tls

__all__ = ["WireProtocol"]

_HIGH_WATER = 64 * 1024
"""Octets that wait for the core before the transport is paused."""
_AT_ONCE = 4
"""Pieces of a stream that go out in one turn of the reactor, where the kernel takes them: no more, or a fast peer would hold up the others."""
_LINGER = 10.0
"""Seconds that a peer gets to take our last words before the connection is reset."""
_INTERNAL = Reply(451, "4.3.0", "internal error, try again later")
_PENDING = object()

_log = structlog.get_logger("mailsec.net")


@implementer(IHalfCloseableProtocol, IHandshakeListener, IPushProducer)
class WireProtocol(Protocol):
    """One connection.

    `tls` gives the Twisted connection creator for a `StartTls` request (`net.tls`). `session_timeout`: seconds until `deadline_passed`
    although something arrives again and again, counted anew after each message. `cancel`: whether an open question is cancelled when the
    peer goes; without it the answer is awaited and thrown away, so that what was begun (a commit) is finished. `judge` is given what a
    handshake came to before the core is, and returns what may be believed of it, or raises: then a core that has `tls_refused(reply)` says
    its last words, and the connection is closed. `met` sees the transport before anything is said.
    """

    transport: Any
    """A TCP, unix or TLS transport: zope interfaces say nothing to mypy."""

    def __init__(
        self,
        core: ProtocolCore,
        conversation: Conversation,
        *,
        clock: Any,
        tls: Callable[[StartTls], Any] | None = None,
        session_timeout: float | None = None,
        cancel: bool = False,
        judge: Judge | None = None,
        on_lost: Callable[[WireProtocol], None] | None = None,
        met: Callable[[Any], None] | None = None,
    ) -> None:
        self.core = core
        self.conversation = conversation
        self.received = 0
        """Octets that came in."""
        self.sent = 0
        """Octets that were given to the transport."""
        self._tls = tls
        self._cancel = cancel
        self._judge = judge
        self._aborted = ""
        """Why we ended the connection ourselves."""
        self.handshake_failed = ""
        """Why no TLS session came of a handshake that was begun."""
        self._on_lost = on_lost
        self._met = met
        self._out: list[bytes] = []
        self._input: list[bytes] = []
        self._input_size = 0
        self._paused = False
        self._running = False
        self._blocked = False
        """True while a question, a stream or a handshake is open."""
        self._asked: Deferred[Any] | Asked | None = None
        self._body_fault: Reply | None = None
        self._pieces: Iterator[bytes | memoryview] | None = None
        self._throttled = False
        """True while the transport has more to write than it wants to keep."""
        self._producing = False
        self._written = 0
        self._direct = False
        self._heard_all = False
        self._handshake: Handshake | None = None
        self._keep: Callable[[Any], None] | None = None
        """Is given the session's connection when it is over, where sessions may be taken up again."""
        self._lost = False
        self._closing = False
        # While a question is open the peer waits for us.
        self._alarm = Alarm(clock, self._overdue, lambda: self._asked is not None, session_timeout)

    # -- what Twisted calls -----------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        # Exactly Twisted's own sockets: whatever wraps them (TLS, tests) has a write() of its own.
        self._direct = isinstance(self.transport, Connection)
        no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if no_delay is not None:
            try:
                no_delay(True)
            except OSError:  # a unix socket, or a peer that is gone already
                pass
        self._alarm.begin_session()
        if self._met is not None:
            self._met(self.transport)
        self._run(self.core.connection_made)

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        if self._blocked or self._running or self._throttled:
            self._input.append(data)
            self._input_size += len(data)
            if self._input_size > _HIGH_WATER and not self._paused:
                self._paused = True
                self.transport.pauseProducing()
        elif not self._closing:
            self._run(self.core.receive_data, data)

    def handshakeCompleted(self) -> None:
        if self._handshake is not None:
            self._handshake.completed(self.transport.getHandle())

    def _secured(self, info: TlsInfo) -> None:
        if not (self._lost or self._closing):
            self._handshake = None
            self._blocked = False
            self._run(self.core.tls_started, info)

    def _tls_refused(self, error: MailsecError) -> None:
        if self._lost or self._closing:
            return
        self._handshake = self._keep = None
        self._aborted = error.message
        refused = getattr(self.core, "tls_refused", None)
        if refused is None:
            self._abort()
            return
        self._blocked = False
        self._run(refused, error.reply)

    def readConnectionLost(self) -> None:
        # A client that has said all (a script that pipes into nc) still gets its replies; a next hop that has said all is of no more use.
        self._heard_all = True
        if self._cancel:
            self.transport.abortConnection()
        elif not self._blocked and not self._input and not self._closing:
            self._close(abort=False)

    def writeConnectionLost(self) -> None:
        """`connectionLost` follows: we never close one half."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._lost:
            return
        self._lost = True
        self._closing = True
        if self._pieces is not None and self._input:
            # What the peer said before it closed in the middle of our stream: the core may learn why from it.
            self.core.receive_data(b"".join(self._input))
        self._blocked = True
        self._input.clear()
        self._pieces = None
        self._alarm.stop()
        asked, self._asked = self._asked, None
        if asked is not None and self._cancel:
            asked.cancel()
        if self._handshake is not None:
            self._handshake.cancel()
            self.handshake_failed = why_ended(reason)
        elif self._keep is not None:
            self._keep(self.transport.getHandle())
        try:
            for request in self.core.connection_lost(self._aborted or why_ended(reason)):
                if type(request) is Ask:
                    self._tell(request.question)
        finally:
            self.conversation.closed()
            if self._on_lost is not None:
                self._on_lost(self)

    # -- requests -------------------------------------------------------------------------------------------------------------

    def _run(self, method: Callable[..., Iterable[Request]], *args: Any) -> None:
        """Call the core; carry out what it requests, and what answers and waiting input bring, until there is something to wait for."""
        self._running = True
        try:
            requests = method(*args)
            while True:
                requests = self._carry_out(requests)
                if requests:
                    continue
                if self._blocked or self._closing or self._throttled or not self._input:
                    break
                data = self._input[0] if len(self._input) == 1 else b"".join(self._input)
                self._input.clear()
                self._input_size = 0
                requests = self.core.receive_data(data)
            self._flush()
        except Exception as error:  # a programming error costs this connection, never the worker
            _log.error("protocol-core-failed", core=type(self.core).__name__, exc_info=error)
            self._abort()
        finally:
            self._running = False
        if self._blocked or self._closing or self._throttled:
            return
        if self._heard_all:
            self._close(abort=False)
        elif self._paused:
            self._paused = False
            self.transport.resumeProducing()

    def _carry_out(self, requests: Iterable[Request]) -> Iterable[Request]:
        """Carry out `requests`; return those that the answer to a question brings, if it came at once."""
        for request in requests:
            kind = type(request)
            if kind is Send:
                self._out.append(request.data)  # type: ignore[union-attr]  # `kind` says so; isinstance is slower
            elif kind is Ask:
                value = self._ask(request.question)  # type: ignore[union-attr]
                return self.core.answer(value) if value is not _PENDING else ()
            elif kind is Body:
                if self._body_fault is None:
                    try:
                        self.conversation.body(request.chunk)  # type: ignore[union-attr]
                    except MailsecError as error:
                        self._body_fault = error.reply
            elif kind is Deadline:
                self._set_deadline(request.seconds)  # type: ignore[union-attr]
            elif kind is EndOfBody:
                self._alarm.begin_session()
                if self._body_fault is None:
                    try:
                        self.conversation.end_of_body()
                    except MailsecError as error:
                        self._body_fault = error.reply
            elif kind is Close:
                self._close(request.abort)  # type: ignore[union-attr]
            elif kind is Stream:
                self._stream(request.segments)  # type: ignore[union-attr]
            elif kind is StartTls:
                self._start_tls(request)  # type: ignore[arg-type]
        return ()

    def _flush(self) -> None:
        out = self._out
        if not out:
            return
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        if self._lost:
            return
        self.sent += len(data)
        if self._direct:
            data = self._send_now(data)
            if not data:
                return
        # Attack: commands without end from a client that never reads the replies; they would pile up in memory.
        self._written += len(data)
        if self._written > _HIGH_WATER and not self._closing:
            self._produce()
        self.transport.write(data)

    def _send_now(self, data: bytes) -> bytes:
        """Straight to the socket; what the kernel does not take goes the usual way.

        Twisted's write() waits for the next turn of the reactor and costs two epoll_ctl()s for each reply: a third of all that a small
        message costs.
        """
        transport = self.transport
        if transport.dataBuffer or transport._tempDataBuffer or transport.disconnecting:
            return data
        try:
            taken = transport.socket.send(data)
        except OSError:  # full for now, or broken: write() finds out which
            return data
        return data[taken:] if taken < len(data) else b""

    # -- questions ------------------------------------------------------------------------------------------------------------

    def _ask(self, question: object) -> Any:
        """The answer, or _PENDING."""
        if self._body_fault is not None:
            fault, self._body_fault = self._body_fault, None
            return fault
        try:
            value: Any = self.conversation.ask(question)
        except MailsecError as error:
            return error.reply
        except Exception as error:  # the layer above failed: the peer comes back later
            _log.error("question-failed", question=type(question).__name__, exc_info=error)
            return _INTERNAL
        if value is None or type(value) is Reply or not hasattr(value, "__await__"):
            return value
        if type(value) is CoroutineType:
            # It runs at once, up to where it has to wait; nearly all do once, for the commit.
            try:
                waits_for = deferred_of(value.send(None))
            except StopIteration as stop:
                return stop.value
            except Exception:
                return self._value(Failure(), question)  # type: ignore[no-untyped-call]
            self._asked = Asked(value, waits_for, self._answered, question)
        else:
            deferred = deferred_of_any(value)
            if deferred.called and not deferred.paused:
                box: list[Any] = []
                deferred.addBoth(box.append)
                if box:
                    return self._value(box[0], question)
            deferred.addBoth(self._answered, question)
            self._asked = deferred
        # The peer gets what was said so far while we think.
        self._flush()
        self._blocked = True
        return _PENDING

    def _value(self, result: Any, question: object) -> Any:
        if not isinstance(result, Failure):
            return result
        if isinstance(result.value, MailsecError):
            return result.value.reply
        _log.error("question-failed", question=type(question).__name__, exc_info=result.value)
        return _INTERNAL

    def _answered(self, result: Any, question: object) -> None:
        if self._lost:
            if isinstance(result, Failure) and not isinstance(result.value, (CancelledError, MailsecError)):
                _log.error("question-failed", question=type(question).__name__, exc_info=result.value)
            return
        self._asked = None
        self._blocked = False
        self._run(self.core.answer, self._value(result, question))

    def _tell(self, question: object) -> None:
        """Ask when nobody is there any more to hear the answer."""
        try:
            value: Any = self.conversation.ask(question)
            if value is not None and hasattr(value, "__await__"):
                deferred_of_any(value).addErrback(lambda failure: _log.error("question-failed", exc_info=failure.value))
        except Exception as error:
            _log.error("question-failed", question=type(question).__name__, exc_info=error)

    # -- streams: back-pressure by the transport ----------------------------------------------------------------------------------

    def _stream(self, pieces: Iterable[bytes | memoryview]) -> None:
        self._flush()
        self._blocked = True
        self._pieces = iter(pieces)
        self._throttled = False
        self._produce()
        self._write_pieces()

    def _produce(self) -> None:
        """Be told when the transport has more than enough to write, and when it has written it."""
        if not self._producing:
            self._producing = True
            self.transport.registerProducer(self, True)

    def _produce_no_more(self) -> None:
        if self._producing:
            self._producing = False
            self._written = 0
            self.transport.unregisterProducer()

    def _write_pieces(self) -> None:
        at_once = _AT_ONCE if self._direct else 0
        try:
            while self._pieces is not None and not self._throttled:
                piece = next(self._pieces, None)
                if piece is None:
                    self._pieces = None
                    self._produce_no_more()
                    self._blocked = False
                    if self._running:
                        # Within _carry_out: its caller goes on with what this brings.
                        self._out_of_stream(self.core.streamed())
                    else:
                        self._run(self.core.streamed)
                    return
                self.sent += len(piece)
                data = bytes(piece)
                if at_once:
                    at_once -= 1
                    data = self._send_now(data)
                if data:
                    self.transport.write(data)
        except Exception as error:  # the message cannot be sent as it must be: better no end of data than a wrong one
            _log.error("stream-failed", exc_info=error)
            self._pieces = None
            self._produce_no_more()
            self._abort()

    def _out_of_stream(self, requests: Iterable[Request]) -> None:
        while requests := self._carry_out(requests):
            pass

    def pauseProducing(self) -> None:
        self._throttled = True

    def resumeProducing(self) -> None:
        self._throttled = False
        if self._alarm.seconds is not None:
            # Something was taken: the deadline is for a peer that takes nothing.
            self._set_deadline(self._alarm.seconds)
        if self._pieces is not None:
            self._write_pieces()
        elif not (self._blocked or self._closing or self._running):
            self._run(tuple)  # nothing new; what waits is fed

    def stopProducing(self) -> None:
        self._pieces = None

    # -- TLS and closing --------------------------------------------------------------------------------------------------------

    def _start_tls(self, request: StartTls) -> None:
        self._flush()
        if self._tls is None or self._input:
            # Octets that came in clear and would be read as if they had come under TLS (RFC 3207 §5).
            self._abort()
            return
        try:
            creator = self._tls(request)
        except MailsecError as error:
            # A certificate that was to be shown is not there: nothing is said without it.
            self._tls_refused(error)
            return
        self._blocked = True
        self._keep = getattr(creator, "keep", None)
        self._handshake = Handshake(request, self._judge, self._secured, self._tls_refused)
        self._direct = False
        start_tls(self, creator)

    def _close(self, abort: bool) -> None:
        if abort:
            self._abort()
            return
        self._closing = True
        # A TLS transport says goodbye only when nobody is going to write any more.
        self._produce_no_more()
        self._input.clear()
        self._alarm.end_session()
        self._set_deadline(_LINGER)
        say_last(self.transport, self._flush)

    def _abort(self) -> None:
        self._closing = True
        self._blocked = True
        self._out.clear()
        self._input.clear()
        if not self._lost:
            self.transport.abortConnection()

    def drain(self) -> None:
        """We are about to stop: a core that has a `drain` says goodbye as soon as it may."""
        drain = getattr(self.core, "drain", None)
        if drain is not None and not self._closing:
            self._run(drain)

    def abort(self) -> None:
        """Reset the connection: at shutdown, or when a limit says so."""
        self._abort()

    def _set_deadline(self, seconds: float | None) -> None:
        if not self._lost:
            self._alarm.set(seconds)

    def _overdue(self) -> None:
        if self._closing or self._handshake is not None or self._pieces is not None:
            # The core cannot say anything in the middle of these.
            self._abort()
        else:
            self._run(self.core.deadline_passed)
