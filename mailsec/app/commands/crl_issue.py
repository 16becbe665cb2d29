"""`mailsec crl issue`: the revocation list of our own authority."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option, plural

__all__ = ["issue"]


@json_option
@click.command()
@click.option("--ca", metavar="NICKNAME", default="", help="The CA [the only one here with a key].")
@click.option("--days", type=click.IntRange(1, 365), default=7, show_default=True, help="When the next list comes.")
@click.option("--der", is_flag=True, help="Write DER instead of PEM: what a web server hands out.")
@click.option("-o", "--output", "file", metavar="FILE", default="", help="Write it to FILE, too.")
@database_options
@click.pass_obj
def issue(output: Output, ca: str, days: int, der: bool, file: str, database: DatabaseChoice) -> None:
    """Make a new revocation list; it is kept in the database, where the gateway uses it.

    A CA that was renewed with a new key has a list for each key: the older ones are written beside FILE.
    """
    from mailsec.app.authorities import authorities_called, key_of
    from mailsec.app.commands.crl import print_lists
    from mailsec.app.databases import open_database
    from mailsec.app.files import write_file
    from mailsec.keys.files import pem
    from mailsec.store.evidence import EvidenceStore
    from mailsec.store.facts import facts_of
    from mailsec.store.issued import IssuedStore
    from mailsec.x509.issue import IssuedBy
    from mailsec.x509.issue_crl import issue_crl

    at = datetime.now(UTC)
    kept, files, revoked, done = [], [], 0, set[bytes]()
    with open_database(output, database) as opened:
        lists = EvidenceStore(opened)
        for number, authority in enumerate(authorities_called(opened, ca)):
            facts = facts_of(authority.der)
            if facts.key_id in done or (facts.not_after is not None and facts.not_after <= at):
                continue
            done.add(facts.key_id)
            register = IssuedStore(opened).issued(authority.der)
            revoked += sum(one.revoked_at is not None for one in register)
            # RFC 5280 §5.2.3: numbers grow. Seconds do, and the clock may have been wrong.
            before = [int(one.number, 16) for one in lists.lists() if one.number and one.issuer == _name(authority.der)]
            serial = max([int(at.timestamp()), *(each + 1 for each in before)])
            crl = issue_crl(IssuedBy(authority.der, key_of(opened, authority)), register, number=serial, at=at, days=days)
            kept.append(lists.keep_list(crl, at=at, notice=True))
            if file:
                files.append(file if not number else _beside(file, facts.key_id))
                write_file(files[-1], crl if der else pem(crl, "X509 CRL"))
    if not file:
        print_lists(output, kept, files=files)
        return
    print_lists(output, kept, files=files, said=f"{plural(revoked, 'certificate')} revoked; written to {', '.join(files)}")


def _name(der: bytes) -> str:
    from mailsec.x509.certificate import load_certificate

    return load_certificate(der).subject.text


def _beside(file: str, key_id: bytes) -> str:
    path = Path(file)
    return str(path.with_name(f"{path.stem}-{key_id.hex()[:8]}{path.suffix}"))
