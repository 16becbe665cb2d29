"""NSS's software token: where its library is, and the parameter string that C_Initialize wants (NSS's "module specs").

One process loads it once, so all NSS databases of a module are opened together, each as a token of its own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mailsec.errors import ConfigurationError

__all__ = ["PLACES", "NssDatabase", "find_softoken", "is_softoken", "nss_parameters", "place_of"]

PLACES = (
    "/usr/lib/*-linux-gnu/libsoftokn3.so",
    "/usr/lib/*-linux-gnu/nss/libsoftokn3.so",
    "/usr/lib64/libsoftokn3.so",
    "/usr/lib/libsoftokn3.so",
    "/usr/lib/nss/libsoftokn3.so",
    "/usr/local/lib/libsoftokn3.so",
    "/opt/homebrew/lib/libsoftokn3.dylib",
)
# What ends or opens something in a module spec: quotes, brackets, escapes, control characters.
_FORBIDDEN = re.compile(r"""['"\\<>\[\]{}\x00-\x1f\x7f]""")

_READ_ONLY = " flags=readOnly"


@dataclass(frozen=True, slots=True)
class NssDatabase:
    """An NSS directory (cert9.db, key4.db), as a token."""

    directory: str
    description: str = ""
    """The token's label; NSS's own ("NSS Certificate DB") by default."""
    read_only: bool = False
    prefix: str = ""
    """What stands before the names of the files."""


def find_softoken() -> str:
    """The path of libsoftokn3; raise ConfigurationError where it is not installed."""
    for place in PLACES:
        found = sorted(Path("/").glob(place.lstrip("/")))
        if found:
            return str(found[0])
    raise ConfigurationError("NSS is not installed here", hint="apt-get install libnss3, or name the library in [[module]]")


def is_softoken(path: str) -> bool:
    """True for NSS's software token, whose keys are used as copies in the session, and whose trust is checked when it is logged in."""
    return Path(path).name.startswith("libsoftokn3")


def nss_parameters(databases: Sequence[NssDatabase]) -> str:
    """The parameter string that opens these databases; raise ConfigurationError for names that cannot stand in one."""
    for database in databases:
        for name in (database.directory, database.description, database.prefix):
            if _FORBIDDEN.search(name):
                raise ConfigurationError(
                    f"an NSS database called {name!a}", hint="without quotes, brackets, backslashes and control characters"
                )
    if len(databases) == 1 and not databases[0].description:
        return f"{_place(databases[0])} secmod='secmod.db'{_flags(databases[0])}"
    # Slots 1 and 2 are softoken's own.
    tokens = " ".join(
        f"0x{16 + index:x}=[configDir='{_sql(one.directory)}' tokenDescription='{one.description[:32]}' slotDescription='{one.description[:32]}'"
        f" certPrefix='{one.prefix}' keyPrefix='{one.prefix}'{_flags(one)}]"
        for index, one in enumerate(databases)
    )
    return f"configdir='' certPrefix='' keyPrefix='' secmod='' flags=noCertDB,noModDB,forceOpen tokens=<{tokens}>"


def place_of(parameters: str) -> str:
    """What the parameter string says of where its databases lie, however they are opened."""
    return parameters.replace(_READ_ONLY, "")


def _place(database: NssDatabase) -> str:
    return f"configdir='{_sql(database.directory)}' certPrefix='{database.prefix}' keyPrefix='{database.prefix}'"


def _sql(directory: str) -> str:
    return directory if directory.startswith(("sql:", "dbm:")) else f"sql:{directory}"


def _flags(database: NssDatabase) -> str:
    return _READ_ONLY if database.read_only else ""
