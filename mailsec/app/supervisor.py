"""The supervisor: it opens every port once, keeps N workers alive on them, and touches no message.

It parses nothing from outside. What it knows of a worker: its pid, whether it is ready, and when it last answered a ping. The one
invariant: as long as the supervisor lives and is not stopping, each of the N places is held by a worker or by a timer that starts one;
when the supervisor dies, by whatever signal, its ends of the pipes close and the workers end.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog
from twisted.internet import error
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from mailsec.app.control import FIRST_SOCKET, FROM_WORKER, START, TO_WORKER, LineReader, StartMessage, line
from mailsec.errors import ConfigurationError

if TYPE_CHECKING:
    from mailsec.app.token_hosts import TokenHosts

__all__ = ["Supervisor", "Timing", "notify_systemd"]

_log = structlog.get_logger("mailsec.supervisor")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds that the supervisor waits for things."""

    ping: float = 5.0
    silence: float = 30.0
    """A worker that has not answered for so long is killed: its reactor is stuck."""
    start: float = 120.0
    """The same for a worker that is not ready yet."""
    drain: float = 30.0
    same_stop: float = 1.0
    """A second signal to stop within so long is the first one, told twice."""
    restart_first: float = 0.05
    restart_longest: float = 30.0
    stable: float = 60.0
    """A worker that lived so long is replaced at once when it dies."""


class Worker(ProcessProtocol):
    """One place: the worker process that holds it, or the timer that will start the next."""

    transport: Any

    def __init__(self, supervisor: Supervisor, index: int) -> None:
        self.supervisor = supervisor
        self.index = index
        self.ready = False
        self.pid = 0
        self.heard_at = 0.0
        self.started_at = 0.0
        self._reader = LineReader()

    # -- what Twisted tells ----------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.pid = self.transport.pid or 0
        self.started_at = self.heard_at = self.supervisor.reactor.seconds()
        self.transport.writeToChild(START, self.supervisor.start_message(self.index).encode())
        self.transport.closeChildFD(START)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD != FROM_WORKER:
            return
        self.heard_at = self.supervisor.reactor.seconds()
        for message in self._reader.feed(data):
            if message.get("is") == "ready" and not self.ready:
                self.ready = True
                self.supervisor.worker_ready(self)

    def processEnded(self, reason: Failure) -> None:
        self.supervisor.worker_ended(self, reason)

    # -- what the supervisor does ----------------------------------------------------------------------------------------------

    def tell(self, **message: Any) -> None:
        try:
            self.transport.writeToChild(TO_WORKER, line(**message))
        except KeyError:  # its end of the pipe is closed already: processEnded follows
            pass

    def kill(self) -> None:
        try:
            self.transport.signalProcess("KILL")
        except error.ProcessExitedAlready:
            pass


class Supervisor:
    """Keeps the workers; `run` returns the exit code when all have ended."""

    def __init__(
        self,
        reactor: Any,
        *,
        path: str,
        configuration: str,
        data_key: bytes,
        sockets: Sequence[socket.socket],
        workers: int,
        timing: Timing | None = None,
        command: Sequence[str] = (sys.executable, "-m", "mailsec.app.worker"),
        environment: Mapping[str, str] | None = None,
        hosts: TokenHosts | None = None,
    ) -> None:
        self.reactor = reactor
        self.hosts = hosts
        self.path = path
        self.configuration = configuration
        self.sockets = list(sockets)
        self.count = workers
        self.timing = timing or Timing()
        self.command = list(command)
        self.environment = dict(os.environ if environment is None else environment)
        self.workers: dict[int, Worker] = {}
        self.stopping = False
        self.exit_code = 0
        self._data_key = data_key
        self._failures: dict[int, int] = {}
        self._generation = 0
        self._was_ready = False
        self._stopped_at = 0.0
        self._ping_number = 0
        # systemd speaks to the supervisor only.
        self._notify = self.environment.pop("NOTIFY_SOCKET", "")
        for name in ("CREDENTIALS_DIRECTORY", "WATCHDOG_USEC", "WATCHDOG_PID"):
            self.environment.pop(name, None)

    def run(self) -> int:
        """Start the workers and keep them until SIGTERM or SIGINT."""
        self.reactor.callWhenRunning(self._begin)
        self.reactor.run(installSignalHandlers=True)
        return self.exit_code

    def _begin(self) -> None:
        # After reactor.run has installed its own handlers.
        signal.signal(signal.SIGTERM, self._stop_signal)
        signal.signal(signal.SIGINT, self._stop_signal)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _log.info("starting", workers=self.count, configuration=self.path, pid=os.getpid())
        if self.hosts is not None:
            self.hosts.start()
        for index in range(self.count):
            self._start(index)
        self.reactor.callLater(self.timing.ping, self._ping)

    # -- workers ---------------------------------------------------------------------------------------------------------------

    def start_message(self, index: int) -> StartMessage:
        return StartMessage(index, self.count, self._generation, self.path, self.configuration, self._data_key)

    def _start(self, index: int) -> None:
        if self.stopping:
            return
        worker = Worker(self, index)
        self.workers[index] = worker
        descriptors: dict[int, Any] = {0: "w", 1: 1, 2: 2, START: "w", TO_WORKER: "w", FROM_WORKER: "r"}
        for offset, opened in enumerate(self.sockets):
            descriptors[FIRST_SOCKET + offset] = opened.fileno()
        self.reactor.spawnProcess(
            worker, self.command[0], [*self.command, f"worker {index} of {self.path}"], env=self.environment, childFDs=descriptors
        )

    def worker_ready(self, worker: Worker) -> None:
        _log.info("worker is ready", worker=worker.index, pid=worker.pid)
        if not self._was_ready and len(self.workers) == self.count and all(one.ready for one in self.workers.values()):
            self._was_ready = True
            _log.info("ready", workers=self.count, ports=[_shown(opened) for opened in self.sockets], pid=os.getpid())
            notify_systemd(self._notify, f"READY=1\nMAINPID={os.getpid()}\nSTATUS={self.count} workers")

    def worker_ended(self, worker: Worker, reason: Failure) -> None:
        ended: Any = reason.value
        how = f"signal {ended.signal}" if getattr(ended, "signal", None) else f"exit code {ended.exitCode}"
        if self.workers.get(worker.index) is worker:
            del self.workers[worker.index]
        if self.stopping:
            _log.info("worker ended", worker=worker.index, pid=worker.pid, how=how)
            if not self.workers:
                self._end()
            return
        if ended.exitCode == ConfigurationError.exit_code and not worker.ready and not self._was_ready:
            # It has said what is wrong with the configuration, and the next one would say the same. Once all have been ready it is what
            # lies around the configuration that has changed (a nickname that was deleted): no reason to stop those that still serve.
            self.exit_code = ConfigurationError.exit_code
            _log.error("a worker refused the configuration; stopping", worker=worker.index)
            self.stop()
            return
        lived = self.reactor.seconds() - worker.started_at
        failures = 0 if lived > self.timing.stable else self._failures.get(worker.index, 0)
        self._failures[worker.index] = failures + 1
        wait = min(self.timing.restart_first * 4**failures, self.timing.restart_longest)
        _log.error("worker died; it is replaced", worker=worker.index, pid=worker.pid, how=how, lived=round(lived, 1), wait=wait)
        self.reactor.callLater(wait, self._start, worker.index)

    def _ping(self) -> None:
        now = self.reactor.seconds()
        self._ping_number += 1
        for worker in list(self.workers.values()):
            if now - worker.heard_at > (self.timing.silence if worker.ready else self.timing.start):
                _log.error("worker is silent; killing it", worker=worker.index, pid=worker.pid, seconds=round(now - worker.heard_at))
                worker.kill()
            else:
                worker.tell(do="ping", number=self._ping_number)
        if self.hosts is not None:
            self.hosts.ping()
        if not self.stopping:
            notify_systemd(self._notify, "WATCHDOG=1")
        self.reactor.callLater(self.timing.ping, self._ping)

    # -- the end ---------------------------------------------------------------------------------------------------------------

    def _stop_signal(self, number: int, _frame: object) -> None:
        self.reactor.callFromThread(self.stop, signal.Signals(number).name)

    def stop(self, why: str = "") -> None:
        """Let the workers finish what they have begun; a second call, or `drain` seconds, ends them at once."""
        if self.stopping:
            if self.reactor.seconds() - self._stopped_at < self.timing.same_stop:
                # `timeout` and service managers signal the process and its group: that is one wish, not two.
                return
            _log.warning("stopping at once", why=why)
            self._kill_all()
            return
        self.stopping = True
        self._stopped_at = self.reactor.seconds()
        _log.info("stopping", why=why or "failure")
        notify_systemd(self._notify, "STOPPING=1")
        for opened in self.sockets:
            opened.close()
        self.sockets.clear()
        if not self.workers:
            self._end()
            return
        for worker in self.workers.values():
            worker.tell(do="drain")
        self.reactor.callLater(self.timing.drain + 2, self._kill_all)

    def _kill_all(self) -> None:
        for worker in list(self.workers.values()):
            worker.kill()

    def _end(self) -> None:
        """No worker is left: nobody needs the token hosts any more."""
        if self.hosts is None:
            self._ended()
        elif not self.hosts.stopping:
            self.hosts.stop(self._ended)

    def _ended(self) -> None:
        _log.info("stopped", pid=os.getpid())
        if self.reactor.running:
            self.reactor.stop()


def _shown(opened: socket.socket) -> str:
    """Where a socket listens."""
    name = opened.getsockname()
    return name if isinstance(name, str) else f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def notify_systemd(address: str, text: str) -> None:
    """sd_notify(3): one datagram to the socket that systemd named; nothing without one."""
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.send(text.encode())
    except OSError as problem:
        _log.warning("systemd cannot be told", error=str(problem))
