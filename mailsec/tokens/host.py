"""The socket of a token host: a reader, a pool of session threads, and a keeper that looks after the tokens.

No reactor: a question is a call into the vendor's library, and those block. The reader reads frames of all connections and hands operations
to the pool; while operations are quick it does them itself, which saves waking another thread for each. A second one stands by, and reads on
where the first is held up in the library. The keeper lists, logs in, and looks every second what is there. The one invariant: whoever
connects is of our own user (or root), and what he sends costs him his connection, not the host, whatever it is.
"""

from __future__ import annotations

import os
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from typing import Any, Final

from mailsec.errors import CryptoError, KeyUnavailable, MailsecError, RemoteProtocolError
from mailsec.keys.frames import Frame, FrameReader, Verb, error_frame, frame, json_frame, read_json
from mailsec.tokens.desk import Desk, Record

__all__ = ["HostServer", "Line"]

_REQUEST_OCTETS: Final = 256 * 1024
_CONFIGURE_OCTETS: Final = 8 * 1024 * 1024
_UNSENT_OCTETS: Final = 16 * 1024 * 1024
_WAITING: Final = 10_000
"""Questions that wait: more are told to come back."""
_LOOK_SECONDS: Final = 1.0
_QUICK_SECONDS: Final = 0.002
"""While operations take no longer than this, waking a thread of the pool would cost a good part of what they take."""
_READ_SECONDS: Final = 0.001
"""Who does operations reads on after so long."""
_HELD_UP_SECONDS: Final = 0.05
"""A reader that has been in the library for so long is held up: the other one reads."""
_OPERATIONS: Final = frozenset({Verb.SIGN, Verb.DECRYPT, Verb.DERIVE, Verb.DECAPSULATE, Verb.ENCRYPT, Verb.VERIFY})


class Line:
    """One connection."""

    def __init__(self, server: HostServer, connection: socket.socket, *, parent: bool = False) -> None:
        connection.setblocking(False)
        self.server = server
        self.connection = connection
        self.parent = parent
        """True for the one that we were started with: when it ends, so do we."""
        self.supervisor = parent
        self.reader = FrameReader(_CONFIGURE_OCTETS if parent else _REQUEST_OCTETS)
        self.closed = False
        self._lock = threading.Lock()
        self._unsent = b""

    def send(self, octets: bytes) -> None:
        """Send at once what goes at once; the reader sends the rest."""
        with self._lock:
            if self.closed:
                return
            if self._unsent:
                self._unsent += octets
            else:
                try:
                    sent = self.connection.send(octets)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self.closed = True
                    return
                if sent == len(octets):
                    return
                self._unsent = octets[sent:]
            if len(self._unsent) > _UNSENT_OCTETS:  # it asks, and does not read
                self.closed = True
        self.server.wake()

    def flush(self) -> None:
        """Called by the reader when there is room again."""
        with self._lock:
            try:
                self._unsent = self._unsent[self.connection.send(self._unsent) :] if self._unsent else b""
            except BlockingIOError:
                pass
            except OSError:
                self.closed = True

    @property
    def unsent(self) -> bool:
        return bool(self._unsent)

    def close(self) -> None:
        with self._lock:
            self.closed = True
            self.connection.close()


class HostServer:
    """Serves a desk until the supervisor's pipe closes, or `stop` is called."""

    def __init__(
        self,
        desk: Desk,
        record: Record,
        *,
        threads: int,
        users: frozenset[int] = frozenset(),
        told: Callable[[Mapping[str, Any]], object] = lambda value: None,
        flush: Callable[[], object] = lambda: None,
    ) -> None:
        """`users` may connect besides our own and root; `told` gets what the supervisor says of us, before the desk does.

        `flush` writes what the desk has told of uses of keys: it is called before a result leaves.
        """
        self._desk = desk
        self._told = told
        self._record = record
        self._users = users | {0, os.geteuid()}
        self._selector = selectors.DefaultSelector()
        self._lines: set[Line] = set()
        self._jobs: SimpleQueue[tuple[Line, Frame] | None] = SimpleQueue()
        self._chores: SimpleQueue[tuple[Line, Frame]] = SimpleQueue()
        self._sessions = threads
        self._begun = [0.0] * (threads + 3)
        """When each thread began what it does; 0: nothing. Behind the pool stand the two readers, and last the keeper."""
        self._pending: deque[tuple[Line, Frame]] = deque()
        """Operations that were read and given to nobody yet; the one who reads has them."""
        self._typical = 1.0
        """Seconds that operations have taken lately."""
        self._performed = 0
        self._leader = 0
        """Which of the two readers reads."""
        self._lead = threading.Lock()
        self._flush = flush
        self._replies: deque[tuple[Line, bytes]] = deque()
        """What was done and is not answered yet: a few at once cost one call of the system for each line, and one for the log."""
        self._answering = threading.Lock()
        self._performing = threading.Event()
        """Set while the reader does operations itself: the other one has to look after it."""
        self._ended = threading.Event()
        self._stopping = False
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, None)
        self._threads = [
            threading.Thread(target=self._work, args=(index,), name=f"session-{index}", daemon=True) for index in range(threads)
        ]
        self._threads += [threading.Thread(target=self._read, args=(which,), name=f"reader-{which}", daemon=True) for which in (0, 1)]
        self._threads.append(threading.Thread(target=self._keep, name="keeper", daemon=True))

    # -- ends --------------------------------------------------------------------------------------------------------------------

    def listen(self, listening: socket.socket) -> None:
        """Take connections there."""
        listening.setblocking(False)
        self._selector.register(listening, selectors.EVENT_READ, listening)

    def attend(self, connection: socket.socket) -> None:
        """The supervisor's connection, which we were started with: when it ends, so does this process."""
        self._add(Line(self, connection, parent=True))

    def stop(self) -> None:
        """Stop serving; may be called by a signal handler."""
        self._stopping = True
        self._ended.set()
        self._performing.set()
        self.wake()

    def wake(self) -> None:
        """Have the reader look around."""
        try:
            os.write(self._wake_writer, b"\0")
        except BlockingIOError:
            pass

    def oldest(self) -> float:
        """Seconds that the longest operation has taken until now."""
        now = time.monotonic()
        return max((now - begun for begun in self._begun[:-1] if begun), default=0.0)

    def keeper(self) -> float:
        """Seconds that the keeper has been busy: lists, looks and logins."""
        begun = self._begun[-1]
        return time.monotonic() - begun if begun else 0.0

    # -- the reader ----------------------------------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Serve until told to stop."""
        for thread in self._threads:
            thread.start()
        # This thread is never in the library: signals reach it, and its end is the end of the process.
        self._ended.wait()

    def _read(self, which: int) -> None:
        """One of the two readers: read, or stand by."""
        while not self._stopping:
            if self._leader == which:
                self._read_on(which)
            else:
                self._stand_by(which)

    def _read_on(self, which: int) -> None:
        # What the other one has done before he was held up.
        self._answer()
        while self._leader == which and not self._stopping:
            for key, events in self._selector.select(0 if self._pending else None):
                if key.data is None:
                    self._look_around()
                elif isinstance(key.data, Line):
                    self._attend_to(key.data, events)
                else:
                    self._accept(key.data)
            if self._pending:
                self._hand_out(which)

    def _hand_out(self, which: int) -> None:
        """Give what was read to the pool; while operations are quick, only what this thread does not do itself."""
        pending, jobs, begun, mine = self._pending, self._jobs, self._begun, self._sessions + which
        if self._typical > _QUICK_SECONDS:
            while pending:
                jobs.put(pending.popleft())
            return
        until = time.monotonic() + _READ_SECONDS
        sessions, others = self._sessions, range(self._sessions)
        while pending and self._leader == which:
            while sessions > 1 and len(pending) > 1 and jobs.qsize() + sum(begun[index] > 0 for index in others) < sessions - 1:
                jobs.put(pending.popleft())
            if self._perform(mine, *pending.popleft()) > until:
                break
        self._answer()

    def _stand_by(self, which: int) -> None:
        """Look after the other reader while it does operations, and read in its place where one of them does not end."""
        self._performing.wait()
        performed = self._performed
        if self._ended.wait(_HELD_UP_SECONDS):
            return
        other = self._sessions + 1 - which
        with self._lead:
            begun = self._begun[other]
            if begun and time.monotonic() - begun >= _HELD_UP_SECONDS:
                # He sees it when he comes back (`_perform`), before he reads again: two never read at once.
                self._leader = which
            elif self._performed == performed:
                self._performing.clear()
                # It may have begun one in between, and seen that somebody looks after it.
                if self._begun[other]:
                    self._performing.set()

    def _look_around(self) -> None:
        try:
            while os.read(self._wake_reader, 4096):
                pass
        except BlockingIOError:
            pass
        for line in list(self._lines):
            if line.closed:
                self._drop(line)
            elif line.unsent:
                self._selector.modify(line.connection, selectors.EVENT_READ | selectors.EVENT_WRITE, line)

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        # unix(7): pid, uid, gid of who connected.
        pid, uid, _gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in self._users:
            self._record("a stranger was turned away", uid=uid, pid=pid)
            connection.close()
            return
        self._add(Line(self, connection))

    def _add(self, line: Line) -> None:
        self._lines.add(line)
        self._selector.register(line.connection, selectors.EVENT_READ, line)

    def _drop(self, line: Line) -> None:
        self._lines.discard(line)
        try:
            self._selector.unregister(line.connection)
        except KeyError:
            pass
        line.close()
        if line.parent:
            self.stop()

    def _attend_to(self, line: Line, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            line.flush()
            if not line.unsent:
                self._selector.modify(line.connection, selectors.EVENT_READ, line)
        if not events & selectors.EVENT_READ:
            return
        try:
            data = line.connection.recv(262_144)
            if not data:
                raise ConnectionError
            for one in line.reader.feed(data):
                self._receive(line, one)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(line)
        except RemoteProtocolError as error:
            self._record("a connection was closed", reason=error.message)
            self._drop(line)

    def _receive(self, line: Line, one: Frame) -> None:
        verb = one.verb
        if verb in _OPERATIONS:
            if self._jobs.qsize() + len(self._pending) >= _WAITING:
                stage = f"token:{one.fields[0].decode('utf-8', 'replace') if one.fields else ''}"
                line.send(error_frame(one.number, KeyUnavailable("the token host has too much to do", stage=stage)))
                return
            self._pending.append((line, one))
        elif verb == Verb.PING:
            line.send(json_frame(Verb.RESULT, one.number, {"oldest": self.oldest(), "keeper": self.keeper()}))
        elif verb in (Verb.LIST, Verb.LOGIN, Verb.CONFIGURE):
            self._chores.put((line, one))
        else:
            raise RemoteProtocolError("a frame with an unknown verb")

    # -- the pool ------------------------------------------------------------------------------------------------------------------

    def _work(self, index: int) -> None:
        while (job := self._jobs.get()) is not None:
            self._perform(index, *job)
            self._answer()

    def _perform(self, index: int, line: Line, one: Frame) -> float:
        """Do one operation, as the thread with this place in `_begun`, and keep its reply for `_answer`; when it ended."""
        began = self._begun[index] = time.monotonic()
        if index >= self._sessions and not self._performing.is_set():
            self._performing.set()
        try:
            reply = frame(Verb.RESULT, one.number, self._desk.perform(one.verb, one.fields))
        except MailsecError as error:
            reply = error_frame(one.number, error)
        except Exception as error:
            self._record("unexpected error", error=type(error).__name__)
            reply = error_frame(one.number, CryptoError("the token host failed"))
        with self._lead:
            self._begun[index] = 0.0
        self._performed += 1
        self._replies.append((line, reply))
        ended = time.monotonic()
        self._typical += (ended - began - self._typical) / 4
        return ended

    def _answer(self) -> None:
        """Answer what was done. The audit is written first: a host that is killed in between has given nothing away."""
        replies: dict[Line, list[bytes]] = {}
        with self._answering:
            while self._replies:
                line, reply = self._replies.popleft()
                replies.setdefault(line, []).append(reply)
            if not replies:
                return
            self._flush()
            for line, octets in replies.items():
                line.send(octets[0] if len(octets) == 1 else b"".join(octets))

    # -- the keeper ------------------------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        """Chores as they come, and a look around every second."""
        # First of all: who asks for a list gets one.
        self._kept(self._look)
        next_look = time.monotonic() + _LOOK_SECONDS
        while not self._stopping:
            try:
                line, one = self._chores.get(timeout=max(0.0, next_look - time.monotonic()))
            except Empty:
                self._kept(self._look)
                next_look = time.monotonic() + _LOOK_SECONDS
                continue
            self._kept(self._chore, line, one)

    def _kept(self, function: Callable[..., None], *arguments: object) -> None:
        self._begun[-1] = time.monotonic()
        try:
            function(*arguments)
        except MailsecError as error:
            self._record("tokens cannot be looked after", reason=error.message, hint=error.hint)
        except Exception as error:
            self._record("unexpected error", error=type(error).__name__)
        finally:
            self._begun[-1] = 0.0

    def _look(self) -> None:
        changed = self._desk.look()
        if changed is not None:
            octets = json_frame(Verb.CHANGED, 0, {**changed, "proven": self._desk.proven()})
            for line in list(self._lines):
                line.send(octets)

    def _chore(self, line: Line, one: Frame) -> None:
        try:
            if one.verb == Verb.LIST:
                line.send(json_frame(Verb.RESULT, one.number, self._desk.listing()))
                return
            if one.verb == Verb.CONFIGURE:
                self._demand_supervisor(line)
                value = read_json(one)
                self._told(value)
                self._desk.configure(value)
            elif len(one.fields) != 2:
                raise CryptoError("a question with other fields")
            else:
                name = self._desk.login(one.fields[0].decode("utf-8", "replace"), one.fields[1] or None)
                for other in list(self._lines):
                    if other.supervisor:
                        other.send(frame(Verb.LOGGED_IN, 0, name.encode(), one.fields[1]))
            self._look()
            line.send(json_frame(Verb.RESULT, one.number, self._desk.listing()))
        except RemoteProtocolError as error:
            line.send(error_frame(one.number, CryptoError(error.message)))
        except MailsecError as error:
            line.send(error_frame(one.number, error))

    def _demand_supervisor(self, line: Line) -> None:
        """Who configures first over the socket of a host that systemd started is its supervisor, as long as it lives."""
        if line.supervisor:
            return
        if any(other.supervisor for other in self._lines):
            raise CryptoError("this host has a supervisor")
        line.supervisor = True
