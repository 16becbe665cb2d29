"""Twisted's epoll reactor with a shorter way from an event to its socket, and timers that do not care what the clock says.

Twisted binds a log context to each event, for its old log: two context calls, 3 to 4 microseconds, and six events belong to a small
message. Nobody reads that context here. The one invariant: which sockets are read and written, in which order, and what an error does, is
Twisted's own.

Twisted's timers go by the time of day: set back by an hour, nothing that waits would be woken for an hour; set forward, every session would
time out at once, and a supervisor would take every worker for dead. Ours go by the monotonic clock.
"""

from __future__ import annotations

import errno
import sys
import time
from select import EPOLLIN
from time import monotonic
from typing import Any

from twisted.internet import main
from twisted.internet.epollreactor import EPollReactor
from twisted.python import log

__all__ = ["install", "steady"]


class _Reactor(EPollReactor):
    _poller: Any
    _selectables: dict[int, Any]

    busy_since = 0.0
    """When it began what it does now, on the monotonic clock; 0.0 while it waits for events. Read by whoever watches it from a thread."""

    def doPoll(self, timeout: float | None) -> None:
        self.busy_since = 0.0
        try:
            events = self._poller.poll(-1 if timeout is None else timeout, len(self._selectables))
        except OSError as problem:
            if problem.errno == errno.EINTR:
                return
            raise
        finally:
            self.busy_since = monotonic()
        selectables = self._selectables
        for descriptor, event in events:
            selectable = selectables.get(descriptor)
            if selectable is None:  # an event before this one has closed it
                continue
            if event != EPOLLIN:
                self._doReadOrWrite(selectable, descriptor, event)  # type: ignore[no-untyped-call]
                continue
            try:
                why = selectable.doRead()
            except BaseException:
                why = sys.exc_info()[1]
                log.err()  # type: ignore[no-untyped-call]
            if why:
                self._disconnectSelectable(selectable, why, True)  # type: ignore[no-untyped-call]

    doIteration = doPoll
    seconds = staticmethod(time.monotonic)


def install() -> Any:
    """Make it the reactor of this process, before anything imports another, and return it."""
    reactor = _Reactor()  # type: ignore[no-untyped-call]
    main.installReactor(reactor)  # type: ignore[no-untyped-call]
    return reactor


def steady(reactor: Any) -> Any:
    """Give the timers of `reactor`, which is Twisted's own, the monotonic clock, before anything waits for one of them; return it."""
    reactor.seconds = time.monotonic
    return reactor
