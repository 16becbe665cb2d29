"""The PKCS#11 modules in use: `[[module]]` of the configuration, those that `mailsec module add` put into the database, and what they load.

An entry of the configuration wins over one of the same name in the database.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from mailsec.app.config.models import Module
from mailsec.errors import MailsecError
from mailsec.model.trust import CertificateEntry
from mailsec.store.certdb import CertDb
from mailsec.store.modules import Modules, key_assignments

if TYPE_CHECKING:
    from mailsec.tokens.module import Module as LoadedModule

__all__ = [
    "Assignments",
    "demand_sound_files",
    "keys_listed_before",
    "known_listing",
    "listing_path",
    "load_module",
    "module_library",
    "modules_in_use",
]

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


def load_module(module: Module, state_directory: str, *, read_only: bool = False) -> LoadedModule:
    """Load a module into this process; of an NSS database the files are looked at before. Raise ConfigurationError, KeyUnavailable, StoreError."""
    from mailsec.tokens.module import Module as LoadedModule
    from mailsec.tokens.state import StateDirectory

    library, parameters = module_library(module, read_only=read_only)
    demand_sound_files(module.nss)
    return LoadedModule(module.name, library, state=StateDirectory(state_directory), parameters=parameters)


def demand_sound_files(directories: Iterable[str]) -> None:
    """Before NSS's library opens the databases of a module: raise SchemaError where one is none or damaged, StoreError where it is locked."""
    from mailsec.app.nss_databases import nss_directory
    from mailsec.store.nss_files import demand_sound

    for directory in directories:
        demand_sound(nss_directory(directory))


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


def keys_listed_before(state_directory: str, module: str) -> Sequence[bytes]:
    """The keys (SubjectPublicKeyInfo) that the host of `module` listed when it last ran."""
    try:
        rows = [key for token in (known_listing(state_directory, module) or {"tokens": ()})["tokens"] for key in token["keys"]]
        return [base64.b64decode(row["public_key"]) for row in rows]
    except (KeyError, TypeError, ValueError):  # written by another release, or torn
        return ()


class Assignments:
    """For whom keys on tokens are used, as the database says, and the certificates of theirs that lie there; asked again when it has changed.

    `refresh` blocks.
    """

    def __init__(self, database: CertDb) -> None:
        self._database = database
        self._changes = -1
        self._listed: dict[str, frozenset[bytes]] = {}
        self._asked: frozenset[bytes] = frozenset()
        self.current: Mapping[str, Sequence[tuple[str, str]]] | None = None
        """None: they could not be read yet; keys on tokens are then for nobody."""
        self.certificates: Sequence[Mapping[str, Any]] = ()
        """`{"label", "der", "chain"}`, DER in base64, of each certificate of a key that a host lists."""

    def told(self) -> dict[str, Any]:
        """What a host is told; "known" are the keys (SHA-256, hex) whose certificates were asked for: of any other nobody can say yet whose it is."""
        known = sorted(digest.hex() for digest in self._asked)
        return {"assigned": self.current, "certificates": list(self.certificates), "known": known}

    def listed(self, module: str, public_keys: Iterable[bytes]) -> bool:
        """A host lists these keys (SubjectPublicKeyInfo); True where their certificates were not asked for yet."""
        self._listed[module] = frozenset(hashlib.sha256(key).digest() for key in public_keys)
        return not self._all_listed() <= self._asked

    def refresh(self) -> bool:
        """Look again; True where something is different. What cannot be read leaves everything as it was."""
        try:
            changes, keys = self._database.changes(), self._all_listed()
            if changes == self._changes and keys <= self._asked:
                return False
            found = key_assignments(self._database)
            certificates = [self._certificate(entry) for entry in self._database.of_keys(keys)]
        except MailsecError as error:
            _log.error("assignments of keys cannot be read", error=error.message, hint=error.hint)
            return False
        before = self.current, self.certificates, self._asked
        self._changes, self._asked, self.current, self.certificates = changes, keys, found, certificates
        return (found, certificates, keys) != before

    def _all_listed(self) -> frozenset[bytes]:
        return frozenset().union(*self._listed.values())

    def _certificate(self, entry: CertificateEntry) -> dict[str, Any]:
        chain = [base64.b64encode(der).decode("ascii") for der in self._database.chain(entry)]
        return {"label": entry.nickname, "der": base64.b64encode(entry.der).decode("ascii"), "chain": chain}

    def close(self) -> None:
        """Give the database back."""
        self._database.close()
