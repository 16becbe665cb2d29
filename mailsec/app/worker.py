"""A worker: a full gateway on inherited sockets, with a reactor of its own. Run as `python -m mailsec.app.worker` by the supervisor.

The one invariant: a worker lives no longer than its supervisor. When the control pipe closes it takes no more mail, finishes what is
in its hands within two seconds, and ends; what was acknowledged is in its spool, and its successor goes on with it.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Collection, Mapping
from typing import Any

import structlog

from mailsec.app.control import FIRST_SOCKET, FROM_WORKER, TO_WORKER, LineReader, StartMessage, line, read_start, tell_unable
from mailsec.app.hardening import harden_process
from mailsec.errors import LocalProtocolError, MailsecError, PluginError, Unavailable
from mailsec.model.queue import SpooledEntry

__all__ = ["WorkerProcess", "main"]

_log = structlog.get_logger("mailsec.worker")

_ORPHANED_SECONDS = 2.0
_RESUME_SECONDS = 5.0
_COLLECT_AFTER = 20_000
"""Objects more than before, after which the collector looks at the young ones."""
_ADOPT_AGAIN_SECONDS = 30.0
_AT_ONCE = 8
"""Waiting rows that are processed side by side."""


class WorkerProcess:
    """What runs in the reactor of a worker."""

    def __init__(self, reactor: Any, start: StartMessage, configuration: Any) -> None:
        from mailsec.app.assembly import assemble
        from mailsec.app.config import gateway_settings
        from mailsec.app.metrics.looking import Looking
        from mailsec.net.listeners import Listeners

        self.reactor = reactor
        self.start = start
        self.exit_code = 0
        # Each generation shares the burden among its own workers; those of the one before accept nothing any more.
        self._turns_file = os.path.join(configuration.gateway.run_directory, f"connections-{start.generation % 2}")  # noqa: PTH118
        self.drain_timeout: float = configuration.gateway.drain_timeout
        self.parts = assemble(reactor, configuration, start.data_key, start.spool, start.workers)
        self._connections = gateway_settings(configuration).limits.connections
        self.looking = Looking(self.parts)
        self.listeners: Listeners | None = None
        self.control: Any = None
        self._stopping = False
        self._retiring = False
        self._rows = self.parts.runtime.signal()

    # -- life ------------------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Called when the reactor runs."""
        self.control = _open_control(self)
        self.parts.runtime.start(self._begin(), "begin")

    async def _begin(self) -> None:
        from mailsec.app.overdue import Overdue
        from mailsec.net.listeners import open_listeners
        from mailsec.net.places import Places
        from mailsec.net.turns import Turns

        parts = self.parts
        parts.watch_plugins(self.reactor)
        try:
            for answer in await parts.plugins.call_each("startup", parts.runtime, parts.settings.limits, gateway=parts.pipeline):
                if answer.failure is not None:
                    raise _why(answer.failure)
            parts.spool.on_raw = self._rows_wait
            parts.relay.start()
            parts.runtime.start(self._resume(), "resume")
            parts.runtime.start(parts.certificates.watch(parts.runtime), "watch certificates")
            overdue = Overdue(parts.spool, parts.runtime, parts.settings, reminds=self.start.index == 0)
            parts.runtime.start(overdue.watch(), "mail on hold")
            parts.runtime.start(parts.expiry.watch(), "watch expiry")
            if self.start.index == 0:
                parts.runtime.start(parts.alerts.watch(), "tell the postmaster")
            # Spools of workers that there are no more of: somebody has to deliver what is in them.
            parts.runtime.start(self._adopt(self.start.spools), "adopt orphans")
            if self.start.listening:
                descriptors = range(FIRST_SOCKET, FIRST_SOCKET + len(parts.settings.listeners))
                turns = Turns(self._turns_file, self.start.index, self.start.workers)
                places = Places(parts.counts.connections, parts.settings.limits, self._connections)
                self.listeners = self.looking.listeners = open_listeners(
                    self.reactor, parts.settings, parts.pipeline, descriptors, parts.tls, turns, places
                )
        except MailsecError as error:
            tell_unable(error)
            self._stopping = True
            self.exit_code = error.exit_code
            self.reactor.stop()
            return
        # What was made until now lives as long as the worker: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        # What a message leaves behind is freed without the collector; what it looks for, cycles, are few.
        gc.set_threshold(_COLLECT_AFTER, 20, 20)
        self.control.tell({"is": "ready"})

    def told(self, message: Mapping[str, Any]) -> None:
        """A message of the supervisor."""
        match message.get("do"):
            case "ping":
                self.looking.look()
                self.control.tell({"is": "alive", "number": message.get("number"), "measures": self.parts.measures.snapshot()})
            case "drain":
                self.drain(self.drain_timeout)
            case "retire":
                self.retire(float(message["seconds"]))
            case "pause":
                if self.listeners is not None:
                    self.listeners.drain(lambda: None)
            case "adopt":
                self.parts.runtime.start(self._adopt(message["spools"]), "adopt orphans")
            case "flush":
                self.parts.runtime.start(self._flush(), "flush")
            case "wake":
                self.parts.relay.wake()
                self._rows.fire()

    def orphaned(self) -> None:
        """The control pipe is closed: the supervisor is gone."""
        if not self._stopping:
            _log.warning("the supervisor is gone; ending")
            self.drain(_ORPHANED_SECONDS)

    def retire(self, seconds: float) -> None:
        """Another generation accepts now. Sessions go on until they end by themselves, for `seconds` at most; then as `drain`.

        What waits to be processed waits for the other generation: it goes on under the rules of that moment, which are not ours any more.
        """
        if self._stopping or self._retiring:
            return
        self._retiring = True
        self._rows.fire()
        # A reload is how an administrator has next hops judged anew.
        self.parts.runtime.forget_sessions()
        self.parts.relay.close_idle()
        if self.listeners is None:
            self.drain(self.drain_timeout)
            return
        self.listeners.leave(lambda: self.drain(self.drain_timeout))
        self.reactor.callLater(seconds, self.drain, self.drain_timeout)

    def drain(self, seconds: float) -> None:
        """Take no more mail, finish what has begun within `seconds`, and end."""
        if self._stopping:
            return
        self._stopping = True
        self.parts.runtime.start(self._drain(seconds), "drain")

    async def _drain(self, seconds: float) -> None:
        runtime, relay, spool = self.parts.runtime, self.parts.relay, self.parts.spool
        deadline = runtime.monotonic() + seconds
        empty = runtime.signal()
        if self.listeners is not None:
            self.listeners.drain(empty.fire)
            try:
                await runtime.within(max(0.1, seconds * 0.6), empty.wait())
            except TimeoutError:
                _log.warning("sessions did not end in time", connections=len(self.listeners.connections))
                self.listeners.abort()
        self._rows.fire()
        await relay.stop(max(0.1, deadline - runtime.monotonic()))
        await spool.flush()
        await self.parts.plugins.call_each("shutdown", runtime, self.parts.settings.limits, gateway=self.parts.pipeline)
        self.reactor.stop()

    # -- rows that wait --------------------------------------------------------------------------------------------------------

    def _rows_wait(self) -> None:
        self._rows.fire()

    async def _adopt(self, owned: Collection[int]) -> None:
        """Take over the spools that are nobody's. Where that cannot be done now (a full disk) it is tried again: somebody must deliver them."""
        from mailsec.store.spool_adopt import adopt_orphans

        while not self._stopping:
            try:
                adopted = await adopt_orphans(self.parts.spool, owned)
            except MailsecError as error:
                _log.error("mail of another worker cannot be taken over yet", error=error.message, hint=error.hint)
                await self.parts.runtime.sleep(_ADOPT_AGAIN_SECONDS)
                continue
            if adopted:
                _log.info("mail of other workers was taken over", messages=adopted)
                self.parts.relay.wake()
            return

    async def _flush(self) -> None:
        """Try everything now that waits for its next attempt."""
        try:
            await self.parts.spool.hasten()
        except MailsecError as error:
            _log.error("waiting mail cannot be hastened", error=error.message, hint=error.hint)
        self.parts.relay.ask_anew()
        self.parts.relay.wake()
        self._rows.fire()

    async def _resume(self) -> None:
        """Process raw rows as they become due (design §4: under the rules of that moment). Nothing but the end of the worker ends it."""
        runtime, spool = self.parts.runtime, self.parts.spool
        while not (self._stopping or self._retiring):
            self._rows = runtime.signal()
            try:
                rows = await spool.take_raw(_AT_ONCE)
                if rows:
                    await runtime.gather([self._resume_one(row) for row in rows])
                    continue
            except MailsecError as error:
                _log.error("waiting mail cannot be processed", error=error.message, hint=error.hint)
            except Exception as error:
                _log.error("waiting mail cannot be processed: unexpected error", exc_info=error)
            try:
                await runtime.within(_RESUME_SECONDS, self._rows.wait())
            except TimeoutError:
                pass

    async def _resume_one(self, row: SpooledEntry) -> None:
        """Process a row, or put it back. What our own code fails on costs that row (its attempts are counted; held in the end), no other."""
        id, spool = row.entry.id, self.parts.spool
        try:
            await self.parts.pipeline.resume(row)
            return
        except MailsecError as error:
            _log.error("a waiting message cannot be processed now", id=id, error=error.message, hint=error.hint)
            reason, expected = error.message, True
        except Exception as error:
            _log.error("a waiting message cannot be processed: unexpected error", id=id, exc_info=error)
            # The text of a foreign error may hold anything; the log has it.
            reason, expected = f"unexpected error ({type(error).__name__})", False
        while not self._stopping:
            try:
                await (spool.postpone(id, need="retry", reason=reason) if expected else spool.postpone_failed(id, reason))
                return
            except LocalProtocolError:
                return  # it was put back, or replaced, before the error came
            except MailsecError as error:
                # A full disk: the row stays in our hands, or nobody would look at it again before the next start.
                _log.error("a waiting message cannot be put back", id=id, error=error.message, hint=error.hint)
                await self.parts.runtime.sleep(_RESUME_SECONDS)


def _why(failure: PluginError) -> MailsecError:
    """What a plugin's failure to start is told as: its own sentence, where it has one."""
    cause = failure.__cause__
    if isinstance(cause, MailsecError):
        cause.message = f"plugin {failure.plugin}: {cause.message}"
        return cause
    if isinstance(cause, TimeoutError):
        return Unavailable(failure.message, hint=failure.hint)
    failure.hint = "mend the plugin, or take it out of [plugins] enabled"
    return failure


class _Control:
    """The worker's ends of the two pipes."""

    def __init__(self, worker: WorkerProcess) -> None:
        from twisted.internet import stdio
        from twisted.internet.protocol import Protocol

        standard_io: Any = stdio.StandardIO  # mypy reads Windows' twin of it
        reader = LineReader()

        class Pipe(Protocol):
            def dataReceived(self, data: bytes) -> None:
                for message in reader.feed(data):
                    worker.told(message)

            def connectionLost(self, reason: Any = None) -> None:
                worker.orphaned()

        self._pipe = standard_io(Pipe(), stdin=TO_WORKER, stdout=FROM_WORKER, reactor=worker.reactor)

    def tell(self, message: Mapping[str, Any]) -> None:
        self._pipe.write(line(**message))


def _open_control(worker: WorkerProcess) -> _Control:
    return _Control(worker)


def main() -> None:
    """The process: read the start message, put the parts together, run the reactor."""
    harden_process()
    # ^C goes to the whole foreground group; the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start = read_start()
    try:
        from mailsec.app.config import load_configuration
        from mailsec.app.logs import configure_logs, watch_twisted
        from mailsec.net.reactor import install

        reactor = install()
        configuration = load_configuration(start.path, start.configuration)
        configure_logs(configuration.log, data_key=start.data_key, worker=start.index)
        watch_twisted()
        worker = WorkerProcess(reactor, start, configuration)
    except MailsecError as error:
        tell_unable(error)
        sys.exit(error.exit_code)
    except Exception as error:
        _log.error("unexpected error at the start", exc_info=error)
        sys.exit(70)
    anyreactor: Any = reactor
    anyreactor.callWhenRunning(worker.begin)
    anyreactor.callWhenRunning(
        lambda: signal.signal(signal.SIGTERM, lambda *_: anyreactor.callFromThread(worker.drain, worker.drain_timeout))
    )
    anyreactor.run()
    worker.parts.close()
    sys.exit(worker.exit_code)


if __name__ == "__main__":
    main()
