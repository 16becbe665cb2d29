"""Options that several commands share: which configuration or database, and where its pass phrase is.

A pass phrase is never an argument and never in the environment: both stand in the process list.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from mailsec.app.files import reason_of
from mailsec.errors import InputError, UsageError

__all__ = [
    "CONFIGURATION_HELP",
    "DEFAULT_CONFIGURATION",
    "DatabaseChoice",
    "ask_passphrase",
    "config_option",
    "database_options",
    "passphrase_from_file",
    "read_passphrase_file",
    "token_options",
]

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_CONFIGURATION = "/etc/mailsec/mailsec.toml"
CONFIGURATION_HELP = f"The configuration.  [default: {DEFAULT_CONFIGURATION}]"

_PASSPHRASE_OCTETS = 64 * 1024


@dataclass(frozen=True, slots=True)
class DatabaseChoice:
    """What `-c`, `-d` and `--passphrase-file` said; with `on_token`, also `--token`, `--library` and `--pin-file`."""

    configuration: str = ""
    database: str = ""
    passphrase_file: str = ""
    token: str = ""
    library: str = ""
    pin_file: str = ""

    def location(self) -> str:
        """Path or URL of the database: `-d`, else `[database] location` of the configuration; UsageError where neither says it."""
        if self.database:
            if self.configuration:
                raise UsageError("-c and -d exclude each other", hint="the configuration names its database")
            return self.database
        from mailsec.app.config import load_configuration

        return load_configuration(self.configuration_path()).database.location

    def passphrase(self, *, prompt: str = "", confirm: bool = False) -> str:
        """The pass phrase of the database: from `--passphrase-file`, from the configuration, or asked for on the terminal."""
        if self.passphrase_file:
            return passphrase_from_file(self.passphrase_file)
        if not self.database:
            from mailsec.app.config import load_configuration
            from mailsec.app.passphrase import passphrase_source

            found = passphrase_source(load_configuration(self.configuration_path()).passphrase)
            if found is not None:
                return found
        return ask_passphrase(prompt or "Pass phrase of the database", confirm=confirm)

    def configuration_path(self) -> str:
        """The configuration that was named, or the usual one; UsageError where neither is there and no database was named."""
        path = self.configuration or DEFAULT_CONFIGURATION
        if not self.configuration and not Path(path).exists():
            raise UsageError("no database was named", hint=f"name a configuration with -c or a database with -d; there is no {path}")
        return path


def config_option(command: F) -> F:
    """Add `-c CONFIG` as the argument `configuration`."""
    return click.option(
        "-c",
        "--config",
        "configuration",
        metavar="CONFIG",
        default=DEFAULT_CONFIGURATION,
        help=CONFIGURATION_HELP,
    )(command)


def database_options(command: F) -> F:
    """Add `-c`, `-d` and `--passphrase-file`, given to the command as one argument `database`, a DatabaseChoice."""
    import functools

    @click.option("-c", "--config", "configuration", metavar="CONFIG", default="", help=CONFIGURATION_HELP)
    @click.option(
        "-d", "--database", "location", metavar="DATABASE", default="", help="Without configuration: a path, an SQLAlchemy URL, or nss:DIR."
    )
    @click.option("--passphrase-file", metavar="FILE", default="", help="The pass phrase of the database; - is standard input.")
    @functools.wraps(command)
    def with_database(*args: Any, configuration: str, location: str, passphrase_file: str, **kwargs: Any) -> Any:
        return command(*args, database=DatabaseChoice(configuration, location, passphrase_file), **kwargs)

    return with_database  # type: ignore[return-value]  # click's decorators keep the callable, mypy sees the wrapper's type


def passphrase_from_file(path: str, name: str = "internal") -> str:
    """The pass phrase for `name` from a file of lines `name:pass phrase`; a file of one line without a name is the pass phrase itself.

    The format is mod_nss's (`NSSPassPhraseDialog file:`), `internal` being the database; names match exactly. Raise InputError where the
    file cannot be read or names others only.
    """
    known = read_passphrase_file(path)
    found = known.get(name.encode())
    if found is None:
        found = known.get(None) if known else b""
    if found is None:
        raise InputError(
            f'the pass phrase file {path} has no line "{name}:…"',
            hint="one line for each name, or one line with the pass phrase",
            stage="passphrase",
        )
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"the pass phrase file {path} is not UTF-8", stage="passphrase") from error


def read_passphrase_file(path: str) -> Mapping[bytes | None, bytes]:
    """Name to pass phrase of each line `name:pass phrase`; the first line without a name stands under None. The last line of a name counts.

    A name that holds a colon is written as a PKCS#11 URI (`pkcs11:token=a%3Ab:PIN`), whose own first colon is passed over.
    """
    try:
        if path == "-":
            data = sys.stdin.buffer.read(_PASSPHRASE_OCTETS)
        else:
            with Path(path).open("rb") as file:
                data = file.read(_PASSPHRASE_OCTETS)
    except OSError as error:
        raise InputError(f"cannot read the pass phrase file {path}: {reason_of(error)}", stage="passphrase") from error
    known: dict[bytes | None, bytes] = {}
    lines = data.removesuffix(b"\n").split(b"\n") if data else []
    for line in lines:
        # Only the line end is removed: a pass phrase may begin and end with blanks.
        line = line.removesuffix(b"\r")
        start = len(b"pkcs11:") if line[:7].lower() == b"pkcs11:" else 0
        colon = line.find(b":", start)
        if colon >= 0:
            known[line[:colon]] = line[colon + 1 :]
        if len(lines) == 1 and not line.startswith(b"internal:"):
            known.setdefault(None, line)
    return known


def ask_passphrase(prompt: str, *, confirm: bool = False) -> str:
    """Ask on the terminal; UsageError where there is none."""
    if not sys.stdin.isatty():
        raise UsageError("a pass phrase is needed and there is no terminal to ask on", hint="give it with --passphrase-file FILE")
    import getpass

    passphrase = getpass.getpass(f"{prompt}: ")
    if confirm and getpass.getpass("Once more: ") != passphrase:
        raise UsageError("the two pass phrases differ")
    return passphrase


def token_options(what: str) -> Callable[[F], F]:
    """Adds `--token`, `--library` and `--pin-file`; `what` is the help of the first."""

    def add(command: F) -> F:
        for option in (
            click.option("--pin-file", metavar="FILE", default="", help="With --token: its PIN; - is standard input."),
            click.option(
                "--library",
                metavar="FILE",
                default="",
                help="With --token: its PKCS#11 library  [default: the modules of the configuration]",
            ),
            click.option("--token", default="", metavar="TOKEN", help=what),
        ):
            command = option(command)
        return command

    return add
