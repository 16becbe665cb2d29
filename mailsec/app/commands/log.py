"""`mailsec log find`: what the log says about a person, whether addresses stand in it as they are or as pseudonyms."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import IO

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option, plural

__all__ = ["find"]


@json_option
@click.command()
@click.argument("address")
@click.argument("files", nargs=-1, metavar="[FILE]...")
@database_options
@click.pass_obj
def find(output: Output, address: str, files: tuple[str, ...], database: DatabaseChoice) -> int:
    """Find the lines about ADDRESS, or about a login: in [log] file and what logrotate made of it, or in FILEs (- is standard input; .gz is
    read, too)."""
    from mailsec.app.config import load_configuration
    from mailsec.app.databases import open_database
    from mailsec.app.pseudonyms import Pseudonyms, log_key
    from mailsec.errors import UsageError

    wanted, spelt = _person(address)
    if not files and not database.database:
        log = load_configuration(database.configuration_path()).log.file
        if not log:
            raise UsageError("this mailsec has no log file of its own", hint="journalctl -u mailsec -o cat | mailsec log find ADDRESS -")
        files = tuple(_with_rotated(log))
    elif not files:
        raise UsageError("find it where?", hint="name files, or - for standard input")
    with open_database(output, database) as opened:
        key = log_key(opened.data_key)
    pseudonyms = [Pseudonyms(key, strict=strict).of(wanted) for strict in (False, True)]
    about = _about(*spelt, *pseudonyms)
    found: list[str] = []
    for name in files:
        with _opened(name) as file:
            found += [line.rstrip("\n") for line in file if about.search(line)]

    def draw() -> None:
        for line in found:
            output.text(line)

    output.result({"address": wanted, "pseudonym": pseudonyms[1], "files": list(files), "lines": found}, draw)
    output.progress(f"{plural(len(found), 'line')} about {wanted} ({pseudonyms[1]}) in {plural(len(files), 'file')}")
    return 0 if found else 1


def _person(name: str) -> tuple[str, Sequence[str]]:
    """Somebody by an address, or by a login that is none; and how the two may be spelt in a log."""
    from mailsec.errors import AddressError, UsageError
    from mailsec.model.address import Address

    try:
        address = Address.parse(name)
    except AddressError as error:
        # Logins are pseudonyms, too, and a login that was refused stands beside no address.
        if name and not re.search(r"[@\s]", name):
            return name, (name,)
        raise UsageError(error.message, hint=f"{error.hint}, or a login") from error
    return str(address), (str(address), address.key)


def _about(*names: str) -> re.Pattern[str]:
    """What finds one of `names` that is no part of a longer one: neither alice@example.org nor alice is in malice@example.org."""
    spelt = {variant for name in names for variant in (name, json.dumps(name)[1:-1])}
    one = "|".join(re.escape(name) if "@" in name else rf"{re.escape(name)}(?!@)" for name in sorted(spelt))
    return re.compile(rf"(?<![\w.+~-])(?:{one})(?![\w-]|\.\w)", re.IGNORECASE)


def _with_rotated(path: str) -> Iterator[str]:
    """The file and those that were rotated away (log.1, log.2.gz, log-20261127), the oldest first."""
    from pathlib import Path

    place = Path(path)
    rotated = [one for one in place.parent.glob(place.name + "[.-]*") if one.is_file()]
    yield from (str(one) for one in sorted(rotated, key=lambda one: one.stat().st_mtime))
    if place.exists() or not rotated:
        yield path


def _opened(name: str) -> IO[str]:
    import gzip
    import sys
    from pathlib import Path

    from mailsec.app.files import reason_of
    from mailsec.errors import InputError

    try:
        if name == "-":
            return open(sys.stdin.fileno(), encoding="utf-8", errors="backslashreplace", closefd=False)
        if name.endswith(".gz"):
            return gzip.open(name, "rt", encoding="utf-8", errors="backslashreplace")
        return Path(name).open(encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(f"cannot read {name}: {reason_of(error)}", stage="read") from error
