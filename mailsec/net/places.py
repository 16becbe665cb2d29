"""Connections are places that are taken: how many there are in all, and how many of them one client may have.

The limits are the whole gateway's, over all workers of all generations, and no worker asks another: each counts in a part of a file that all
can read. The one invariant: a place is counted before it is looked whether it was one too many. Two workers that take the last one together
may both give it back, and never both keep it.
"""

from __future__ import annotations

from mailsec.model.limits import Limits
from mailsec.store.tallies import Gauges

__all__ = ["Places"]


class Places:
    """One for each worker; `taken` is shared by all."""

    def __init__(self, taken: Gauges, limits: Limits, in_all: int = 0) -> None:
        """`limits.connections`: what this worker has descriptors for. `in_all`: what all workers may have together; 0: the same."""
        self._taken = taken
        self._here = limits.connections
        self._in_all = in_all or limits.connections
        self._per_client = limits.connections_per_address

    def free(self, here: int) -> int:
        """How many more may be accepted by a worker that has `here`."""
        return min(self._here - here, self._in_all - self._taken.everything())

    def roomy(self, here: int) -> bool:
        """True where a tenth is free: a worker that was full begins again then, and not for each one that goes."""
        return here < self._here * 0.9 and self._taken.everything() < self._in_all * 0.9

    def take(self, client: str) -> bool:
        """A place among all; False: there was none."""
        self._taken.change(client, 1)
        if self._taken.everything() <= self._in_all:
            return True
        self._taken.change(client, -1)
        return False

    def held(self, client: str) -> int:
        """How many this client has; nobody ("") has none."""
        return self._taken.total(client) if client else 0

    def too_many(self, client: str) -> bool:
        """True where this client has more than one may have."""
        return self.held(client) > self._per_client

    def leave(self, client: str) -> None:
        """It is free again."""
        self._taken.change(client, -1)
