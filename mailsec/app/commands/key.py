"""`mailsec key`: private keys of the database: listed, made, deleted, and whom each signs and opens for."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from mailsec.app.commands.cert_issue import kind_option
from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.app.token_database import on_token
from mailsec.app.token_put import TokenPlace, place_options
from mailsec.errors import KeyUnavailable, UsageError

if TYPE_CHECKING:
    from mailsec.store.certdb import CertDb
    from mailsec.store.private_keys import StoredKey

__all__ = ["assign", "delete", "generate", "import_key", "list_keys"]


@json_option
@click.command()
@database_options
@on_token
@click.pass_obj
def list_keys(output: Output, database: DatabaseChoice) -> None:
    """List the private keys: id, kind, the certificates they belong to, and whom they are assigned to."""
    from mailsec.app.databases import open_any

    with open_any(output, database, look=True) as opened:
        keys = opened.stored_keys()
    rows = [
        [
            key.key_id.hex()[:16],
            key.key_type,
            ", ".join(key.nicknames) or "(waits for its certificate)",
            ", ".join(f"{pattern} ({usage})" if usage else pattern for pattern, usage in key.assigned) or "whom its certificate names",
            f"{key.created_at:%Y-%m-%d}" if key.created_at else "",
            "" if key.verified else "NOT VERIFIED",
        ]
        for key in keys
    ]
    output.result(
        {"keys": [_value(key) for key in keys]},
        lambda: output.table(
            ["id", "kind", "certificates", "used for", "since", ""],
            rows,
            empty="There is no private key yet: mailsec cert issue, cert request, p12 import or key generate",
        ),
    )


@json_option
@click.command()
@kind_option
@click.option("--token", default="", help="Make it on this token  [default: where `mailsec module default` says, else in the database]")
@click.option("--label", default="", help="What it is called on the token.")
@click.option("--pin-file", metavar="FILE", default="", help="The PIN of the token; - is standard input.")
@database_options
@click.pass_obj
def generate(output: Output, kind: str | None, token: str, label: str, pin_file: str, database: DatabaseChoice) -> None:
    """Make a private key that waits for a certificate. (`cert issue` and `cert request` make their own.)"""
    from mailsec.app.databases import open_any
    from mailsec.app.token_keys_made import default_module, make_on_token

    kind = kind or "rsa-3072"
    module = "" if token else default_module(output, database, kind)
    if token or module:
        made_there = make_on_token(output, database, module=module, token=token, kind=kind, label=label, pin_file=pin_file)
        output.result({"keys": [made_there]}, f"the key {made_there['id'][:16]} ({kind}) is on token {made_there['token']}")
        return
    with open_any(output, database) as opened:
        output.progress("making a key")
        key_id = opened.generate_key(kind, at=datetime.now(UTC))
        made = opened.find_key(key_id.hex())
    output.result(
        {"keys": [_value(made)]},
        f"the key {key_id.hex()[:16]} ({kind}) is here.\nNext: mailsec cert request --with {key_id.hex()[:16]} --address you@example.org",
    )


@json_option
@click.command("import")
@click.argument("file")
@click.option("--password-file", metavar="FILE", default="", help="The password of the key; - is standard input.")
@click.option("--label", default="", help="With --token: what it is called there.")
@place_options
@database_options
@click.pass_obj
def import_key(output: Output, file: str, password_file: str, label: str, place: TokenPlace, database: DatabaseChoice) -> None:
    """Add the private key in FILE (PEM or DER), which waits for its certificate. (`cert import --key` and `p12 import` add both.)"""
    from mailsec.app.databases import open_any
    from mailsec.app.key_files import key_from_file
    from mailsec.app.token_put import put_key

    place.demand(database)
    if label and not place:
        raise UsageError("--label is for a key on a token", hint="in the database it is called as its certificate is")
    if [password_file, database.passphrase_file, place.pin_file].count("-") > 1:
        raise UsageError("two passwords cannot both be on standard input", hint="put one into a file")
    private_key = key_from_file(file, password_file, option="--password-file")
    if place:
        put = put_key(output, database, place, private_key, label)
        output.result({"keys": [put]}, f"the key {put['id'][:16]} ({put['key_type']}) is on token {put['token']}")
        return
    with open_any(output, database) as opened:
        key_id = opened.add_key(private_key, at=datetime.now(UTC))
        added = opened.find_key(key_id.hex())
    output.result({"keys": [_value(added)]}, f"the key {key_id.hex()[:16]} ({added.key_type}) is here")


@json_option
@click.command()
@click.argument("key")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_options
@on_token
@click.pass_obj
def delete(output: Output, key: str, yes: bool, database: DatabaseChoice) -> None:
    """Delete a private key, and keep its certificates. What was encrypted to it can be read by nobody then.

    KEY is the nickname of its certificate, or its id.
    """
    from mailsec.app.commands.cert import confirmed
    from mailsec.app.databases import open_any

    with open_any(output, database) as opened:
        found = opened.find_key(key)
        if not yes:
            what = ", ".join(found.nicknames) or found.key_id.hex()[:16]
            confirmed(output, f'Delete the private key of "{what}"? Nothing that was encrypted to it can be opened afterwards.')
        opened.delete_key(found.key_id)
    output.result({"keys": [_value(found)]}, f"the private key {found.key_id.hex()[:16]} is gone")


@json_option
@click.command()
@click.argument("key")
@click.argument("patterns", metavar="PATTERN...", nargs=-1)
@click.option("--usage", type=click.Choice(["sign", "decrypt"]), help="For this only  [default: both]")
@click.option("--nobody-else", "reset", is_flag=True, help="Take assignments away: for whom its certificates name.")
@database_options
@click.pass_obj
def assign(output: Output, key: str, patterns: tuple[str, ...], usage: str | None, reset: bool, database: DatabaseChoice) -> None:
    """Say for whom a private key signs and opens, instead of whom its certificates name.

    \b
    mailsec key assign company @example.org            everybody there
    mailsec key assign sales sales@example.org --usage decrypt
    mailsec key assign company --nobody-else           whom its certificates name

    KEY is the nickname of a certificate (its key may lie on a token), or an id of `mailsec key list`.
    PATTERN: name@domain, @domain, @.domain (below it), or *.
    """
    from mailsec.app.databases import open_database

    if bool(patterns) == reset:
        raise UsageError("name patterns, or --nobody-else", hint="as in mailsec key assign company @example.org")
    with open_database(output, database) as opened:
        found = _here_or_on_a_token(opened, key)
        opened.assign_key(found.key_id, patterns, usage=usage or "")
        changed = _here_or_on_a_token(opened, key)
    who = ", ".join(pattern + (f" ({of})" if of else "") for pattern, of in changed.assigned) or "whom its certificates name"
    output.result({"keys": [_value(changed)]}, f"the private key {changed.key_id.hex()[:16]} is for {who}")


def _here_or_on_a_token(opened: CertDb, name: str) -> StoredKey:
    try:
        return opened.find_key(name)
    except KeyUnavailable:
        found = opened.find_key_elsewhere(name)
        if found is None:
            raise
        return found


def _value(key: StoredKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id.hex(),
        "kind": key.key_type,
        "nicknames": list(key.nicknames),
        "assigned": [{"pattern": pattern, "usage": usage or None} for pattern, usage in key.assigned],
        "created_at": key.created_at,
        "verified": key.verified,
    }
