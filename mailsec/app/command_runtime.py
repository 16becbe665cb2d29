"""A `Runtime` for commands: everything happens here and now, so that `run_now` can drive what the gateway does; no network, no waiting."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from mailsec.app.messages import new_scratch
from mailsec.errors import LocalProtocolError, Unavailable
from mailsec.interfaces import DnsAnswer, ProtocolCore, Scratch, Signal, Task, run_now
from mailsec.model.queue import NewEntry

__all__ = ["CommandRuntime", "NoSpool"]

T = TypeVar("T")


class _Done(Generic[T]):
    """A task that has ended before anybody could wait for it."""

    def __init__(self, value: T) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, T]:
        yield from ()
        return self._value

    def cancel(self) -> None:
        """Too late."""


class _Signal:
    """Nobody can wait for what has not been fired: nothing else runs."""

    def __init__(self) -> None:
        self.fired = False
        self._value: Any = None

    def fire(self, value: Any = None) -> None:
        if not self.fired:
            self.fired, self._value = True, value

    def wait(self) -> Awaitable[Any]:
        if not self.fired:
            raise LocalProtocolError("a command waited for what nobody will do")
        return _Done(self._value)


def _offline(what: str) -> Unavailable:
    return Unavailable(f"commands look nothing up on the network ({what})")


class CommandRuntime:
    """See the module."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def random(self, octets: int) -> bytes:
        return os.urandom(octets)

    def sleep(self, seconds: float) -> Awaitable[None]:
        return _Done(None)

    def start(self, coroutine: Coroutine[Any, Any, T], name: str) -> Task[T]:
        return _Done(run_now(coroutine))

    async def gather(self, awaitables: Sequence[Awaitable[T]]) -> list[T]:
        return [await one for one in awaitables]

    def within(self, seconds: float, awaitable: Awaitable[T]) -> Awaitable[T]:
        return awaitable

    def signal(self) -> Signal:
        return _Signal()

    def in_thread(self, function: Callable[..., T], *args: Any, lane: str = "default") -> Awaitable[T]:
        return _Done(function(*args))

    def resolve(self, name: str, kind: str) -> Awaitable[Sequence[Any]]:
        raise _offline(f"{kind} of {name}")

    def look_up(self, name: str, kind: str, *, resolver: str = "") -> Awaitable[DnsAnswer]:
        raise _offline(f"{kind} of {name}")

    def public_addresses(self, host: str) -> Awaitable[Sequence[str]]:
        raise _offline(host)

    def fetch(
        self, url: str, *, body: bytes | None = None, content_type: str = "", limit: int = 0, timeout: float = 0.0
    ) -> Awaitable[bytes]:
        raise _offline(url)

    def connect(
        self, address: str, core: ProtocolCore, ask: Callable[[object], object], *, timeout: float, verify: str = "none"
    ) -> Awaitable[Any]:
        raise _offline(address)

    def scratch(self) -> Scratch:
        return new_scratch()


class NoSpool:
    """A `Spool` that keeps nothing: for what only looks."""

    async def commit(self, entries: Sequence[Any], *, replaces: str = "") -> None:
        raise LocalProtocolError("a command that only looks tried to store mail")

    def many_wait(self, need: str, most: int) -> bool:
        return False

    def check_room(self, octets: int = 0) -> None:
        """There is room for nothing, and nothing is kept."""

    async def postpone(self, id: str, *, need: str, reason: str, report: NewEntry | None = None) -> None:
        raise LocalProtocolError("a command that only looks tried to store mail")

    async def hold(self, id: str, reason: str) -> None:
        raise LocalProtocolError("a command that only looks tried to store mail")

    def scratch(self) -> Scratch:
        return new_scratch()
