"""Named places at which a test lets the process die: promise 1 is shown at each of them, not believed.

Armed by one environment variable that holds one name ("spool.commit.before", or "spool.commit.before:3" for the third time);
otherwise a crash point is one comparison.
"""

from __future__ import annotations

import os
import signal

__all__ = ["CRASH_POINTS", "crash_point"]

CRASH_POINTS = (
    "spool.file.written",
    "spool.file.synced",
    "spool.file.linked",
    "spool.file.directory-synced",
    "spool.commit.before",
    "spool.commit.after",
    "spool.sync.after",
    "spool.checkpoint.after",
    "spool.delete.after",
    "relay.delivery.before",
    "relay.delivery.after",
    "adopt.copied",
)
"""Every name that is in use, in the order in which a message meets them."""

_armed, _, _times = os.environ.get("MAILSEC_CRASH_POINT", "").partition(":")
_left = int(_times) if _times.isdigit() else 1


def crash_point(name: str) -> None:
    """Die here, at once and without cleaning up, where `name` is armed."""
    if name == _armed:
        _die()


def _die() -> None:
    global _left
    _left -= 1
    if _left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
