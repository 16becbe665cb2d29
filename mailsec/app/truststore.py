"""Whose signatures are believed: the anchors of the database, and those of `[trust] anchor_files`."""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.app.config.surroundings import read_anchor_file
from mailsec.app.database_plugin import DatabasePlugin
from mailsec.model.trust import Anchor

__all__ = ["ConfiguredTrust"]


class ConfiguredTrust:
    """A `gateway.evidence.TrustStore`: the same object until something changes, as it asks. Files are read once, when it is made."""

    def __init__(self, plugin: DatabasePlugin, anchor_files: Sequence[str]) -> None:
        self._plugin = plugin
        self._files = tuple(Anchor(der) for path in anchor_files for der in read_anchor_file(path))
        self._known: Sequence[Anchor] = ()
        self._all: Sequence[Anchor] = self._files

    async def anchors(self, purpose: str = "email") -> Sequence[Anchor]:
        """Anchors for `purpose`; those of files are for e-mail."""
        found = await self._plugin.anchors(purpose)
        if not self._files or purpose != "email":
            return found
        if found is not self._known:
            self._known, self._all = found, (*found, *self._files)
        return self._all

    async def distrusted(self, purpose: str = "email") -> Sequence[bytes]:
        """Certificates that no path may hold."""
        return await self._plugin.distrusted(purpose)

    async def authorities(self) -> Sequence[bytes]:
        """Authorities of the database, with and without trust."""
        return await self._plugin.authorities()
