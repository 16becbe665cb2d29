"""The report of an unexpected error: where it happened, with which versions, and nothing that could be secret.

The invariant: no value of a local variable and no argument of the command line is in it, only names of commands and places in the source.
"""

from __future__ import annotations

import os
import platform
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib import metadata

from mailsec import __version__

__all__ = ["write_report"]

_LIBRARIES = ("twisted", "cryptography", "sqlalchemy", "pydantic", "click", "pluggy", "pyOpenSSL")


def write_report(error: BaseException, arguments: Sequence[str]) -> str:
    """Write the report to a new file that only we can read, and return its path ("standard error" where no file can be written)."""
    words = []
    for word in arguments[:2]:
        # Options and file names may be private: the report names the command only.
        if not word.isascii() or not word.replace("-", "").isalpha() or word.startswith("-"):
            break
        words.append(word)
    lines = [
        f"mailsec {__version__}, Python {platform.python_version()}, {platform.system()} {platform.release()}",
        f"command: {' '.join(words)}",
        "libraries: " + ", ".join(f"{name} {_version(name)}" for name in _LIBRARIES),
        "",
        "".join(traceback.format_exception(error)),
    ]
    text = "\n".join(lines)
    try:
        descriptor, path = tempfile.mkstemp(prefix="mailsec-report-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        print(text, file=sys.stderr)
        return "standard error"
    return path


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "absent"
