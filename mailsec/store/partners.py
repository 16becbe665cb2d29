"""What is agreed with correspondents: settings of an address, before those of its domain, before the default.

The names and words are those of `model.partner.PARTNER_SETTINGS`. The one invariant: a row that mailsec did not write decides nothing, and
where rows are missing nobody is told that nothing was agreed: the question fails. Blocking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Final

from sqlalchemy import Connection, select

from mailsec.errors import AddressError, Refused, Tampered, UsageError
from mailsec.model.address import Address, normalise_domain
from mailsec.model.partner import NOTHING_AGREED, PartnerSettings
from mailsec.store.connection import fetch
from mailsec.store.database import Database
from mailsec.store.schema import partner_settings

__all__ = ["DEFAULT", "Partners", "agreed_with", "partner_key"]

DEFAULT: Final = "default"
"""How the level below all addresses and domains is called; in the table it is the empty string."""

_FIELDS: Final = tuple(field.name for field in fields(PartnerSettings) if field.name != "levels")


def partner_key(text: str) -> str:
    """ "bob@example.net", "@example.net" (or "example.net") or "default" as it stands in the table; raise UsageError for anything else."""
    text = text.strip()
    if text == DEFAULT:
        return ""
    try:
        if "@" in text.lstrip("@"):
            return Address.parse(text).key
        return "@" + normalise_domain(Address.parse("a@" + text.lstrip("@")).domain)
    except AddressError:
        raise UsageError(
            f"not a partner: {text[:80]!r}", hint="name an address (bob@example.net), a domain (example.net), or default"
        ) from None


def agreed_with(address: Address, agreed: Mapping[str, Mapping[str, str]]) -> PartnerSettings:
    """What `Partners.all()` says of `address`: each value from the nearest level that has one."""
    values: dict[str, str] = {}
    given: dict[str, str] = {}
    for level in (address.key, "@" + address.domain_key, DEFAULT):
        for name, value in agreed.get(level, {}).items():
            field = name.replace("-", "_")
            if field in _FIELDS and field not in values:
                values[field], given[name] = value, level
    return PartnerSettings(**values, levels=given) if given else NOTHING_AGREED


class Partners:
    """The settings in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def settings(self, address: Address) -> PartnerSettings:
        """What is agreed with `address`. Raise Tampered where rows cannot be believed."""
        return agreed_with(address, self.all())

    def all(self) -> Mapping[str, Mapping[str, str]]:
        """Every partner with its own settings, by name: domains behind their addresses, the default last. Raise Tampered."""
        found = self._believed()
        return {partner or DEFAULT: dict(sorted(found[partner].items())) for partner in sorted(found, key=_place)}

    def set(self, partner: str, values: Mapping[str, str]) -> Mapping[str, str]:
        """Agree on `values` (already checked words) with a `partner_key`; an empty value takes one back. Return all that is agreed now."""
        with self._database.writing() as changes:
            self._demand(changes.connection)
            rows = {row["name"]: row for row in self._rows(changes.connection, [partner])}
            for name, value in values.items():
                if name in rows and not value:
                    changes.delete("partner_settings", rows[name])
                elif name in rows:
                    changes.update("partner_settings", rows[name], {"value": value})
                elif value:
                    changes.insert("partner_settings", {"partner": partner, "name": name, "value": value})
            return {str(row["name"]): str(row["value"]) for row in self._rows(changes.connection, [partner])}

    def remove(self, partner: str) -> int:
        """Forget all that is agreed with a `partner_key`; return how many settings went. Raise Refused where there are none."""
        with self._database.writing() as changes:
            self._demand(changes.connection)
            rows = self._rows(changes.connection, [partner])
            if not rows:
                raise Refused(f"nothing is agreed with {partner or DEFAULT}", hint="`mailsec partner list` shows what is")
            for row in rows:
                changes.delete("partner_settings", row)
            return len(rows)

    def _believed(self) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        with self._database.reading() as connection:
            self._demand(connection)
            for row in self._rows(connection, None):
                # Attack: a setting that was edited into "never". One row that was changed, and the question fails.
                if not self._database.authentic("partner_settings", row):
                    raise Tampered(
                        f"a setting of {row['partner'] or DEFAULT} was changed by something else than mailsec",
                        hint="`mailsec db check` shows more; remove the partner and set it again",
                    )
                found.setdefault(row["partner"], {})[row["name"]] = row["value"]
        return found

    def _demand(self, connection: Connection) -> None:
        if problem := self._database.problem(connection, "partner_settings"):
            raise Tampered(
                problem, hint="`mailsec db check` shows more; restore a backup, or `mailsec db check --accept` believes the rest"
            )

    @staticmethod
    def _rows(connection: Connection, partners: Sequence[str] | None) -> Sequence[Mapping[str, Any]]:
        query = select(partner_settings).order_by(partner_settings.c.partner, partner_settings.c.name)
        return fetch(connection, query if partners is None else query.where(partner_settings.c.partner.in_(partners)))


def _place(partner: str) -> tuple[bool, str, bool, str]:
    domain = partner.rpartition("@")[2]
    return partner == "", domain, partner.startswith("@"), partner
