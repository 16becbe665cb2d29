"""`mailsec smime encrypt`: a message in a file, signed if wanted, and encrypted to certificates from files or from the database."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.app.signer_options import SignerInputs, header_protection_option, profile_option, signer_options
from mailsec.errors import KeyUnavailable, Refused, UsageError

if TYPE_CHECKING:
    from mailsec.model.protection import EncryptionRecipient
    from mailsec.model.trust import CertificateEntry

__all__ = ["encrypt"]


@json_option
@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--to",
    "recipients",
    metavar="CERT-FILE|ADDRESS|NICKNAME",
    multiple=True,
    required=True,
    help="Whom it is for; may be repeated. Each sees all.",
)
@signer_options("signed before it is encrypted")
@header_protection_option("sign", "baseline", "shy")
@click.option("--compress", is_flag=True, help="Compress what is encrypted: the size then tells something of it.")
@click.option("--triple", is_flag=True, help="Sign what is encrypted, too (RFC 2634): who only forwards it can check who sealed it.")
@profile_option
@click.option("-o", "--output", "target", metavar="FILE", default="-", help="Where the message goes  [default: standard output]")
@database_options
@click.pass_obj
def encrypt(
    output: Output,
    *,
    file: str,
    recipients: tuple[str, ...],
    signer: SignerInputs,
    header_protection: str,
    compress: bool,
    triple: bool,
    profile: str,
    target: str,
    database: DatabaseChoice,
) -> None:
    """Encrypt the message in FILE, signed before where a signer is named, and write the whole new message. What is signed stays signed."""
    if output.json and target == "-":
        raise UsageError("--json needs -o FILE for the message")
    if triple and not signer.named:
        raise UsageError("--triple signs twice, and no signer is named", hint="--key FILE --cert FILE, or --p12 FILE, or --signer NICKNAME")
    from mailsec.app.files import write_file
    from mailsec.app.messages import at_once, new_scratch, random_octets, read_message
    from mailsec.interfaces import run_now
    from mailsec.keys.software import SoftwareBackend
    from mailsec.model.protection import ProtectionPlan
    from mailsec.smime.protect import protect_message
    from mailsec.smime.report import certificate_json
    from mailsec.x509.certificate import load_certificate, summary

    message = read_message(file, "smime").message
    readers = [_recipient(output, name, database, profile) for name in recipients]
    handle = signer.find(output, database, message) if signer.named else None
    plan = ProtectionPlan(
        sign=handle is not None,
        encrypt=True,
        signer="" if handle is None else handle.name,
        form=signer.form,
        wrap="triple" if triple else "sign",
        compress=compress,
        header_protection=header_protection,
        profile=profile,
    )
    segments = run_now(
        protect_message(
            message,
            plan,
            signers=() if handle is None else [handle],
            recipients=readers,
            backend=SoftwareBackend(),
            random=random_octets,
            work=at_once,
            at=datetime.now(UTC),
            scratch=new_scratch,
        )
    )
    written = segments.join()
    write_file(target, written)
    shown = certificate_json(summary(load_certificate(handle.certificate))) if handle is not None and handle.certificate else None
    output.result(
        {
            "encrypted": True,
            "signed": plan.sign,
            "wrap": plan.wrap,
            "profile": profile,
            "algorithm": _algorithm(written),
            "header_protection": header_protection,
            "signer": shown,
            "recipients": [certificate_json(summary(load_certificate(reader.certificate))) for reader in readers],
            "output": target,
        }
    )


def _algorithm(message: bytes) -> str:
    """The content cipher of the message that was just written, below the signature of a triple wrap."""
    from mailsec.app.messages import at_once, new_scratch
    from mailsec.interfaces import run_now
    from mailsec.keys.software import SoftwareBackend
    from mailsec.mime.index import index_message
    from mailsec.model.octets import BytesOctets
    from mailsec.smime.unprotect import unprotect_message

    written = index_message(BytesOctets(message))
    result = run_now(unprotect_message(written, backend=SoftwareBackend(), scratch=new_scratch, work=at_once))
    return result.layers[-1].algorithm


def _recipient(output: Output, name: str, choice: DatabaseChoice, profile: str) -> EncryptionRecipient:
    """The certificate of a file, or the one of an address or nickname in the database, with what its holder is known to read."""
    from mailsec.app.files import naming, read_file
    from mailsec.keys.files import load_certificates
    from mailsec.model.protection import EncryptionRecipient

    stored = bool(choice.configuration or choice.database)
    if Path(name).exists() or ("@" not in name and not stored):
        with naming(name):
            found = load_certificates(read_file(name))
        return EncryptionRecipient(found[0])
    if not stored:
        raise UsageError(f"{name} is an address, and no database was named", hint="-c CONFIG or -d DATABASE, or a file with a certificate")
    from mailsec.app.databases import open_any
    from mailsec.model.address import Address
    from mailsec.store.certdb import CertDb
    from mailsec.store.learnt import Learnt

    at = datetime.now(UTC)
    address = Address.parse(name) if "@" in name else None
    with open_any(output, choice, writing=False) as database:
        entries = [one for one in (database.find(name, at=at) if address is None else database.for_address(address, at=at)) if one.verified]
        # One that is for a whole domain is nobody's own: neither its pin nor what somebody's program reads is about it.
        own = {one.id for one in entries if address is not None and one.for_whom(address) == address.key}
        # A person chose it: no other takes its place, as in the gateway.
        entries = [one for one in entries if one.state == "pinned" and (address is None or one.id in own)] or entries
        against = [_against(one, profile, at) for one in entries]
        for entry, why in zip(entries, against, strict=True):
            if not why:
                learnt = Learnt(database) if isinstance(database, CertDb) and entry.id in own else None
                return EncryptionRecipient(entry.der, None if address is None or learnt is None else learnt.capabilities(address))
    if against:
        raise Refused(
            f"nothing can be encrypted with the certificate of {name}: {against[0]}", hint='"mailsec cert find" shows all of them'
        )
    raise KeyUnavailable(f"there is no certificate of {name} in {choice.database or 'the database'}", hint='"mailsec cert import" adds one')


def _against(entry: CertificateEntry, profile: str, at: datetime) -> str:
    """What speaks against a certificate by itself, or by what a person decided; "" for nothing. Its path is not asked: who names it knows."""
    from mailsec.algorithms.profiles import PROFILES
    from mailsec.smime.ciphers_for import unfit
    from mailsec.x509.certificate import load_certificate

    certificate = load_certificate(entry.der)
    if entry.state not in ("", "pinned"):
        return f"it is {entry.state}"
    if entry.trust.email_distrusted:
        return "it is marked as distrusted"
    if certificate.not_after is None or at > certificate.not_after:
        return "it has ended"
    return unfit(certificate, PROFILES[profile])
