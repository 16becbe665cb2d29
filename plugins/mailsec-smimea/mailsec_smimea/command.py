"""`mailsec smimea ADDRESS FILE`: the line for one's own zone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

from mailsec.errors import CertificateError, InputError, UsageError
from mailsec.interfaces import CommandOutput
from mailsec.keys.files import load_certificates
from mailsec.model.address import Address
from mailsec.pki.identity import matches
from mailsec.x509.certificate import load_certificate
from mailsec_smimea.names import canonical_local_part, owner_name, owner_names
from mailsec_smimea.records import DANE_EE, MATCHING, SELECTORS, record_for

__all__ = ["smimea"]

_OCTETS = 1024 * 1024


@click.command()
@click.argument("address")
@click.argument("file", default="")
@click.option("--cert", "nickname", metavar="NICK", default="", help="The certificate of the database with this nickname.")
@click.option("-c", "--config", "configuration", metavar="CONFIG", default="", help="The configuration, for --cert.")
@click.option("-d", "--database", metavar="DATABASE", default="", help="Without configuration: the database, for --cert.")
@click.option("--passphrase-file", metavar="FILE", default="", help="The pass phrase of the database; - is standard input.")
@click.option("--usage", type=click.IntRange(0, 3), default=DANE_EE, show_default=True, help="Certificate usage (RFC 8162 §2).")
@click.option("--selector", type=click.Choice(list(SELECTORS)), default="cert", show_default=True, help="What of it is written.")
@click.option("--matching", type=click.Choice(list(MATCHING)), default="full", show_default=True, help="Itself, or a hash of it.")
@click.option("--ttl", type=click.IntRange(0, 2**31 - 1), default=3600, show_default=True, help="Seconds for which resolvers keep it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")
@click.pass_obj
def smimea(
    output: CommandOutput,
    /,
    address: str,
    file: str,
    usage: int,
    selector: str,
    matching: str,
    ttl: int,
    as_json: bool,
    **stored: str,
) -> int:
    """Print the SMIMEA record (RFC 8162) that publishes a certificate for ADDRESS.

    The certificate is in FILE (PEM or DER; - is standard input), or in the database (--cert).
    """
    output.json = output.json or as_json
    parsed = Address.parse(address)
    names = owner_names(parsed)
    if not names:
        raise UsageError("an address literal has no place in DNS", hint="use a domain name")
    if bool(file) == bool(stored["nickname"]):
        raise UsageError("which certificate?", hint="name either a FILE, or --cert NICK")
    certificate = _read(file) if file else _stored(**stored)
    known = load_certificate(certificate)
    if usage == DANE_EE and not matches(known, parsed):
        output.warning(f"the certificate does not name {parsed}", hint="who looks it up by DNS believes you; other programs may not")
    if selector != "cert" or matching != "full":
        output.warning(
            "nobody can encrypt with this record: it names a certificate and does not hold it", hint="leave --selector and --matching"
        )
    if canonical_local_part(parsed.local_part) != parsed.local_part.lower():
        lower = owner_name(canonical_local_part(parsed.local_part).lower(), parsed.domain_key)
        output.warning(f"{parsed} and the same in lower case have different names", hint=f"publish it at {lower} too")
    record = record_for(certificate, usage=usage, selector=selector, matching=matching)
    line = record.text(names[0], ttl)
    output.result({"owner": names[0], "usage": usage, "selector": record.selector, "matching": record.matching, "record": line}, line)
    return 0


def _read(file: str) -> bytes:
    """The first certificate of a file."""
    try:
        data = sys.stdin.buffer.read(_OCTETS) if file == "-" else Path(file).read_bytes()[:_OCTETS]
    except OSError as error:
        raise InputError(f"cannot read {file}: {(error.strerror or str(error)).lower()}") from None
    try:
        return load_certificates(data)[0]
    except CertificateError as error:
        raise InputError(f"{file}: {error.message}", hint=error.hint or "a certificate in PEM or DER, or --cert NICK") from error


def _stored(nickname: str, configuration: str, database: str, passphrase_file: str) -> bytes:
    """The certificate as `mailsec cert export` gives it: the database is mailsec's own."""
    options = {"-c": configuration, "-d": database, "--passphrase-file": passphrase_file}
    named = [word for option, value in options.items() if value for word in (option, value)]
    command = [sys.executable, "-m", "mailsec", "cert", "export", "--json", *named, "--", nickname]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)  # noqa: S603 - no shell, and what was typed is words of its own
    if done.returncode:
        raise InputError(f'"{nickname}" cannot be read from the database', hint="the lines above say why")
    return load_certificates(json.loads(done.stdout)["pem"].encode())[0]
