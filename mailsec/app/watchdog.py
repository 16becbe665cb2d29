"""A thread that sees when the reactor is blocked, and by which plugin: plugins are code in our process, and nothing else can end what they do.

After `SOON` the stack is logged. A plugin that is still there after `limits.reactor_blocked` costs its worker: the supervisor starts another,
and a mark is kept of whose fault it was. The one invariant: only a worker in which a plugin's code is on the stack the whole time is ended
here; whatever else is stuck, the supervisor finds silent.

Code in C that holds the interpreter's lock stops this thread, too; the supervisor's pings find that.
"""

from __future__ import annotations

import os
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from types import FrameType
from typing import Any, Final

import structlog

from mailsec.app.plugin_marks import PluginMarks
from mailsec.plugins.origins import Origins

__all__ = ["EXIT_CODE", "Watchdog"]

SOON: Final = 0.1
_TICK: Final = 0.05
_FRAMES: Final = 15
"""Innermost frames that are logged: places in the code, never values."""
EXIT_CODE: Final = 70

_log = structlog.get_logger("mailsec.watchdog")


class Watchdog:
    """One for each worker. `busy_since` says when the reactor began what it does now, on the clock `monotonic`; 0.0 while it waits."""

    def __init__(
        self,
        busy_since: Callable[[], float],
        origins: Origins,
        marks: PluginMarks,
        longest: float,
        *,
        frame: Callable[[], FrameType | None] | None = None,
        end: Callable[[int], Any] = os._exit,
    ) -> None:
        main = threading.main_thread().ident or 0
        self._busy_since = busy_since
        self._origins = origins
        self._marks = marks
        self._longest = longest
        self._frame = frame or (lambda: sys._current_frames().get(main))
        self._end = end
        self._stopped = threading.Event()
        self._since = 0.0
        self._ticks = 0
        self._plugin = ""

    def start(self) -> None:
        """Begin to look."""
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(_TICK):
            self.look()

    def look(self) -> None:
        """One look, a tick after the one before. Ticks are counted, not seconds: a machine that was asleep has blocked nobody."""
        since = self._busy_since()
        if not since or since != self._since:
            self._since, self._ticks, self._plugin = since, 0, ""
            return
        self._ticks += 1
        seconds = self._ticks * _TICK
        if seconds + _TICK / 2 < SOON:
            return
        frame = self._frame()
        plugin = self._origins.plugin_on(frame)
        if self._ticks == round(SOON / _TICK):
            self._plugin = plugin
            say = _log.warning if plugin else _log.debug
            say("reactor is blocked", plugin=plugin, seconds=round(seconds, 2), stack=_places(frame))
        elif plugin != self._plugin:
            # Somebody else's turn: each may take as long as it may.
            self._plugin, self._ticks = plugin, round(SOON / _TICK)
        elif plugin and seconds >= self._longest:
            self._give_up(plugin, seconds, frame)

    def _give_up(self, plugin: str, seconds: float, frame: FrameType | None) -> None:
        try:
            self._marks.add(plugin, datetime.now(UTC))
        except OSError as problem:
            _log.error("it cannot be noted which plugin blocks workers", plugin=plugin, error=str(problem))
        _log.error(
            "a plugin blocks the worker; the worker ends",
            plugin=plugin,
            seconds=round(seconds, 1),
            stack=_places(frame),
            hint="mend the plugin, or take it out of [plugins] enabled",
        )
        self._end(EXIT_CODE)


def _places(frame: FrameType | None) -> list[str]:
    """Where it is, innermost last."""
    return [f"{place.filename}:{place.lineno} {place.name}" for place in traceback.extract_stack(frame)[-_FRAMES:]] if frame else []
