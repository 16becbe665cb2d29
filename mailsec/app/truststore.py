"""Whose signatures are believed: the anchors of the database, and those of `[trust] anchor_files`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from mailsec.app.config.surroundings import read_anchor_file
from mailsec.model.trust import Anchor

__all__ = ["Believed", "ConfiguredTrust"]


class Believed(Protocol):
    """What a database says of whom it believes: `app.database_plugin`, `app.nss_correspondents`."""

    async def anchors(self, purpose: str = "email") -> Sequence[Anchor]:
        """Anchors for "email", "tls-server" or "tls-client"."""
        ...

    async def distrusted(self, purpose: str = "email") -> Sequence[bytes]:
        """Certificates that no path may hold."""
        ...

    async def authorities(self) -> Sequence[bytes]:
        """Certificates of authorities, which help to build paths."""
        ...


class ConfiguredTrust:
    """A `gateway.evidence.TrustStore`: the same object until something changes, as it asks. Files are read once, when it is made."""

    def __init__(self, plugin: Believed, anchor_files: Sequence[str], client_anchor_files: Sequence[str] = ()) -> None:
        self._plugin = plugin
        named = {"email": anchor_files, "tls-client": client_anchor_files}
        self._files = {
            purpose: tuple(Anchor(der, purposes=(purpose,)) for path in paths for der in read_anchor_file(path))
            for purpose, paths in named.items()
        }
        self._all: dict[str, tuple[Sequence[Anchor], Sequence[Anchor]]] = {}

    async def anchors(self, purpose: str = "email") -> Sequence[Anchor]:
        """Anchors for `purpose`; those of files are for e-mail, or for clients of TLS, as they were given."""
        found = await self._plugin.anchors(purpose)
        files = self._files.get(purpose, ())
        if not files:
            return found
        known = self._all.get(purpose)
        if known is None or known[0] is not found:
            known = self._all[purpose] = (found, (*found, *files))
        return known[1]

    async def distrusted(self, purpose: str = "email") -> Sequence[bytes]:
        """Certificates that no path may hold."""
        return await self._plugin.distrusted(purpose)

    async def authorities(self) -> Sequence[bytes]:
        """Authorities of the database, with and without trust."""
        return await self._plugin.authorities()
