"""When a connection has waited long enough: its deadline, that of its session, and one timer for both.

The one invariant: it rings when something is due and never before; a timer that wakes too early looks again, which is cheaper than moving
it for each command.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Alarm"]

_NEAR = 10.0
"""Seconds after which the timer looks at the latest. Nearly every deadline is farther away, so that hardly any moves it."""
_AGAIN = 1.0


class Alarm:
    """Calls `ring` when the deadline has passed, or the session's `session` seconds have; both are forgotten then.

    Not while `busy` says so: then it asks again every second.
    """

    __slots__ = ("_busy", "_clock", "_due", "_ring", "_session", "_session_due", "_timer", "seconds")

    def __init__(self, clock: Any, ring: Callable[[], None], busy: Callable[[], bool], session: float | None = None) -> None:
        self.seconds: float | None = None
        """What `set` was given last."""
        self._clock = clock
        self._ring = ring
        self._busy = busy
        self._session = session
        self._due: float | None = None
        self._session_due: float | None = None
        self._timer: Any = None

    def begin_session(self) -> None:
        """Count the seconds of the session from now."""
        if self._session is not None:
            self._session_due = self._clock.seconds() + self._session
            if self._timer is None:
                self._timer = self._clock.callLater(min(self._session, _NEAR), self._wake)

    def set(self, seconds: float | None) -> None:
        """Ring `seconds` from now; None: only when the session has lasted too long."""
        self.seconds = seconds
        if seconds is None:
            self._due = None
            return
        due = self._due = self._clock.seconds() + seconds
        timer = self._timer
        if timer is None:
            self._timer = self._clock.callLater(min(seconds, _NEAR), self._wake)
        elif timer.getTime() > due:
            timer.reset(seconds)

    def end_session(self) -> None:
        """From now on only `set` makes it ring."""
        self.seconds = self._due = self._session_due = None

    def stop(self) -> None:
        """It never rings again."""
        self.end_session()
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _wake(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        due = self._due
        if self._session_due is not None and (due is None or self._session_due < due):
            due = self._session_due
        if due is None:
            return
        if now < due or self._busy():
            self._timer = self._clock.callLater(min(due - now, _NEAR) if now < due else _AGAIN, self._wake)
            return
        self._due = self._session_due = None
        self._ring()
