"""Descriptors that run out, and who takes them: a plugin that leaks them is named before nothing can be opened any more.

Nobody is watched while there are plenty. From half of what there is on, whoever opens files and sockets is counted (an audit hook of the
interpreter, PEP 578); at three quarters it is told. The one invariant: this opens one descriptor itself, and only to look.
"""

from __future__ import annotations

import os
import resource
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import structlog

from mailsec.interfaces import Runtime
from mailsec.model.verdict import Event
from mailsec.plugins.origins import Origins

__all__ = ["DescriptorWatch", "open_descriptors"]

EVERY: Final = 5.0
_SUSPICIOUS: Final = 0.5
_ALARMING: Final = 0.75
_OPENS: Final = frozenset({"open", "socket.__new__"})

_log = structlog.get_logger("mailsec.watchdog")


def open_descriptors() -> int:
    """How many this process has."""
    return len(os.listdir("/proc/self/fd")) - 1  # noqa: PTH208 - names are enough


class DescriptorWatch:
    """One for each worker."""

    def __init__(
        self,
        runtime: Runtime,
        origins: Origins,
        record: Callable[[Event], None],
        *,
        limit: int = 0,
        count: Callable[[], int] = open_descriptors,
    ) -> None:
        self._runtime = runtime
        self._origins = origins
        self._record = record
        self._limit = limit or resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._count = count
        self._opened: Counter[str] = Counter()
        self._hooked = False
        self._counting = False
        self._told = False
        self._named = False

    async def watch(self) -> None:
        """Look again and again, as long as the worker lives."""
        while True:
            self.look()
            await self._runtime.sleep(EVERY)

    def look(self) -> None:
        """Count once; begin or end to look at who opens; tell when it is time."""
        count = self._count()
        self._counting = count > self._limit * _SUSPICIOUS
        if not self._counting:
            self._opened.clear()
            self._told = self._named = False
        elif not self._hooked:
            # It cannot be taken out again: it looks at `_counting` first.
            self._hooked = True
            sys.addaudithook(self._heard)
        # What leaks faster than we look is told at once, and again when it has a name.
        if count > self._limit * _ALARMING and (not self._told or (self._opened and not self._named)):
            self._told = True
            self._named = bool(self._opened)
            self._tell(count)

    def _tell(self, count: int) -> None:
        plugin, opened = self._opened.most_common(1)[0] if self._opened else ("", 0)
        fields = {"plugin": plugin, "opened": opened, "descriptors": count, "limit": self._limit}
        _log.error(
            "descriptors run out",
            **fields,
            hint=f"the plugin {plugin} opens and does not close: mend it, or take it out" if plugin else "see docs/limits.md: connections",
        )
        self._record(Event("descriptors run out", self._runtime.now(), fields))

    def _heard(self, event: str, _arguments: tuple[Any, ...]) -> None:
        if self._counting and event in _OPENS:
            plugin = self._origins.plugin_on(sys._getframe(1))
            if plugin:
                self._opened[plugin] += 1
