"""`mailsec cert request`: a request (PKCS#10) for an authority outside, with a key that stays here, or on its token."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import click

from mailsec.app.commands.cert_issue import kind_option
from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.errors import KeyUnavailable, UsageError
from mailsec.model.address import Address
from mailsec.x509.issue import MAIL_USAGES, make_key, public_key_of

if TYPE_CHECKING:
    from mailsec.interfaces import KeyHandle

__all__ = ["request"]


@json_option
@click.command()
@click.option("--address", "addresses", metavar="ADDRESS", multiple=True, required=True, help="For mail of this address; may be repeated.")
@click.option("--name", default="", help="The person's name, for the subject  [default: the first address]")
@kind_option
@click.option(
    "--with", "existing", metavar="KEY", default="", help="With a key that is there: its nickname, its id, TOKEN:NAME or a PKCS#11 URI."
)
@click.option(
    "--library", metavar="FILE", default="", help="For a key on a token: its PKCS#11 library  [default: the modules of the configuration]"
)
@click.option("--pin-file", metavar="FILE", default="", help="The PIN of the token; - is standard input.")
@click.option(
    "--usage", type=click.Choice(MAIL_USAGES), default="both", help="What the certificate is to be for  [default: all that the key can]"
)
@click.option("--der", is_flag=True, help="Write DER instead of PEM.")
@click.option("-o", "--output", "file", metavar="FILE", default="", help="Where to write it  [default: standard output]")
@database_options
@click.pass_obj
def request(
    output: Output,
    addresses: tuple[str, ...],
    name: str,
    kind: str | None,
    existing: str,
    library: str,
    pin_file: str,
    usage: str,
    der: bool,
    file: str,
    database: DatabaseChoice,
) -> None:
    """Make a request for a certificate, and keep its new key here.

    \b
    mailsec cert request --address alice@example.org
    mailsec cert request --address alice@example.org --with "HSM 1:mail-2026"

    Send the request to the authority, and import what comes back: `mailsec cert import FILE`. The key is found by itself. The certificate
    of a key on a token is put on that token, with the id of its key. A key that signs nothing (ML-KEM, X25519) can make no request: a
    CA of this database gives it a certificate by `mailsec cert issue --with KEY`.
    """
    from mailsec.app.files import write_file
    from mailsec.app.token_requests import is_on_token
    from mailsec.keys.files import pem

    if existing and kind:
        raise UsageError("--with and --key exclude each other", hint="a key that is there has its kind")
    on_token = is_on_token(existing)
    if (library or pin_file) and not on_token:
        raise UsageError("--library and --pin-file are for a key on a token", hint='name it: --with "TOKEN:NAME"')
    wanted = _Wanted([Address.parse(address) for address in addresses], name, usage)
    if on_token:
        made, key_id, token = _with_token(output, database, existing, wanted, library, pin_file)
    else:
        (made, key_id), token = _with_stored(output, database, existing, kind, wanted), ""
    text = pem(made, "CERTIFICATE REQUEST")
    if file:
        write_file(file, made if der else text)
    elif der and not output.json:
        write_file("-", made)
    if file:
        said = f"the request is in {file}; its key " + (f"stays on token {token}" if token else f"waits here as {key_id.hex()[:16]}")
    else:
        said = "" if der else text.decode().rstrip()
    output.result(
        {
            "addresses": [str(address) for address in wanted.mailboxes],
            "key_id": key_id.hex(),
            "token": token or None,
            "file": file or None,
            "pem": text.decode(),
        },
        said or (lambda: None),
    )


class _Wanted(NamedTuple):
    """What the request is to say."""

    mailboxes: list[Address]
    name: str
    usage: str


def _made(handle: KeyHandle, public: bytes, wanted: _Wanted) -> bytes:
    from mailsec.interfaces import run_now
    from mailsec.keys.request import make_request

    return run_now(make_request(handle, public, addresses=wanted.mailboxes, common_name=wanted.name, usage=wanted.usage))


def _with_token(
    output: Output, database: DatabaseChoice, name: str, wanted: _Wanted, library: str, pin_file: str
) -> tuple[bytes, bytes, str]:
    """The request, SHA-256 of the public key, and the label of the token. Nothing is kept: the key is where it is."""
    from mailsec.app.token_requests import key_on_token

    with key_on_token(output, database, name, library=library, pin_file=pin_file) as handle:
        public = handle.key.public_key
        return _made(handle, public, wanted), hashlib.sha256(public).digest(), handle.key.token


def _with_stored(output: Output, database: DatabaseChoice, existing: str, kind: str | None, wanted: _Wanted) -> tuple[bytes, bytes]:
    """The request, and the id of its key in the database."""
    from mailsec.app.databases import open_any
    from mailsec.keys.software import SoftwareKey

    with open_any(output, database) as opened:
        if existing:
            key_id = opened.find_key(existing).key_id
            key = opened.key_octets(key_id, existing)
            if key is None:
                raise KeyUnavailable(
                    f"there is no private key {existing[:80]!r} here", hint="`mailsec key list` shows those that there are"
                )
        else:
            output.progress("making a key")
            key = make_key(kind or "rsa-3072")
        made = _made(SoftwareKey(existing or "new", key), public_key_of(key), wanted)
        # Only after the request could be made: what failed leaves no key behind.
        return made, opened.add_key(key, at=datetime.now(UTC))
