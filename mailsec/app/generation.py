"""A generation: the N workers that serve one text of the configuration, on the sockets that the supervisor holds.

A reload begins a new one beside the old; the old one ends when its sessions have. The one invariant: two workers never have one spool. A
worker's number is its place in its generation (and what logs call it); the number of its spool is its own among all that live.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from twisted.internet import error
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from mailsec.app.control import FIRST_SOCKET, FROM_WORKER, START, TO_WORKER, LineReader, StartMessage, line

__all__ = ["Generation", "Keeper", "Orders", "Worker"]


@dataclass(frozen=True, slots=True)
class Orders:
    """What a generation is made with. Its `repr` shows neither key nor configuration."""

    path: str
    configuration: str = field(repr=False)
    data_key: bytes = field(repr=False)
    workers: int
    sockets: Sequence[socket.socket] = field(repr=False)
    """One for each listener of the configuration, in its order. They are the supervisor's."""
    listening: bool = True
    """False: nothing is accepted (`mailsec drain`)."""


class Keeper(Protocol):
    """Whoever keeps generations: the supervisor."""

    reactor: Any
    command: Sequence[str]
    environment: Mapping[str, str]

    def worker_ready(self, worker: Worker) -> None: ...

    def worker_ended(self, worker: Worker, reason: Failure) -> None: ...

    def worker_told(self, worker: Worker, message: Mapping[str, Any]) -> None: ...

    def spools_in_use(self) -> Sequence[int]: ...


class Worker(ProcessProtocol):
    """One worker process."""

    transport: Any

    def __init__(self, keeper: Keeper, generation: Generation, number: int, spool: int) -> None:
        self.keeper = keeper
        self.generation = generation
        self.number = number
        self.spool = spool
        self.ready = False
        self.pid = 0
        self.heard_at = 0.0
        self.started_at = 0.0
        self.unable: Mapping[str, Any] = {}
        """What it has said of why it cannot start: {"error", "hint", "again"}."""
        self._reader = LineReader()

    # -- what Twisted tells ----------------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        self.pid = self.transport.pid or 0
        self.started_at = self.heard_at = self.keeper.reactor.seconds()
        self.transport.writeToChild(START, self.generation.start_message(self).encode())
        self.transport.closeChildFD(START)

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        if childFD != FROM_WORKER:
            return
        self.heard_at = self.keeper.reactor.seconds()
        for message in self._reader.feed(data):
            if message.get("is") == "unable":
                self.unable = message
            elif message.get("is") != "ready":
                self.keeper.worker_told(self, message)
            elif not self.ready:
                self.ready = True
                self.keeper.worker_ready(self)

    def processEnded(self, reason: Failure) -> None:
        self.keeper.worker_ended(self, reason)

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


class Generation:
    """Its workers by their number, and what each place of it needs to be filled again."""

    def __init__(self, keeper: Keeper, number: int, orders: Orders, spools: Sequence[int]) -> None:
        self.keeper = keeper
        self.number = number
        self.orders = orders
        self.spools = tuple(spools)
        self.workers: dict[int, Worker] = {}
        self._failures: dict[int, int] = {}
        self._waiting: dict[int, Any] = {}

    @property
    def ready(self) -> bool:
        """True where each place has a worker that is ready."""
        return len(self.workers) == self.orders.workers and all(worker.ready for worker in self.workers.values())

    def start_message(self, worker: Worker) -> StartMessage:
        """What `worker` is told first."""
        orders = self.orders
        return StartMessage(
            worker.number,
            orders.workers,
            self.number,
            worker.spool,
            tuple(self.keeper.spools_in_use()),
            orders.listening,
            orders.path,
            orders.configuration,
            orders.data_key,
        )

    def start(self) -> None:
        """Fill every place."""
        for number in range(self.orders.workers):
            self.fill(number)

    def fill(self, number: int) -> None:
        """Start the worker of a place."""
        self._waiting.pop(number, None)
        keeper = self.keeper
        worker = self.workers[number] = Worker(keeper, self, number, self.spools[number])
        descriptors: dict[int, Any] = {0: "w", 1: 1, 2: 2, START: "w", TO_WORKER: "w", FROM_WORKER: "r"}
        for offset, opened in enumerate(self.orders.sockets):
            descriptors[FIRST_SOCKET + offset] = opened.fileno()
        keeper.reactor.spawnProcess(
            worker,
            keeper.command[0],
            [*keeper.command, f"worker {number} of {self.orders.path}"],
            env=dict(keeper.environment),
            childFDs=descriptors,
        )

    def fill_later(self, number: int, wait: Callable[[int], float], *, lived_long: bool) -> float:
        """The same after a while that `wait` says for the number of failures before; return how long."""
        failures = 0 if lived_long else self._failures.get(number, 0)
        self._failures[number] = failures + 1
        seconds = wait(failures)
        self._waiting[number] = self.keeper.reactor.callLater(seconds, self.fill, number)
        return seconds

    def failures(self, number: int) -> int:
        """How often in a row the worker of a place has died early."""
        return self._failures.get(number, 0)

    def lost(self, worker: Worker) -> None:
        """Its process has ended."""
        if self.workers.get(worker.number) is worker:
            del self.workers[worker.number]

    def cease(self) -> None:
        """No place is filled any more."""
        for timer in self._waiting.values():
            timer.cancel()
        self._waiting.clear()

    def tell(self, **message: Any) -> None:
        """The same to every worker."""
        for worker in list(self.workers.values()):
            worker.tell(**message)

    def kill(self) -> None:
        """End every worker at once."""
        for worker in list(self.workers.values()):
            worker.kill()
