"""`mailsec cert issue`: a CA of our own, and certificates from it for people, servers and its responder, with new keys or for their requests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import click

from mailsec.app.authorities import authorities_called, key_of
from mailsec.app.commands.cert import anchor_options, described
from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.app.path_inputs import policy_oids
from mailsec.errors import InputError, UsageError
from mailsec.model.address import Address
from mailsec.model.trust import CertificateEntry, TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.nicknames import check_nickname
from mailsec.store.nssdb import NssDb
from mailsec.x509 import issue as issuing

__all__ = ["issue", "kind_option"]

_ALIASES = {"p256": "ec-p256", "p384": "ec-p384", "p521": "ec-p521"}


class _Kind(click.Choice[str]):
    """A kind of key; curves may be given as token tools call them."""

    def __init__(self) -> None:
        super().__init__(issuing.KEY_KINDS)

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(_ALIASES.get(value, value), param, ctx)


kind_option = click.option(
    "--key",
    "kind",
    type=_Kind(),
    metavar="KIND",
    help="The kind of key: " + ", ".join(issuing.KEY_KINDS) + " [rsa-2048; rsa-3072 for a CA].",
)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the options said about the certificate."""

    nickname: str
    name: str
    kind: str | None
    usage: str | None
    days: int | None
    assigned: tuple[str, ...]
    existing: str = ""
    """A key that is there: its id, or TOKEN:NAME."""
    library: str = ""
    pin_file: str = ""


@json_option
@click.command()
@click.option("--new-ca", metavar="NAME", default="", help="Make a CA of this name, trusted for mail of the domains given by --for.")
@click.option("--renew-ca", metavar="NICKNAME", default="", help="Give a CA another certificate, with its name, constraints and trust.")
@click.option("--new-key", is_flag=True, help="With --renew-ca: with a new key, too. The old one stays for what it has issued.")
@click.option("--ca", metavar="NICKNAME", default="", help="The CA that issues  [default: the only one here with a key]")
@click.option("--address", "addresses", metavar="ADDRESS", multiple=True, help="A certificate for mail of this address; may be repeated.")
@click.option(
    "--host", "hosts", metavar="HOST", multiple=True, help="A certificate for a server of this name or IP address; may be repeated."
)
@click.option("--responder", metavar="NAME", default="", help="A key of this name that signs OCSP answers for the CA.")
@click.option("--request", "request_file", metavar="FILE", default="", help="A certificate for this request (PKCS#10) of a mail user.")
@click.option("--nickname", default="", help="What it is called here  [default: the CA's name, the first address, or Server-Cert]")
@click.option("--name", default="", help="The person's name, for the certificate's subject  [default: the first address]")
@kind_option
@click.option(
    "--with", "existing", metavar="KEY", default="", help="With --address: for a key that is there: its id, TOKEN:NAME or a PKCS#11 URI."
)
@click.option(
    "--library",
    metavar="FILE",
    default="",
    help="For a key on a token: its PKCS#11 library  [default: the modules of the configuration]",
)
@click.option("--pin-file", metavar="FILE", default="", help="The PIN of the token; - is standard input.")
@click.option("--usage", type=click.Choice(issuing.MAIL_USAGES), help="What a key for mail is for  [default: all that it can]")
@click.option(
    "--days", type=click.IntRange(1, 36500), help="How long it is valid  [default: 824 for mail, 397 for servers and responders, 3652]"
)
@click.option("--assign", "assigned", metavar="PATTERN", multiple=True, help="Addresses that the key signs for, instead of its own.")
@click.option("--crl-url", "crl_urls", metavar="URL", multiple=True, help="Where the CA's revocation list will be.")
@click.option("--ocsp-url", "ocsp_urls", metavar="URL", multiple=True, help="Where the CA's OCSP responder is.")
@click.option("--issuer-url", "issuer_urls", metavar="URL", multiple=True, help="Where the CA's certificate is.")
@click.option("--policy", "policies", metavar="OID", multiple=True, callback=policy_oids, help="A policy that the CA follows.")
@click.option("-o", "--output", "file", metavar="FILE", default="", help="Write the certificate to FILE, too (PEM).")
@anchor_options
@database_options
@click.pass_obj
def issue(
    output: Output,
    new_ca: str,
    renew_ca: str,
    new_key: bool,
    ca: str,
    addresses: tuple[str, ...],
    hosts: tuple[str, ...],
    responder: str,
    request_file: str,
    nickname: str,
    name: str,
    kind: str | None,
    existing: str,
    library: str,
    pin_file: str,
    usage: str | None,
    days: int | None,
    assigned: tuple[str, ...],
    crl_urls: tuple[str, ...],
    ocsp_urls: tuple[str, ...],
    issuer_urls: tuple[str, ...],
    policies: tuple[str, ...],
    file: str,
    domains: tuple[str, ...],
    database: DatabaseChoice,
) -> None:
    """Make a CA, or a certificate from it, mostly with a new key; both are kept in the database, or in an NSS database (-d nss:DIR).

    \b
    mailsec cert issue --new-ca "Example CA" --for example.org
    mailsec cert issue --address alice@example.org
    mailsec cert issue --host mail.example.org
    mailsec cert issue --responder "Example OCSP"
    mailsec cert issue --request bob.csr -o bob.pem
    mailsec cert issue --address kim@example.org --with "HSM 1:kem-2026"
    """
    from mailsec.app.databases import open_any
    from mailsec.app.files import write_file
    from mailsec.keys.files import pem

    if bool(new_ca) + bool(renew_ca) + (bool(addresses) and not request_file) + bool(hosts) + bool(responder) + bool(request_file) != 1:
        raise UsageError(
            "say what to issue: one of --new-ca, --renew-ca, --address, --host, --responder and --request",
            hint="`mailsec cert issue --help` has examples",
        )
    if domains and not new_ca:
        raise UsageError("--for is for a new CA", hint="leave it out")
    if (new_ca or renew_ca) and (ca or assigned or name or usage or crl_urls or ocsp_urls or issuer_urls or policies):
        raise UsageError(
            "a CA has its own certificate only: --ca, --name, --usage, --assign, URLs and --policy are not for it", hint="leave them out"
        )
    if (hosts or responder) and (name or usage or assigned):
        raise UsageError("--name, --usage and --assign are for mail", hint="leave them out")
    if new_key and not renew_ca:
        raise UsageError("--new-key belongs to --renew-ca", hint="leave it out")
    if new_ca and not domains:
        raise UsageError("say for which domains the CA may vouch", hint='as in --for example.org, or "--for any"')
    if request_file and (kind or assigned):
        raise UsageError("a request has its own key: --key and --assign are not for it", hint="leave them out")
    if existing and (kind or not addresses or request_file):
        raise UsageError("--with is for --address and a key that is there", hint="leave --key out: it has its kind")
    if (library or pin_file) and ":" not in existing:
        raise UsageError("--library and --pin-file are for a key on a token", hint='name it: --with "TOKEN:NAME"')
    mailboxes = [Address.parse(address) for address in addresses]
    wanted = _Wanted(check_nickname(nickname) if nickname else "", name, kind, usage, days, assigned, existing, library, pin_file)
    at = datetime.now(UTC)
    with open_any(output, database) as opened:
        if new_ca:
            entry = _new_ca(opened, new_ca, wanted, domains, at)
        elif renew_ca:
            entry = _renewed_ca(opened, renew_ca, wanted, new_key, at)
        else:
            above = authorities_called(opened, ca)[0]
            issuer = issuing.IssuedBy(above.der, key_of(opened, above), crl_urls, ocsp_urls, issuer_urls, policies)
            if hosts:
                entry = _server(output, opened, issuer, hosts, wanted, at)
            elif responder:
                entry = _responder(output, opened, issuer, responder, wanted, at)
            elif request_file:
                entry = _requested(opened, issuer, request_file, mailboxes, wanted, at)
            elif existing:
                entry = _with_key(output, opened, issuer, mailboxes, wanted, at, database)
            else:
                entry = _mail(output, opened, issuer, mailboxes, wanted, at)
    text = pem(entry.der, "CERTIFICATE")
    if file:
        write_file(file, text)
    written = f"; written to {file}" if file else ""
    output.result(
        {"certificates": [described(entry)], "file": file or None, "pem": text.decode()},
        f'"{entry.nickname}" is issued {"to sign OCSP answers" if responder else _whom(entry, hosts)}{written}',
    )


def _new_ca(opened: CertDb | NssDb, name: str, wanted: _Wanted, domains: Sequence[str], at: datetime) -> CertificateEntry:
    from mailsec.app.databases import domains_from

    called = wanted.nickname or check_nickname(name.replace(":", " "))
    if opened.find(called):
        raise UsageError(f'there is a certificate "{called}" already', hint="choose another one with --nickname, or use --renew-ca")
    key = issuing.make_key(wanted.kind or "rsa-3072")
    der = issuing.make_ca(common_name=name, key=key, at=at, random=os.urandom, days=wanted.days or 3652)
    trust = TrustFlags.parse("C,C,")
    return opened.add(der, called, trust=trust, domains=domains_from(domains), source="issued", private_key=key, at=at)


def _renewed_ca(opened: CertDb | NssDb, name: str, wanted: _Wanted, new_key: bool, at: datetime) -> CertificateEntry:
    if wanted.nickname or (wanted.kind and not new_key):
        raise UsageError("a renewed CA keeps its nickname, and its key unless --new-key is given", hint="leave --nickname and --key out")
    if new_key and isinstance(opened, NssDb):
        # It keeps one list for each name, and both keys would need one.
        raise UsageError("an NSS database has no place for the lists of two keys of one CA", hint="make a CA of another name with --new-ca")
    old = authorities_called(opened, name)[0]
    key = issuing.make_key(wanted.kind or "rsa-3072") if new_key else key_of(opened, old)
    der = issuing.renew_ca(old.der, key=key, at=at, random=os.urandom, days=wanted.days or 3652)
    domains = ("*",) if isinstance(opened, NssDb) else old.domains
    return opened.add(der, old.nickname, trust=old.trust, domains=domains, source="issued", private_key=key, at=at)


def _registering(opened: CertDb | NssDb, issuer: issuing.IssuedBy) -> bytes | None:
    """The authority in whose register a certificate is written down. NSS has none: what is revoked stands on the list alone."""
    return issuer.certificate if isinstance(opened, CertDb) else None


def _server(
    output: Output, opened: CertDb | NssDb, issuer: issuing.IssuedBy, hosts: Sequence[str], wanted: _Wanted, at: datetime
) -> CertificateEntry:
    output.progress("making a key")
    key = issuing.make_key(wanted.kind or "ec-p256")
    public = issuing.public_key_of(key)
    der = issuing.issue_server(issuer, names=hosts, public_key=public, at=at, random=os.urandom, days=wanted.days or 397)
    called = wanted.nickname or "Server-Cert"
    return opened.add(der, called, source="issued", private_key=key, assigned=wanted.assigned, issuer=_registering(opened, issuer), at=at)


def _responder(
    output: Output, opened: CertDb | NssDb, issuer: issuing.IssuedBy, name: str, wanted: _Wanted, at: datetime
) -> CertificateEntry:
    output.progress("making a key")
    key = issuing.make_key(wanted.kind or "rsa-2048")
    public = issuing.public_key_of(key)
    der = issuing.issue_responder(issuer, common_name=name, public_key=public, at=at, random=os.urandom, days=wanted.days or 397)
    called = wanted.nickname or check_nickname(name.replace(":", " "))
    return opened.add(der, called, source="issued", private_key=key, issuer=_registering(opened, issuer), at=at)


def _mail(
    output: Output, opened: CertDb | NssDb, issuer: issuing.IssuedBy, mailboxes: Sequence[Address], wanted: _Wanted, at: datetime
) -> CertificateEntry:
    output.progress("making a key")
    key = issuing.make_key(wanted.kind or "rsa-2048")
    der = _mail_certificate(issuer, mailboxes, issuing.public_key_of(key), wanted.name, wanted, at)
    called = wanted.nickname or str(mailboxes[0]).replace(":", " ")
    return opened.add(der, called, source="issued", private_key=key, assigned=wanted.assigned, issuer=_registering(opened, issuer), at=at)


def _with_key(
    output: Output,
    opened: CertDb | NssDb,
    issuer: issuing.IssuedBy,
    mailboxes: Sequence[Address],
    wanted: _Wanted,
    at: datetime,
    database: DatabaseChoice,
) -> CertificateEntry:
    """For a key that is there: one that signs nothing (ML-KEM, X25519) can make no request."""
    from mailsec.app.token_requests import is_on_token, key_on_token

    if is_on_token(wanted.existing):
        with key_on_token(output, database, wanted.existing, library=wanted.library, pin_file=wanted.pin_file) as handle:
            public = handle.key.public_key
    else:
        octets = opened.key_octets(opened.find_key(wanted.existing).key_id, wanted.existing)
        if octets is None:
            raise UsageError(f"there is no private key {wanted.existing[:80]!r} here", hint="`mailsec key list` shows those that there are")
        public = issuing.public_key_of(octets)
    der = _mail_certificate(issuer, mailboxes, public, wanted.name, wanted, at)
    called = wanted.nickname or str(mailboxes[0]).replace(":", " ")
    return opened.add(der, called, source="issued", assigned=wanted.assigned, issuer=_registering(opened, issuer), at=at)


def _requested(
    opened: CertDb | NssDb, issuer: issuing.IssuedBy, file: str, mailboxes: Sequence[Address], wanted: _Wanted, at: datetime
) -> CertificateEntry:
    """For somebody's request. Its key and its addresses are taken; other addresses only where the operator names them."""
    from mailsec.app.commands.cert_import import add_under_a_free_name
    from mailsec.app.path_inputs import read_ders
    from mailsec.x509.request import read_request

    ders = read_ders(file, "CERTIFICATE REQUEST")
    if len(ders) != 1:
        raise UsageError(f"{file} holds {len(ders)} requests", hint="give them one by one")
    try:
        request = read_request(ders[0])
    except InputError as error:
        raise InputError(f"{file}: {error.message}", hint=error.hint, stage=error.stage) from None
    addresses = mailboxes or request.addresses
    if not addresses:
        raise UsageError(f"the request in {file} names no address", hint="say for whom it is with --address")
    # The name in a request is what somebody claims: the operator vouches for what is typed here.
    der = _mail_certificate(issuer, addresses, request.public_key, wanted.name, wanted, at)
    return add_under_a_free_name(opened, der, wanted.nickname, "", source="issued", issuer=_registering(opened, issuer))


def _mail_certificate(
    issuer: issuing.IssuedBy, addresses: Sequence[Address], public_key: bytes, name: str, wanted: _Wanted, at: datetime
) -> bytes:
    return issuing.issue_mail(
        issuer,
        addresses=addresses,
        public_key=public_key,
        at=at,
        random=os.urandom,
        common_name=name,
        days=wanted.days or issuing.MAIL_DAYS,
        usage=wanted.usage or "both",
    )


def _whom(entry: CertificateEntry, hosts: Sequence[str]) -> str:
    if hosts:
        return "for " + ", ".join(hosts)
    if entry.addresses:
        return "for " + ", ".join(entry.addresses)
    return "as a CA for " + ", ".join("any domain" if domain == "*" else domain for domain in entry.domains or ("*",))
