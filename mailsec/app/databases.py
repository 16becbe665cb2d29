"""How a command opens the certificate database: with the pass phrase if it has one, locked where looking is all that is wanted.

The one invariant: nothing is asked for a database that has no password, and nothing is asked where nobody sits at a terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mailsec.app.files import read_file
from mailsec.app.options import DatabaseChoice, ask_passphrase
from mailsec.app.output import Output
from mailsec.errors import KeyUnavailable, UsageError
from mailsec.model.trust import CertificateEntry
from mailsec.store.certdb import CertDb

if TYPE_CHECKING:
    from mailsec.store.nssdb import NssDb

__all__ = ["ask_password", "domains_from", "entries_called", "open_any", "open_database", "warn_of_missing"]


def open_any(output: Output, choice: DatabaseChoice, *, look: bool = False, writing: bool = True, asking: str = "") -> CertDb | NssDb:
    """As `open_database`, and "nss:DIR" too: for commands about what both keep. Without `writing`, NSS's files are opened for reading."""
    from mailsec.app.nss_databases import is_nss, open_nss

    if choice.token:
        from mailsec.app.token_database import open_token

        return open_token(output, choice, look=look)
    location = choice.location()
    if not is_nss(location):
        return open_database(output, choice, look=look, asking=asking)
    return open_nss(output, location, choice.passphrase_file, look=look, writing=writing, asking=asking)


def open_database(output: Output, choice: DatabaseChoice, *, look: bool = False, asking: str = "") -> CertDb:
    """The database, unlocked; `asking` is how its pass phrase is asked for on a terminal.

    With `look`, one whose pass phrase nobody can be asked for is opened all the same, not verified.
    """
    location = choice.location()
    if not choice.passphrase_file:
        database = CertDb.open(location)
        if database.unlocked:
            return database
        database.close()
        if look and choice.database and not sys.stdin.isatty():
            output.warning("nothing below is verified: the database has a pass phrase", "give it with --passphrase-file FILE")
            return CertDb.open(location)
    return CertDb.open(location, password=choice.passphrase(prompt=asking).encode())


def ask_password(file: str, prompt: str, *, confirm: bool = False, option: str = "--password-file") -> bytes:
    """A password from `file` (its first line; "-" is standard input), or asked for on the terminal."""
    if file:
        return read_file(file).split(b"\n", 1)[0].rstrip(b"\r")
    if not sys.stdin.isatty():
        raise UsageError("a password is needed, and there is no terminal to ask on", hint=f"give it with {option} FILE")
    return ask_passphrase(prompt, confirm=confirm).encode()


def entries_called(database: CertDb | NssDb, nickname: str) -> Sequence[CertificateEntry]:
    """Entries called `nickname`, best first; raise KeyUnavailable where there are none."""
    entries = database.find(nickname)
    if not entries:
        import difflib

        names = sorted({entry.nickname for entry in database.entries()})
        near = difflib.get_close_matches(nickname, names, 1)
        hint = f'did you mean "{near[0]}"?' if near else "`mailsec cert list` shows those that there are"
        raise KeyUnavailable(f'there is no certificate "{nickname[:80]}"', hint=hint)
    return entries


def warn_of_missing(output: Output, database: CertDb, table: str) -> None:
    """Say where rows of `table` went or came behind our back: what is left looks whole, and an empty list like one that was never filled."""
    if not database.unlocked:
        return
    with database.reading() as connection:
        problem = database.problem(connection, table)
    if problem:
        output.warning(problem, "`mailsec db check` shows more; restore a backup, or `mailsec db check --accept` believes the rest")


def domains_from(values: Sequence[str]) -> tuple[str, ...]:
    """What `--for` said: domains, or "any" typed out."""
    if "any" in values and len(values) > 1:
        raise UsageError('"--for any" stands alone', hint="name domains, or any")
    return tuple("*" if value == "any" else value for value in values)
