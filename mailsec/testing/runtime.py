"""A Runtime for tests: a clock that is set, not waited for, no threads, no network, and randomness that may repeat.

The one invariant: `FakeRuntime.run` never sleeps and never hangs. When every task waits, the clock jumps to the next timer; where there is
none, the test fails with LocalProtocolError, because nothing could ever wake it.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import os
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, TypeVar

from mailsec.errors import LocalProtocolError, Unavailable
from mailsec.interfaces import DnsAnswer, ProtocolCore
from mailsec.model.networks import is_public
from mailsec.testing.memory import MemoryScratch

__all__ = ["CancelledError", "FakeRuntime", "FakeSignal", "FakeTask"]

T = TypeVar("T")

EPOCH = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


class CancelledError(Exception):
    """How this runtime cancels an await. An `Exception`, as Twisted's is: code that swallows it fails its test."""


class FakeSignal:
    """Fired once; whoever waits gets the value, before or after."""

    def __init__(self) -> None:
        self._fired = False
        self._value: Any = None
        self._waiting: list[Callable[[], None]] = []

    @property
    def fired(self) -> bool:
        return self._fired

    def fire(self, value: Any = None) -> None:
        if not self._fired:
            self._fired, self._value = True, value
            waiting, self._waiting = self._waiting, []
            for wake in waiting:
                wake()

    def when_fired(self, wake: Callable[[], None]) -> None:
        """Call `wake` once when it fires, or now if it has."""
        if self._fired:
            wake()
        else:
            self._waiting.append(wake)

    def wait(self) -> Awaitable[Any]:
        return self._wait()

    async def _wait(self) -> Any:
        if not self._fired:
            await _Suspend(self)
        return self._value


class _Suspend:
    """What a task yields to its runtime: "wake me when this fires"."""

    def __init__(self, signal: FakeSignal) -> None:
        self.signal = signal

    def __await__(self) -> Generator[FakeSignal, None, None]:
        yield self.signal


class FakeTask(Generic[T]):
    """A coroutine that the runtime drives; await it, or cancel it."""

    def __init__(self, runtime: FakeRuntime, coroutine: Coroutine[Any, Any, T], name: str) -> None:
        self.name = name
        self.done = FakeSignal()
        self.error: BaseException | None = None
        self._runtime = runtime
        self._coroutine = coroutine
        self._result: Any = None
        self._cancelled = False

    def __await__(self) -> Generator[Any, Any, T]:
        yield from self.done.wait().__await__()
        return self.result()

    def result(self) -> T:
        """The value, or raise the error that ended it."""
        if self.error is not None:
            raise self.error
        result: T = self._result
        return result

    def cancel(self) -> None:
        if not self.done.fired:
            self._cancelled = True
            self._runtime.wake(self)

    def step(self) -> None:
        """Run until the next suspension."""
        if self.done.fired:
            return
        try:
            if self._cancelled:
                self._cancelled = False
                waits_for = self._coroutine.throw(CancelledError("cancelled"))
            else:
                waits_for = self._coroutine.send(None)
        except StopIteration as stop:
            self._result = stop.value
        except BaseException as error:
            self.error = error
        else:
            if not isinstance(waits_for, FakeSignal):
                self.error = LocalProtocolError(
                    f"task {self.name} awaits a {type(waits_for).__name__}", hint="await objects of this runtime"
                )
                self._coroutine.close()
            else:
                waits_for.when_fired(lambda: self._runtime.wake(self))
                return
        self.done.fire()


class FakeRuntime:
    """`interfaces.Runtime` for tests. `run(coroutine)` drives everything to its end.

    `records` answers `resolve` and `look_up` by (name, kind), a `DnsAnswer` says what is authentic; `pages` answers `fetch` by URL; a value
    that is an exception is raised. `failures` collects errors of tasks that nobody awaited.
    """

    def __init__(
        self,
        at: datetime = EPOCH,
        *,
        seed: bytes | None = b"mailsec",
        records: Mapping[tuple[str, str], Sequence[Any] | DnsAnswer | Exception] | None = None,
        pages: Mapping[str, bytes | Exception] | None = None,
    ) -> None:
        self.at = at
        self.records = dict(records or {})
        self.pages = dict(pages or {})
        self.slept: list[float] = []
        self.tasks: list[FakeTask[Any]] = []
        self._seed = seed
        self._drawn = 0
        self._elapsed = 0.0
        self._ready: deque[FakeTask[Any]] = deque()
        self._timers: list[tuple[float, int, FakeSignal]] = []
        self._order = itertools.count()

    # -- driving --------------------------------------------------------------------------------------------------------------

    def run(self, awaitable: Awaitable[T]) -> T:
        """Drive until `awaitable` is done, moving the clock where all wait; return its value or raise its error."""
        task = self.start(_awaiting(awaitable), "main")
        while not task.done.fired:
            if self._ready:
                self._ready.popleft().step()
            elif self._timers:
                due, _, signal = heapq.heappop(self._timers)
                if not signal.fired:
                    self.advance_to(due)
                    signal.fire()
            else:
                raise LocalProtocolError(
                    f"task {task.name} waits for something that nothing will bring", hint="fire its signal, or cancel it"
                )
        return task.result()

    def wake(self, task: FakeTask[Any]) -> None:
        """Let `task` go on at the next turn."""
        self._ready.append(task)

    def advance(self, seconds: float) -> None:
        """Move the clock without running anything."""
        self.advance_to(self._elapsed + seconds)

    def advance_to(self, elapsed: float) -> None:
        """Move the monotonic clock to `elapsed`, and the other by as much."""
        if elapsed > self._elapsed:
            self.at += timedelta(seconds=elapsed - self._elapsed)
            self._elapsed = elapsed

    # -- the interface --------------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self._elapsed

    def random(self, octets: int) -> bytes:
        if self._seed is None:
            return os.urandom(octets)
        self._drawn += 1
        return hashlib.shake_128(self._seed + self._drawn.to_bytes(8, "big")).digest(octets)

    def sleep(self, seconds: float) -> Awaitable[None]:
        self.slept.append(seconds)
        return self._timer(seconds).wait()

    def start(self, coroutine: Coroutine[Any, Any, T], name: str) -> FakeTask[T]:
        task = FakeTask(self, coroutine, name)
        self.tasks.append(task)
        self._ready.append(task)
        return task

    def gather(self, awaitables: Sequence[Awaitable[T]]) -> Awaitable[list[T]]:
        return self._gather([self.start(_awaiting(one), "gather") for one in awaitables])

    async def _gather(self, tasks: Sequence[FakeTask[T]]) -> list[T]:
        for task in tasks:
            await task.done.wait()
        return [task.result() for task in tasks]

    def within(self, seconds: float, awaitable: Awaitable[T]) -> Awaitable[T]:
        return self._within(seconds, awaitable)

    async def _within(self, seconds: float, awaitable: Awaitable[T]) -> T:
        task = self.start(_awaiting(awaitable), "within")
        either = FakeSignal()
        late = self._timer(seconds)
        task.done.when_fired(either.fire)
        late.when_fired(either.fire)
        try:
            await either.wait()
        except BaseException:
            task.cancel()
            raise
        if not task.done.fired:
            task.cancel()
            raise TimeoutError(f"nothing within {seconds:g} s")
        late.fire()
        return task.result()

    def signal(self) -> FakeSignal:
        return FakeSignal()

    def in_thread(self, function: Callable[..., T], *args: Any, lane: str = "default") -> Awaitable[T]:
        async def at_once() -> T:
            return function(*args)

        return at_once()

    async def resolve(self, name: str, kind: str) -> Sequence[Any]:
        answer: Sequence[Any] | DnsAnswer | Exception = self.records.get((name, kind), ())
        if isinstance(answer, Exception):
            raise answer
        return answer.records if isinstance(answer, DnsAnswer) else answer

    async def look_up(self, name: str, kind: str, *, resolver: str = "") -> DnsAnswer:
        answer = self.records.get((name, kind))
        return answer if isinstance(answer, DnsAnswer) else DnsAnswer(tuple(await self.resolve(name, kind)))

    async def public_addresses(self, host: str) -> Sequence[str]:
        found = tuple(one for one in await self.resolve(host, "A") if is_public(one))
        if not found:
            raise Unavailable(f"{host} has no public address", stage="fetch")
        return found

    async def fetch(self, url: str, *, body: bytes | None = None, content_type: str = "", limit: int = 0, timeout: float = 0.0) -> bytes:
        page = self.pages.get(url, Unavailable(f"no page at {url}"))
        if isinstance(page, Exception):
            raise page
        return page

    async def connect(
        self, address: str, core: ProtocolCore, ask: Callable[[object], object], *, timeout: float, verify: str = "none"
    ) -> Any:
        raise Unavailable(f"no network to {address}")

    def scratch(self) -> MemoryScratch:
        return MemoryScratch()

    @property
    def failures(self) -> list[BaseException]:
        """Errors of all tasks that ended with one, cancellation aside."""
        return [task.error for task in self.tasks if task.error is not None and not isinstance(task.error, CancelledError)]

    def _timer(self, seconds: float) -> FakeSignal:
        signal = FakeSignal()
        heapq.heappush(self._timers, (self._elapsed + max(seconds, 0.0), next(self._order), signal))
        return signal


async def _awaiting(awaitable: Awaitable[T]) -> T:
    return await awaitable
