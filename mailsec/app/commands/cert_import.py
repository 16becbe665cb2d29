"""`mailsec cert import`: certificates, one or a hundred thousand, and a private key, from files into the database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import chain, islice

import click

from mailsec.app.commands.cert import anchor_options, described, trust_flags, warn_if_no_ca
from mailsec.app.nicknames import nickname_for
from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option, plural
from mailsec.app.token_put import TokenPlace, place_options, put_on_token, say_put
from mailsec.errors import MailsecError, UsageError
from mailsec.model.trust import CertificateEntry, TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.intake import Incoming, Taken, take_in
from mailsec.store.nicknames import check_nickname, make_nickname
from mailsec.store.nssdb import NssDb

__all__ = ["add_under_a_free_name", "import_certificates", "say_imported"]

_MOST_SHOWN = 20
_MOST_DESCRIBED = 1000


@json_option
@click.command()
@click.argument("files", metavar="FILE...", nargs=-1)
@click.option(
    "--anchors",
    metavar="mozilla|FILE",
    default="",
    help="Trust for e-mail whom Mozilla trusts (NSS's libnssckbi.so, or a certdata.txt), or the CAs in FILE for the domains of --for.",
)
@click.option("--nickname", default="", help="What the first is called here  [default: its first mail address, host or common name]")
@click.option("--trust", "flags", metavar="TRUST", default="", help='NSS trust flags, as in ",C," for a mail CA.')
@anchor_options
@click.option("--key", "key_file", metavar="FILE", default="", help="The private key that belongs to the first certificate (PEM or DER).")
@click.option("--key-password-file", metavar="FILE", default="", help="The password of the private key; - is standard input.")
@click.option("--assign", "assigned", metavar="PATTERN", multiple=True, help="Addresses that the key signs for, instead of its own.")
@click.option(
    "--bind", "bound", metavar="ADDRESS|@DOMAIN", multiple=True, help="Whom mail is encrypted for with it though it does not name them."
)
@place_options
@database_options
@click.pass_obj
def import_certificates(
    output: Output,
    files: tuple[str, ...],
    anchors: str,
    nickname: str,
    flags: str,
    domains: tuple[str, ...],
    key_file: str,
    key_password_file: str,
    assigned: tuple[str, ...],
    bound: tuple[str, ...],
    place: TokenPlace,
    database: DatabaseChoice,
) -> int:
    """Add the certificates in files (PEM, DER or PKCS#7); nothing is trusted unless --trust says so.

    A certificate that cannot be read, or may not be called so, stops none of the others; the exit code is 1 then.
    """
    from mailsec.app.certificate_stream import CertificateFile
    from mailsec.app.databases import domains_from, open_any
    from mailsec.app.key_files import key_from_file
    from mailsec.app.progress import progressing

    if bool(files) == bool(anchors):
        raise UsageError("name files with certificates, or --anchors", hint="as in mailsec cert import bob.pem")
    if anchors:
        if nickname or flags or key_file or key_password_file or assigned or bound or place:
            raise UsageError("--anchors stands alone, or with --for", hint="leave the other options out")
        return _import_anchors(output, anchors, domains, database)
    place.demand(database)
    if place and (flags or domains or assigned or bound):
        raise UsageError(
            "a token keeps certificates and keys: --trust, --for, --assign and --bind are for the database", hint="leave them out"
        )
    trust = trust_flags(flags) if flags else TrustFlags()
    if nickname:
        check_nickname(nickname)
    if (key_password_file or assigned) and not key_file:
        raise UsageError("--key-password-file and --assign belong to a private key", hint="give it with --key FILE")
    sources = [CertificateFile(path) for path in files]
    certificates = (der for source in sources for der in source)
    first = list(islice(certificates, 2))
    if len(first) > 1 and (flags or bound):
        option, command = ("--trust", "trust") if flags else ("--bind", "bind")
        raise UsageError(
            f"{files[0]} holds several certificates, and {option} is for one", hint=f"import them first, then use `mailsec cert {command}`"
        )
    key = key_from_file(key_file, key_password_file) if key_file else None
    if place:
        items = [(der, key if not number else None, "") for number, der in enumerate(chain(first, certificates))]
        say_put(output, *put_on_token(output, database, place, items, nickname))
        return 0

    def incoming() -> Iterator[Incoming]:
        yield Incoming(
            first[0], nickname, nickname_for(first[0]), trust, domains_from(domains), private_key=key, assigned=assigned, bound=bound
        )
        for der in chain(first[1:], certificates):
            yield Incoming(der, suggested=nickname_for(der))

    taken: list[Taken] = []
    problems: list[MailsecError] = []
    number = new = refused = 0
    with open_any(output, database) as opened:
        with progressing(output, "importing", sum(source.size for source in sources)) as show:
            for one in take_in(opened, incoming(), at=datetime.now(UTC)):
                number += 1
                new += one.new
                if one.problem is not None:
                    refused += 1
                    problems = [*problems, one.problem][:_MOST_SHOWN]
                elif len(taken) < _MOST_DESCRIBED:
                    taken.append(one)
                show(sum(source.place for source in sources), f"{number:,} certificates")
        if refused == number == 1:
            raise problems[0]
        for problem in problems:
            output.warning(f"not imported: {problem.message}", problem.hint)
        entries = opened.entries_with(list(dict.fromkeys(one.id for one in taken)))
    say_imported(
        output,
        entries,
        more=max(number - refused - len(taken), 0),
        counts={"new": new, "known": number - refused - new, "refused": refused},
    )
    return 1 if refused else 0


def _import_anchors(output: Output, where: str, domains: Sequence[str], choice: DatabaseChoice) -> int:
    from mailsec.app.databases import domains_from, open_database
    from mailsec.app.roots import add_anchors, read_anchors, said

    found = read_anchors(where, domains_from(domains))
    with open_database(output, choice) as opened:
        counts = add_anchors(opened, found, at=datetime.now(UTC))
        name = opened.name
    output.result({"database": name, **counts}, f"{name} trusts {said(counts)}")
    return 0


def add_under_a_free_name(
    database: CertDb | NssDb,
    der: bytes,
    nickname: str,
    suggested: str,
    *,
    key: bytes | None = None,
    assigned: Sequence[str] = (),
    source: str = "imported",
    issuer: bytes | None = None,
) -> CertificateEntry:
    """Add a certificate as `nickname`; where none was given, as `suggested` or what it names, with a number where that is taken."""
    name = make_nickname(suggested, nickname_for(der))
    item = Incoming(der, nickname, name, private_key=key, assigned=assigned, source=source, issuer=issuer)
    at = datetime.now(UTC)
    with database.taking(at=at) as take:
        number, _ = take(item)
    return database.entries_with([number])[0]


def say_imported(output: Output, entries: Sequence[CertificateEntry], *, more: int = 0, counts: dict[str, int] | None = None) -> None:
    """The answer of an import; `more` were imported besides these entries."""
    for entry in entries[:_MOST_SHOWN]:
        warn_if_no_ca(output, entry)

    def say() -> None:
        shown = list(dict.fromkeys(entries))
        for entry in shown[:_MOST_SHOWN]:
            what = "with its key" if entry.has_key else f"trust {entry.trust}" if str(entry.trust) != ",," else "not trusted by itself"
            output.text(f'"{entry.nickname}" is here ({what})')
        if len(shown) + more > _MOST_SHOWN:
            output.text(f"and {plural(len(shown) + more - _MOST_SHOWN, 'other')}; `mailsec cert list` shows all")

    output.result({"certificates": [described(entry) for entry in entries], **(counts or {})}, say)
