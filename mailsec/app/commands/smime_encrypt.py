"""`mailsec smime encrypt`: a message in a file, encrypted to certificates from files or from the database."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.errors import KeyUnavailable, UsageError

__all__ = ["encrypt"]


@json_option
@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--to", "recipients", metavar="CERT-FILE|ADDRESS", multiple=True, required=True, help="Whom it is for; may be repeated. Each sees all."
)
@click.option("--profile", default="default", help="The algorithms: see docs/profiles.md  [default: default]")
@click.option("-o", "--output", "target", metavar="FILE", default="-", help="Where the message goes  [default: standard output]")
@database_options
@click.pass_obj
def encrypt(output: Output, *, file: str, recipients: tuple[str, ...], profile: str, target: str, database: DatabaseChoice) -> None:
    """Encrypt the message in FILE, and write the whole new message. What is signed stays signed within it."""
    if output.json and target == "-":
        raise UsageError("--json needs -o FILE for the message")
    from mailsec.algorithms.profiles import PROFILES
    from mailsec.app.files import write_file
    from mailsec.app.messages import at_once, random_octets, read_message
    from mailsec.cms.structure import describe
    from mailsec.interfaces import run_now
    from mailsec.keys.software import SoftwareBackend
    from mailsec.model.octets import BytesOctets
    from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
    from mailsec.smime.protect import protect_message
    from mailsec.smime.report import certificate_json
    from mailsec.x509.certificate import load_certificate, summary

    if profile not in PROFILES:
        raise UsageError(f'there is no profile "{profile}"', hint=f"there are: {', '.join(PROFILES)}")
    message = read_message(file, "smime").message
    certificates = [_certificate(name, database) for name in recipients]
    segments = run_now(
        protect_message(
            message,
            ProtectionPlan(encrypt=True, profile=profile),
            signers=(),
            recipients=[EncryptionRecipient(der) for der in certificates],
            backend=SoftwareBackend(),
            random=random_octets,
            work=at_once,
            at=datetime.now(UTC),
        )
    )
    written = segments.join()
    write_file(target, written)
    shown = [certificate_json(summary(load_certificate(der))) for der in certificates]
    algorithm = describe(BytesOctets(_cms(written)))["algorithm"]
    output.result({"encrypted": True, "profile": profile, "algorithm": algorithm, "recipients": shown, "output": target})


def _cms(message: bytes) -> bytes:
    """The CMS object of the message that was just written."""
    import base64

    return base64.b64decode(message[message.index(b"\r\n\r\n") + 4 :])


def _certificate(name: str, choice: DatabaseChoice) -> bytes:
    """The certificate of a file, or the one of an address in the database."""
    from mailsec.app.files import naming, read_file
    from mailsec.keys.files import load_certificates

    if "@" not in name or Path(name).exists():
        with naming(name):
            found = load_certificates(read_file(name))
        return found[0]
    if not (choice.configuration or choice.database):
        raise UsageError(f"{name} is an address, and no database was named", hint="-c CONFIG or -d DATABASE, or a file with a certificate")
    from mailsec.model.address import Address
    from mailsec.store.certdb import CertDb

    address = Address.parse(name)
    with CertDb.open(choice.location(), password=choice.passphrase().encode()) as database:
        for entry in database.for_address(address, at=datetime.now(UTC)):
            if entry.verified:
                return entry.der
    raise KeyUnavailable(f"there is no certificate of {name} in {choice.database or 'the database'}", hint='"mailsec cert import" adds one')
