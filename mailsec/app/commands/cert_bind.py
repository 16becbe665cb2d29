"""`mailsec cert bind`: for whom else mail is encrypted with a certificate: an address, or a whole domain (certificates of gateways)."""

from __future__ import annotations

import click

from mailsec.app.commands.cert import described
from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option

__all__ = ["bind"]


@json_option
@click.command()
@click.argument("nickname")
@click.argument("places", metavar="ADDRESS|@DOMAIN...", nargs=-1, required=True)
@click.option("--remove", is_flag=True, help="Take that back.")
@database_options
@click.pass_obj
def bind(output: Output, nickname: str, places: tuple[str, ...], remove: bool, database: DatabaseChoice) -> None:
    """Encrypt mail to these addresses, or to everybody of these domains, with a certificate that does not name them.

    \b
    mailsec cert bind partner-gateway @partner.example
    mailsec cert bind partner-gateway @partner.example --remove

    It is used where somebody has no certificate of their own that can be used, and must end at an anchor all the same. What is signed with it
    is not believed to be theirs.
    """
    from mailsec.app.databases import entries_called, open_database
    from mailsec.store.bindings import Bindings, binding_key

    keys = [binding_key(place) for place in places]
    with open_database(output, database) as opened:
        entries_called(opened, nickname)
        if remove:
            Bindings(opened).unbind(nickname, keys)
        else:
            Bindings(opened).bind(nickname, keys)
        entries = opened.find(nickname)
    what = "is no longer for" if remove else "encrypts mail to"
    words = ", ".join("everybody of " + key if key.startswith("@") else key for key in keys)
    output.result({"certificates": [described(entry) for entry in entries]}, f'"{nickname}" {what} {words}')
