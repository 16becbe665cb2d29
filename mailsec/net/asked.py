"""A coroutine that answers a question, between one thing that it waits for and the next.

`Deferred.fromCoroutine` does the same with a context, a status and a Deferred of its own, about 10 microseconds; a message is one question.
The one invariant: `done` is called once, with the value, or with a Failure; never before `__init__` has returned.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["Asked", "deferred_of", "deferred_of_any"]


class Asked:
    """`coroutine` was begun and has yielded `waits_for`; `done(result, question)` is told how it ends."""

    __slots__ = ("_coroutine", "_done", "_question", "_waits_for")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], waits_for: Deferred[Any], done: Callable[[Any, object], None], question: object
    ) -> None:
        self._coroutine = coroutine
        self._waits_for = waits_for
        self._done = done
        self._question = question
        # A Deferred that has its result is not yielded, so this does not call us before it returns.
        waits_for.addBoth(self._go_on)

    def cancel(self) -> None:
        """Cancel what it waits for; it may catch that, and go on."""
        self._waits_for.cancel()

    def _go_on(self, result: Any) -> None:
        coroutine = self._coroutine
        try:
            if isinstance(result, Failure):
                yielded = result.throwExceptionIntoGenerator(coroutine)  # type: ignore[no-untyped-call]
            else:
                yielded = coroutine.send(result)
            self._waits_for = waits_for = deferred_of(yielded)
        except StopIteration as stop:
            self._done(stop.value, self._question)
        except Exception:
            self._done(Failure(), self._question)  # type: ignore[no-untyped-call]
        else:
            waits_for.addBoth(self._go_on)


def deferred_of(yielded: object) -> Deferred[Any]:
    """What a coroutine waits for. Raise TypeError for the future of another event loop, which nobody here would ever wake."""
    if isinstance(yielded, Deferred):
        return yielded
    raise TypeError(f"a {type(yielded).__name__} was awaited")


def deferred_of_any(value: Any) -> Deferred[Any]:
    """A Deferred for anything that can be awaited."""
    if isinstance(value, Deferred):
        return value
    return Deferred.fromCoroutine(value if hasattr(value, "send") else _wait(value))


async def _wait(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
