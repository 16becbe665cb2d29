"""The registers of our own authorities, for a responder that runs in the gateway: a `gateway.services.Registers`.

The one invariant: an authority is one whose certificate this database believes to be a CA's; a name that means several is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

from mailsec.errors import KeyUnavailable
from mailsec.model.trust import IssuedCertificate
from mailsec.store.certdb import CertDb
from mailsec.store.issued import IssuedStore
from mailsec.x509.certificate import load_certificate

__all__ = ["OwnAuthorities"]

T = TypeVar("T")


class _Answers(Protocol):
    """`app.database_plugin.Answers`: what was asked before is kept until the database changes."""

    database: CertDb

    def ask(self, question: tuple[Any, ...], function: Callable[..., T], *args: Any) -> Awaitable[T]: ...


class OwnAuthorities:
    """The authorities of the database, by nickname."""

    def __init__(self, answers: _Answers) -> None:
        self._answers = answers

    async def authority(self, ca: str) -> Sequence[bytes]:
        """Its certificates, the one that issues now first. Raise KeyUnavailable where there is none."""
        found = await self._answers.ask(("authority", ca), self._authority, ca)
        if not found:
            raise KeyUnavailable(f"there is no authority called {ca!r} here", hint="`mailsec cert list` shows nicknames")
        return found

    async def issued(self, ca: str) -> Sequence[IssuedCertificate]:
        """Its whole register."""
        first = (await self.authority(ca))[0]
        return await self._answers.ask(("issued", first), IssuedStore(self._answers.database).issued, first)

    async def issued_as(self, ca: str, serial: int) -> IssuedCertificate | None:
        """One entry of its register; where the authority was renewed with another key, of the registers of both."""
        certificates = await self.authority(ca)
        return await self._answers.ask(("issued", certificates, serial), self._issued_as, certificates, serial)

    def _issued_as(self, certificates: Sequence[bytes], serial: int) -> IssuedCertificate | None:
        store = IssuedStore(self._answers.database)
        return next((entry for one in certificates if (entry := store.issued_as(one, serial)) is not None), None)

    def _authority(self, ca: str) -> tuple[bytes, ...]:
        entries = [entry for entry in self._answers.database.find(ca) if entry.verified]
        certificates = [load_certificate(entry.der) for entry in entries]
        return tuple(one.der for one in certificates if one.basic_constraints is not None and one.basic_constraints.ca)
