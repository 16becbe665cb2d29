"""Where correspondents' certificates are looked up: the directories of all plugins, those on this machine before the others.

Nothing is judged here (`gateway.correspondents` does). The one invariant: a directory that is out is told from one that knows nothing, and
is not waited for twice (`model.breaker`); the same question is out once.
"""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.errors import MailsecError, Unavailable
from mailsec.interfaces import CertificateDirectory, FoundCertificate, Runtime, Task
from mailsec.model.address import Address
from mailsec.model.breaker import Breakers
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
        self._flights: dict[tuple[str, str], Task[Found | Unavailable]] = {}
        self._breakers = Breakers()

    async def look_up(self, directory: CertificateDirectory, address: Address) -> Found:
        """What one directory knows, in its order. Raise MailsecError, always a temporary one, where it cannot say now."""
        if directory in self.local:
            answer = await self._asked(directory, address)
        else:
            answer = await self._elsewhere(directory, address)
        if isinstance(answer, Unavailable):
            # Several may wait for one answer: each gets an error of its own.
            raise Unavailable(answer.message, hint=answer.hint, stage=answer.stage) from answer
        return answer

    async def _elsewhere(self, directory: CertificateDirectory, address: Address) -> Found | Unavailable:
        key = (directory.name, address.key)
        now = self._runtime.monotonic()
        kept = self._kept.get(key)
        if kept is not None and now < kept[0]:
            return kept[1]
        flight = self._flights.get(key)
        if flight is None:
            if not self._breakers.admit(now, *_names(directory, address)):
                return Unavailable(f"the directory {directory.name} failed a moment ago", stage="directory")
            landed = False

            async def fly() -> Found | Unavailable:
                nonlocal landed
                try:
                    return await self._kept_or_failed(directory, address)
                finally:
                    landed = True
                    self._flights.pop(key, None)

            flight = self._runtime.start(fly(), f"look-up in {directory.name}")
            if not landed:
                self._flights[key] = flight
        answer: Found | Unavailable = await flight
        return answer

    async def _kept_or_failed(self, directory: CertificateDirectory, address: Address) -> Found | Unavailable:
        whole, domain = _names(directory, address)
        answer = await self._asked(directory, address)
        now = self._runtime.monotonic()
        if isinstance(answer, Unavailable):
            # What it says itself is about this domain. Attack: a domain whose name servers hang or lie takes the directory from all others.
            self._breakers.failed(domain if isinstance(answer.__cause__, MailsecError) else whole, now)
            return answer
        self._breakers.succeeded(whole, domain)
        if len(self._kept) >= _MOST:
            self._kept.clear()
        self._kept[directory.name, address.key] = (now + (_KEPT if answer else _KEPT_NOTHING), answer)
        return answer

    async def _asked(self, directory: CertificateDirectory, address: Address) -> Found | Unavailable:
        """Its answer; whatever goes wrong in it is Unavailable: a plugin's failure is not that nobody is known."""
        try:
            found = tuple(await self._runtime.within(self._limits.fetch_timeout, directory.certificates(address)))
            if not all(isinstance(one, FoundCertificate) for one in found):
                raise TypeError(f"the directory {directory.name} brings something else than FoundCertificate")
        except (Exception, SystemExit) as error:
            if is_cancellation(error):
                raise
            why, hint = (error.message, error.hint) if isinstance(error, MailsecError) else (_words(error), "")
            failure = Unavailable(f"the directory {directory.name} cannot say: {why}", hint=hint, stage="directory")
            failure.__cause__ = error
            return failure
        return found


def _names(directory: CertificateDirectory, address: Address) -> tuple[str, str]:
    """The breakers of a look-up: the directory as a whole, and it for one domain."""
    return directory.name, f"{directory.name} @{address.domain_key}"


def _words(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
