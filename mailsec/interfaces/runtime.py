"""What plugins and cores are lent instead of a clock, a reactor, threads and a network."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol, TypeVar

from mailsec.errors import LocalProtocolError
from mailsec.interfaces.protocols import ProtocolCore
from mailsec.model.octets import Octets

__all__ = ["DnsAnswer", "Runtime", "Scratch", "Signal", "Task", "Work", "run_now"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


def run_now(coroutine: Coroutine[Any, Any, T]) -> T:
    """Drive a coroutine that never suspends, and return its result; raise LocalProtocolError if it does suspend.

    For commands and tests: software key handles and file-backed objects never suspend.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    coroutine.close()
    raise LocalProtocolError("a coroutine that must not suspend did", hint="use the runtime of the command or of the test")


class Task(Protocol[T_co]):
    """Something that was started: await it for its result, or cancel it."""

    def __await__(self) -> Any: ...

    def cancel(self) -> None: ...


class Signal(Protocol):
    """Fired once; whoever waits gets the value, before or after."""

    @property
    def fired(self) -> bool: ...

    def fire(self, value: Any = None) -> None: ...

    def wait(self) -> Awaitable[Any]: ...


class Work(Protocol):
    """Run `function(*args)` where it does not stop others: inline where `cost` (octets) is small, in lane `bulk` above 1 MiB."""

    def __call__(self, cost: int, function: Callable[..., T], *args: Any) -> Awaitable[T]: ...


class Scratch(Protocol):
    """Octets that are written once, and read after they are sealed. Up to `limits.scratch_memory` in memory, then in an unnamed file."""

    def append(self, chunk: bytes | memoryview) -> None: ...

    def __len__(self) -> int: ...

    def seal(self) -> Octets:
        """End writing; return what was written. Nothing can be read before."""
        ...

    def discard(self) -> None:
        """Give the memory or the file back; allowed at any time, more than once."""
        ...


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """Records of one name and kind, and whether DNSSEC vouches for them."""

    records: tuple[Any, ...] = ()
    authentic: bool = False
    """True where a validating resolver that is believed says so (RFC 4035 §3.2.3): one on this machine, or the one that the caller named."""


class Runtime(Protocol):
    """What plugins and cores are lent instead of a clock, a reactor, threads and a network."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def random(self, octets: int) -> bytes: ...

    def sleep(self, seconds: float) -> Awaitable[None]: ...

    def start(self, coroutine: Coroutine[Any, Any, T], name: str) -> Task[T]:
        """Run `coroutine` beside us. An error that nobody awaits is logged under `name`."""
        ...

    def gather(self, awaitables: Sequence[Awaitable[T]]) -> Awaitable[list[T]]:
        """Wait for all; the first error is raised when all have ended."""
        ...

    def within(self, seconds: float, awaitable: Awaitable[T]) -> Awaitable[T]:
        """Its value or its error; after `seconds` it is cancelled and `TimeoutError` is raised."""
        ...

    def signal(self) -> Signal: ...

    def in_thread(self, function: Callable[..., T], *args: Any, lane: str = "default") -> Awaitable[T]:
        """Run in a thread of `lane` ("default", "bulk", "spool", "database"): each lane has its own few threads."""
        ...

    def resolve(self, name: str, kind: str) -> Awaitable[Sequence[Any]]:
        """Ask DNS for records of `kind` ("MX": (preference, host) pairs; "A", "AAAA": addresses; "TXT": octets, the strings of each
        record joined). No record: empty; no answer: Unavailable."""
        ...

    def look_up(self, name: str, kind: str, *, resolver: str = "") -> Awaitable[DnsAnswer]:
        """As `resolve`, with what DNSSEC says. `resolver`: "ADDRESS" or "ADDRESS:PORT" that is asked, and believed, in place of the system's."""
        ...

    def public_addresses(self, host: str) -> Awaitable[Sequence[str]]:
        """Addresses of `host` to which a stranger's certificate may send us: those that `fetch` would connect to; none: Unavailable.

        Connect to the address, not to the name: by then it may lead elsewhere.
        """
        ...

    def fetch(
        self, url: str, *, body: bytes | None = None, content_type: str = "", limit: int = 0, timeout: float = 0.0
    ) -> Awaitable[bytes]:
        """GET or POST over HTTP within the limits; the address that was checked is the one connected to."""
        ...

    def connect(
        self, address: str, core: ProtocolCore, ask: Callable[[object], object], *, timeout: float, verify: str = "none"
    ) -> Awaitable[Any]:
        """Connect to "HOST:PORT" or "unix:PATH" and drive `core` there; questions go to `ask`."""
        ...

    def scratch(self) -> Scratch: ...
