"""`mailsec user`: people who may submit mail, and the addresses that they may send as."""

from __future__ import annotations

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.errors import UsageError

__all__ = ["add", "list_users", "password", "remove"]

_password_file = click.option("--password-file", "file", metavar="FILE", default="", help="The user's password; - is standard input.")


@json_option
@click.command()
@click.argument("login")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    help="An address to send as (name@domain, @domain, @.domain, *); may be repeated  [default: LOGIN]",
)
@_password_file
@database_options
@click.pass_obj
def add(output: Output, login: str, addresses: tuple[str, ...], file: str, database: DatabaseChoice) -> None:
    """Add a user who may submit mail."""
    from mailsec.app.databases import ask_password, open_database

    _one_standard_input(file, database)
    with open_database(output, database) as opened:
        user = opened.add_user(login, ask_password(file, f"Password of {login}", confirm=True), addresses)
    output.result({"login": user.login, "addresses": list(user.addresses)}, f"{user.login} may send as {', '.join(user.addresses)}")


@json_option
@click.command()
@database_options
@click.pass_obj
def list_users(output: Output, database: DatabaseChoice) -> None:
    """List the users."""
    from mailsec.app.databases import open_database, warn_of_missing

    with open_database(output, database, look=True) as opened:
        users = opened.users()
        warn_of_missing(output, opened, "users")
    shown = [
        {
            "login": user.login,
            "addresses": list(user.addresses),
            "disabled": user.disabled,
            "verified": user.verified,
            "created_at": user.created_at,
        }
        for user in users
    ]
    rows = [
        [
            user.login,
            " ".join(user.addresses),
            f"{user.created_at:%Y-%m-%d}" if user.created_at else "",
            _state(user.disabled, user.verified),
        ]
        for user in users
    ]
    output.result(
        {"users": shown},
        lambda: output.table(
            ["login", "sends as", "since", ""], rows, empty="There is no user yet: mailsec user add LOGIN --address ADDRESS"
        ),
    )


@json_option
@click.command()
@click.argument("login")
@database_options
@click.pass_obj
def remove(output: Output, login: str, database: DatabaseChoice) -> None:
    """Remove a user."""
    from mailsec.app.databases import open_database

    with open_database(output, database) as opened:
        opened.remove_user(login)
    output.result({"login": login, "removed": True}, f"{login} is removed")


@json_option
@click.command()
@click.argument("login")
@_password_file
@click.option("--disable", is_flag=True, help="Keep the user from logging in; the password stays.")
@click.option("--enable", is_flag=True, help="Let the user log in again; the password stays.")
@database_options
@click.pass_obj
def password(output: Output, login: str, file: str, disable: bool, enable: bool, database: DatabaseChoice) -> None:
    """Change a user's password, or keep the user out."""
    from mailsec.app.databases import ask_password, open_database

    if disable + enable + bool(file) > 1:
        raise UsageError("--disable, --enable and --password-file exclude each other", hint="give one of them")
    _one_standard_input(file, database)
    with open_database(output, database) as opened:
        if disable or enable:
            opened.set_disabled(login, disable)
            done = "disabled" if disable else "enabled"
        else:
            opened.demand_user(login)  # before anybody types a password
            opened.set_password(login, ask_password(file, f"New password of {login}", confirm=True))
            done = "changed"
    output.result({"login": login, "done": done}, f"{login}: the password was changed" if done == "changed" else f"{login} is {done}")


def _one_standard_input(file: str, database: DatabaseChoice) -> None:
    if file == "-" == database.passphrase_file:
        raise UsageError("two passwords cannot both be on standard input", hint="put one into a file")


def _state(disabled: bool, verified: bool) -> str:
    return "NOT VERIFIED: cannot log in" if not verified else "disabled" if disabled else ""
