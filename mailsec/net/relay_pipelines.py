"""Next hops that offer PIPELINING and drop what comes in a pipeline: they are asked for one thing at a time.

Some filters and load balancers in front of a mail server pass its offer on and read one command of each write. What they dropped is never
answered, and looks like a next hop that is slow. The one invariant: only a time-out in a pipeline counts; a connection that ends says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

__all__ = ["BrokenPipelines"]

_log = structlog.get_logger("mailsec.relay")

_SECONDS: Final = 24 * 3600.0
"""How long one is believed to be broken: it costs some round trips, and trying again costs a time-out."""
_KEPT: Final = 1000
"""Attack: a sender whose domain has ever new hosts that never answer, and reports to it."""


class BrokenPipelines:
    """Addresses of next hops, by when they are trusted again on the monotonic clock."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._until: dict[str, float] = {}

    def add(self, address: str) -> None:
        """A pipeline to `address` was not answered in time."""
        if address not in self._until:
            _log.warning("next-hop-drops-pipelines", next_hop=address, hint="it is asked for one thing at a time for a day")
        self._until.pop(address, None)
        while len(self._until) >= _KEPT:
            del self._until[next(iter(self._until))]
        self._until[address] = self._monotonic() + _SECONDS

    def has(self, address: str) -> bool:
        """True where `address` is to be asked for one thing at a time."""
        until = self._until.get(address)
        if until is None:
            return False
        if until < self._monotonic():
            del self._until[address]
            return False
        return True
