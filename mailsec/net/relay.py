"""The relay: delivers READY rows of a spool to their next hops, again and again, until each recipient is served or told about.

The one invariant: a row leaves the spool only after every recipient was taken by a next hop (2yz), or failed and its report was
committed in the same transaction, or a person has to see it. A kill in between delivers twice; nothing delivers zero times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import structlog

from mailsec.errors import MailsecError, Reply, StoreError
from mailsec.interfaces import ProtocolCore, Task
from mailsec.model.octets import BytesOctets, Segments
from mailsec.model.queue import NewEntry, RecipientState, SpooledEntry
from mailsec.model.session import Recipient, TlsInfo
from mailsec.model.settings import GatewaySettings
from mailsec.net.relay_clock import ClockWatch
from mailsec.net.relay_hop import Hop, Job
from mailsec.net.relay_login import client_core
from mailsec.net.relay_outcome import Answer, Outcome, conclude, reply_text, wants_success
from mailsec.net.relay_passing import PassingJob, holds_eight_bits
from mailsec.net.relay_pipelines import BrokenPipelines
from mailsec.net.relay_routes import Destination, Routes, Target
from mailsec.net.relay_wake import listen_for_wakes
from mailsec.net.runtime import TwistedRuntime
from mailsec.store.crashpoints import crash_point
from mailsec.store.spool import SqliteSpool, retry_delay
from mailsec.wire.smtp.questions import OutgoingMessage

__all__ = ["Relay"]

_log = structlog.get_logger("mailsec.relay")

_BACKLOG_OCTETS = 32 * 1024 * 1024
_BACKLOG_ROWS = 6000
_HOP_ROWS = 2000
"""Rows in memory, in all and for one next hop: what is more waits in the spool. Half of all is kept for other hops than a slow one."""
_PASSED_OVER = 512
"""Rows of a next hop with enough of them that are passed over in one go, to find those of others: a hundred thousand are not turned over for ever."""
_REFILL_ROWS = 1000
_NOT_PRIVATE = Reply(554, "5.7.10", "the next hop for decrypted mail must be reached over verified TLS, loopback or a unix socket")
_TICK = 1.0
_BUSY_TICK = 0.25
_WRITE_AGAIN = 5.0
_BULK = 1024 * 1024
_LONGEST_RAW = 600.0
_PASSING_SECONDS = 60.0
"""How long a client of proxy mode waits for a connection to the next hop."""


class _Split:
    """A row whose recipients have several next hops, while it is on its way."""

    __slots__ = ("answers", "jobs")

    def __init__(self, recipients: int) -> None:
        self.jobs = 0
        self.answers: list[Answer | None] = [None] * recipients


class Relay:
    """Takes rows from `spool` as they become durable or due. Start it with `start`, end it with `stop`."""

    def __init__(
        self,
        spool: SqliteSpool,
        runtime: TwistedRuntime,
        settings: GatewaySettings,
    ) -> None:
        self.runtime = runtime
        self.settings = settings.relay
        self.hostname = settings.hostname
        self.postmaster = settings.postmaster
        self._gateway = settings
        self._spool = spool
        self._routes = Routes(settings.relay)
        self._hops: dict[Destination, Hop] = {}
        self._rows: dict[int, list[Job]] = {}
        self._splits: dict[int, _Split] = {}
        self._octets = 0
        self._back: list[int] = []
        self._more = False
        self._task: Task[None] | None = None
        self._port: Any = None
        self._awake = runtime.signal()
        self._clock = ClockWatch(runtime)
        self._broken = BrokenPipelines(runtime.monotonic)
        self._settling = 0
        self._stopping = False
        self.outgoing = 0
        """Connections to all next hops that stand or are being opened."""
        self.observe: Callable[[SpooledEntry, Reply], object] = lambda entry, reply: None
        """Told of what a next hop says to each recipient of a row."""
        self.observe_connection: Callable[[TlsInfo | None], object] = lambda tls: None
        """Told of each connection that takes mail, and what its TLS is."""
        self.observe_tls_failure: Callable[[str], object] = lambda demanded: None
        """Told of TLS that came to nothing, and what was demanded of it: "opportunistic", "required" or "verified"."""
        self.delivered = 0
        """Recipients that were served since the start."""

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Take rows from now on."""
        self._spool.on_ready = self.take
        self._spool.on_wish = self._wished
        self._spool.on_hurry = self.ask_anew
        self._port = listen_for_wakes(self.runtime.reactor, self._spool.base + ".wake", self.wake)
        self._task = self.runtime.start(self._run(), "relay")

    def wake(self) -> None:
        """Look for wishes and due rows now, not in a second."""
        self._awake.fire()

    def ask_anew(self) -> None:
        """Forget which next hops were away: a person has mended one, and asks for its mail now."""
        for hop in self._hops.values():
            hop.ask_anew()

    async def stop(self, seconds: float) -> None:
        """Finish what is in flight within `seconds`; the rest stays in the spool."""
        self._stopping = True
        self._awake.fire()
        self._spool.on_ready = None
        if self._port is not None:
            port, self._port = self._port, None
            await port.stopListening()
        if self._task is not None:
            await self._task
        waiting = [job for hop in self._hops.values() for job in hop.stop()]
        for passing in [job for job in waiting if isinstance(job, PassingJob)]:
            waiting.remove(passing)
            passing.stop()
        for row in {job.entry.row for job in waiting}:
            self._forget(row)
            self._back.append(row)
        deadline = self.runtime.monotonic() + seconds
        while (self._settling or any(hop.busy for hop in self._hops.values())) and self.runtime.monotonic() < deadline:
            await self.runtime.sleep(0.05)
        for hop in self._hops.values():
            hop.abort()
        await self._give_back()
        await self._spool.flush()

    async def _run(self) -> None:
        # No row may wait longer than this; one that does was put back by a clock that was ahead then.
        longest = 2 * max(self.settings.retry_longest, _LONGEST_RAW)
        set_back = True  # while we were away, perhaps
        while not self._stopping:
            try:
                if set_back or self._clock.look() < 0:
                    await self._spool.come_back(longest)
                    set_back = False
                while await self._spool.carry_out_wishes():
                    await self.runtime.sleep(0)
                await self._give_back()
                passed_over = 0
                while (
                    not self._stopping
                    and self._octets < _BACKLOG_OCTETS // 2
                    and len(self._rows) < _BACKLOG_ROWS // 2
                    and passed_over < _PASSED_OVER
                ):
                    taken = await self._spool.take_ready()
                    if not taken:
                        self._more = False
                        break
                    self.take(taken)
                    passed_over += len(self._back)
                    await self._give_back()
            except MailsecError as error:
                _log.error("relay-cannot-read-spool", error=error.message, hint=error.hint)
            now = self.runtime.monotonic()
            for destination, hop in list(self._hops.items()):
                hop.close_idle(now - self.settings.idle_timeout if self.may_connect() else now)
                if hop.stranded:
                    hop.open_another()
                if hop.unused and hop.used_at < now - self.settings.idle_timeout:
                    del self._hops[destination]
            await self._until_woken()

    async def _until_woken(self) -> None:
        if self._awake.fired:
            self._awake = self.runtime.signal()
            return
        try:
            await self.runtime.within(_BUSY_TICK if self._more else _TICK, self._awake.wait())
        except TimeoutError:
            return
        self._awake = self.runtime.signal()

    async def _give_back(self) -> None:
        if self._back:
            back, self._back = self._back, []
            self._more = True
            await self._spool.give_back(back, self.runtime.now().timestamp() + (0 if self._stopping else _BUSY_TICK))

    # -- rows come in -------------------------------------------------------------------------------------------------

    def take(self, entries: Sequence[SpooledEntry]) -> None:
        """Begin to deliver rows: just committed ones are handed over by the spool, others were read from it."""
        crash_point("relay.delivery.before")
        for entry in entries:
            if self._stopping or self._octets > _BACKLOG_OCTETS or len(self._rows) >= _BACKLOG_ROWS:
                self._back.append(entry.row)
                continue
            octets = entry.octets
            self._octets += len(octets)
            if isinstance(octets, BytesOctets):
                self._send(entry, not octets.data.isascii())
            else:
                self._rows[entry.row] = []
                self._settling += 1
                self.runtime.start(self._send_large(entry), "relay")

    async def _send_large(self, entry: SpooledEntry) -> None:
        try:
            lane = "bulk" if len(entry.octets) > _BULK else ""
            self._send(entry, await self.runtime.in_thread(_has_eight_bits, entry, lane=lane) if lane else _has_eight_bits(entry))
        except MailsecError as error:
            _log.error("relay-cannot-read-spool", id=entry.entry.id, error=error.message, hint=error.hint)
            self._forget(entry.row)
            self._octets -= len(entry.octets)
            self._back.append(entry.row)
        finally:
            self._settling -= 1

    def _send(self, entry: SpooledEntry, eight_bit: bool) -> None:
        recipients = entry.entry.envelope.recipients
        progress = entry.progress
        if len(recipients) == 1 and not progress:
            destination = self._routes.destination(recipients[0].address.domain)
            job = self._job(entry, (0,), recipients, eight_bit)
            self._rows[entry.row] = [job]
            self._submit(destination, job)
            return
        groups: dict[Destination, list[int]] = {}
        for position, recipient in enumerate(recipients):
            if not progress or progress[position][0] is RecipientState.WAITING:
                groups.setdefault(self._routes.destination(recipient.address.domain), []).append(position)
        if not groups:  # everything was done, and only the deletion was lost
            self._octets -= len(entry.octets)
            self._forget(entry.row)
            self._spool.finish(entry.row)
            return
        jobs = [
            (destination, self._job(entry, tuple(positions), tuple(recipients[position] for position in positions), eight_bit))
            for destination, positions in groups.items()
        ]
        split = _Split(len(recipients))
        split.jobs = len(jobs)
        self._splits[entry.row] = split
        self._rows[entry.row] = [job for _, job in jobs]
        for destination, job in jobs:
            self._submit(destination, job)

    def _job(self, entry: SpooledEntry, positions: tuple[int, ...], recipients: tuple[Recipient, ...], eight_bit: bool) -> Job:
        segments = Segments.of(entry.octets.data if isinstance(entry.octets, BytesOctets) else entry.octets)
        return Job(entry, positions, self._message(entry.entry, recipients, segments, eight_bit))

    def _message(self, entry: NewEntry, recipients: tuple[Recipient, ...], segments: Segments, eight_bit: bool) -> OutgoingMessage:
        envelope = entry.envelope
        reverse_path = envelope.reverse_path
        smtputf8 = (
            # RFC 6531 §3.2: asked for where something needs it; a message that is ASCII throughout needs nothing for its header.
            (envelope.smtputf8 and eight_bit)
            or not (reverse_path is None or reverse_path.is_ascii)
            or not all(recipient.address.is_ascii for recipient in recipients)
        )
        # What was opened here comes back to nobody whole.
        ret = "HDRS" if entry.secret else envelope.ret
        return OutgoingMessage(reverse_path, recipients, segments, eight_bit, smtputf8, ret, envelope.envid, entry.sensitive)

    def _submit(self, destination: Destination, job: Job) -> None:
        if job.entry.entry.secret and not destination.is_ours_and_private:
            # Promise 8: what was decrypted here does not leave in clear, nor to a next hop that anybody may pose as. A person sees it.
            self.done(job, (Answer(_NOT_PRIVATE, ""),) * len(job.recipients), str(destination))
            return
        hop = self._hop(destination)
        if hop.waiting >= _HOP_ROWS and job.entry.row not in self._splits:
            self._octets -= len(job.entry.octets)
            self._forget(job.entry.row)
            self._back.append(job.entry.row)
            return
        hop.submit(job)

    def _hop(self, destination: Destination) -> Hop:
        hop = self._hops.get(destination)
        if hop is None:
            hop = self._hops[destination] = Hop(destination, self)
        return hop

    # -- what is passed on without the spool (gateway.passing.Forwarder) ------------------------------------------------------

    async def forward(self, entry: NewEntry) -> tuple[Reply, ...] | None:
        """Hand `entry` to its next hop; what that says to each recipient. None where it is for the spool: nothing was begun then."""
        recipients = entry.envelope.recipients
        destinations = {self._routes.destination(recipient.address.domain) for recipient in recipients}
        if len(destinations) != 1 or self._stopping or wants_success(entry):
            return None
        message = self._message(entry, recipients, entry.segments, await holds_eight_bits(entry.segments, self.runtime))
        job = PassingJob(entry, message, self.runtime)
        self._hop(destinations.pop()).submit(job)
        # Begun already, on a connection that was idle: no clock needs to run.
        return await (job.told() if job.taken else job.wait(self.runtime, _PASSING_SECONDS))

    def _forget(self, row: int) -> None:
        self._rows.pop(row, None)
        self._splits.pop(row, None)

    def _wished(self, row: int) -> bool:
        """A person holds or deletes a row: what waits is dropped, what is in flight goes on; True where nothing is in flight."""
        jobs = self._rows.get(row)
        if not jobs:
            return row not in self._rows
        waiting = [job for job in jobs if not job.taken and not job.dropped]
        for job in waiting:
            job.dropped = True
        split = self._splits.get(row)
        if split is not None:
            split.jobs -= len(waiting)
        if not all(job.dropped for job in jobs):
            return False
        self._octets -= len(jobs[0].entry.octets)
        self._forget(row)
        return True

    # -- results come back --------------------------------------------------------------------------------------------

    async def core(self, target: Target, tls: str) -> ProtocolCore:
        """The client that speaks to `target`."""
        return await client_core(target, tls, self._gateway, self.runtime, pipelining=not self._broken.has(target.address))

    def unanswered(self, target: Target) -> None:
        """A pipeline to `target` was not answered in time: from now on it is asked for one thing at a time."""
        self._broken.add(target.address)

    def close_idle(self) -> None:
        """Say goodbye on every connection that has nothing to do: the next one is judged anew."""
        for hop in self._hops.values():
            hop.close_idle(float("inf"))

    def opened(self, tls: TlsInfo | None) -> None:
        """A connection takes mail."""
        self.observe_connection(tls)

    def tls_failed(self, tls: str) -> None:
        """A next hop had no TLS for us, or not what is demanded of it."""
        self.observe_tls_failure(tls)

    def may_connect(self) -> bool:
        """False where we have as many connections as we may: servers that never answer leave some for the others in time."""
        return self.outgoing < self._gateway.limits.outgoing_connections

    def connections_changed(self, by: int) -> None:
        """A connection is being opened, or is gone. Then those who waited for it come before whoever fails again and again."""
        full = not self.may_connect()
        self.outgoing += by
        if full:
            self._awake.fire()

    def done(self, job: Job, answers: Sequence[Answer], where: str) -> None:
        """What a next hop said to each recipient of `job`."""
        entry = job.entry
        row = entry.row
        crash_point("relay.delivery.after")
        self._log(job, answers, where)
        if isinstance(job, PassingJob):
            self.delivered += sum(answer.reply.code < 300 for answer in answers)
            job.answer(answers)
            return
        split = self._splits.get(row)
        if split is None:
            if (
                not entry.progress
                and len(entry.entry.envelope.recipients) == len(answers)
                and all(answer.reply.code < 300 for answer in answers)
                and (answers[0].dsn or not wants_success(entry.entry))
            ):
                # Nearly every message: delivered at once, and nothing is written but its deletion.
                self._rows.pop(row, None)
                self._octets -= len(entry.octets)
                self.delivered += len(answers)
                self._spool.finish(row)
                if self._more and len(self._rows) == _REFILL_ROWS:
                    self._awake.fire()
                return
            split = _Split(len(entry.entry.envelope.recipients))
            split.jobs = 1
        for position, answer in zip(job.recipients, answers, strict=True):
            split.answers[position] = answer
        split.jobs -= 1
        if split.jobs:
            return
        self._forget(row)
        self._octets -= len(entry.octets)
        self._settling += 1
        self.runtime.start(self._settle(entry, split.answers), "relay")

    async def _settle(self, entry: SpooledEntry, answers: Sequence[Answer | None]) -> None:
        settled = False
        try:
            at = self.runtime.now()
            try:
                random, patient = self.runtime.random, self._clock.patient
                outcome = conclude(entry, answers, at=at, settings=self._gateway, random=random, patient=patient)
            except Exception as error:  # a mistake of ours must not send the same mail again and again
                _log.error("relay-cannot-conclude", id=entry.entry.id, exc_info=error)
                outcome = Outcome(_served(entry, answers), waiting=True)
            self.delivered += sum(1 for answer in answers if answer is not None and answer.reply.code < 300)
            next_attempt: float | None = None
            if outcome.waiting:
                # Up to a quarter earlier or later, so that what failed together does not come back together.
                jitter = 0.75 + int.from_bytes(self.runtime.random(2), "big") / 131072
                delay = retry_delay(entry.attempts + 1, self.settings.retry_first, self.settings.retry_longest)
                next_attempt = at.timestamp() + delay * jitter
            if not outcome.waiting and not outcome.reports and not outcome.hold:
                self._spool.finish(entry.row)
                settled = True
                return
            hold = "" if outcome.waiting else outcome.hold
            while True:
                try:
                    await self._spool.settle(
                        entry.row,
                        outcome.progress,
                        next_attempt=next_attempt,
                        reports=outcome.reports,
                        hold=hold,
                        delayed=outcome.delayed,
                    )
                    settled = True
                    return
                except StoreError as error:
                    # It is written down later, not delivered again: a full disk must not make the same mail arrive every second.
                    _log.error("relay-cannot-write-spool", id=entry.entry.id, error=error.message, hint=error.hint)
                    if self._stopping:
                        return
                    await self.runtime.sleep(_WRITE_AGAIN)
        finally:
            self._settling -= 1
            if not settled:
                self._back.append(entry.row)

    def _log(self, job: Job, answers: Sequence[Answer], where: str) -> None:
        entry = job.entry.entry
        reverse_path = entry.envelope.reverse_path
        for recipient, (reply, *_) in zip(job.message.recipients, answers, strict=True):
            self.observe(job.entry, reply)
            _log.info(
                "delivered" if reply.code < 300 else "deferred" if reply.temporary else "failed",
                id=entry.id,
                message_id=entry.message_id,
                reverse_path="" if reverse_path is None else str(reverse_path),
                recipient=str(recipient.address),
                size=len(job.message.segments),
                rule=entry.rule,
                verdict=entry.verdict,
                next_hop=where,
                reply=reply_text(reply),
            )


def _served(entry: SpooledEntry, answers: Sequence[Answer | None]) -> tuple[tuple[RecipientState, str], ...]:
    """The progress of `entry` with those who were served now; the others go on waiting."""
    before = entry.progress or ((RecipientState.WAITING, ""),) * len(answers)
    return tuple(
        (RecipientState.DELIVERED, reply_text(answer.reply)) if answer is not None and answer.reply.code < 300 else known
        for known, answer in zip(before, answers, strict=True)
    )


def _has_eight_bits(entry: SpooledEntry) -> bool:
    """True where the message needs 8BITMIME (RFC 6152)."""
    return not all(bytes(block).isascii() for block in entry.octets.blocks())
