"""One next hop: the messages that wait for it, and the few connections that are kept open to it.

The one invariant: a job is in exactly one place: waiting in the queue, or in flight on one connection; and every job that was taken
comes back to the relay once, with a reply for each of its recipients.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from mailsec.errors import MailsecError, Refused, Reply, Unavailable
from mailsec.interfaces import ProtocolCore, Runtime, Signal
from mailsec.model.queue import SpooledEntry
from mailsec.model.session import TlsInfo
from mailsec.model.settings import RelaySettings
from mailsec.net.relay_outcome import Answer
from mailsec.net.relay_routes import Destination, Target, targets_of
from mailsec.wire.smtp.questions import DeliveryResult, Ended, NextMessage, OutgoingMessage, Quit

__all__ = ["Hop", "Job"]

# RFC 4954 §6, RFC 3207 §4: authentication or STARTTLS is required, or what we offered of it is not enough.
_LOGIN_REFUSED = frozenset({530, 534, 535, 538})
_CONNECTION_FAILED = Reply(451, "4.4.1", "no connection to the next mail server")
_DOWN_SECONDS = 5.0
"""How long nobody is tried again after a next hop was found dead: messages that come meanwhile do not wait for a time-out each."""
_AWAY_SECONDS = 60.0
"""How long a host that was away comes after the others of its destination."""


class Job:
    """One message for one next hop: the recipients of a row that travel together."""

    __slots__ = ("again", "dropped", "entry", "message", "recipients", "taken")

    def __init__(self, entry: SpooledEntry, recipients: tuple[int, ...], message: OutgoingMessage) -> None:
        self.entry = entry
        self.recipients = recipients
        """Positions in the envelope; the message's recipients stand beside them."""
        self.message = message
        self.again = False
        """True once it was given to a second connection because the first had been closed while it was idle."""
        self.taken = False
        """True once it was begun."""
        self.dropped = False
        """True where a person has held or deleted it while it waited."""


class Deliveries(Protocol):
    """Who is told what became of a job."""

    @property
    def runtime(self) -> Runtime: ...

    @property
    def settings(self) -> RelaySettings: ...

    @property
    def hostname(self) -> str: ...

    def may_connect(self) -> bool: ...

    def connections_changed(self, by: int) -> None: ...

    def unanswered(self, target: Target) -> None: ...

    def opened(self, tls: TlsInfo | None) -> None: ...

    def tls_failed(self, tls: str) -> None: ...

    def done(self, job: Job, answers: Sequence[Answer], where: str) -> None: ...

    async def core(self, target: Target, tls: str) -> ProtocolCore: ...


class Hop:
    """The queue and the connections of one destination."""

    def __init__(self, destination: Destination, deliveries: Deliveries) -> None:
        self.destination = destination
        self._deliveries = deliveries
        self._runtime = deliveries.runtime
        self._queue: deque[Job] = deque()
        self._idle: list[_Connection] = []
        self._connections: set[_Connection] = set()
        self._opening = 0
        self._down_until = 0.0
        self._down_reply = _CONNECTION_FAILED
        self._away_until: dict[str, float] = {}
        self.stopping = False
        self.used_at = self._runtime.monotonic()
        """When it last had a job or a connection."""

    @property
    def waiting(self) -> int:
        """Jobs that wait for a connection."""
        return len(self._queue)

    @property
    def busy(self) -> bool:
        """True while something is in flight or being opened."""
        return self._opening > 0 or len(self._connections) > len(self._idle)

    @property
    def unused(self) -> bool:
        """True where it can be forgotten."""
        return not (self._queue or self._connections or self._opening)

    @property
    def stranded(self) -> bool:
        """True where jobs wait and nobody works for them: there were too many connections to other hops."""
        return bool(self._queue) and not (self._connections or self._opening)

    def submit(self, job: Job) -> None:
        """Deliver `job` as soon as there is a connection."""
        self.used_at = self._runtime.monotonic()
        if self._idle:
            self._idle.pop().give(job)
            return
        if self.used_at < self._down_until:
            self._refuse((job,), self._down_reply)
            return
        self._queue.append(job)
        self.open_another()

    def ask_anew(self) -> None:
        """Forget that its hosts were away."""
        self._down_until = 0.0
        self._away_until.clear()

    def open_another(self) -> None:
        """Open a connection where one is wanted and may be had; else the relay asks again in a second."""
        in_use = len(self._connections) + self._opening
        if (
            len(self._queue) > self._opening
            and in_use < (self.destination.hop.connections or self._deliveries.settings.connections_per_hop)
            and not self.stopping
            and self._deliveries.may_connect()
        ):
            self._opening += 1
            self._deliveries.connections_changed(1)
            self._runtime.start(self._open(), f"relay to {self.destination}")

    def next_job(self) -> Job | None:
        """The next job that still stands."""
        while self._queue:
            job = self._queue.popleft()
            if not job.dropped:
                job.taken = True
                return job
        return None

    # -- connections --------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        """Try the hosts of the destination in order, until one takes mail; then its connection looks after itself."""
        reply: Reply | None = None
        # What stands here if something ends the attempt that is no error of ours: nobody waits for ever.
        error: MailsecError | None = Unavailable("the attempt to connect was ended")
        try:
            error = await self._try_all()
        except MailsecError as refused:
            # A domain that takes no mail (null MX) is refused for good. What a host says in its greeting passes by itself.
            error = refused
            reply = refused.reply if isinstance(refused, Refused) else None
        finally:
            self._opening -= 1
            self._tried(error, reply)
            if error is not None:
                self._deliveries.connections_changed(-1)

    def _tried(self, error: MailsecError | None, reply: Reply | None) -> None:
        """An attempt has ended: well where `error` is None."""
        if error is None:
            self._down_until = 0.0
            return
        if self._connections or self._opening:
            return
        reply = reply or Reply(451, "4.4.1", error.message)
        self._down_until = self._runtime.monotonic() + min(_DOWN_SECONDS, self._deliveries.settings.retry_first / 2)
        self._down_reply = reply
        jobs = [job for job in self._queue if not job.dropped]
        self._queue.clear()
        self._refuse(jobs, reply)

    async def _try_all(self) -> MailsecError | None:
        error: MailsecError = Unavailable(f"no host of {self.destination} could be tried")
        targets = await targets_of(self.destination, self._runtime, self._deliveries.hostname)
        now = self._runtime.monotonic()
        # Those that were away a moment ago come last: not every connection waits for their time-out again.
        for target in sorted(targets, key=lambda one: self._away_until.get(one.address, 0.0) > now):
            tls = target.hop.tls
            while True:
                connection = _Connection(self, target)
                try:
                    ended = await connection.open(tls)
                except Unavailable as unreachable:
                    error = unreachable
                    break
                if ended is None:
                    self._away_until.pop(target.address, None)
                    return None
                error = ended.error or Unavailable(f"{target.address} closed the connection before it took a message")
                if ended.tls_failed or error.stage == "starttls":
                    self._deliveries.tls_failed(tls)
                # Encryption that nobody asked for must not cost the delivery: once more, in clear.
                if not (ended.tls_failed and tls == "opportunistic"):
                    break
                tls = "none"
            if len(targets) > 1:
                self._away_until[target.address] = self._runtime.monotonic() + _AWAY_SECONDS
        return error

    def _refuse(self, jobs: Sequence[Job], reply: Reply) -> None:
        for job in jobs:
            self._deliveries.done(job, (Answer(reply, ""),) * len(job.recipients), str(self.destination))

    def ready(self, connection: _Connection) -> None:
        """`connection` takes messages now."""
        self._connections.add(connection)

    def ended(self, connection: _Connection) -> None:
        """`connection` is gone."""
        self.used_at = self._runtime.monotonic()
        if connection in self._connections:
            self._connections.discard(connection)
            self._deliveries.connections_changed(-1)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._queue:
            self.open_another()

    def idle(self, connection: _Connection) -> None:
        """`connection` has nothing to do."""
        self._idle.append(connection)

    def result(self, job: Job, result: DeliveryResult, connection: _Connection) -> None:
        """What became of `job`."""
        lost = result.local and not result.handed_over and all(reply.temporary for reply in result.replies)
        if lost and connection.delivered and not job.again and not self.stopping:
            # The next hop closed an idle connection at the moment at which we used it: a fresh one is worth one more try.
            job.again = True
            self._queue.appendleft(job)
            return
        replies, hop = result.replies, connection.target.hop
        if hop.scheme != "mx":
            replies = tuple(map(_ours_to_mend, replies))
        where = "" if result.local else connection.target.address
        answers = [Answer(reply, where, result.dsn, hop.scheme == "lmtp") for reply in replies]
        self._deliveries.done(job, answers, connection.target.address)

    def close_idle(self, before: float) -> None:
        """Say goodbye on connections that have been idle since `before`."""
        for connection in [one for one in self._idle if one.idle_since <= before]:
            self._idle.remove(connection)
            connection.quit()

    def stop(self) -> list[Job]:
        """Begin nothing any more; return what was waiting."""
        self.stopping = True
        waiting = list(self._queue)
        self._queue.clear()
        self.close_idle(float("inf"))
        return waiting

    def abort(self) -> None:
        """Reset every connection."""
        for connection in list(self._connections):
            connection.abort()


class _Connection:
    """One connection to one host, from the side that answers its core's questions."""

    __slots__ = ("_connected", "_hop", "_job", "_opened", "_wanted", "delivered", "idle_since", "target")

    def __init__(self, hop: Hop, target: Target) -> None:
        self._hop = hop
        self._job: Job | None = None
        self._opened: Signal | None = None
        self._wanted: Signal | None = None
        self._connected: Any = None
        self.target = target
        self.delivered = 0
        """Messages that were answered here."""
        self.idle_since = 0.0

    async def open(self, tls: str) -> Ended | None:
        """Connect; None once it takes messages, else how it ended before it did. Raises Unavailable."""
        hop = self._hop
        deliveries = hop._deliveries
        self._opened = opened = deliveries.runtime.signal()
        core = await deliveries.core(self.target, tls)
        self._connected = await deliveries.runtime.connect(
            self.target.address, core, self.ask, timeout=deliveries.settings.connect_timeout, verify="none"
        )
        ended: Ended | None = await opened.wait()
        return ended

    def ask(self, question: object) -> object:
        """The core's questions: what next, and "it is over"."""
        hop = self._hop
        if isinstance(question, NextMessage):
            job, self._job = self._job, None
            if self._opened is not None:
                hop.ready(self)
                hop._deliveries.opened(question.tls)
                self._opened.fire(None)
                self._opened = None
            if job is not None and question.result is not None:
                self.delivered += 1
                hop.result(job, question.result, self)
            job = hop.next_job()
            if job is not None:
                self._job = job
                return job.message
            if hop.stopping:
                return Quit()
            self.idle_since = hop._runtime.monotonic()
            self._wanted = wanted = hop._runtime.signal()
            hop.idle(self)
            return wanted.wait()
        if isinstance(question, Ended):
            job, self._job = self._job, None
            if self._opened is not None:
                self._opened.fire(question)
                self._opened = None
            if question.unanswered:
                hop._deliveries.unanswered(self.target)
            hop.ended(self)
            if job is not None:
                result = question.result or DeliveryResult(job.message, (_lost(question),) * len(job.recipients), local=True)
                hop.result(job, result, self)
                hop.open_another()
        return None

    def give(self, job: Job) -> None:
        """Deliver `job` on this idle connection."""
        wanted, self._wanted = self._wanted, None
        job.taken = True
        self._job = job
        if wanted is not None:
            wanted.fire(job.message)

    def quit(self) -> None:
        """Say goodbye on this idle connection."""
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            wanted.fire(Quit())

    def abort(self) -> None:
        """Reset it."""
        if self._connected is not None:
            self._connected.abort()


def _ours_to_mend(reply: Reply) -> Reply:
    """A next hop of our own that does not know us: the mail waits until the configuration is right, and no sender is told that it failed."""
    if reply.code not in _LOGIN_REFUSED:
        return reply
    return Reply(450, "4.7.0", f"our login at the next hop is not accepted: {reply.code} {reply.enhanced} {reply.text}")


def _lost(ended: Ended) -> Reply:
    return Reply(451, "4.4.2", ended.error.message if ended.error is not None else "the connection was closed")
