"""The certificate database, and the spool."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from mailsec.interfaces.runtime import Scratch
from mailsec.model.address import Address
from mailsec.model.queue import NewEntry
from mailsec.model.seal import SealKey
from mailsec.model.trust import Anchor, CertificateEntry, TrustFlags, UserEntry

__all__ = ["CertificateDatabase", "SealKeys", "Spool"]


class CertificateDatabase(Protocol):
    """The shared certificate database. Blocking: call it through a thread, or from a command."""

    def entries(self) -> Sequence[CertificateEntry]: ...

    def find(self, nickname: str) -> Sequence[CertificateEntry]:
        """Entries called `nickname`, our own newest valid one first."""
        ...

    def for_address(self, address: Address) -> Sequence[CertificateEntry]: ...

    def anchors(self, purpose: str) -> Sequence[Anchor]: ...

    def add(
        self,
        certificate: bytes,
        nickname: str,
        *,
        trust: TrustFlags = ...,
        domains: Sequence[str] = (),
        source: str = "imported",
        private_key: bytes | None = None,
        assigned: Sequence[str] = (),
        at: datetime,
    ) -> CertificateEntry:
        """Add a certificate, and with `private_key` (PKCS#8 DER) its key; the same certificate twice is one entry."""
        ...

    def set_trust(self, nickname: str, trust: TrustFlags, *, domains: Sequence[str] = ()) -> None: ...

    def private_key(self, entry: CertificateEntry) -> bytes | None:
        """PKCS#8 DER of the entry's key, decrypted; None where there is none here."""
        ...

    def users(self) -> Sequence[UserEntry]: ...

    def check_password(self, login: str, password: bytes) -> UserEntry | None: ...


class SealKeys(Protocol):
    """The keys with which the gateway seals what it delivers."""

    async def current(self) -> SealKey:
        """The key to seal with now; raise StoreError where there is none to be had."""
        ...

    async def find(self, key_id: str) -> SealKey | None:
        """The key called that; None where it is not known here."""
        ...


class Spool(Protocol):
    """Durable rows. `commit` returns after they would survive a kill or a loss of power."""

    async def commit(self, entries: Sequence[NewEntry], *, replaces: str = "") -> None:
        """All of them or none; raise StorageFull (452) or StoreError (451).

        `replaces` is the id of a raw row that was processed: it goes away in the same transaction.
        """
        ...

    def check_room(self, octets: int = 0) -> None:
        """Raise StorageFull where a message of that size (0: not known) should not even begin. Cheap enough for every MAIL."""
        ...

    def many_wait(self, need: str, most: int) -> bool:
        """True where `most` raw rows or more wait for `need`. Cheap: it is asked for every message that would be one more."""
        ...

    async def postpone(self, id: str, *, need: str, reason: str, report: NewEntry | None = None) -> None:
        """A raw row waits on: it is tried again by itself, later each time. `report`, committed with it, tells the sender that it takes long."""
        ...

    async def hold(self, id: str, reason: str) -> None:
        """A raw row waits for a person; it stays as it is."""
        ...

    def scratch(self) -> Scratch:
        """A Scratch whose file, if it grows one, lies beside the spool, so that committing names it instead of copying it."""
        ...
