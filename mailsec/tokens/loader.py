"""Opening a PKCS#11 library: ours for every module, so that each is told of threads, and NSS's gets its parameters.

Loading takes a lock among all processes, as a library's files may be in the making (SoftHSM2 misses tokens when several start at once).
The one invariant: a library is loaded once in a process, with one set of parameters.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from mailsec.errors import ConfigurationError, KeyUnavailable
from mailsec.tokens.codes import CkError
from mailsec.tokens.cryptoki import Cryptoki
from mailsec.tokens.softoken import is_softoken
from mailsec.tokens.state import StateDirectory

__all__ = ["Library", "load_library"]


@dataclass(slots=True)
class Library:
    """A library that is loaded."""

    functions: Cryptoki
    path: str
    softoken: bool
    parameters: str | None = None
    users: int = 1


_loaded: dict[str, Library] = {}
_guard = threading.Lock()


def load_library(path: str, parameters: str | None, state: StateDirectory) -> Library:
    """Load and initialise `path`. Raise ConfigurationError where it is none, KeyUnavailable where it does not start."""
    if not Path(path).is_file():
        raise ConfigurationError(
            f"there is no PKCS#11 library {path}", hint="the command mailsec module list shows those that the system knows"
        )
    real = str(Path(path).resolve())
    with _guard:
        library = _loaded.get(real)
        if library is not None:
            if library.parameters != parameters:
                raise ConfigurationError(
                    f"{path} is open already, with other parameters",
                    hint="name all NSS databases in one [[module]]: a process opens the library once",
                )
            library.users += 1
            return library
        with state.lock(f"start {real}"):
            try:
                functions = Cryptoki(path, parameters)
            except CkError as error:
                raise _refusal(path, error) from error
        library = Library(functions, path, is_softoken(real), parameters)
        _loaded[real] = library
        return library


def unload_library(library: Library) -> None:
    """Give it back; the last one finalises it."""
    real = str(Path(library.path).resolve())
    with _guard:
        library.users -= 1
        if library.users == 0:
            _loaded.pop(real, None)
            try:
                library.functions.finalise()
            except CkError:  # its sessions are gone all the same
                pass


def _refusal(path: str, error: CkError) -> ConfigurationError | KeyUnavailable:
    # NSS 3.87 in words: the directory is no database, or one of another version.
    if error.code in (0xCE534351, 0xCE534352):
        return ConfigurationError(f"the NSS database cannot be opened ({error.name})", hint="is it a directory with cert9.db and key4.db?")
    if error.code == 0x07:
        return ConfigurationError(f"{path} refuses its parameters ({error.name})", hint="NSS's library wants nss = DIRECTORY in [[module]]")
    return KeyUnavailable(
        f"the PKCS#11 library {path} does not start: {error}", hint="its own log may say why", stage=f"token:{Path(path).stem}"
    )
