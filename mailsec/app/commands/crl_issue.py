"""`mailsec crl issue`: the revocation list of our own authority."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option, plural
from mailsec.errors import UsageError

__all__ = ["issue"]


@json_option
@click.command()
@click.option("--ca", metavar="NICKNAME", default="", help="The CA  [default: the only one here with a key]")
@click.option("--days", type=click.IntRange(1, 365), default=7, show_default=True, help="When the next list comes.")
@click.option("--der", is_flag=True, help="Write DER instead of PEM: what a web server hands out.")
@click.option("-o", "--output", "file", metavar="FILE", default="", help="Write it to FILE, too.")
@click.option("--previous", metavar="FILE", default="", help="With nss:DIR: a list that was published; what stands on it stays revoked.")
@database_options
@click.pass_obj
def issue(output: Output, ca: str, days: int, der: bool, file: str, previous: str, database: DatabaseChoice) -> None:
    """Make a new revocation list; it is kept in the database, where the gateway uses it.

    A CA that was renewed with a new key has a list for each key: the older ones are written beside FILE. A CA in an NSS database
    (-d nss:DIR) has no register but its list there: the new one goes on with it.
    """
    from mailsec.app.authorities import authorities_called, key_of
    from mailsec.app.commands.crl import print_lists
    from mailsec.app.databases import open_database
    from mailsec.app.files import write_file
    from mailsec.app.nss_databases import is_nss
    from mailsec.keys.files import pem
    from mailsec.store.evidence import EvidenceStore
    from mailsec.store.facts import facts_of
    from mailsec.store.issued import IssuedStore
    from mailsec.x509.issue import IssuedBy
    from mailsec.x509.issue_crl import issue_crl

    at = datetime.now(UTC)
    if is_nss(database.location()):
        _in_nss(output, ca, days, der, file, previous, database, at)
        return
    if previous:
        raise UsageError("--previous is for a CA in an NSS database", hint="a mailsec database has a register of its own")
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


def _in_nss(output: Output, ca: str, days: int, der: bool, file: str, previous: str, database: DatabaseChoice, at: datetime) -> None:
    from mailsec.app.authorities import authorities_called
    from mailsec.app.commands.crl import print_lists
    from mailsec.app.databases import open_any
    from mailsec.app.files import write_file
    from mailsec.app.nss_authorities import reissue
    from mailsec.app.path_inputs import read_ders
    from mailsec.keys.files import pem
    from mailsec.store.nssdb import NssDb

    published = read_ders(previous, "X509 CRL") if previous else [None]
    if len(published) != 1:
        raise UsageError(f"{previous} holds {len(published)} lists", hint="name the file of the last one")
    with open_any(output, database) as opened:
        assert isinstance(opened, NssDb)
        made = reissue(opened, authorities_called(opened, ca)[0], at=at, days=days, published=published[0])
    assert made is not None
    if file:
        write_file(file, made.der if der else pem(made.der, "X509 CRL"))
    said = f"{plural(made.revoked, 'certificate')} revoked; written to {file}" if file else ""
    print_lists(output, [made.kept], files=[file] if file else [], said=said)


def _name(der: bytes) -> str:
    from mailsec.x509.certificate import load_certificate

    return load_certificate(der).subject.text


def _beside(file: str, key_id: bytes) -> str:
    path = Path(file)
    return str(path.with_name(f"{path.stem}-{key_id.hex()[:8]}{path.suffix}"))
