"""The PKCS#11 modules in use: `[[module]]` of the configuration, those that `mailsec module add` put into the database, and what they load.

An entry of the configuration wins over one of the same name in the database.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import structlog

from mailsec.app.config.models import Module
from mailsec.errors import MailsecError
from mailsec.store.certdb import CertDb
from mailsec.store.modules import Modules, key_assignments

__all__ = ["Assignments", "known_listing", "listing_path", "module_library", "modules_in_use"]

_log = structlog.get_logger("mailsec.tokens")


def modules_in_use(configured: Sequence[Module], database: CertDb) -> tuple[Module, ...]:
    """Enabled modules, those of the configuration first. A row that mailsec did not write is left out, and said so."""
    found = {module.name: module for module in configured}
    for entry in Modules(database).all():
        if entry.name in found:
            continue
        if not entry.verified:
            _log.error("a module was added by something else than mailsec: it is not loaded", module=entry.name)
        elif entry.enabled:
            found[entry.name] = Module(name=entry.name, library=entry.library, parameters=entry.parameters)
    return tuple(module for module in found.values() if module.enabled)


def module_library(module: Module, *, read_only: bool = False) -> tuple[str, str | None]:
    """The library of a module, and its parameter string. Raise ConfigurationError where NSS is not installed.

    `read_only`: NSS databases are opened so, as mod_nss does: whoever only uses keys writes nothing there, and makes no file.
    """
    if not module.nss:
        return module.library, module.parameters or None
    from mailsec.tokens.softoken import NssDatabase, find_softoken, nss_parameters

    several = len(module.nss) > 1
    databases = [NssDatabase(path, _description(path) if several else "", read_only) for path in module.nss]
    return find_softoken(), nss_parameters(databases)


def _description(path: str) -> str:
    """Of several NSS databases, each is called by its directory: all have one label of their own."""
    return path.rstrip("/").rpartition("/")[2] or path


def listing_path(state_directory: str, module: str) -> str:
    """Where the host of a module writes down what it lists."""
    return str(Path(state_directory) / f"listing-{re.sub('[^A-Za-z0-9._-]', '_', module)}.json")


def known_listing(state_directory: str, module: str) -> Mapping[str, Any] | None:
    """What the host of `module` listed when it last ran; None where nobody knows."""
    try:
        value = json.loads(Path(listing_path(state_directory, module)).read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("tokens"), list) else None


class Assignments:
    """For whom keys are used, as the database says; asked again when it has changed. `refresh` blocks."""

    def __init__(self, database: CertDb) -> None:
        self._database = database
        self._changes = -1
        self.current: Mapping[str, Sequence[tuple[str, str]]] | None = None
        """None: they could not be read yet; keys on tokens are then for nobody."""

    def refresh(self) -> bool:
        """Look again; True where something is different. What cannot be read leaves everything as it was."""
        try:
            changes = self._database.changes()
            if changes == self._changes:
                return False
            found = key_assignments(self._database)
        except MailsecError as error:
            _log.error("assignments of keys cannot be read", error=error.message, hint=error.hint)
            return False
        before, self._changes, self.current = self.current, changes, found
        return found != before

    def close(self) -> None:
        """Give the database back."""
        self._database.close()
