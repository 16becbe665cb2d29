"""`mailsec cert import`: certificates, and a private key, from files into the database."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from mailsec.app.commands.cert import anchor_options, described, trust_flags, warn_if_no_ca
from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.errors import PrivateKeyError, UsageError
from mailsec.model.trust import CertificateEntry, TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.nicknames import check_nickname, free_nickname, make_nickname

__all__ = ["add_under_a_free_name", "import_certificates", "nickname_for", "say_imported"]

_COMMON_NAME = b"\x55\x04\x03"
"""id-at-commonName (2.5.4.3), as DER has it."""


@json_option
@click.command()
@click.argument("file")
@click.option("--nickname", default="", help="What it is called here [its first mail address, host or common name].")
@click.option("--trust", "flags", metavar="TRUST", default="", help='NSS trust flags, as in ",C," for a mail CA.')
@anchor_options
@click.option("--key", "key_file", metavar="FILE", default="", help="The private key that belongs to the first certificate (PEM or DER).")
@click.option("--key-password-file", metavar="FILE", default="", help="The password of the private key; - is standard input.")
@click.option("--assign", "assigned", metavar="PATTERN", multiple=True, help="Addresses that the key signs for, instead of its own.")
@database_options
@click.pass_obj
def import_certificates(
    output: Output,
    file: str,
    nickname: str,
    flags: str,
    domains: tuple[str, ...],
    key_file: str,
    key_password_file: str,
    assigned: tuple[str, ...],
    database: DatabaseChoice,
) -> None:
    """Add the certificates in FILE (PEM, DER or PKCS#7); nothing is trusted unless --trust says so."""
    from mailsec.app.databases import domains_from, open_database
    from mailsec.app.files import naming, read_file
    from mailsec.keys.files import load_certificates

    trust = trust_flags(flags) if flags else TrustFlags()
    if nickname:
        check_nickname(nickname)
    if (key_password_file or assigned) and not key_file:
        raise UsageError("--key-password-file and --assign belong to a private key", hint="give it with --key FILE")
    with naming(file, "a PKCS#12 file is imported with `mailsec p12 import`"):
        certificates = load_certificates(read_file(file))
    if len(certificates) > 1 and flags:
        raise UsageError(
            f"{file} holds {len(certificates)} certificates, and --trust is for one",
            hint="import them first, then use `mailsec cert trust`",
        )
    key = _private_key(key_file, key_password_file) if key_file else None
    entries = []
    with open_database(output, database) as opened:
        for number, der in enumerate(certificates):
            entries.append(
                add_under_a_free_name(
                    opened,
                    der,
                    nickname if not number else "",
                    "",
                    trust=trust,
                    domains=domains_from(domains),
                    key=key if not number else None,
                    assigned=assigned if not number else (),
                )
            )
    say_imported(output, entries)


def add_under_a_free_name(
    database: CertDb,
    der: bytes,
    nickname: str,
    suggested: str,
    *,
    trust: TrustFlags = TrustFlags(),  # noqa: B008 - frozen
    domains: Sequence[str] = (),
    key: bytes | None = None,
    assigned: Sequence[str] = (),
    source: str = "imported",
    issuer: bytes | None = None,
) -> CertificateEntry:
    """Add a certificate as `nickname`; where none was given, as `suggested` or what it names, with a number where that is taken."""
    from mailsec.x509.certificate import load_certificate

    if not nickname:
        subject = load_certificate(der).subject.der
        taken = {entry.nickname for entry in database.entries() if load_certificate(entry.der).subject.der != subject}
        nickname = free_nickname(make_nickname(suggested, nickname_for(der)), taken)
    return database.add(
        der,
        nickname,
        trust=trust,
        domains=domains,
        source=source,
        private_key=key,
        assigned=assigned,
        issuer=issuer,
        at=datetime.now(UTC),
    )


def nickname_for(der: bytes) -> str:
    """What a certificate is called where nobody said it: its first mail address, host or common name."""
    from mailsec.x509.certificate import load_certificate
    from mailsec.x509.names import decode

    certificate = load_certificate(der)
    names = [str(address) for address in certificate.addresses[:1]] + list(certificate.dns_names[:1])
    names += [decode(tag, value) or "" for tag, value in certificate.subject.values(_COMMON_NAME)[:1]]
    return make_nickname(next((name for name in names if name), ""), "imported")


def say_imported(output: Output, entries: Sequence[CertificateEntry]) -> None:
    """The answer of an import."""
    for entry in entries:
        warn_if_no_ca(output, entry)

    def say() -> None:
        for entry in dict.fromkeys(entries):
            what = "with its key" if entry.has_key else f"trust {entry.trust}" if str(entry.trust) != ",," else "not trusted by itself"
            output.text(f'"{entry.nickname}" is here ({what})')

    output.result({"certificates": [described(entry) for entry in entries]}, say)


def _private_key(file: str, password_file: str) -> bytes:
    from mailsec.app.databases import ask_password
    from mailsec.app.files import naming, read_file
    from mailsec.keys.files import load_private_key

    data = read_file(file)
    with naming(file):
        if password_file:
            return load_private_key(data, ask_password(password_file, ""))
        try:
            return load_private_key(data, None)
        except PrivateKeyError as error:
            if "protected" not in error.message:
                raise
            if not sys.stdin.isatty():
                raise PrivateKeyError(error.message, hint="give it with --key-password-file FILE") from None
        return load_private_key(data, ask_password("", f"Password of {file}"))
