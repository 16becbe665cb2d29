"""The time of day beside the monotonic clock: whether it was set while we looked elsewhere.

The one invariant: nothing is given up because a clock was wrong. When it jumps ahead, everything that waits looks five days old: the relay
is patient for an hour, in which somebody may set it right.
"""

from __future__ import annotations

from typing import Final

import structlog

from mailsec.interfaces import Runtime

__all__ = ["ClockWatch"]

_log = structlog.get_logger("mailsec.relay")

_JUMP: Final = 60.0
"""Seconds that are a jump, and no drift between two looks."""
_PATIENCE: Final = 3600.0


class ClockWatch:
    """Look often."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._difference = self._measure()
        self._patient_until = 0.0

    def _measure(self) -> float:
        return self._runtime.now().timestamp() - self._runtime.monotonic()

    def look(self) -> float:
        """Seconds that the clock was set ahead (or back: negative) since the last look; 0.0 where it was not."""
        difference = self._measure()
        jump = difference - self._difference
        self._difference = difference
        if abs(jump) < _JUMP:
            return 0.0
        _log.warning("clock-was-set", seconds=round(jump))
        if jump > 0:
            self._patient_until = self._runtime.monotonic() + _PATIENCE
        return jump

    @property
    def patient(self) -> bool:
        """True where ages count for nothing: the clock has just jumped ahead."""
        self.look()
        return self._runtime.monotonic() < self._patient_until
