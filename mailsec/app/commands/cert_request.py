"""`mailsec cert request`: a request (PKCS#10) for an authority outside, with a key that stays here."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from mailsec.app.commands.cert_issue import kind_option
from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.errors import KeyUnavailable, UsageError
from mailsec.model.address import Address
from mailsec.x509.issue import MAIL_USAGES, make_key, public_key_of

__all__ = ["request"]


@json_option
@click.command()
@click.option("--address", "addresses", metavar="ADDRESS", multiple=True, required=True, help="For mail of this address; may be repeated.")
@click.option("--name", default="", help="The person's name, for the subject [the first address].")
@kind_option
@click.option("--with", "existing", metavar="KEY", default="", help="With a key that is here (its nickname, or an id of `key list`).")
@click.option("--usage", type=click.Choice(MAIL_USAGES), default="both", help="What the certificate is to be for [all that the key can].")
@click.option("--der", is_flag=True, help="Write DER instead of PEM.")
@click.option("-o", "--output", "file", metavar="FILE", default="", help="Where to write it [standard output].")
@database_options
@click.pass_obj
def request(
    output: Output,
    addresses: tuple[str, ...],
    name: str,
    kind: str | None,
    existing: str,
    usage: str,
    der: bool,
    file: str,
    database: DatabaseChoice,
) -> None:
    """Make a request for a certificate, and keep its new key here.

    Send the request to the authority, and import what comes back: `mailsec cert import FILE`. The key is found by itself.
    """
    from mailsec.app.databases import open_any
    from mailsec.app.files import write_file
    from mailsec.interfaces import run_now
    from mailsec.keys.files import pem
    from mailsec.keys.request import make_request
    from mailsec.keys.software import SoftwareKey

    if existing and kind:
        raise UsageError("--with and --key exclude each other", hint="a key that is here has its kind")
    mailboxes = [Address.parse(address) for address in addresses]
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
        handle, public = SoftwareKey(existing or "new", key), public_key_of(key)
        made = run_now(make_request(handle, public, addresses=mailboxes, common_name=name, usage=usage))
        # Only after the request could be made: what failed leaves no key behind.
        key_id = opened.add_key(key, at=datetime.now(UTC))
    text = pem(made, "CERTIFICATE REQUEST")
    if file:
        write_file(file, made if der else text)
    elif der and not output.json:
        write_file("-", made)
    if file:
        said = f"the request is in {file}; its key waits here as {key_id.hex()[:16]}"
    else:
        said = "" if der else text.decode().rstrip()
    output.result(
        {"addresses": [str(address) for address in mailboxes], "key_id": key_id.hex(), "file": file or None, "pem": text.decode()},
        said or (lambda: None),
    )
