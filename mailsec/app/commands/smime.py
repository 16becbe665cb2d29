"""`mailsec smime sign|verify`: the engine of the gateway, on files."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mailsec.app.opening_keys import KeyInputs, key_options
from mailsec.app.options import DatabaseChoice, database_options
from mailsec.app.output import Output, json_option
from mailsec.app.path_inputs import PathInputs, crl_option, path_options, policy_options
from mailsec.app.signer_options import SignerInputs, header_protection_option, profile_option, signer_options
from mailsec.errors import UsageError

__all__ = ["sign", "verify"]


@json_option
@click.command()
@click.argument("file", metavar="FILE")
@signer_options("without it, the one for the From address")
@header_protection_option("sign")
@profile_option
@click.option("-o", "--output", "target", metavar="FILE", default="-", help="Where the signed message goes  [default: standard output]")
@database_options
@click.pass_obj
def sign(
    output: Output, *, file: str, signer: SignerInputs, header_protection: str, profile: str, target: str, database: DatabaseChoice
) -> None:
    """Sign the message in FILE, and write the whole new message."""
    if output.json and target == "-":
        raise UsageError("--json needs -o FILE for the message")
    from mailsec.app.files import write_file
    from mailsec.app.messages import at_once, random_octets, read_message
    from mailsec.interfaces import run_now
    from mailsec.keys.software import SoftwareBackend
    from mailsec.model.protection import ProtectionPlan
    from mailsec.smime.protect import protect_message
    from mailsec.smime.report import certificate_json
    from mailsec.x509.certificate import load_certificate, summary

    message = read_message(file, "smime").message
    handle = signer.find(output, database, message)
    plan = ProtectionPlan(sign=True, signer=handle.name, form=signer.form, profile=profile, header_protection=header_protection)
    segments = run_now(
        protect_message(
            message, plan, signers=[handle], backend=SoftwareBackend(), random=random_octets, work=at_once, at=datetime.now(UTC)
        )
    )
    write_file(target, segments.join())
    assert handle.certificate is not None
    shown = certificate_json(summary(load_certificate(handle.certificate)))
    output.result(
        {
            "signed": True,
            "form": plan.form,
            "profile": profile,
            "header_protection": header_protection,
            "signer": shown,
            "output": target,
        }
    )


@json_option
@click.command()
@click.argument("file", metavar="FILE")
@click.option("--content", metavar="FILE", default="", help="The content of a detached CMS signature.")
@click.option(
    "--form", type=click.Choice(["auto", "smime", "eml", "cms-der", "cms-pem"]), default="auto", show_default=True, help="What FILE is."
)
@click.option("--require-crl", is_flag=True, help="The status of every certificate must be known.")
@click.option("--max-depth", type=click.IntRange(0, 100), default=None, metavar="N", help="Intermediate authorities, at most.")
@policy_options
@key_options
@path_options
@crl_option
@click.pass_obj
def verify(
    output: Output,
    *,
    file: str,
    content: str,
    form: str,
    require_crl: bool,
    max_depth: int | None,
    policies: tuple[str, ...],
    explicit_policy: bool,
    inhibit_mapping: bool,
    inhibit_any: bool,
    opening: KeyInputs,
    paths: PathInputs,
) -> int:
    """Say who signed the message in FILE, whether that can be believed, and why. The exit code is 0 if it is trusted, 1 if not."""
    from mailsec.app.judgement import judged
    from mailsec.app.messages import read_message
    from mailsec.app.telling import tell_verdict
    from mailsec.x509.extensions import ANY_POLICY

    # "eml" is what test suites call a message.
    given = read_message(file, "smime" if form == "eml" else form, content)
    rules: dict[str, Any] = {
        "policies": frozenset(policies) or frozenset({ANY_POLICY}),
        "explicit_policy": explicit_policy,
        "inhibit_mapping": inhibit_mapping,
        "inhibit_any_policy": inhibit_any,
        "max_depth": max_depth,
        "check_revocation": bool(paths.crls) or require_crl,
    }
    # Verifying needs the anchors of a database, not its keys: "smime decrypt" and "inspect" take those.
    keys = opening.read(output, paths.database, stored=False)
    with judged(output, given, paths, keys, **rules) as found:
        output.result(found.value, lambda: tell_verdict(output, found.verdict, "" if file == "-" else Path(file).name))
    return 0 if found.verdict.trusted else 1
