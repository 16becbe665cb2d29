"""`mailsec module`: PKCS#11 modules, as modutil manages them: those of the configuration, of the database, and those that the system knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.errors import ConfigurationError, UsageError

__all__ = ["add", "default", "disable", "enable", "list_modules", "remove"]

_KINDS = ("rsa", "ec", "eddsa", "ml-dsa", "ml-kem")


@json_option
@click.command()
@database_options
@click.pass_obj
def list_modules(output: Output, database: DatabaseChoice) -> None:
    """List the modules in use, and those that the system (p11-kit) knows; with -d nss:DIR, those that NSS's programs load there."""
    from mailsec.app.databases import open_database, warn_of_missing
    from mailsec.app.nss_databases import is_nss
    from mailsec.store.modules import Modules
    from mailsec.tokens.p11kit import known_modules

    if is_nss(database.database):
        _print(output, _of_nss(database.database))
        return
    rows: list[dict[str, Any]] = [
        {
            "name": module.name,
            "library": module.library or ", ".join(module.nss) or module.host,
            "from": "configuration",
            "state": "in use" if module.enabled else "disabled",
            "defaults": [],
        }
        for module in _configured(database)
    ]
    names = {row["name"] for row in rows}
    with open_database(output, database, look=True) as opened:
        warn_of_missing(output, opened, "modules")
        for entry in Modules(opened).all():
            state = "not verified" if not entry.verified and opened.unlocked else "in use" if entry.enabled else "disabled"
            if entry.name in names:
                state = "hidden by the configuration"
            rows.append(
                {"name": entry.name, "library": entry.library, "from": "database", "state": state, "defaults": list(entry.defaults)}
            )
    used = {str(Path(row["library"]).resolve()) for row in rows}
    for known in known_modules():
        if str(Path(known.library).resolve()) not in used:
            state = "authorities only" if known.trust else "not added"
            rows.append({"name": known.name, "library": known.library, "from": "p11-kit", "state": state, "defaults": []})
    _print(output, rows)


def _of_nss(location: str) -> list[dict[str, Any]]:
    """Rows of an NSS directory's own list."""
    from mailsec.app.nss_databases import nss_directory
    from mailsec.tokens.nss_modules import nss_modules

    return [
        {"name": module.name, "library": module.library, "from": "pkcs11.txt", "state": "in use by NSS's programs", "defaults": []}
        for module in nss_modules(nss_directory(location))
    ]


def _demand_ours(database: DatabaseChoice) -> None:
    """Raise UsageError for an NSS directory: NSS's list is for NSS's programs."""
    if database.database.startswith("nss:"):
        directory = database.database.removeprefix("nss:")
        raise UsageError(
            "the modules of an NSS directory are those of NSS's programs, and changed with NSS's tool",
            hint=f"modutil -dbdir sql:{directory} -add NAME -libfile LIBRARY; for mailsec, name a mailsec database",
        )


def _print(output: Output, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        row["there"] = not row["library"].startswith("/") or Path(row["library"]).exists()
    output.result(
        {"modules": rows},
        lambda: output.table(
            ["module", "from", "state", "default for", "library"],
            [
                [
                    row["name"],
                    row["from"],
                    row["state"] if row["there"] or row["state"] == "not verified" else "library is missing",
                    " ".join(row["defaults"]),
                    row["library"],
                ]
                for row in rows
            ],
            empty="There is no module: mailsec module add NAME LIBRARY",
        ),
    )


@json_option
@click.command()
@click.argument("name")
@click.argument("library", default="")
@click.option("--parameters", metavar="STRING", default="", help="What the library is initialised with, where it wants a string.")
@click.option("--no-check", is_flag=True, help="Do not load the library to see whether it works.")
@database_options
@click.pass_obj
def add(output: Output, name: str, library: str, parameters: str, no_check: bool, database: DatabaseChoice) -> None:
    """Add the module NAME with the PKCS#11 library LIBRARY; one that the system knows needs its name only."""
    from mailsec.app.config.tokens import is_name
    from mailsec.app.databases import open_database
    from mailsec.store.modules import Modules
    from mailsec.tokens.p11kit import known_modules

    if not is_name(name):
        raise UsageError(f"{name!r} is no name of a module", hint="letters, digits, blanks, dots and hyphens")
    if not library:
        known = next((one for one in known_modules() if one.name == name), None)
        if known is None:
            raise UsageError(f"the system knows no module {name!r}", hint="name its library: mailsec module add NAME LIBRARY")
        library, parameters = known.library, parameters or known.parameters
    library = str(Path(library).absolute())
    _not_configured(database, name)
    shown = "" if no_check else _look(name, library, parameters)
    _demand_ours(database)
    with open_database(output, database) as opened:
        Modules(opened).add(name, library, parameters)
    hint = "a running mailsec takes it when it is started again"
    output.result(
        {"name": name, "library": library, "parameters": parameters, "description": shown}, f"{name}: {shown or library} was added; {hint}"
    )


def _look(name: str, library: str, parameters: str) -> str:
    """What the library says of itself, and its tokens; asked in a process of its own."""
    import tempfile

    from mailsec.app.library_child import in_child
    from mailsec.tokens.module import Module
    from mailsec.tokens.state import StateDirectory

    def look() -> str:
        with Module(name, library, state=StateDirectory(state), parameters=parameters or None) as module:
            tokens = [token.label for token in module.tokens() if token.initialised]
            return f"{module.description()}, {', '.join(tokens) if tokens else 'no token'}"

    with tempfile.TemporaryDirectory() as state:
        return str(in_child(look))


@json_option
@click.command()
@click.argument("name")
@database_options
@click.pass_obj
def remove(output: Output, name: str, database: DatabaseChoice) -> None:
    """Forget the module NAME; its tokens stay as they are."""
    from mailsec.app.databases import open_database
    from mailsec.store.modules import Modules

    _not_configured(database, name)
    _demand_ours(database)
    with open_database(output, database) as opened:
        Modules(opened).remove(name)
    output.result({"name": name}, f"{name} was removed")


@json_option
@click.command()
@click.argument("name")
@database_options
@click.pass_obj
def enable(output: Output, name: str, database: DatabaseChoice) -> None:
    """Use the module NAME again."""
    _switch(output, database, name, True)


@json_option
@click.command()
@click.argument("name")
@database_options
@click.pass_obj
def disable(output: Output, name: str, database: DatabaseChoice) -> None:
    """Leave the module NAME alone."""
    _switch(output, database, name, False)


def _switch(output: Output, database: DatabaseChoice, name: str, on: bool) -> None:
    from mailsec.app.databases import open_database
    from mailsec.store.modules import Modules

    _not_configured(database, name)
    _demand_ours(database)
    with open_database(output, database) as opened:
        Modules(opened).set_enabled(name, on)
    output.result({"name": name, "enabled": on}, f"{name} is {'in use' if on else 'disabled'} from the next start on")


@json_option
@click.command()
@click.argument("name")
@click.argument("kinds", nargs=-1)
@database_options
@click.pass_obj
def default(output: Output, name: str, kinds: tuple[str, ...], database: DatabaseChoice) -> None:
    """Make new keys of KINDS (rsa, ec, eddsa, ml-dsa, ml-kem) on the token of NAME where no other is named; without KINDS: none any more."""
    from mailsec.app.databases import open_database
    from mailsec.store.modules import Modules

    unknown = [kind for kind in kinds if kind not in _KINDS]
    if unknown:
        raise UsageError(f"there is no kind of key {unknown[0]!r}", hint="one of " + ", ".join(_KINDS))
    _demand_ours(database)
    with open_database(output, database) as opened:
        Modules(opened).set_default(name, kinds)
    output.result({"name": name, "defaults": list(kinds)}, f"{name} is the default for {', '.join(kinds) or 'nothing'}")


def _configured(database: DatabaseChoice) -> Any:
    if database.database:
        return ()
    from mailsec.app.config import load_configuration

    return load_configuration(database.configuration_path()).modules


def _not_configured(database: DatabaseChoice, name: str) -> None:
    if any(module.name == name for module in _configured(database)):
        raise ConfigurationError(
            f"module {name!r} stands in the configuration", hint="change its [[module]] there: mailsec never rewrites it"
        )
