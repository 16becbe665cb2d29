"""Threads for what must not be done in the reactor's: a few for each lane, and one queue for each lane's threads.

A hand-over to a thread and back is on the way of every commit, so it is short: one `SimpleQueue` there, one `callFromThread` back. (Twisted's
thread pool goes through a team, two locks and a condition in Python, about 100 microseconds.) The one invariant: what was handed over is
done, and its result told in the reactor's thread, also while the lane is closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["Lane"]

_Job = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]


class Lane:
    """At most `most` threads; they are started as they are needed, and stay."""

    def __init__(self, reactor: Any, name: str, most: int) -> None:
        self._reactor = reactor
        self._name = name
        self._most = most
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._open = 0
        """Jobs whose results have not come back."""

    def run(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Deferred[Any]:
        """Have `function(*args)` done by a thread of this lane; called in the reactor's thread."""
        self._open += 1
        if self._open > len(self._threads) < self._most:
            thread = threading.Thread(target=self._work, name=f"mailsec-{self._name}-{len(self._threads)}")
            self._threads.append(thread)
            thread.start()
        deferred: Deferred[Any] = Deferred()
        self._queue.put((deferred, function, args))
        return deferred

    def close(self) -> None:
        """End the threads, after what was handed over to them."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _work(self) -> None:
        get, tell, done = self._queue.get, self._reactor.callFromThread, self._done
        while (job := get()) is not None:
            deferred, function, args = job
            result: Any
            try:
                result = function(*args)
            except BaseException:
                result = Failure()  # type: ignore[no-untyped-call]
            tell(done, deferred, result)
            # What it worked on is not kept until the next job comes.
            del job, deferred, function, args, result

    def _done(self, deferred: Deferred[Any], result: Any) -> None:
        self._open -= 1
        # callback() of a Failure runs the errbacks.
        deferred.callback(result)
