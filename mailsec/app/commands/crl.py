"""`mailsec crl list|import|fetch|delete`: revocation lists of the database, which all workers share."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option, plural
from mailsec.errors import InputError, UsageError

if TYPE_CHECKING:
    from mailsec.store.certdb import CertDb
    from mailsec.store.evidence import EvidenceStore, KeptList
    from mailsec.store.nss_lists import NssLists
    from mailsec.store.nssdb import NssDb

__all__ = ["delete", "fetch", "import_lists", "list_lists", "print_lists"]


@json_option
@click.command()
@database_options
@click.pass_obj
def list_lists(output: Output, database: DatabaseChoice) -> None:
    """List the revocation lists of the database. They are judged whenever they are used."""
    from mailsec.app.databases import open_any

    with open_any(output, database, look=True) as opened:
        found = _lists(opened).lists()
    print_lists(output, found, "there are no revocation lists; `mailsec crl import FILE` adds one")


@json_option
@click.command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option("--url", default="", help="Where the list came from: the gateway fetches the next one there.")
@database_options
@click.pass_obj
def import_lists(output: Output, files: tuple[str, ...], url: str, database: DatabaseChoice) -> None:
    """Add the revocation lists in files (PEM or DER). Workers use them within a minute."""
    from mailsec.app.databases import open_any
    from mailsec.app.path_inputs import read_ders

    given = [(path, der) for path in files for der in read_ders(path, "X509 CRL")]
    if url and not (url.startswith(("http://", "https://")) and url.isprintable() and " " not in url):
        raise UsageError(f"not the address of a list: {url[:200]!r}", hint="as in --url http://ca.example/ca.crl")
    if url and len(given) > 1:
        raise UsageError(f"--url is for one list, and there are {len(given)}", hint="import them one by one")
    now = datetime.now(UTC)
    with open_any(output, database) as opened:
        kept = []
        for path, der in given:
            try:
                kept.append(_lists(opened).keep_list(der, url=url, at=now, notice=True))
            except InputError as error:
                raise InputError(f"{path}: {error.message}", hint=error.hint, stage=error.stage) from None
    _warn(output, kept, now)
    print_lists(output, kept)


@json_option
@click.command()
@click.argument("places", metavar="URL|CERT...", nargs=-1, required=True)
@click.option("-o", "--output", "file", metavar="FILE", default="", help="Write the list to FILE instead of the database.")
@database_options
@click.pass_obj
def fetch(output: Output, places: tuple[str, ...], file: str, database: DatabaseChoice) -> None:
    """Fetch revocation lists: from URLs, or from where the certificates in files (or with nicknames) say that theirs are.

    They are kept in the database, and fetched again before they end.
    """
    from mailsec.app.revocation_inputs import certificate_of, revocation_of
    from mailsec.builtin.asking import over_http
    from mailsec.builtin.crl import read_lists
    from mailsec.interfaces import Runtime
    from mailsec.pki.revocation import crl_urls

    urls: list[str] = []
    typed = True
    for place in places:
        scheme, colon, rest = place.partition("://")
        if colon and scheme.lower() in ("http", "https"):
            urls.append(f"{scheme.lower()}://{rest}")
            continue
        if colon and scheme.replace("+", "").isalnum():
            hint = "give an http:// or https:// address, or fetch it with other tools and `mailsec crl import` it"
            raise UsageError(f'"{place[:200]}": lists are fetched over HTTP and HTTPS, not over {scheme[:20]}', hint=hint)
        typed = False
        named = crl_urls(certificate_of(output, place, database))
        if not named:
            raise InputError(f"{place} does not say where its revocation list is", hint="name a URL", stage="revocation")
        reachable = over_http(named)
        if not reachable:
            hint = "fetch it with other tools, and `mailsec crl import` it"
            raise InputError(f"the revocation list of {place} is at {named[0][:200]!r}, which is not HTTP", hint=hint, stage="revocation")
        urls += reachable
    if file and len(urls) > 1:
        raise UsageError(f"-o writes one list, and there are {len(urls)} addresses", hint="name one URL")

    async def ask(runtime: Runtime) -> list[tuple[str, bytes]]:
        answers = [(url, await runtime.fetch(url)) for url in urls]
        return [(url, crl.der) for url, data in answers for crl in read_lists(data)]

    from mailsec.app.online import run_online

    fetched = run_online(ask, revocation_of(database), typed=typed)
    if not fetched:
        raise InputError("what is there is no revocation list", stage="revocation")
    if file:
        from mailsec.app.files import write_file

        write_file(file, fetched[0][1])
        output.result({"lists": [], "file": file}, f"written to {file}")
        return
    from mailsec.app.databases import open_any

    now = datetime.now(UTC)
    with open_any(output, database) as opened:
        kept = [_lists(opened).keep_list(der, url=url, at=now, notice=True) for url, der in fetched]
    _warn(output, kept, now)
    print_lists(output, kept)


@json_option
@click.command()
@click.argument("numbers", metavar="NUMBER...", nargs=-1, required=True, type=int)
@database_options
@click.pass_obj
def delete(output: Output, numbers: tuple[int, ...], database: DatabaseChoice) -> int:
    """Delete revocation lists, by their numbers in `mailsec crl list`."""
    from mailsec.app.databases import open_any

    with open_any(output, database) as opened:
        gone = [number for number in numbers if _lists(opened).delete_list(number)]
    missing = [number for number in numbers if number not in gone]
    for number in missing:
        output.warning(f"there is no revocation list {number}", "`mailsec crl list` shows the numbers")
    output.result({"deleted": gone}, f"{plural(len(gone), 'list')} deleted")
    return 1 if missing else 0


def _lists(opened: CertDb | NssDb) -> EvidenceStore | NssLists:
    """Where the lists of this database are."""
    from mailsec.store.certdb import CertDb
    from mailsec.store.evidence import EvidenceStore
    from mailsec.store.nss_lists import NssLists

    return EvidenceStore(opened) if isinstance(opened, CertDb) else NssLists(opened)


def _warn(output: Output, kept: Sequence[KeptList], now: datetime) -> None:
    for one in kept:
        if one.next_update is None or one.next_update < now:
            output.warning(f"the list of {one.issuer} is not current: it says nothing about today", "ask the authority for a newer one")


def _value(one: KeptList) -> dict[str, Any]:
    return {
        "number": one.id,
        "issuer": one.issuer,
        "crl_number": one.number or None,
        "this_update": one.this_update,
        "next_update": one.next_update,
        "url": one.url or None,
        "fetched_at": one.fetched_at,
        "size": one.size,
    }


def print_lists(output: Output, lists: Sequence[KeptList], empty: str = "", *, files: Sequence[str] = (), said: str = "") -> None:
    """The answer of every command about lists; `files` are those that were written, `said` a sentence instead of the table."""

    def day(instant: datetime | None) -> str:
        return "" if instant is None else f"{instant:%Y-%m-%d %H:%M} UTC"

    rows = [[one.id, one.issuer, one.number, day(one.this_update), day(one.next_update), one.url, one.size] for one in lists]
    written = {"files": list(files)} if files else {}
    output.result(
        {"lists": [_value(one) for one in lists], **written},
        said or (lambda: output.table(["", "issuer", "CRL number", "of", "until", "from", "octets"], rows, empty=empty)),
    )
