"""Which plugins have blocked a worker, and how often: kept in the state directory, so that it outlives the worker that ended for it.

A line for each time: name and instant. The one invariant: a plugin that blocked `MOST` workers within `PERIOD` is off, in every worker that
starts, until somebody switches it on again or the period is over.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

__all__ = ["MOST", "PERIOD", "PluginMarks"]

MOST: Final = 3
PERIOD: Final = 86_400.0
"""Seconds."""
_LARGEST = 1 << 20


class PluginMarks:
    """The marks in a state directory."""

    def __init__(self, state_directory: str) -> None:
        self._path = Path(state_directory) / "blocked-plugins"

    def add(self, plugin: str, at: datetime) -> None:
        """One more. Raise OSError where it cannot be written."""
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # One write of one line: workers that end at once do not mix theirs.
            os.write(descriptor, f"{plugin}\t{int(at.timestamp())}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def off(self, at: datetime) -> Mapping[str, str]:
        """Plugins that are off, and why."""
        marks: dict[str, list[float]] = {}
        for plugin, when in self._marks():
            if 0 <= at.timestamp() - when < PERIOD:
                marks.setdefault(plugin, []).append(when)
        return {
            plugin: f"it has blocked a worker {len(times)} times, last on {datetime.fromtimestamp(max(times), UTC):%Y-%m-%d %H:%M} UTC"
            for plugin, times in marks.items()
            if len(times) >= MOST
        }

    def forgive(self, plugin: str) -> bool:
        """Switch a plugin on again; False where nothing was marked. Raise OSError where the marks cannot be written."""
        marks = self._marks()
        kept = [(name, when) for name, when in marks if name != plugin]
        if len(kept) == len(marks):
            return False
        new, owner = self._path.with_suffix(".new"), self._path.parent.stat()
        # Attack: whoever has got hold of the service lays a link here, and root, who switches a plugin on, writes where it leads.
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if os.geteuid() == 0:
                # The next mark is written by a worker, who is somebody else.
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write("".join(f"{name}\t{int(when)}\n" for name, when in kept))
        new.replace(self._path)
        return True

    def _marks(self) -> list[tuple[str, float]]:
        try:
            # It is the service's directory: a pipe would hold up root, who looks.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                text = (file.read(_LARGEST) or b"").decode("utf-8", "replace")
        except OSError:
            return []
        marks = []
        for line in text.splitlines():
            plugin, _, when = line.partition("\t")
            if plugin and when.isdecimal() and len(when) < 12:
                marks.append((plugin, float(when)))
        return marks
