"""NSS directories (`-d nss:DIR`) as commands open them: through softoken in this process, logged in where a password is there to be had.

The one invariant: looking never writes. softoken makes the files that are missing when it opens a directory for writing, and turns old ones
into new ones; so what is not there, or is in NSS's old format, is refused before, with the command that NSS has for it.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from mailsec.app.files import reason_of
from mailsec.app.library_child import go_on_in_child
from mailsec.app.options import DatabaseChoice, ask_passphrase, read_passphrase_file
from mailsec.app.output import Output
from mailsec.errors import InputError, SchemaError, StoreError, TokenError, UsageError, WrongPassphrase
from mailsec.store.nss_files import demand_sound
from mailsec.store.nssdb import NssDb

if TYPE_CHECKING:
    from mailsec.interfaces import KeyHandle
    from mailsec.model.trust import CertificateEntry
    from mailsec.tokens.token import Token

__all__ = ["alone_in", "is_nss", "keys_in_use", "make_nss", "named_directory", "nss_directory", "open_nss"]

_SCHEME: Final = "nss:"


def is_nss(location: str) -> bool:
    """True for "nss:DIR"."""
    return location.startswith(_SCHEME)


def make_nss(location: str, password: bytes) -> None:
    """Make an NSS database in the directory of "nss:DIR", which is made too where it is missing. Raise StoreError where there is one."""
    from mailsec.app.token_choice import own_state
    from mailsec.tokens.module import Module
    from mailsec.tokens.softoken import NssDatabase, find_softoken, nss_parameters
    from mailsec.tokens.state import StateDirectory

    directory = named_directory(location)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        there = {path.name for path in directory.iterdir()} & {"cert9.db", "key4.db", "cert8.db", "key3.db"}
    except OSError as error:
        raise StoreError(f"{directory} cannot be made: {reason_of(error)}", hint="choose another place") from error
    if there:
        raise StoreError(f"{directory} holds an NSS database already", hint="choose another directory")
    library = find_softoken()
    go_on_in_child()
    with Module("nss", library, state=StateDirectory(own_state()), parameters=nss_parameters([NssDatabase(str(directory))])) as module:
        module.present()[0].set_first_pin(password)


def open_nss(output: Output, location: str, passphrase_file: str, *, look: bool = False, writing: bool = True, asking: str = "") -> NssDb:
    """The NSS database "nss:DIR", logged in; with `look`, one whose password nobody can be asked for is opened all the same, not verified.
    With `look`, or without `writing`, its files are opened for reading.

    Raise StoreError, SchemaError or ConfigurationError where there is none that can be opened, WrongPassphrase.
    """
    from mailsec.app.token_choice import own_state
    from mailsec.tokens.module import Module
    from mailsec.tokens.softoken import NssDatabase, find_softoken, nss_parameters
    from mailsec.tokens.state import StateDirectory

    directory = nss_directory(location)
    parameters = nss_parameters([NssDatabase(str(directory), read_only=look or not writing)])
    demand_sound(directory)
    go_on_in_child()
    module = Module("nss", find_softoken(), state=StateDirectory(own_state()), parameters=parameters)
    try:
        token = module.token("")
        password = _log_in(output, token, location, passphrase_file, look=look, asking=asking)
    except BaseException:
        module.close()
        raise
    database = NssDb(module, token.state.label, location, password=password, close=module.close)
    _warn_of_others(output, directory)
    for problem in database.check() if database.unlocked else ():
        output.warning(f"{problem}: it is trusted for nothing", "somebody has edited the file; `mailsec cert trust` writes the trust anew")
    return database


def keys_in_use(output: Output, choice: DatabaseChoice, wanted: Callable[[NssDb], Iterable[CertificateEntry]]) -> list[KeyHandle]:
    """Keys of `wanted` entries, used where they lie until the command ends."""
    database = open_nss(output, choice.location(), choice.passphrase_file, writing=False)
    click.get_current_context().call_on_close(database.close)
    handles = [database.key_handle(entry, os.urandom) for entry in wanted(database) if entry.verified and entry.has_key]
    return [handle for handle in handles if handle is not None]


def _warn_of_others(output: Output, directory: Path) -> None:
    """NSS signs trust only: who may write there may give a nickname that somebody uses to another certificate."""
    for path in (directory, directory / "cert9.db", directory / "key4.db"):
        if path.stat().st_mode & 0o022:
            output.warning(f"{path} may be written to by others", f"chmod go-w {path}")
            return


def nss_directory(location: str) -> Path:
    """The directory of "nss:DIR", if a database of the format of today lies there. Raise as `open_nss`."""
    directory = named_directory(location)
    try:
        there = {path.name for path in directory.iterdir()}
    except FileNotFoundError:
        raise StoreError(f"there is no directory {directory}", hint=f"certutil -N -d sql:{directory} makes an NSS database there") from None
    except OSError as error:
        raise StoreError(f"{directory} cannot be read: {reason_of(error)}", hint="run this as the user that owns the database") from error
    if {"cert9.db", "key4.db"} <= there:
        return directory
    if "cert8.db" in there or "key3.db" in there:
        hint = (
            "`mailsec db init -d nss:NEW` makes a new directory, and this fills it: "
            f"certutil --upgrade-merge -d sql:NEW --source-dir {directory} --upgrade-id old -f NEW-PASSWORD-FILE -@ OLD-PASSWORD-FILE"
        )
        raise SchemaError(f"{directory} holds an NSS database of the old format (cert8.db, key3.db)", hint=hint)
    raise SchemaError(f"{directory} holds no NSS database (cert9.db, key4.db)", hint=f"certutil -N -d sql:{directory} makes one")


@contextmanager
def alone_in(location: str) -> Iterator[None]:
    """Keep other commands of mailsec from doing the same in the directory of "nss:DIR" meanwhile. (NSS's own tools ask for no such lock.)"""
    descriptor = os.open(nss_directory(location), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def named_directory(location: str) -> Path:
    """The directory of "nss:DIR", whatever is in it. Raise UsageError where none is named."""
    name = location.removeprefix(_SCHEME).removeprefix("sql:")
    if not name or name.startswith("dbm:"):
        raise UsageError(f"{location!r} names no NSS database", hint="as in -d nss:/etc/pki/nssdb, a directory with cert9.db and key4.db")
    return Path(name).expanduser()


def _log_in(output: Output, token: Token, location: str, passphrase_file: str, *, look: bool, asking: str) -> bytes:
    """Log in where a password is wanted; return it."""
    if not token.info().login_required:
        return b""
    if passphrase_file:
        password = _from_file(passphrase_file, token.state.label)
    elif look and not sys.stdin.isatty():
        output.warning("nothing below is verified: the database has a password", "give it with --passphrase-file FILE")
        return b""
    else:
        password = ask_passphrase(asking or f"Password of {location}").encode()
    try:
        # An NSS database counts no wrong passwords and locks nobody out: a person may try as often as they like.
        token.login(password, person=True)
    except TokenError as error:
        if "refuses the PIN" not in error.message:
            raise
        raise WrongPassphrase(f"the password is wrong for {location}", hint="it is the one that certutil -f takes") from None
    return password


def _from_file(path: str, label: str) -> bytes:
    """certutil's password files hold one line, or lines `NSS Certificate DB:PASSWORD`; mod_nss's name it `internal`."""
    known = read_passphrase_file(path)
    for name in (label.encode(), b"internal", None):
        if (found := known.get(name)) is not None:
            return found
    raise InputError(f'the password file {path} has no line "internal:…"', hint="or one line with the password", stage="passphrase")
