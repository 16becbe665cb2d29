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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from mailsec.app.generation import Generation, Orders, Worker
from mailsec.app.systemd import Notifier
from mailsec.errors import ConfigurationError, MailsecError
from mailsec.store.spool_queue import spool_indexes

if TYPE_CHECKING:
    from mailsec.app.token_hosts import TokenHosts

__all__ = ["Supervisor", "Timing"]

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
    retire: float = 60.0
    """Sessions go on for so long after a reload; then they are drained."""
    same_stop: float = 1.0
    """A second signal to stop within so long is the first one, told twice."""
    restart_first: float = 0.05
    restart_longest: float = 30.0
    stable: float = 60.0
    """A worker that lived so long is replaced at once when it dies."""
    hopeless: int = 6
    """Workers of one place that have died without a word, and without any generation ever having been ready: then nothing is started."""


class Supervisor:
    """Keeps the workers; `run` returns the exit code when all have ended."""

    def __init__(
        self,
        reactor: Any,
        *,
        orders: Orders,
        spool_directory: str,
        timing: Timing | None = None,
        command: Sequence[str] = (sys.executable, "-m", "mailsec.app.worker"),
        environment: Mapping[str, str] | None = None,
        hosts: TokenHosts | None = None,
    ) -> None:
        self.reactor = reactor
        self.hosts = hosts
        self.timing = timing or Timing()
        self.command: Sequence[str] = list(command)
        inherited = dict(os.environ if environment is None else environment)
        self.environment: Mapping[str, str] = inherited
        self.stopping = False
        self.exit_code = 0
        self.refusal: MailsecError | None = None
        """Why nothing was started, where that was so."""
        self.deaths = 0
        """Workers that ended and should not have."""
        self.started_at = reactor.seconds()
        self.serving = Generation(self, 0, orders, range(orders.workers))
        self.coming: Generation | None = None
        """The generation of a reload until all of it is ready."""
        self.leaving: list[Generation] = []
        """Generations before, whose sessions go on, and one that came to nothing, until its processes have ended."""
        self.on_begin: list[Callable[[], object]] = []
        self.on_hangup: Callable[[], object] = lambda: None
        """Called at SIGHUP."""
        self.on_stop: list[Callable[[], object]] = []
        self.on_told: Callable[[Worker, Mapping[str, Any]], object] = lambda worker, message: None
        """Called with what a worker says of itself: {"is": "alive", …}."""
        self.on_ended: list[Callable[[Worker], object]] = []
        """Called when a worker's process has ended, before another one has its place."""
        self._spool_directory = spool_directory
        self._arrival: Deferred[None] | None = None
        self._coming_timing = self.timing
        self._generations = 1
        self.was_ready = False
        """Whether all workers of one generation have been ready."""
        self._stopped_at = 0.0
        self._ping_number = 0
        # systemd speaks to the supervisor only.
        self.systemd = Notifier.taken_from(inherited)
        inherited.pop("CREDENTIALS_DIRECTORY", None)

    def run(self) -> int:
        """Start the workers and keep them until SIGTERM or SIGINT."""
        self.reactor.callWhenRunning(self._begin)
        self.reactor.run(installSignalHandlers=True)
        return self.exit_code

    def _begin(self) -> None:
        # After reactor.run has installed its own handlers.
        signal.signal(signal.SIGTERM, self._stop_signal)
        signal.signal(signal.SIGINT, self._stop_signal)
        signal.signal(signal.SIGHUP, lambda *_: self.reactor.callFromThread(self.on_hangup))
        orders = self.serving.orders
        _log.info("starting", workers=orders.workers, configuration=orders.path, pid=os.getpid())
        for call in self.on_begin:
            call()
        if self.hosts is not None:
            self.hosts.start()
        self.serving.start()
        self.reactor.callLater(self.timing.ping, self._ping)
        self._live()

    @property
    def generations(self) -> list[Generation]:
        """All that have workers: the serving one first."""
        return [self.serving, *([self.coming] if self.coming is not None else ()), *self.leaving]

    @property
    def workers(self) -> list[Worker]:
        """Every worker that lives."""
        return [worker for generation in self.generations for worker in generation.workers.values()]

    # -- workers (generation.Keeper) -------------------------------------------------------------------------------------------

    def spools_in_use(self) -> list[int]:
        """The numbers of spools that somebody owns, or will own in a moment."""
        places = [*self.serving.spools, *(self.coming.spools if self.coming is not None else ())]
        return sorted({*places, *(worker.spool for worker in self.workers)})

    def worker_ready(self, worker: Worker) -> None:
        generation = worker.generation
        _log.info("worker is ready", worker=worker.number, pid=worker.pid, generation=generation.number)
        if generation is self.coming and generation.ready:
            self._arrived(generation)
        elif generation is self.serving and self.was_ready and generation.ready and generation.orders.listening:
            self.systemd.tell(f"STATUS={generation.orders.workers} workers")
        if generation is self.serving and not self.was_ready and generation.ready:
            self.was_ready = True
            ports = [_shown(opened) for opened in generation.orders.sockets]
            _log.info("ready", workers=generation.orders.workers, ports=ports, pid=os.getpid())
            self.systemd.tell("READY=1", f"MAINPID={os.getpid()}", f"STATUS={generation.orders.workers} workers")

    def worker_told(self, worker: Worker, message: Mapping[str, Any]) -> None:
        self.on_told(worker, message)

    def worker_ended(self, worker: Worker, reason: Failure) -> None:
        ended: Any = reason.value
        how = f"signal {ended.signal}" if getattr(ended, "signal", None) else f"exit code {ended.exitCode}"
        generation = worker.generation
        generation.lost(worker)
        for call in self.on_ended:
            call(worker)
        if self.stopping:
            _log.info("worker ended", worker=worker.number, pid=worker.pid, how=how)
            if not self.workers:
                self._end()
        elif generation is self.coming:
            _log.error("a worker of the new generation ended", worker=worker.number, pid=worker.pid, how=how, **_why(worker))
            self._came_to_nothing(worker, how)
            self._hand_over(worker)
        elif generation is not self.serving:
            _log.info("worker ended", worker=worker.number, pid=worker.pid, how=how, generation=generation.number)
            if not generation.workers and generation in self.leaving:
                self.leaving.remove(generation)
            self.let_go()
            self._hand_over(worker)
        elif not worker.ready and not self.was_ready and self._is_hopeless(worker, ended.exitCode):
            # The next one would end as this one did. Once all have been ready it is what lies around the configuration that has changed
            # (a nickname that was deleted): no reason to stop those that still serve.
            self._refuse(worker, how, ended.exitCode)
        else:
            self.deaths += 1
            lived = self.reactor.seconds() - worker.started_at
            wait = generation.fill_later(worker.number, self._wait, lived_long=lived > self.timing.stable)
            told = {"worker": worker.number, "pid": worker.pid, "how": how, "lived": round(lived, 1), "wait": round(wait, 2)}
            _log.error("worker died; it is replaced", **told, **_why(worker))
            if not worker.ready:
                self.systemd.tell(f"STATUS=worker {worker.number} cannot start: {worker.unable.get('error', how)}")

    def _is_hopeless(self, worker: Worker, exit_code: int | None) -> bool:
        if worker.unable:
            return not worker.unable["again"]
        return exit_code == ConfigurationError.exit_code or worker.generation.failures(worker.number) + 1 >= self.timing.hopeless

    def _refuse(self, worker: Worker, how: str, exit_code: int | None) -> None:
        """Stop before anything has begun."""
        said = worker.unable
        if said:
            self.refusal = MailsecError(f"nothing was started: {said['error']}", hint=said["hint"])
        else:
            tries = worker.generation.failures(worker.number) + 1
            times = f", {tries} times in a row" if tries > 1 else ""
            why = f"nothing was started: workers end before they are ready ({how}{times})"
            self.refusal = MailsecError(why, hint="the lines above, or the journal, say more")
        self.exit_code = exit_code if exit_code and (said or exit_code == ConfigurationError.exit_code) else MailsecError.exit_code
        _log.error("a worker cannot start; stopping", worker=worker.number, how=how, error=self.refusal.message, hint=self.refusal.hint)
        self.stop()
        # After STOPPING=1: `systemctl status` shows the last one.
        self.systemd.tell(f"STATUS={self.refusal.message}")

    def _wait(self, failures: int) -> float:
        return float(min(self.timing.restart_first * 4**failures, self.timing.restart_longest))

    def _hand_over(self, ended: Worker) -> None:
        """What is in the spool of a worker that nobody replaces goes to one that lives."""
        heirs = [worker for worker in self.serving.workers.values() if worker.ready]
        if heirs:
            heirs[ended.number % len(heirs)].tell(do="adopt", spools=self.spools_in_use())
        # else: those that start look for orphans by themselves

    def _ping(self) -> None:
        now = self.reactor.seconds()
        self._ping_number += 1
        for worker in self.workers:
            if now - worker.heard_at > (self.timing.silence if worker.ready else self.timing.start):
                _log.error("worker is silent; killing it", worker=worker.number, pid=worker.pid, seconds=round(now - worker.heard_at))
                worker.kill()
            else:
                worker.tell(do="ping", number=self._ping_number)
        if self.hosts is not None:
            self.hosts.ping()
        self.reactor.callLater(self.timing.ping, self._ping)

    def _live(self) -> None:
        if not self.stopping:
            self.systemd.tell("WATCHDOG=1")
        # Twice as often as systemd wants to hear it: sd_watchdog_enabled(3).
        self.reactor.callLater(min(self.timing.ping, self.systemd.patience / 2), self._live)

    # -- another generation ----------------------------------------------------------------------------------------------------

    def replace(self, orders: Orders, timing: Timing | None = None) -> Deferred[None]:
        """Begin a generation beside the one that serves, and have it take its place when all of it is ready; `timing` counts from then on.

        Errback with MailsecError where one of its workers ends before that; then everything stays as it was.
        """
        assert self.coming is None and not self.stopping
        used = {*self.spools_in_use(), *spool_indexes(self._spool_directory)}
        free = (number for number in range(len(used) + orders.workers) if number not in used)
        spools = [next(free) for _ in range(orders.workers)]
        arrival: Deferred[None] = Deferred()
        self._arrival, self._coming_timing = arrival, timing or self.timing
        self.coming = Generation(self, self._generations, orders, spools)
        self._generations += 1
        self.coming.start()
        return arrival

    def _arrived(self, generation: Generation) -> None:
        before, self.serving, self.coming = self.serving, generation, None
        self._leave(before)
        before.tell(do="retire", seconds=self.timing.retire)
        self.reactor.callLater(self.timing.retire + self.timing.drain + 2, before.kill)
        self.timing = self._coming_timing
        _log.info("a new generation serves", generation=generation.number, workers=generation.orders.workers)
        self.was_ready = True
        self.let_go()
        self._tell_arrival(None)

    def _leave(self, generation: Generation) -> None:
        generation.cease()
        if generation.workers:
            self.leaving.append(generation)

    def let_go(self) -> None:
        """Of token hosts that only an earlier generation used."""
        if self.hosts is not None and self.coming is None and not self.leaving:
            self.hosts.end_unneeded()

    def _came_to_nothing(self, worker: Worker, how: str) -> None:
        generation, self.coming = self.coming, None
        if generation is not None:
            self._leave(generation)
            generation.kill()
            why, hint = f"worker {worker.number} of the new generation ended ({how})", "its own lines in the log say why; "
            if worker.unable:
                why, hint = worker.unable["error"], f"{worker.unable['hint']}; " if worker.unable["hint"] else ""
            self._tell_arrival(MailsecError(why, hint=f"{hint}the generation before goes on"))

    def _tell_arrival(self, error: MailsecError | None) -> None:
        arrival, self._arrival = self._arrival, None
        if arrival is not None and error is None:
            arrival.callback(None)
        elif arrival is not None:
            arrival.errback(error)

    def pause(self) -> None:
        """Accept nothing more, let sessions end, and go on delivering; until `replace`."""
        self.serving.orders = replace(self.serving.orders, sockets=(), listening=False)
        self.serving.tell(do="pause")
        self.systemd.tell("STATUS=drained: it accepts no mail")

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
        self.systemd.tell("STOPPING=1")
        for call in self.on_stop:
            call()
        for generation in self.generations:
            generation.cease()
        self._tell_arrival(MailsecError("mailsec is stopping"))
        if not self.workers:
            self._end()
            return
        for generation in self.generations:
            generation.tell(do="drain")
        self.reactor.callLater(self.timing.drain + 2, self._kill_all)

    def _kill_all(self) -> None:
        for worker in self.workers:
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


def _why(worker: Worker) -> dict[str, str]:
    """What it has said of why it cannot start, for a line of the log."""
    return {name: worker.unable[name] for name in ("error", "hint") if worker.unable.get(name)}


def _shown(opened: socket.socket) -> str:
    """Where a socket listens."""
    name = opened.getsockname()
    return name if isinstance(name, str) else f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
