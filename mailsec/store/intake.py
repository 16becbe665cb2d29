"""Certificates on their way into the database, one or a hundred thousand: what is wanted of each, and what became of it.

Many are taken in in batches, each a transaction of its own, so that nobody else waits long and little is held in memory. The one invariant:
what cannot be read, or may not be called as wanted, leaves nothing behind and stops none of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Final

from mailsec.errors import CertificateError, MailsecError, PrivateKeyError, TokenError, UsageError
from mailsec.model.trust import TrustFlags

if TYPE_CHECKING:
    from mailsec.store.certdb import CertDb
    from mailsec.store.nssdb import NssDb

__all__ = ["BATCH", "Incoming", "Taken", "take_in"]

BATCH: Final = 500
"""Certificates in one transaction."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """One certificate, and what it is to be here. Those that are here already keep their nickname and state."""

    der: bytes
    nickname: str = ""
    """What it is called; empty: `suggested`, with a number behind it where another subject is called so."""
    suggested: str = "imported"
    trust: TrustFlags = field(default_factory=TrustFlags)
    domains: Sequence[str] = ()
    private_key: bytes | None = field(default=None, repr=False)
    """PKCS#8 DER."""
    assigned: Sequence[str] = ()
    source: str = "imported"
    issuer: bytes | None = None
    """The authority of ours that has just issued it: it goes into the register in the same transaction (`store.issued`)."""
    bound: Sequence[str] = ()
    """Addresses, and domains as "@example.net", that mail is encrypted to with it though it does not name them (`store.bindings`)."""
    state: str = ""
    distrust_after: datetime | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one of them."""

    der: bytes
    id: int = 0
    """0: nothing."""
    new: bool = False
    problem: MailsecError | None = None
    """Why it is not here."""


def take_in(database: CertDb | NssDb, items: Iterable[Incoming], *, at: datetime, batch: int = 0) -> Iterator[Taken]:
    """Take them in, in order, `batch` (0: `BATCH`) in one transaction; a value for each, as soon as the transaction that holds it is committed."""
    waiting = iter(items)
    while chunk := list(islice(waiting, batch or BATCH)):
        done = []
        with database.taking(at=at) as take:
            for item in chunk:
                try:
                    number, new = take(item)
                except (CertificateError, PrivateKeyError, TokenError, UsageError) as error:
                    done.append(Taken(item.der, problem=error))
                else:
                    done.append(Taken(item.der, number, new))
        yield from done
