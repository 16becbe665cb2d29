"""The modules that the system knows by p11-kit (pkcs11.conf(5)): shown, and used only when somebody adds them.

Invariant: a file that cannot be read, or says nothing of a module, hides no other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DIRECTORIES", "KnownModule", "known_modules"]

DIRECTORIES = ("/usr/share/p11-kit/modules", "/usr/lib/p11-kit/modules", "/etc/pkcs11/modules")
"""Later ones override files of the same name in earlier ones."""
_LIBRARIES = ("/usr/lib/*-linux-gnu/pkcs11", "/usr/lib64/pkcs11", "/usr/lib/pkcs11", "/usr/lib/*-linux-gnu")
_PROGRAM = "mailsec"


@dataclass(frozen=True, slots=True)
class KnownModule:
    """A module of the system's configuration."""

    name: str
    """The name of its file, without ".module"."""
    library: str
    parameters: str = ""
    """x-init-reserved."""
    trust: bool = False
    """It tells which authorities are trusted, and holds no keys."""


def known_modules(directories: Sequence[str] = DIRECTORIES) -> list[KnownModule]:
    """By name; those that are disabled for us are left out."""
    files: dict[str, Path] = {}
    places = [*directories, *([] if os.geteuid() == 0 else [str(Path("~/.config/pkcs11/modules").expanduser())])]
    for place in places:
        for path in sorted(Path(place).glob("*.module")):
            files[path.name] = path
    found = [_read(name.removesuffix(".module"), path) for name, path in sorted(files.items())]
    return [module for module in found if module is not None]


def _read(name: str, path: Path) -> KnownModule | None:
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return None
    values = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and not key.lstrip().startswith("#"):
            values[key.strip()] = value.strip()
    library = values.get("module", "")
    only, never = values.get("enable-in", "").replace(",", " ").split(), values.get("disable-in", "").replace(",", " ").split()
    if not library or (only and _PROGRAM not in only) or _PROGRAM in never:
        return None
    return KnownModule(name, _library(library), values.get("x-init-reserved", ""), values.get("trust-policy", "no") == "yes")


def _library(name: str) -> str:
    """pkcs11.conf(5): a relative name is looked for in the system's directory of modules."""
    if name.startswith("/"):
        return name
    for place in _LIBRARIES:
        for directory in sorted(Path("/").glob(place.lstrip("/"))):
            if (directory / name).exists():
                return str(directory / name)
    return name
