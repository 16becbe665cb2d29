"""Certificates of gateways and domains: "this certificate is for all of @partner.example", said by a person.

Between gateways one certificate often reads the mail of a whole company, and names none of the people in it. A binding says for whom mail is
encrypted with it, and nothing else: no signature of it is believed from the people in that domain, its key is used for nobody more, and it
needs a path and evidence as every other one. The one invariant: a binding is a row with a MAC; mail never makes one. Blocking.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from mailsec.errors import AddressError, KeyUnavailable, Refused, Tampered, UsageError
from mailsec.model.address import Address, normalise_domain
from mailsec.store.connection import fetch
from mailsec.store.database import Database
from mailsec.store.ledger import Changes
from mailsec.store.private_keys import TABLES
from mailsec.store.schema import certificate_addresses, certificates
from mailsec.x509.certificate import load_certificate

__all__ = ["Bindings", "add_bindings", "binding_key"]


def binding_key(text: str) -> str:
    """ "bob@example.net" or "@example.net" as it stands in the table; raise UsageError for anything else, "*" and "@.example.net" too."""
    text = text.strip()
    try:
        if text.startswith("@"):
            return "@" + normalise_domain(Address.parse("a" + text).domain)
        return Address.parse(text).key
    except AddressError:
        raise UsageError(
            f"a certificate cannot be bound to {text[:80]!r}", hint="name an address (bob@example.net) or a domain (@example.net)"
        ) from None


def add_bindings(changes: Changes, number: int, der: bytes, places: Sequence[str]) -> None:
    """Bind certificate `number` to `places` (`binding_key`), within a transaction. What it names or is bound to already stays as it is."""
    constraints = load_certificate(der).basic_constraints
    if places and constraints is not None and constraints.ca:
        raise Refused("the certificate of an authority cannot be bound", hint="bind the one that their gateway decrypts with")
    here = select(certificate_addresses.c.address).where(certificate_addresses.c.certificate_id == number)
    known = {row["address"] for row in fetch(changes.connection, here)}
    for place in dict.fromkeys(places):
        if place not in known:
            changes.insert("certificate_addresses", {"certificate_id": number, "address": place, "bound": True})


class Bindings:
    """The bindings in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def bind(self, nickname: str, places: Sequence[str]) -> None:
        """Bind every certificate of `nickname` to `places`: addresses, and domains as "@example.net". Raise Tampered for edited rows."""
        keys = [binding_key(place) for place in places]
        with self._database.writing() as changes:
            for number, der in self._called(changes, nickname):
                add_bindings(changes, number, der, keys)

    def unbind(self, nickname: str, places: Sequence[str]) -> int:
        """Take bindings back; return how many went. What the certificate names itself stays. Raise Refused where there are none."""
        keys = [binding_key(place) for place in places]
        gone = 0
        with self._database.writing() as changes:
            for number, _ in self._called(changes, nickname):
                query = select(certificate_addresses).where(
                    certificate_addresses.c.certificate_id == number, certificate_addresses.c.address.in_(keys)
                )
                for row in fetch(changes.connection, query):
                    if row["bound"]:
                        changes.delete("certificate_addresses", row)
                        gone += 1
            if not gone:
                raise Refused(f'"{nickname}" is not bound to {", ".join(keys)}', hint="`mailsec cert show` says to whom it is")
        return gone

    def _called(self, changes: Changes, nickname: str) -> list[tuple[int, bytes]]:
        if problem := self._database.problem(changes.connection, *TABLES):
            raise Tampered(problem, hint="`mailsec db check` shows more")
        rows = fetch(changes.connection, select(certificates).where(certificates.c.nickname == nickname))
        if not rows:
            raise KeyUnavailable(f"there is no certificate {nickname[:80]!r}", hint="`mailsec cert list` shows those that there are")
        for row in rows:
            # Attack: a certificate that was put into the row of another one gets that one's domains.
            if not self._database.authentic("certificates", row):
                raise Tampered(f'"{nickname}" was changed by something else than mailsec', hint="`mailsec db check` shows more")
        return [(int(row["id"]), bytes(row["der"])) for row in rows]
