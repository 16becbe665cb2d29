"""`mailsec cert issue`: a CA of our own, and certificates from it for people and servers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from mailsec.app.commands.cert import anchor_options, described
from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.errors import KeyUnavailable, UsageError
from mailsec.model.address import Address
from mailsec.model.trust import CertificateEntry, TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.store.nicknames import check_nickname
from mailsec.x509 import issue as issuing

__all__ = ["issue"]


@json_option
@click.command()
@click.option("--new-ca", metavar="NAME", default="", help="Make a CA of this name, trusted for mail of the domains given by --for.")
@click.option("--ca", metavar="NICKNAME", default="", help="The CA that issues [the only one here with a key].")
@click.option("--address", "addresses", metavar="ADDRESS", multiple=True, help="A certificate for mail of this address; may be repeated.")
@click.option(
    "--host", "hosts", metavar="HOST", multiple=True, help="A certificate for a server of this name or IP address; may be repeated."
)
@click.option("--nickname", default="", help="What it is called here [the CA's name, the first address, or Server-Cert].")
@click.option("--name", default="", help="The person's name, for the certificate's subject [the first address].")
@click.option(
    "--key", "kind", type=click.Choice(issuing.KEY_KINDS), help="The kind of key [rsa-2048 for mail, ec-p256 for servers, rsa-3072]."
)
@click.option("--usage", type=click.Choice(issuing.MAIL_USAGES), help="What a key for mail is for [both].")
@click.option("--days", type=click.IntRange(1, 36500), help="How long it is valid [825 for mail, 397 for servers, 3652].")
@click.option("--assign", "assigned", metavar="PATTERN", multiple=True, help="Addresses that the key signs for, instead of its own.")
@anchor_options
@database_options
@click.pass_obj
def issue(
    output: Output,
    new_ca: str,
    ca: str,
    addresses: tuple[str, ...],
    hosts: tuple[str, ...],
    nickname: str,
    name: str,
    kind: str | None,
    usage: str | None,
    days: int | None,
    assigned: tuple[str, ...],
    domains: tuple[str, ...],
    database: DatabaseChoice,
) -> None:
    """Make a CA, or a certificate from it with a new key; both are kept in the database.

    \b
    mailsec cert issue --new-ca "Example CA" --for example.org
    mailsec cert issue --address alice@example.org
    mailsec cert issue --host mail.example.org
    """
    from mailsec.app.databases import domains_from, open_database

    if bool(new_ca) + bool(addresses) + bool(hosts) != 1:
        raise UsageError("say what to issue: one of --new-ca, --address and --host", hint="`mailsec cert issue --help` has examples")
    if domains and not new_ca:
        raise UsageError("--for is for a new CA", hint="leave it out")
    if (usage or name) and not addresses:
        raise UsageError("--usage and --name are for certificates for mail", hint="give --address, or leave them out")
    if new_ca and (ca or assigned):
        raise UsageError("--ca and --assign are not for a new CA", hint="leave them out")
    if new_ca and not domains:
        raise UsageError("say for which domains the CA may vouch", hint='as in --for example.org, or "--for any"')
    mailboxes = [Address.parse(address) for address in addresses]
    if nickname:
        check_nickname(nickname)
    at = datetime.now(UTC)
    with open_database(output, database) as opened:
        if new_ca:
            called = check_nickname(nickname or new_ca.replace(":", " "))
            if opened.find(called):
                raise UsageError(f'there is a certificate "{called}" already', hint="choose another one with --nickname")
            key = issuing.make_key(kind or "rsa-3072")
            der = issuing.make_ca(common_name=new_ca, key=key, at=at, random=os.urandom, days=days or 3652)
            trust = TrustFlags.parse("C,C,")
            entry = opened.add(der, called, trust=trust, domains=domains_from(domains), source="issued", private_key=key, at=at)
        else:
            issuer = _issuer(opened, ca)
            output.progress("making a key")
            key = issuing.make_key(kind or ("ec-p256" if hosts else "rsa-2048"))
            public = issuing.public_key_of(key)
            if hosts:
                called = nickname or "Server-Cert"
                der = issuing.issue_server(issuer, names=hosts, public_key=public, at=at, random=os.urandom, days=days or 397)
            else:
                called = nickname or str(mailboxes[0]).replace(":", " ")
                der = issuing.issue_mail(
                    issuer,
                    addresses=mailboxes,
                    public_key=public,
                    at=at,
                    random=os.urandom,
                    common_name=name,
                    days=days or 825,
                    usage=usage or ("sign" if kind == "ed25519" else "both"),
                )
            entry = opened.add(der, called, source="issued", private_key=key, assigned=assigned, at=at)
    output.result({"certificates": [described(entry)]}, f'"{entry.nickname}" is issued {_whom(entry, hosts)}')


def _issuer(database: CertDb, nickname: str) -> issuing.IssuedBy:
    from mailsec.app.databases import entries_called
    from mailsec.x509.certificate import load_certificate

    def is_ca(entry: CertificateEntry) -> bool:
        constraints = load_certificate(entry.der).basic_constraints
        return entry.verified and entry.has_key and constraints is not None and constraints.ca

    if nickname:
        found = [entry for entry in entries_called(database, nickname) if is_ca(entry)]
        if not found:
            raise KeyUnavailable(f'"{nickname}" is not a CA whose key is here', hint='`mailsec cert issue --new-ca "My CA"` makes one')
    else:
        found = [entry for entry in database.entries() if is_ca(entry)]
        names = sorted({entry.nickname for entry in found})
        if not found:
            raise KeyUnavailable(
                "there is no CA whose key is here", hint='`mailsec cert issue --new-ca "My CA" --for example.org` makes one'
            )
        if len(names) > 1:
            raise UsageError("there are several CAs here: " + ", ".join(names), hint="choose one with --ca")
    key = database.private_key(found[0])
    if key is None:
        raise KeyUnavailable(f'the key of "{found[0].nickname}" is not here', hint="import it with `mailsec p12 import`")
    return issuing.IssuedBy(found[0].der, key)


def _whom(entry: CertificateEntry, hosts: Sequence[str]) -> str:
    if hosts:
        return "for " + ", ".join(hosts)
    if entry.addresses:
        return "for " + ", ".join(entry.addresses)
    return "as a CA for " + ", ".join("any domain" if domain == "*" else domain for domain in entry.domains)
