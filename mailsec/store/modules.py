"""PKCS#11 modules that the database knows (`mailsec module add`), and for whom keys are used that lie on tokens. Blocking.

The one invariant: a row that mailsec did not write loads no library and assigns no key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from mailsec.errors import Refused, Tampered, UsageError
from mailsec.model.tokens import ModuleEntry
from mailsec.store.connection import fetch
from mailsec.store.database import Database
from mailsec.store.schema import assignments, modules

__all__ = ["Modules", "key_assignments"]


class Modules:
    """The modules in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> Sequence[ModuleEntry]:
        """Every module, by name; those that mailsec did not write are marked, and are not to be loaded."""
        database = self._database
        with database.reading() as connection:
            whole = not database.problem(connection, "modules")
            rows = fetch(connection, select(modules).order_by(modules.c.name))
            return [_entry(row, verified=whole and database.authentic("modules", row)) for row in rows]

    def add(self, name: str, library: str, parameters: str = "") -> None:
        """Add a module; UsageError where there is one of this name."""
        with self._database.writing() as changes:
            self._demand(changes.connection)
            if changes.connection.execute(select(modules.c.id).where(modules.c.name == name)).first():
                raise UsageError(f"there is a module {name!r} already", hint="give the new one another name, or remove that one")
            changes.insert("modules", {"name": name, "library": library, "parameters": parameters, "defaults": "", "enabled": True})

    def remove(self, name: str) -> None:
        """Forget a module. Raise Refused where there is none of this name."""
        with self._database.writing() as changes:
            changes.delete("modules", _row(changes.connection, name))

    def set_enabled(self, name: str, enabled: bool) -> None:
        """Use a module, or leave it alone."""
        self._change(name, {"enabled": enabled})

    def set_default(self, name: str, kinds: Sequence[str]) -> None:
        """Say for which kinds of keys it is the one where new ones are made ("rsa", "ec" …); no other module is any more."""
        with self._database.writing() as changes:
            self._demand(changes.connection)
            _row(changes.connection, name)
            for row in fetch(changes.connection, select(modules)):
                mine = list(kinds) if row["name"] == name else [kind for kind in str(row["defaults"]).split() if kind not in kinds]
                if " ".join(mine) != row["defaults"]:
                    changes.update("modules", row, {"defaults": " ".join(mine)})

    def _change(self, name: str, values: dict[str, Any]) -> None:
        with self._database.writing() as changes:
            self._demand(changes.connection)
            changes.update("modules", _row(changes.connection, name), values)

    def _demand(self, connection: Connection) -> None:
        if problem := self._database.problem(connection, "modules"):
            raise Tampered(problem, hint="`mailsec db check` shows more")


def key_assignments(database: Database) -> dict[str, list[tuple[str, str]]]:
    """SHA-256 of a key's SubjectPublicKeyInfo (hexadecimal) to (pattern, usage) of those whom it is assigned to.

    Raise Tampered where any row was edited or is missing: without it a key would be for everybody whom its certificate names.
    """
    with database.reading() as connection:
        if problem := database.edited(connection, "assignments"):
            raise Tampered(problem, hint="`mailsec db check` shows more")
        found: dict[str, list[tuple[str, str]]] = {}
        for row in fetch(connection, select(assignments).order_by(assignments.c.id)):
            found.setdefault(bytes(row["key_id"]).hex(), []).append((str(row["pattern"]), str(row["usage"])))
        return found


def _row(connection: Connection, name: str) -> Mapping[str, Any]:
    row = next(iter(fetch(connection, select(modules).where(modules.c.name == name))), None)
    if row is None:
        raise Refused(f"there is no module {name[:80]!r} in the database", hint="`mailsec module list` shows those that there are")
    return row


def _entry(row: Mapping[str, Any], *, verified: bool) -> ModuleEntry:
    return ModuleEntry(
        str(row["name"]), str(row["library"]), str(row["parameters"]), tuple(str(row["defaults"]).split()), bool(row["enabled"]), verified
    )
