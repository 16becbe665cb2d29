"""The `Runtime` over Twisted: clock, tasks, threads in lanes, the resolver, HTTP, outgoing connections.

The one invariant: everything awaited here ends (a value, an error of ours, or `TimeoutError`), and cancelling it gives back what it held.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

from mailsec.errors import ConfigurationError
from mailsec.interfaces import DnsAnswer, ProtocolCore, Scratch
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.requests import StartTls
from mailsec.net.connect import Connection, connect
from mailsec.net.fetcher import Fetcher, FetchRules
from mailsec.net.lanes import Lane
from mailsec.net.lookups import Resolver
from mailsec.net.tls_client import Wallet, client_tls

__all__ = ["LANES", "FiredOnce", "TwistedRuntime", "TwistedTask"]

T = TypeVar("T")

LANES: Mapping[str, int] = {"default": 8, "bulk": 2, "spool": 1, "database": 4}
"""Threads of each lane. The spool has one: it is one writer, and commits that wait share an fsync."""

_log = structlog.get_logger("mailsec.net")


def as_deferred(awaitable: Awaitable[T]) -> Deferred[T]:
    """A Deferred for anything that can be awaited."""
    if isinstance(awaitable, Deferred):
        return awaitable
    if isinstance(awaitable, TwistedTask):
        return awaitable.result()
    if isinstance(awaitable, Coroutine):
        return Deferred.fromCoroutine(awaitable)

    async def wait() -> T:
        return await awaitable

    return Deferred.fromCoroutine(wait())


class TwistedTask:
    """A `Task`: any number may await it; one that ends in an error that nobody awaits is logged."""

    def __init__(self, deferred: Deferred[Any], name: str, *, quiet: bool = False) -> None:
        self._name = name
        self._deferred = deferred
        self._done = FiredOnce()
        self._failure: Any = None
        self._awaited = quiet
        deferred.addBoth(self._ended)

    def _ended(self, result: Any) -> None:
        if isinstance(result, Failure):
            self._failure = result
            if not self._awaited and not isinstance(result.value, CancelledError):
                _log.error("task-failed", task=self._name, exc_info=result.value)
            self._done.fire(None)
        else:
            self._done.fire(result)

    @property
    def ended(self) -> bool:
        """True where the result is there."""
        return self._done.fired

    def result(self) -> Deferred[Any]:
        """A new Deferred of the result."""
        self._awaited = True
        return self._done.wait().addCallback(self._result)

    def _result(self, value: Any) -> Any:
        if self._failure is not None:
            error: BaseException = self._failure.value
            raise error
        return value

    def __await__(self) -> Any:
        return self.result().__await__()

    def cancel(self) -> None:
        self._deferred.cancel()


class FiredOnce:
    """A `Signal`."""

    def __init__(self) -> None:
        self._fired = False
        self._value: Any = None
        self._waiting: list[Deferred[Any]] = []

    @property
    def fired(self) -> bool:
        return self._fired

    def fire(self, value: Any = None) -> None:
        if self._fired:
            return
        self._fired = True
        self._value = value
        waiting, self._waiting = self._waiting, []
        for deferred in waiting:
            deferred.callback(value)

    def wait(self) -> Deferred[Any]:
        if self._fired:
            return succeed(self._value)
        deferred: Deferred[Any] = Deferred(self._forget)
        self._waiting.append(deferred)
        return deferred

    def _forget(self, deferred: Deferred[Any]) -> None:
        if deferred in self._waiting:
            self._waiting.remove(deferred)


class TwistedRuntime:
    """A `Runtime`. Make it in the process that uses it; `close` ends its threads."""

    def __init__(
        self,
        reactor: Any,
        *,
        scratch: Callable[[], Scratch] | None = None,
        resolver: str = "",
        roots: bytes | None = None,
        lanes: Mapping[str, int] = LANES,
        limits: Limits = DEFAULT_LIMITS,
        local_networks: bool = False,
        fetch_rules: FetchRules | None = None,
        wallet: Wallet | None = None,
    ) -> None:
        """`scratch`: the factory (the spool's). `resolver`: "ADDRESS" or "ADDRESS:PORT", else /etc/resolv.conf.

        `roots`: trust anchors in PEM for next hops with `verified`, else the system's. `local_networks`: `fetch` may connect to
        addresses that are not public, on any port; else `fetch_rules` say what it may. `wallet` has the certificates that next hops' settings name.
        """
        self.reactor = reactor
        self.limits = limits
        self._scratch = scratch
        self._sizes = dict(lanes)
        self._lanes: dict[str, Lane] = {}
        self._tls = client_tls(roots, wallet)
        self._resolver = Resolver(reactor, resolver, timeout=limits.fetch_timeout)
        self._fetcher = Fetcher(reactor, self._resolver, fetch_rules or FetchRules(anywhere=local_networks))
        self._fetching: dict[tuple[str, bytes | None, int], TwistedTask] = {}
        self._closed = False
        # Threads keep the process alive.
        reactor.addSystemEventTrigger("after", "shutdown", self.close)

    def observe_look_ups(self, observe: Callable[[str, float], object]) -> None:
        """Have `observe` told of each question of the resolver: "answered" or "failed", and its seconds."""
        self._resolver.observe = observe

    # -- clock and chance -----------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        seconds: float = self.reactor.seconds()
        return seconds

    def random(self, octets: int) -> bytes:
        return os.urandom(octets)

    # -- tasks ----------------------------------------------------------------------------------------------------------------

    def sleep(self, seconds: float) -> Deferred[None]:
        deferred: Deferred[None] = Deferred(lambda _: call.cancel())
        call = self.reactor.callLater(seconds, deferred.callback, None)
        return deferred

    def start(self, coroutine: Coroutine[Any, Any, T], name: str) -> TwistedTask:
        return TwistedTask(Deferred.fromCoroutine(coroutine), name)

    def gather(self, awaitables: Sequence[Awaitable[T]]) -> Deferred[list[T]]:
        count = len(awaitables)
        if not count:
            return succeed([])
        results: list[Any] = [None] * count
        failures: list[Failure] = []
        left = count

        def ended(result: Any, index: int) -> None:
            nonlocal left
            if isinstance(result, Failure):
                failures.append(result)
            else:
                results[index] = result
            left -= 1
            if left == 0 and not gathered.called:
                if failures:
                    gathered.errback(failures[0])
                else:
                    gathered.callback(results)

        def cancel(_: Deferred[list[T]]) -> None:
            for one in running:
                one.cancel()

        gathered: Deferred[list[T]] = Deferred(cancel)
        running = [as_deferred(one) for one in awaitables]
        for index, one in enumerate(running):
            one.addBoth(ended, index)
        return gathered

    def within(self, seconds: float, awaitable: Awaitable[T]) -> Deferred[T]:
        inner = as_deferred(awaitable)
        if inner.called and not inner.paused:
            return inner
        late = False

        def ring() -> None:
            nonlocal late
            late = True
            inner.cancel()
            if not outer.called:
                # It does not let itself be cancelled at once: whoever waits is told now.
                outer.errback(TimeoutError(f"no answer within {seconds:g} seconds"))

        def ended(result: Any) -> None:
            if call.active():
                call.cancel()
            if outer.called:
                if isinstance(result, Failure) and not late:
                    _log.error("late-failure", exc_info=result.value)
                return
            if isinstance(result, Failure):
                outer.errback(TimeoutError(f"no answer within {seconds:g} seconds") if late else result)
            else:
                outer.callback(result)

        outer: Deferred[T] = Deferred(lambda _: inner.cancel())
        call = self.reactor.callLater(seconds, ring)
        inner.addBoth(ended)
        return outer

    def signal(self) -> FiredOnce:
        return FiredOnce()

    # -- threads --------------------------------------------------------------------------------------------------------------

    def in_thread(self, function: Callable[..., T], *args: Any, lane: str = "default") -> Deferred[T]:
        threads = self._lanes.get(lane)
        if threads is None:
            if lane not in self._sizes or self._closed:
                raise ConfigurationError(f"no lane of threads is called {lane}")
            threads = self._lanes[lane] = Lane(self.reactor, lane, self._sizes[lane])
        return threads.run(function, args)

    def forget_sessions(self) -> None:
        """Take up no TLS session with next hops again that has been until now."""
        self._tls.forget()

    def close(self) -> None:
        """End the threads, after what they are doing."""
        self._closed = True
        for threads in self._lanes.values():
            threads.close()
        self._lanes.clear()

    # -- network --------------------------------------------------------------------------------------------------------------

    def resolve(self, name: str, kind: str) -> Deferred[Sequence[Any]]:
        return Deferred.fromCoroutine(self._resolver.resolve(name, kind))

    def look_up(self, name: str, kind: str, *, resolver: str = "") -> Deferred[DnsAnswer]:
        return Deferred.fromCoroutine(self._resolver.look_up(name, kind, server=resolver))

    def public_addresses(self, host: str) -> Deferred[Sequence[str]]:
        return Deferred.fromCoroutine(self._fetcher.addresses(host))

    def fetch(
        self, url: str, *, body: bytes | None = None, content_type: str = "", limit: int = 0, timeout: float = 0.0
    ) -> Deferred[bytes]:
        seconds, octets = timeout or self.limits.fetch_timeout, limit or self.limits.fetch_octets
        # The same question is out once: who asks it again gets the same answer, and whoever gives up stops nobody else.
        key = (url, body, octets)
        task = self._fetching.get(key)
        if task is None:
            fetching = self._fetcher.fetch(url, body=body, content_type=content_type, limit=octets)
            task = TwistedTask(self.within(seconds, fetching), f"fetch {url[:80]}", quiet=True)
            if not task.ended:
                self._fetching[key] = task
                task.result().addBoth(lambda _: self._fetching.pop(key, None) and None)
        return self.within(seconds, task)

    def connect(
        self, address: str, core: ProtocolCore, ask: Callable[[object], object], *, timeout: float, verify: str = "none"
    ) -> Deferred[Connection]:
        """Connect, and drive `core`; the result is the connection as soon as it stands. How it ends, the core tells `ask`.

        "HOST:PORT" with a name is resolved here (A and AAAA). `verify` raises what a `StartTls` of the core asks for, never lowers it.
        An open question is cancelled when the peer goes.
        """

        def tls(request: StartTls) -> Any:
            strictness = ("none", "required", "verified")
            strictest = max(request.verify, verify, key=strictness.index)
            return self._tls(request if strictest == request.verify else replace(request, verify=strictest), address)

        return Deferred.fromCoroutine(connect(self.reactor, address, core, ask, timeout=timeout, tls=tls, resolver=self._resolver))

    def scratch(self) -> Scratch:
        if self._scratch is None:
            raise ConfigurationError("this process has no scratch space", hint="give the runtime a scratch factory")
        return self._scratch()
