"""The PKCS#11 modules that an NSS directory knows (pkcs11.txt), as `modutil -list` shows them.

The one invariant: nothing is loaded for standing there: whoever can write the file would choose what runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["NssModule", "nss_modules"]

_FILE: Final = "pkcs11.txt"
_OCTETS: Final = 1024 * 1024


class NssModule(NamedTuple):
    """One record of the file."""

    name: str
    library: str
    """Empty: NSS's own."""


def nss_modules(directory: Path) -> tuple[NssModule, ...]:
    """The modules in the order of the file; none where there is no file. Raise OSError."""
    try:
        with (directory / _FILE).open("rb") as file:
            text = file.read(_OCTETS).decode("utf-8", "replace")
    except FileNotFoundError:
        return ()
    found = []
    # Records are apart by empty lines; a comment begins with "#".
    for record in text.split("\n\n"):
        lines = (line.partition("=") for line in record.splitlines() if "=" in line and not line.startswith("#"))
        values = {key.strip().lower(): value.strip() for key, _, value in lines}
        if "library" in values or "name" in values:
            found.append(NssModule(values.get("name", "").strip("\"'"), values.get("library", "").strip("\"'")))
    return tuple(found)
