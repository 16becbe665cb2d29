"""`mailsec db backup|restore|merge`: copies of a database, and what another one knows."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from mailsec.app.commands.cert import anchor_options
from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option, plural
from mailsec.errors import Refused, UsageError

__all__ = ["backup", "merge", "restore"]


@json_option
@click.command()
@click.argument("file")
@database_options
@click.pass_obj
def backup(output: Output, file: str, database: DatabaseChoice) -> None:
    """Write a backup of the database to FILE, also while it is in use. No pass phrase is needed; it opens with that of today.

    FILE is a SQLite database, whatever the original is; of an NSS database (-d nss:DIR) it is a directory.
    """
    from mailsec.app.nss_databases import is_nss
    from mailsec.app.progress import progressing
    from mailsec.store.certdb import CertDb
    from mailsec.store.copying import copy_database

    if "://" in file:
        raise UsageError("a backup is a file", hint="name a path; to move to another database use `mailsec db restore`")
    if is_nss(database.location()):
        _backup_nss(output, database.location(), file)
        return
    with CertDb.open(database.location()) as opened, progressing(output, "copying", 0) as show:
        copy_database(opened, file, show=show)
        name = opened.name
    size = Path(file).stat().st_size
    output.result({"database": name, "file": file, "size": size}, f"{file} is a backup of {name} ({size:,} octets)")


@json_option
@click.command()
@click.argument("file")
@click.option("--replace", is_flag=True, help="Put the database that is there aside (SQLite), or empty it (PostgreSQL).")
@database_options
@click.pass_obj
def restore(output: Output, file: str, replace: bool, database: DatabaseChoice) -> None:
    """Put a backup in the place of the database; also how to move from SQLite to PostgreSQL.

    The backup is checked first, which needs its pass phrase. Stop `mailsec serve` before, or restart it afterwards; of an NSS database
    (-d nss:DIR, FILE is a directory then) every program that has it open.
    """
    from mailsec.app.databases import open_database
    from mailsec.app.nss_databases import is_nss
    from mailsec.app.progress import progressing
    from mailsec.store.copying import copy_database

    location = database.location()
    if is_nss(location):
        _restore_nss(output, database, file, replace)
        return
    with open_database(output, DatabaseChoice(database=file, passphrase_file=database.passphrase_file)) as opened:
        if problems := opened.check():
            more = f" (and {plural(len(problems) - 1, 'other problem')})" if len(problems) > 1 else ""
            raise Refused(f"the backup {file} is not whole: {problems[0]}{more}", hint=f"`mailsec db check -d {file}` shows all")
        with progressing(output, "copying", 0) as show:
            aside = copy_database(opened, location, replace_at=datetime.now(UTC) if replace else None, show=show)
    told = f"; the one that was there is {aside} now" if aside else ""
    output.result(
        {"database": location, "file": file, "replaced": str(aside) if aside else None},
        f"{location} is restored from {file}{told}.\nRestart mailsec.",
    )


def _backup_nss(output: Output, location: str, target: str) -> None:
    from mailsec.app.nss_databases import alone_in, nss_directory
    from mailsec.store.nss_copying import copy_nss
    from mailsec.store.nss_files import NSS_FILES

    with alone_in(location):
        copy_nss(nss_directory(location), Path(target))
    size = sum((Path(target) / name).stat().st_size for name in NSS_FILES)
    output.result({"database": location, "file": target, "size": size}, f"{target} is a backup of {location} ({size:,} octets)")


def _restore_nss(output: Output, database: DatabaseChoice, source: str, replace: bool) -> None:
    from mailsec.app.nss_databases import named_directory, nss_directory, open_nss
    from mailsec.store.nss_copying import copy_nss

    location = database.location()
    source = source.removeprefix("nss:").removeprefix("sql:")
    with open_nss(output, f"nss:{source}", database.passphrase_file, writing=False, asking=f"Password of {source}") as opened:
        if problems := opened.check():
            more = f" (and {plural(len(problems) - 1, 'other problem')})" if len(problems) > 1 else ""
            raise Refused(f"the backup {source} is not whole: {problems[0]}{more}", hint=f"`mailsec db check -d nss:{source}` shows all")
    aside = copy_nss(nss_directory(f"nss:{source}"), named_directory(location), replace_at=datetime.now(UTC) if replace else None)
    told = f"; what was there is {', '.join(aside)} now" if aside else ""
    output.result(
        {"database": location, "file": source, "replaced": ", ".join(aside) or None},
        f"{location} is restored from {source}{told}.\nRestart the programs that use it.",
    )


@json_option
@click.command()
@click.argument("source")
@click.option("--source-passphrase-file", "source_file", metavar="FILE", default="", help="The pass phrase of SOURCE; - is standard input.")
@anchor_options
@database_options
@click.pass_obj
def merge(output: Output, source: str, source_file: str, domains: tuple[str, ...], database: DatabaseChoice) -> int:
    """Take over what SOURCE, another database, knows and this one does not: certificates, trust, keys, users, settings, lists.

    One of the two may be an NSS database (nss:DIR). What is here already stays as it is; where the two say different things, that is told.
    The exit code is 1 where something was left out.
    """
    from mailsec.app.databases import domains_from, open_any
    from mailsec.app.library_child import go_on_in_child
    from mailsec.app.nss_databases import is_nss
    from mailsec.app.progress import progressing
    from mailsec.store.merging import merge as merge_databases

    if source_file == "-" == database.passphrase_file:
        raise UsageError("two pass phrases cannot both be on standard input", hint="put one into a file")
    if is_nss(source) and is_nss(database.location()):
        raise UsageError(
            "NSS merges its own databases", hint="certutil --merge -d sql:HERE --source-dir sql:THERE -f PASSWORD-FILE -@ PASSWORD-FILE"
        )
    if is_nss(source) or is_nss(database.location()):
        # Before the other database is opened: SQLite's locks are the process's that took them.
        go_on_in_child()
    other = open_any(output, DatabaseChoice(database=source, passphrase_file=source_file), asking=f"Pass phrase of {source}")
    with other, open_any(output, database) as opened, progressing(output, "merging", 0) as show:
        merged = merge_databases(opened, other, domains=domains_from(domains), at=datetime.now(UTC), show=show)
        name = opened.name
    left = [*(f'"{each}" is not verified there' for each in merged.unverified), *merged.problems]

    def say() -> None:
        rows = [
            ["certificates", merged.added, f"{merged.known} were here already"],
            ["private keys", merged.keys, ""],
            ["users", merged.users, ""],
            ["settings of partners", merged.partners, ""],
            ["revocation lists", merged.lists, ""],
            ["issued certificates", merged.issued, "in the registers of our own authorities"],
        ]
        output.table(["from " + source, "taken over", ""], [row for row in rows if row[1] or row[0] == "certificates"])
        for old, new in merged.renamed:
            output.text(f'"{old}" is called "{new}" here: the name was taken')
        for nickname, ours, theirs in merged.differing:
            output.text(f'"{nickname}" keeps its trust {ours}; there it is {theirs}')

    for each in left[:20]:
        output.warning(f"left out: {each}")
    if len(left) > 20:
        output.warning(f"left out: {len(left) - 20} more")
    output.result(
        {
            "database": name,
            "source": source,
            "certificates": merged.added,
            "known": merged.known,
            "keys": merged.keys,
            "users": merged.users,
            "partners": merged.partners,
            "lists": merged.lists,
            "issued": merged.issued,
            "renamed": [{"there": old, "here": new} for old, new in merged.renamed],
            "differing": [{"nickname": nickname, "here": ours, "there": theirs} for nickname, ours, theirs in merged.differing],
            "left_out": left,
        },
        say,
    )
    return 1 if left else 0
