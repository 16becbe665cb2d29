"""The database's seal keys, kept in memory: what every delivered and every retrieved message asks for."""

from __future__ import annotations

from typing import Final

from mailsec.interfaces import Runtime
from mailsec.model.seal import SealKey
from mailsec.store.seal_keys import SEALS_FOR, SealKeyStore

__all__ = ["DatabaseSealKeys"]

_CHECKED_EVERY: Final = 300.0
_UNKNOWN_EVERY: Final = 5.0
"""Seconds between two questions about keys that are not known here: seals of strangers cost the database nothing."""


class DatabaseSealKeys:
    """An `interfaces.SealKeys`."""

    def __init__(self, store: SealKeyStore, runtime: Runtime) -> None:
        self._store = store
        self._runtime = runtime
        self._current: SealKey | None = None
        self._known: dict[str, SealKey] = {}
        self._read_at = float("-inf")

    async def current(self) -> SealKey:
        """The key to seal with now; raise StoreError where the database cannot be asked."""
        at = self._runtime.now()
        key = self._current
        if key is None or at >= key.created_at + SEALS_FOR or self._runtime.monotonic() >= self._read_at + _CHECKED_EVERY:
            key = await self._runtime.in_thread(self._store.current, at, lane="database")
            if key is not self._current:
                await self._read()
            self._current = key
        return key

    async def find(self, key_id: str) -> SealKey | None:
        """The key called that; None where it is not known here."""
        now = self._runtime.monotonic()
        if now >= self._read_at + (_CHECKED_EVERY if key_id in self._known else _UNKNOWN_EVERY):
            await self._read()
        return self._known.get(key_id)

    async def _read(self) -> None:
        keys = await self._runtime.in_thread(self._store.keys, lane="database")
        self._known = {key.id: key for key in keys}
        self._read_at = self._runtime.monotonic()
