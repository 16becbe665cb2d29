"""`mailsec db`: the certificate database itself: made, checked, its password changed, brought to a newer schema."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from mailsec.app.commands.cert import anchor_options
from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option, plural
from mailsec.errors import Refused, UsageError

__all__ = ["check", "init", "password", "upgrade"]

_NO_PASSWORD = "the database has no password: whoever can read its file has the private keys"  # noqa: S105 - a sentence


@json_option
@click.command()
@click.option("--no-password", is_flag=True, help="Protect the keys by the rights of the file only.")
@click.option(
    "--anchors",
    metavar="mozilla|none|FILE",
    default="",
    help="Whom to trust for e-mail: Mozilla's roots (of NSS, libnss3), nobody, or those in FILE (certdata.txt, or certificates with --for).",
)
@anchor_options
@database_options
@click.pass_obj
def init(output: Output, database: DatabaseChoice, no_password: bool, anchors: str, domains: tuple[str, ...]) -> None:
    """Make an empty certificate database.

    Nobody is trusted until somebody says so: --anchors, or the question on a terminal.

    Its password encrypts the private keys and shows what others wrote into the file. It is read from --passphrase-file, or asked for.
    """
    from mailsec.app.databases import domains_from
    from mailsec.app.nss_databases import is_nss, make_nss
    from mailsec.app.roots import NONE, add_anchors, ask_for_anchors, read_anchors, said
    from mailsec.store.certdb import CertDb

    location = database.location()
    if domains and anchors in ("", NONE):
        raise UsageError("--for belongs to --anchors FILE", hint="leave it out")
    if no_password and database.passphrase_file:
        raise UsageError("--no-password and --passphrase-file exclude each other", hint="leave one out")
    secret = b"" if no_password else database.passphrase(prompt="New pass phrase of the database", confirm=True).encode()
    if not secret and not no_password:
        raise UsageError("the pass phrase is empty", hint="give one, or say --no-password")
    if not secret:
        _demand_that_none_is_fine(database)
    if is_nss(location):
        if anchors not in ("", NONE):
            hint = "`mailsec cert import FILE --trust ,C, --for any -d nss:DIR` trusts one"
            raise UsageError("--anchors is for mailsec databases", hint=hint)
        make_nss(location, secret)
        if not secret:
            output.warning(_NO_PASSWORD, "`mailsec db password` sets one later")
        output.result({"database": location, "password": bool(secret), "anchors": 0}, f"{location} is ready, for NSS's tools, too")
        return
    # Before anything is made: what cannot be read leaves nothing behind.
    found = read_anchors(anchors or ask_for_anchors(output), domains_from(domains))
    with CertDb.create(location, secret, at=datetime.now(UTC)) as made:
        if not secret:
            output.warning(_NO_PASSWORD, "`mailsec db password` sets one later")
        trusted = add_anchors(made, found, at=datetime.now(UTC))
        whom = said(trusted) if trusted["anchors"] else "nobody is trusted for e-mail yet"
        output.result(
            {"database": made.name, "password": bool(secret), "anchors": trusted["anchors"]},
            f'{made.name} is ready; {whom}.\nNext: mailsec cert issue -d {made.name} --new-ca "My CA" --for example.org',
        )


@json_option
@click.command()
@click.option("--accept", is_flag=True, help="Remove what mailsec did not write, and believe the rest. Look first.")
@database_options
@click.pass_obj
def check(output: Output, database: DatabaseChoice, accept: bool) -> int:
    """Check the file, and that every row was written by mailsec and none is missing; of an NSS database, that NSS wrote its trust."""
    from mailsec.app.databases import open_any
    from mailsec.app.nss_databases import is_nss, nss_directory
    from mailsec.store.certdb import CertDb
    from mailsec.store.nss_files import demand_sound

    if is_nss(database.location()):
        demand_sound(nss_directory(database.location()), thoroughly=True)
    with open_any(output, database) as opened:
        ours = isinstance(opened, CertDb)
        if accept and not isinstance(opened, CertDb):
            raise UsageError("--accept is for mailsec databases", hint="`mailsec cert trust` writes the trust of a certificate anew")
        problems = opened.check()
        removed = opened.accept() if accept and problems and isinstance(opened, CertDb) else 0
        name = opened.name

    def say() -> None:
        for problem in problems:
            output.text(f"  {problem}")
        if not ours:
            if not problems:
                output.text(f"{name} is well: NSS itself wrote all that it trusts")
        elif not problems:
            output.text(f"{name} is whole: every row was written by mailsec, and none is missing")
        elif accept:
            output.text(f"removed {plural(removed, 'row')}; the rest is believed from now on")
        else:
            output.text("Restore a backup, or look at `mailsec cert list` and `mailsec user list` and then use --accept.")

    output.result({"database": name, "valid": not problems, "problems": list(problems), "removed": removed}, say)
    return 0 if not problems or accept else 1


@json_option
@click.command()
@click.option("--new-passphrase-file", "file", metavar="FILE", default="", help="The new pass phrase; - is standard input.")
@click.option("--no-password", is_flag=True, help="Protect the keys by the rights of the file only.")
@database_options
@click.pass_obj
def password(output: Output, database: DatabaseChoice, file: str, no_password: bool) -> None:
    """Change the password of the database."""
    from mailsec.app.databases import open_any
    from mailsec.app.options import ask_passphrase, passphrase_from_file

    if no_password and file:
        raise UsageError("--no-password and --new-passphrase-file exclude each other", hint="leave one out")
    if file == "-" == database.passphrase_file:
        raise UsageError("the old and the new pass phrase cannot both be on standard input", hint="put one into a file")
    with open_any(output, database) as opened:
        if no_password:
            new = ""
            _demand_that_none_is_fine(database)
            output.warning(_NO_PASSWORD)
        else:
            new = passphrase_from_file(file) if file else ask_passphrase("New pass phrase of the database", confirm=True)
            if not new:
                raise UsageError("the new pass phrase is empty", hint="give one, or say --no-password")
        opened.change_password(new.encode())
        output.result(
            {"database": opened.name, "password": bool(new)},
            f"The password of {opened.name} was changed. Change it where mailsec reads it too, and remember that old backups open with "
            "the old one.",
        )


@json_option
@click.command()
@database_options
@click.pass_obj
def upgrade(output: Output, database: DatabaseChoice) -> None:
    """Bring the database to the schema of this mailsec. Make a backup first."""
    from mailsec.app.nss_databases import is_nss, nss_directory
    from mailsec.store.certdb import CertDb
    from mailsec.store.schema import SCHEMA

    if is_nss(database.location()):
        # What is in NSS's old format is refused there, with the command that NSS has for it.
        nss_directory(database.location())
        said = f"{database.location()} is of NSS's format of today (cert9.db, key4.db): there is nothing to do"
        output.result({"database": database.location(), "schema": None}, said)
        return
    name = CertDb.upgrade(database.location())
    output.result({"database": name, "schema": SCHEMA}, f"{name} has schema {SCHEMA:04d}")


def _demand_that_none_is_fine(database: DatabaseChoice) -> None:
    """Raise Refused where the configuration asks for a profile in which keys are never without a pass phrase."""
    if database.database:
        return
    from mailsec.app.config import load_configuration
    from mailsec.app.config.fips import PROFILE, places_that_want_fips
    from mailsec.app.config.problems import spelt

    if places := places_that_want_fips(load_configuration(database.configuration_path())):
        raise Refused(f"{spelt(places[0])} is {PROFILE}: the database needs a pass phrase", hint="give one, or change the profile")
