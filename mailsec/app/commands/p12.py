"""`mailsec p12`: PKCS#12 files (.p12, .pfx): what is in one, and its keys and certificates into the database."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from mailsec.app.commands.cert_import import add_under_a_free_name, say_imported
from mailsec.app.nicknames import nickname_for
from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option, plural
from mailsec.app.token_put import TokenPlace, place_options, put_on_token, say_put
from mailsec.errors import KeyUnavailable, MailsecError, PrivateKeyError, UsageError
from mailsec.keys.files import Pkcs12, load_pkcs12
from mailsec.model.trust import CertificateEntry
from mailsec.store.nicknames import check_nickname

__all__ = ["export_keys", "import_contents", "list_contents"]

_password_file = click.option(
    "--p12-password-file", "password_file", metavar="FILE", default="", help="The password of the file; - is standard input."
)


@json_option
@click.command()
@click.argument("file")
@_password_file
@click.pass_obj
def list_contents(output: Output, file: str, password_file: str) -> None:
    """List the keys and certificates of a PKCS#12 file."""
    from mailsec.x509.certificate import load_certificate, summary

    contents = _open(file, password_file)
    held = [(key.name, key.certificate, True) for key in contents.keys] + [(name, der, False) for name, der in contents.certificates]
    shown, rows = [], []
    for name, der, is_key in held:
        facts = summary(load_certificate(der)) if der is not None else None
        until = facts.not_after if facts else None
        shown.append(
            {
                "name": name,
                "key": is_key,
                "subject": facts.subject if facts else None,
                "addresses": list(facts.addresses) if facts else [],
                "not_after": until,
                "fingerprint": facts.fingerprint if facts else None,
            }
        )
        rows.append(
            [
                name,
                "key" if is_key else "",
                (", ".join(facts.addresses) or facts.subject) if facts else "no certificate",
                f"{until:%Y-%m-%d}" if until else "",
            ]
        )
    output.result({"contents": shown}, lambda: output.table(["name", "key", "names", "until"], rows, empty="The file is empty."))


@json_option
@click.command()
@click.argument("file")
@_password_file
@click.option("--nickname", default="", help="What the first key is called here  [default: its name in the file]")
@click.option("--assign", "assigned", metavar="PATTERN", multiple=True, help="Addresses that its keys sign for, instead of their own.")
@place_options
@database_options
@click.pass_obj
def import_contents(
    output: Output, file: str, password_file: str, nickname: str, assigned: tuple[str, ...], place: TokenPlace, database: DatabaseChoice
) -> None:
    """Add the keys and certificates of a PKCS#12 file to the database; its CA certificates are added and not trusted."""
    from mailsec.app.databases import open_any

    if nickname:
        check_nickname(nickname)
    place.demand(database)
    if place and assigned:
        raise UsageError(
            "a token keeps no assignments", hint="`mailsec key assign` says it in the database, of a certificate that is there"
        )
    if [password_file, database.passphrase_file, place.pin_file].count("-") > 1:
        raise UsageError("two passwords cannot both be on standard input", hint="put one into a file")
    contents = _open(file, password_file)
    if place:
        _put(output, contents, nickname, place, database)
        return
    entries: list[CertificateEntry] = []
    with open_any(output, database) as opened:
        for key in contents.keys:
            if key.certificate is None:
                output.warning(
                    f'key "{key.name}" has no certificate in the file and was left out', "import its certificate with `cert import`"
                )
                continue
            entries.append(
                add_under_a_free_name(
                    opened, key.certificate, nickname if not entries else "", key.name, key=key.private_key, assigned=assigned
                )
            )
        entries += [add_under_a_free_name(opened, der, "", name or nickname_for(der)) for name, der in contents.certificates]
    if not entries:
        output.warning(f"{file} holds no certificate", "")
    say_imported(output, entries)


def _put(output: Output, contents: Pkcs12, nickname: str, place: TokenPlace, database: DatabaseChoice) -> None:
    items: list[tuple[bytes, bytes | None, str]] = []
    for key in contents.keys:
        if key.certificate is None:
            output.warning(f'key "{key.name}" has no certificate in the file and was left out', "`mailsec key import` takes a key alone")
            continue
        items.append((key.certificate, key.private_key, key.name))
    items += [(der, None, name) for name, der in contents.certificates]
    say_put(output, *put_on_token(output, database, place, items, nickname))


@json_option
@click.command()
@click.argument("nicknames", metavar="NICKNAME...", nargs=-1, required=True)
@click.option("-o", "--output", "file", metavar="FILE", required=True, help="The file to write; it must not be there yet.")
@_password_file
@click.option("--legacy", is_flag=True, help="Triple DES and SHA-1, for old systems that read nothing else.")
@click.option("--no-chain", is_flag=True, help="Leave out the certificates of the issuers.")
@database_options
@click.pass_obj
def export_keys(
    output: Output,
    nicknames: tuple[str, ...],
    file: str,
    password_file: str,
    legacy: bool,
    no_chain: bool,
    database: DatabaseChoice,
) -> None:
    """Write private keys with their certificates to a PKCS#12 file: all that have these nicknames, renewed ones and old ones."""
    import os

    from mailsec.app.databases import ask_password, entries_called, open_any
    from mailsec.app.files import write_file
    from mailsec.keys.files import Pkcs12Key
    from mailsec.keys.pkcs12_writer import write_pkcs12

    if {password_file, database.passphrase_file} == {"-"}:
        raise UsageError("two passwords cannot both be on standard input", hint="put one into a file")
    if Path(file).exists() and file != "-":
        raise MailsecError(f"{file} exists already", hint="remove it, or choose another name")
    keys: dict[bytes, Pkcs12Key] = {}
    chain: dict[bytes, str] = {}
    with open_any(output, database) as opened:
        for nickname in dict.fromkeys(nicknames):
            own = [entry for entry in entries_called(opened, nickname) if entry.has_key]
            if not own:
                raise KeyUnavailable(f'the private key of "{nickname}" is not here', hint="`mailsec cert export` writes certificates")
            for entry in own:
                key = opened.private_key(entry)
                assert key is not None
                keys[entry.der] = Pkcs12Key(entry.nickname, key, entry.der)
                for der in () if no_chain else opened.chain(entry):
                    chain.setdefault(der, nickname_for(der))
    password = ask_password(password_file, "Password of the new file", confirm=True, option="--p12-password-file")
    form = "legacy" if legacy else "modern"
    others = [(name, der) for der, name in chain.items() if der not in keys]
    data = write_pkcs12(list(keys.values()), others, passphrase=password, random=os.urandom, form=form)
    write_file(file, data, private=True, replace=False)
    if legacy:
        output.warning("triple DES and SHA-1 protect the keys in this file poorly", "delete it as soon as it was read")
    output.result(
        {"file": file, "keys": len(keys), "certificates": len(keys) + len(others), "nicknames": list(dict.fromkeys(nicknames))},
        f"{file} holds {plural(len(keys), 'key')} and {plural(len(keys) + len(others), 'certificate')}; keep it as secret as the keys",
    )


def _open(file: str, password_file: str) -> Pkcs12:
    from mailsec.app.databases import ask_password
    from mailsec.app.files import read_file

    data = read_file(file)
    # Without a terminal a file without a password still opens; one with a password then says that it has one.
    ask = password_file or sys.stdin.isatty()
    password = ask_password(password_file, f"Password of {file}") if ask else b""
    try:
        return load_pkcs12(data, password or None)
    except PrivateKeyError as error:
        hint = error.hint if ask else "give its password with --p12-password-file FILE"
        raise PrivateKeyError(f"{file}: {error.message}", hint=hint) from None
