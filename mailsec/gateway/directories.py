"""Where correspondents' certificates are looked up: the directories of all plugins, those on this machine before the others.

Nothing is judged here (`gateway.correspondents` does). The one invariant: a directory that is out is told from one that knows nothing, and
is not waited for twice (`model.breaker`).
"""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.errors import MailsecError, Unavailable
from mailsec.interfaces import CertificateDirectory, FoundCertificate, Runtime
from mailsec.model.address import Address
from mailsec.model.breaker import CLOSED, Breaker
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.plugins import is_cancellation

__all__ = ["Directories"]

_KEPT = 600.0
"""Seconds for which the answer of a directory elsewhere is kept."""
_KEPT_NOTHING = 60.0
"""The same where it knows nobody: somebody may be about to enter a certificate."""
_MOST = 10_000

Found = tuple[FoundCertificate, ...]


class Directories:
    """All directories, in the order of the plugins."""

    def __init__(self, directories: Sequence[CertificateDirectory], runtime: Runtime, limits: Limits = DEFAULT_LIMITS) -> None:
        self.local = tuple(one for one in directories if getattr(one, "local", False))
        self.remote = tuple(one for one in directories if not getattr(one, "local", False))
        self._runtime = runtime
        self._limits = limits
        self._kept: dict[tuple[str, str], tuple[float, Found]] = {}
        self._breakers: dict[str, Breaker] = {}

    async def look_up(self, directory: CertificateDirectory, address: Address) -> Found:
        """What one directory knows, in its order. Raise MailsecError, always a temporary one, where it cannot say now."""
        if directory in self.local:
            return await self._asked(directory, address)
        key = (directory.name, address.key)
        now = self._runtime.monotonic()
        kept = self._kept.get(key)
        if kept is not None and now < kept[0]:
            return kept[1]
        admitted = self._breakers.get(directory.name, CLOSED).admit(now)
        if admitted is None:
            raise Unavailable(f"the directory {directory.name} failed a moment ago", stage="directory")
        self._breakers[directory.name] = admitted
        try:
            found = await self._asked(directory, address)
        except Unavailable:
            self._breakers[directory.name] = self._breakers[directory.name].failed(self._runtime.monotonic())
            raise
        self._breakers[directory.name] = CLOSED
        if len(self._kept) >= _MOST:
            self._kept.clear()
        self._kept[key] = (self._runtime.monotonic() + (_KEPT if found else _KEPT_NOTHING), found)
        return found

    async def _asked(self, directory: CertificateDirectory, address: Address) -> Found:
        """Its answer; whatever goes wrong in it is Unavailable: a plugin's failure is not that nobody is known."""
        try:
            found = tuple(await self._runtime.within(self._limits.fetch_timeout, directory.certificates(address)))
            if not all(isinstance(one, FoundCertificate) for one in found):
                raise TypeError(f"the directory {directory.name} brings something else than FoundCertificate")
        except Exception as error:
            if is_cancellation(error):
                raise
            why = error.message if isinstance(error, MailsecError) else type(error).__name__
            raise Unavailable(f"the directory {directory.name} cannot say: {why}", stage="directory") from error
        return found
