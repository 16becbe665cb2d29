"""`mailsec cert`: certificates of the database: listed, shown, written to files, trusted, renamed, deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option, plural
from mailsec.app.token_database import on_token
from mailsec.errors import MailsecError, UsageError
from mailsec.model.trust import CertificateEntry, TrustFlags

__all__ = [
    "anchor_options",
    "confirmed",
    "delete",
    "described",
    "export",
    "list_certificates",
    "rename",
    "show",
    "trust",
    "trust_flags",
    "warn_if_no_ca",
]

anchor_options = click.option(
    "--for", "domains", metavar="DOMAIN", multiple=True, help="A mail domain that this CA may vouch for; may be repeated; or: any."
)


@json_option
@click.command()
@click.option(
    "--expiring",
    metavar="DAYS",
    default="",
    help="Only what ends within so many days, or has ended: 30d, 6w.",
)
@click.option("--address", metavar="ADDRESS", default="", help="Only what names this mail address.")
@click.option("--own", is_flag=True, help="Only those whose private key is here.")
@click.option("--anchors", "anchors_only", is_flag=True, help="Only those that may vouch for others.")
@database_options
@on_token
@click.pass_obj
def list_certificates(output: Output, expiring: str, address: str, own: bool, anchors_only: bool, database: DatabaseChoice) -> None:
    """List the certificates: nickname, trust (TLS,e-mail,objects as certutil shows it), whom it names, until when."""
    from mailsec.app.databases import open_any
    from mailsec.model.address import Address

    wanted = Address.parse(address).key if address else ""
    until = datetime.now(UTC) + _days(expiring) if expiring else None
    with open_any(output, database, look=True) as opened:
        entries = [
            entry
            for entry in opened.entries()
            if (not wanted or wanted in (*entry.addresses, *entry.bound))
            and (not own or entry.has_key)
            and (not anchors_only or "C" in entry.trust.tls + entry.trust.email or "T" in entry.trust.tls)
            and (until is None or _end_of(entry) <= until)
        ]
    if until is not None:
        entries.sort(key=_end_of)
    rows = [_row(entry) for entry in entries]
    output.result(
        {"certificates": [described(entry) for entry in entries]},
        lambda: output.table(
            ["nickname", "trust", "key", "names", "until", ""],
            rows,
            empty="There is none like that."
            if expiring or address or own or anchors_only
            else "There is no certificate yet: mailsec cert import FILE, or mailsec cert issue --new-ca NAME",
        ),
    )


@json_option
@click.command()
@click.argument("nickname")
@database_options
@on_token
@click.pass_obj
def show(output: Output, nickname: str, database: DatabaseChoice) -> None:
    """Show everything about the certificates with this nickname."""
    from mailsec.app.databases import entries_called, open_any

    with open_any(output, database, look=True) as opened:
        shown = [described(entry) for entry in entries_called(opened, nickname)]
    output.result({"certificates": shown}, lambda: _show(output, shown))


@json_option
@click.command()
@click.argument("nickname")
@click.option("-o", "--output", "file", metavar="FILE", default="", help="Where to write it  [default: standard output]")
@click.option("--der", is_flag=True, help="Write DER instead of PEM.")
@click.option("--chain", is_flag=True, help="Add the certificates of its issuers, as far as they are here.")
@database_options
@on_token
@click.pass_obj
def export(output: Output, nickname: str, file: str, der: bool, chain: bool, database: DatabaseChoice) -> None:
    """Write a certificate (never its key) as PEM or DER."""
    from mailsec.app.databases import entries_called, open_any
    from mailsec.app.files import write_file
    from mailsec.keys.files import pem

    if der and chain:
        raise UsageError("DER holds one certificate", hint="leave out --der or --chain")
    with open_any(output, database, look=True) as opened:
        entry = entries_called(opened, nickname)[0]
        certificates = [entry.der, *(opened.chain(entry) if chain else ())]
    if not entry.verified:
        output.warning(f'"{entry.nickname}" is not verified', "`mailsec db check` says why")
    text = "".join(pem(each, "CERTIFICATE").decode() for each in certificates)
    if file:
        write_file(file, entry.der if der else text.encode())
    elif output.json or not der:
        pass
    else:
        write_file("-", entry.der)
    output.result(
        {"nickname": entry.nickname, "file": file or None, "pem": text},
        (lambda: None) if der and not file else (f"written to {file}" if file else text.rstrip("\n")),
    )


@json_option
@click.command()
@click.argument("nickname")
@click.argument("flags", metavar="TRUST")
@anchor_options
@database_options
@click.pass_obj
def trust(output: Output, nickname: str, flags: str, domains: tuple[str, ...], database: DatabaseChoice) -> None:
    """Say what a certificate is trusted for.

    TRUST is "TLS,EMAIL,OBJECT" in NSS's letters: C a CA for certificates of servers and mail, T a CA for TLS clients, P this very
    certificate, p never. An e-mail CA needs the domains that it may vouch for: mailsec cert trust CA ",C," --for example.org
    """
    from mailsec.app.databases import domains_from, entries_called, open_any

    parsed = trust_flags(flags)
    with open_any(output, database) as opened:
        entries_called(opened, nickname)
        opened.set_trust(nickname, parsed, domains=domains_from(domains))
        entry = opened.find(nickname)[0]
    warn_if_no_ca(output, entry)
    output.result({"certificates": [described(entry)]}, f'"{entry.nickname}" is {_trusted_for(entry)}')


@json_option
@click.command()
@click.argument("nickname")
@click.argument("new", metavar="NEW-NICKNAME")
@database_options
@click.pass_obj
def rename(output: Output, nickname: str, new: str, database: DatabaseChoice) -> None:
    """Call a certificate by another nickname. The configuration may use the old one."""
    from mailsec.app.databases import entries_called, open_any

    with open_any(output, database) as opened:
        entries_called(opened, nickname)
        opened.rename(nickname, new)
    output.result({"nickname": new}, f'"{nickname}" is "{new}" now')


@json_option
@click.command()
@click.argument("nickname")
@click.option("--serial", default="", help="Only the one with this serial number (hexadecimal).")
@click.option("--keep-key", is_flag=True, help="Keep the private keys: what was encrypted to them can still be opened with them.")
@click.option("--yes", is_flag=True, help="Do not ask, not even about a private key.")
@database_options
@on_token
@click.pass_obj
def delete(output: Output, nickname: str, serial: str, keep_key: bool, yes: bool, database: DatabaseChoice) -> None:
    """Delete certificates, with their private keys where no other certificate here needs them."""
    from mailsec.app.databases import entries_called, open_any

    with open_any(output, database) as opened:
        entries = [entry for entry in entries_called(opened, nickname) if not serial or _serial(entry) == serial.lower().lstrip("0")]
        if not entries:
            raise MailsecError(f'no certificate "{nickname}" has the serial number {serial}', hint="`mailsec cert show` prints them")
        keys = 0 if keep_key else sum(entry.has_key for entry in entries)
        what = plural(len(entries), "certificate") + (f" and {plural(keys, 'private key')}" if keys else "")
        if not yes:
            confirmed(output, f'Delete {what} called "{nickname}"?')
        gone = sum([opened.delete(entry, keep_key=keep_key) for entry in entries])
    output.result({"nickname": nickname, "deleted": len(entries), "keys": gone}, f"deleted {what}")


def _days(text: str) -> timedelta:
    number, unit = (text[:-1], text[-1]) if text[-1:] in ("d", "w") else (text, "d")
    if not (number.isascii() and number.isdigit() and int(number) < 100_000):
        raise UsageError(f"not a number of days: {text[:40]!r}", hint="as in --expiring 30, 30d or 6w")
    return timedelta(days=int(number) * (7 if unit == "w" else 1))


def _end_of(entry: CertificateEntry) -> datetime:
    from mailsec.x509.certificate import load_certificate

    return load_certificate(entry.der).not_after or datetime.max.replace(tzinfo=UTC)


# -- shared by the commands -------------------------------------------------------------------------------------------------------


def trust_flags(text: str) -> TrustFlags:
    """NSS's letters; raise UsageError for anything else."""
    try:
        return TrustFlags.parse(text)
    except ValueError as error:
        raise UsageError(str(error), hint='for a mail CA write ",C,"; for none ",,"') from None


def warn_if_no_ca(output: Output, entry: CertificateEntry) -> None:
    """Say so where something was made an anchor that can vouch for nobody."""
    from mailsec.x509.certificate import load_certificate

    constraints = load_certificate(entry.der).basic_constraints
    if entry.trust.email_anchor and (constraints is None or not constraints.ca):
        output.warning(f'"{entry.nickname}" is trusted as a CA and is none', 'to trust this very certificate, give it the letter P: ",P,"')


def described(entry: CertificateEntry) -> dict[str, Any]:
    """An entry as JSON."""
    from mailsec.x509.certificate import load_certificate, summary

    certificate = load_certificate(entry.der)
    facts = summary(certificate)
    return {
        "nickname": entry.nickname,
        "trust": _letters(entry),
        "has_key": entry.has_key,
        "verified": entry.verified,
        "subject": facts.subject,
        "issuer": facts.issuer,
        "serial": facts.serial,
        "addresses": list(entry.addresses),
        "bound": list(entry.bound),
        "hosts": list(certificate.dns_names),
        "assigned": list(entry.assigned),
        "domains": list(entry.domains),
        "key": f"{certificate.key_type} {certificate.bits}" if certificate.key_type.startswith("rsa") else certificate.key_type,
        "not_before": facts.not_before,
        "not_after": facts.not_after,
        "fingerprint": facts.fingerprint,
        "state": entry.state or None,
        "source": entry.source,
        "learnt_at": entry.learnt_at,
        "problems": [reason.message for reason in certificate.problems],
    }


def _letters(entry: CertificateEntry) -> str:
    """As certutil prints them: "u" where we hold the key."""
    if not entry.has_key:
        return str(entry.trust)
    return ",".join(field + "u" for field in (entry.trust.tls, entry.trust.email, entry.trust.object))


def _row(entry: CertificateEntry) -> list[object]:
    facts = described(entry)
    names: Sequence[str] = [*facts["addresses"], *facts["bound"]] or facts["hosts"] or [facts["subject"]]
    until = facts["not_after"]
    if not entry.verified:
        state = "NOT VERIFIED"
    elif until is not None and until < datetime.now(UTC):
        state = "expired"
    elif entry.state:
        state = entry.state
    elif entry.trust.email_anchor:
        # An NSS database knows no domains: its anchors are for all.
        state = "for " + (", ".join("any" if domain == "*" else domain for domain in entry.domains) or "any")
    else:
        state = ""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return [entry.nickname, facts["trust"], "key" if entry.has_key else "", shown, f"{until:%Y-%m-%d}" if until else "", state]


_TITLES = {
    "nickname": "nickname",
    "subject": "subject",
    "issuer": "issuer",
    "serial": "serial number",
    "addresses": "mail addresses",
    "bound": "mail is for",
    "hosts": "hosts",
    "key": "public key",
    "not_before": "valid from",
    "not_after": "valid until",
    "trust": "trust",
    "domains": "may vouch for",
    "assigned": "key used for",
    "fingerprint": "SHA-256",
    "source": "source",
    "learnt_at": "here since",
    "state": "decided",
    "problems": "problems",
}


def _show(output: Output, shown: Sequence[Mapping[str, Any]]) -> None:
    for number, facts in enumerate(shown):
        if number:
            output.text("")
        for name, title in _TITLES.items():
            value = facts[name]
            if isinstance(value, list):
                value = ", ".join("any" if each == "*" else str(each) for each in value)
            elif isinstance(value, datetime):
                value = f"{value:%Y-%m-%d %H:%M} UTC"
            if name == "trust":
                value += "  (key is here)" if facts["has_key"] else ""
            if value:
                output.text(f"{title:>14}  {value}")
        if not facts["verified"]:
            output.text(f"{'':>14}  NOT VERIFIED: mailsec did not write this row, it decides nothing (mailsec db check)")


def _trusted_for(entry: CertificateEntry) -> str:
    email = entry.trust.email
    if "p" in email:
        meaning = "never trusted for mail"
    elif "C" in email:
        domains = ", ".join("any domain" if domain == "*" else domain for domain in entry.domains) or "any domain"
        meaning = f"a CA for mail of {domains}"
    elif "P" in email:
        meaning = "trusted for mail by itself"
    else:
        meaning = "not trusted for mail by itself"
    return f"{meaning}  [{_letters(entry)}]"


def _serial(entry: CertificateEntry) -> str:
    from mailsec.x509.certificate import load_certificate

    return f"{load_certificate(entry.der).serial:x}"


def confirmed(output: Output, question: str) -> None:
    """Ask on the terminal; raise MailsecError for no, UsageError where nobody can be asked."""
    import sys

    if output.json or not sys.stdin.isatty():
        raise UsageError("this is asked about first, and there is no terminal to ask on", hint="say --yes")
    if not click.confirm(question):
        raise MailsecError("nothing was deleted")
