"""Which modules a command looks at: those of a configuration and its database, or one library or NSS directory that was named.

The one invariant: what a running mailsec holds is asked there, by its hosts' sockets; a library is loaded here only where none runs, or
where the command changes something that a host would refuse.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mailsec.app.library_child import go_on_in_child
from mailsec.app.modules import load_module
from mailsec.app.options import CONFIGURATION_HELP, DEFAULT_CONFIGURATION, DatabaseChoice
from mailsec.errors import KeyUnavailable, MailsecError, UsageError

if TYPE_CHECKING:
    from mailsec.app.config import Configuration
    from mailsec.app.config.models import Module as ModuleSettings
    from mailsec.app.output import Output
    from mailsec.tokens.module import Module
    from mailsec.tokens.remote import RemoteModule

__all__ = ["TokenChoice", "own_state", "token_options"]

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """What `-c`, `--module`, `--library` and `--nss` said."""

    configuration: str = ""
    module: str = ""
    library: str = ""
    nss: str = ""
    stored: DatabaseChoice | None = None
    """What a command was told of its database: with `-d` alone, the modules of that one are meant."""

    def settings(self, output: Output) -> tuple[Sequence[ModuleSettings], str, Configuration | None]:
        """The modules, the state directory, and the configuration where there is one. Raise UsageError where nothing was named."""
        from mailsec.app.config.models import Module as ModuleSettings

        if self.library or self.nss:
            if self.module or (self.library and self.nss):
                raise UsageError("--module, --library and --nss exclude each other", hint="name one of them")
            name = Path(self.library or self.nss).name
            given: dict[str, Any] = {"library": self.library} if self.library else {"nss": [self.nss]}
            configuration = self._load() if self.configuration else None
            state = configuration.gateway.state_directory if configuration is not None else own_state()
            return [ModuleSettings(name=name[:64], **given)], state, configuration
        if self.stored is not None and self.stored.database:
            return self._of_stored(output, self.stored), own_state(), None
        configuration = self._load()
        modules = [module for module in _all(output, configuration) if self.module in ("", module.name)]
        if self.module and not modules:
            raise UsageError(f"there is no module {self.module!r}", hint="`mailsec module list` shows those that there are")
        return modules, configuration.gateway.state_directory, configuration

    def _of_stored(self, output: Output, stored: DatabaseChoice) -> Sequence[ModuleSettings]:
        from mailsec.app.databases import open_database
        from mailsec.app.modules import modules_in_use

        with open_database(output, stored) as opened:
            modules = [module for module in modules_in_use((), opened) if self.module in ("", module.name)]
        if not modules:
            raise UsageError("the database has no module", hint="add one with mailsec module add, or name a library with --library")
        return modules

    def _load(self) -> Configuration:
        from mailsec.app.config import load_configuration

        path = self.configuration or DEFAULT_CONFIGURATION
        if not self.configuration and not Path(path).exists():
            hint = f"name a configuration with -c, a library with --library or an NSS directory with --nss; there is no {path}"
            raise UsageError("no module was named", hint=hint)
        return load_configuration(path)

    def remote(self, output: Output) -> list[RemoteModule]:
        """The token hosts of a running mailsec, those that answer."""
        from mailsec.app.config.tokens import host_socket
        from mailsec.tokens.remote import RemoteModule

        modules, _, configuration = self.settings(output)
        if configuration is None or self.library or self.nss:
            return []
        found = []
        for module in modules:
            path = host_socket(module, configuration.gateway.run_directory)
            host = RemoteModule(module.name, path)
            if Path(path).exists():
                try:
                    host.listing()
                except MailsecError:
                    continue
                found.append(host)
        return found

    @contextmanager
    def loaded(self, output: Output) -> Iterator[list[Module]]:
        """The modules, loaded in this process, which is a child of the command's then."""
        modules, state, _ = self.settings(output)
        go_on_in_child()
        found: list[Module] = []
        try:
            for module in modules:
                found.append(load_module(module, state))
            yield found
        finally:
            for one in found:
                one.close()

    @contextmanager
    def module_of(self, output: Output, token: str) -> Iterator[Module]:
        """The loaded module that has this token. Raise KeyUnavailable, or UsageError where several have one of this name."""
        with self.loaded(output) as modules:
            having, missing = [], None
            for module in modules:
                try:
                    module.token(token)
                    having.append(module)
                except KeyUnavailable as error:
                    missing = missing or error
            if not having:
                raise missing or UsageError("there is no module", hint="add one: mailsec module add NAME LIBRARY")
            if len(having) > 1:
                names = ", ".join(module.name for module in having)
                raise UsageError(f"{len(having)} modules have a token {token!r}: {names}", hint="name one with --module")
            yield having[0]


def _all(output: Output, configuration: Configuration) -> Sequence[ModuleSettings]:
    """Those of the configuration and of its database; a database that cannot be opened has none, and that is said."""
    from mailsec.app.modules import modules_in_use
    from mailsec.store.certdb import CertDb

    try:
        database = CertDb.open(configuration.database.location)
    except MailsecError as error:
        output.warning(f"modules of the database are not shown: {error.message}", error.hint)
        return [module for module in configuration.modules if module.enabled]
    try:
        if not database.unlocked:
            return [module for module in configuration.modules if module.enabled] + _of_locked(output, configuration, database)
        return modules_in_use(configuration.modules, database)
    finally:
        database.close()


def _of_locked(output: Output, configuration: Configuration, database: Any) -> list[ModuleSettings]:
    """A row may name any library: it is loaded only where the database's pass phrase shows that mailsec wrote it."""
    from mailsec.app.modules import modules_in_use
    from mailsec.app.passphrase import passphrase_source
    from mailsec.store.certdb import CertDb
    from mailsec.store.modules import Modules

    if not Modules(database).all():
        return []
    found = passphrase_source(configuration.passphrase)
    if found is None:
        output.warning("modules of the database are not used: it is locked", "name the library with --library")
        return []
    opened = CertDb.open(configuration.database.location, password=found.encode())
    try:
        return [module for module in modules_in_use(configuration.modules, opened) if module not in configuration.modules]
    finally:
        opened.close()


def own_state() -> str:
    """Where marks are kept without a configuration (XDG Base Directory: $XDG_STATE_HOME)."""
    home = os.environ.get("XDG_STATE_HOME", "") or str(Path("~/.local/state").expanduser())
    return str(Path(home) / "mailsec")


def token_options(command: F) -> F:
    """Add `-c`, `--module`, `--library` and `--nss`, given to the command as one argument `choice`, a TokenChoice."""

    @click.option("-c", "--config", "configuration", metavar="CONFIG", default="", help=CONFIGURATION_HELP)
    @click.option("--module", metavar="NAME", default="", help="One module of the configuration or the database.")
    @click.option("--library", metavar="FILE", default="", help="Without configuration: a PKCS#11 library.")
    @click.option("--nss", metavar="DIR", default="", help="Without configuration: an NSS database.")
    @click.option("-d", "--database", "location", metavar="nss:DIR", default="", help="The same as --nss DIR, as other commands have it.")
    @functools.wraps(command)
    def with_choice(*args: Any, configuration: str, module: str, library: str, nss: str, location: str, **kwargs: Any) -> Any:
        if location:
            if nss or not location.startswith("nss:"):
                raise UsageError("tokens are in modules, not in databases", hint="-d nss:DIR, --nss DIR, --library FILE or -c CONFIG")
            nss = location.removeprefix("nss:").removeprefix("sql:")
        return command(*args, choice=TokenChoice(configuration, module, library, nss), **kwargs)

    return with_choice  # type: ignore[return-value]  # click's decorators keep the callable, mypy sees the wrapper's type
