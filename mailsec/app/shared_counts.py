"""What all workers of all generations count together, in files of the run directory: connections, logins, recipients.

Limits and back-off are the whole gateway's by these. A worker's part in each file has the number of its spool. The one invariant: what a dead
worker had is forgotten by the supervisor before another one has its number; what happened of late is kept over restarts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import structlog

from mailsec.store.tallies import Gauges, Tally

__all__ = ["SharedCounts", "begin", "forget"]

_log = structlog.get_logger("mailsec.supervisor")

_CONNECTIONS: Final = "clients"
_LOOKED_AT: Final = "logins-now"
_FAILURES_SECONDS: Final = 900.0
_KNOWN_SECONDS: Final = 86_400.0
"""For which all workers know who logged in from where: whoever guesses at an account does not keep its owner out."""
_RATE_SECONDS: Final = 3600.0


class SharedCounts:
    """A worker's view of them."""

    def __init__(self, directory: str, index: int, workers: int, key: bytes) -> None:
        """`index`: the number of its spool. `workers`: how many there are in its generation."""
        place = Path(directory)
        shared = (index, workers, key)
        self.connections = Gauges(str(place / _CONNECTIONS), *shared)
        """How many each client has."""
        self.looked_at = Gauges(str(place / _LOOKED_AT), *shared)
        """How many logins of a name are being looked at."""
        self.failures = Tally(str(place / "logins"), *shared, period=_FAILURES_SECONDS)
        """Wrong passwords."""
        self.known = Tally(str(place / "logged-in"), *shared, period=_KNOWN_SECONDS)
        """Who logged in from where."""
        self.sent = Tally(str(place / "sent"), *shared, period=_RATE_SECONDS)
        """Recipients of each sender."""
        if not self.connections.shared:
            _log.warning("workers cannot count together; each keeps its share of the limits", directory=directory)


def begin(directory: Path) -> None:
    """No worker lives yet: nobody has anything. Raise OSError."""
    for name in (_CONNECTIONS, _LOOKED_AT):
        (directory / name).unlink(missing_ok=True)


def forget(directory: str, index: int) -> None:
    """The worker with this number is dead."""
    for name in (_CONNECTIONS, _LOOKED_AT):
        try:
            Gauges.forget(str(Path(directory) / name), index)
        except FileNotFoundError:
            pass  # it has counted nothing
        except OSError as error:
            _log.warning("what a dead worker had counts on, until another one has its number", error=str(error))
