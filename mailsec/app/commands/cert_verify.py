"""`mailsec cert verify`: which path a certificate has to an anchor, every check on it, what failed where, and what would mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from mailsec.app.output import Output, json_option
from mailsec.app.path_inputs import (
    PathInputs,
    certificate_value,
    crl_option,
    path_options,
    policy_options,
    read_ders,
    reason_value,
    tell_reasons,
)

if TYPE_CHECKING:
    from mailsec.model.verdict import Reason
    from mailsec.pki.evidence import RevocationEvidence
    from mailsec.pki.path import PathResult

__all__ = ["verify"]

_PURPOSES = ("email-sign", "email-encrypt", "tls-server", "tls-client", "ocsp", "any")


@json_option
@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--purpose", type=click.Choice(_PURPOSES), default="any", show_default=True, help="What the certificate is asked to be good for."
)
@click.option("--email", metavar="ADDRESS", default="", help="The address that it must name.")
@click.option("--host", metavar="NAME", default="", help="The host or IP address that it must name.")
@click.option("--require-crl", is_flag=True, help="The status of every certificate must be known.")
@click.option("--max-depth", type=click.IntRange(0, 100), default=None, metavar="N", help="Intermediate authorities, at most.")
@policy_options
@path_options
@crl_option
@click.pass_obj
def verify(
    output: Output,
    *,
    file: str,
    purpose: str,
    email: str,
    host: str,
    require_crl: bool,
    max_depth: int | None,
    policies: tuple[str, ...],
    explicit_policy: bool,
    inhibit_mapping: bool,
    inhibit_any: bool,
    paths: PathInputs,
) -> int:
    """Say whether the first certificate in FILE is valid, and why not; others in FILE help to build the path."""
    from mailsec.errors import CertificateError
    from mailsec.keys.software import SoftwareBackend
    from mailsec.pki.path import validate
    from mailsec.pki.purpose import PURPOSES
    from mailsec.x509.certificate import load_certificate
    from mailsec.x509.extensions import ANY_POLICY

    certificate, *others = [load_certificate(der) for der in read_ders(file)]
    if not certificate.readable:
        raise CertificateError(certificate.problems[0].message, hint=certificate.problems[0].hint, stage="parse")
    backend = SoftwareBackend()
    anchors, helpful, distrusted = paths.trust(output, backend, PURPOSES[purpose].anchor or "email")
    instant = paths.instant()

    def ask(evidence: RevocationEvidence, *, check_revocation: bool, skip_sourceless: bool = False) -> PathResult:
        return validate(
            certificate,
            anchors=anchors,
            intermediates=[*others, *helpful],
            at=instant,
            purpose=purpose,
            backend=backend,
            options=paths.options(
                policies=frozenset(policies) or frozenset({ANY_POLICY}),
                explicit_policy=explicit_policy,
                inhibit_mapping=inhibit_mapping,
                inhibit_any_policy=inhibit_any,
                max_depth=max_depth,
                distrusted=distrusted,
                check_revocation=check_revocation,
                skip_sourceless=skip_sourceless,
            ),
            evidence=evidence,
        )

    asked = bool(paths.crls) or require_crl
    result = ask(paths.evidence(), check_revocation=asked)
    if result.valid and paths.has_database:
        lacking = result.missing if asked else ask(paths.evidence(), check_revocation=True).missing
        kept = paths.kept(output, lacking)
        if kept:
            result = ask(paths.evidence(kept), check_revocation=True, skip_sourceless=not asked)
    identity = _identity(result, email, host)
    valid = result.valid and not _forbidden(result, require_crl) and not identity
    reasons = (*result.reasons, *identity)
    value: dict[str, Any] = {
        "valid": valid,
        "chain": [certificate_value(link) for link in result.chain],
        "revocation": result.revocation.value,
        "policies": sorted(result.policies),
        "valid_until": result.valid_until,
        "checks": [
            {
                "subject": check.certificate.subject.text,
                "role": check.role,
                "revocation": check.revocation.value,
                "reasons": [reason_value(reason) for reason in check.reasons],
            }
            for check in result.checks
        ],
        "missing": [{"kind": request.kind, "urls": list(request.urls)} for request in result.missing],
        "reasons": [reason_value(reason) for reason in reasons],
    }
    output.result(value, lambda: _tell(output, result, valid, identity))
    return 0 if valid else 1


def _forbidden(result: PathResult, require_crl: bool) -> bool:
    """Whether the evidence speaks against the certificate: revoked; unknown where it must be known, or where lists given cannot be believed."""
    from mailsec.model.verdict import Revocation

    if result.revocation is Revocation.REVOKED:
        return True
    if result.revocation is not Revocation.UNKNOWN:
        return False
    # A list that was given for this issuer and refused is not the same as none: somebody may have changed it.
    return require_crl or any(reason.stage == "revocation" and reason.code != "revocation-unknown" for reason in result.reasons)


def _identity(result: PathResult, email: str, host: str) -> tuple[Reason, ...]:
    from mailsec.model.verdict import Reason
    from mailsec.pki.identity import matches, matches_host

    certificate = result.chain[0]
    found = []
    if email and not matches(certificate, email):
        found.append(
            Reason("address-differs", "identity", f"the certificate does not name {email}", "its owner needs one that does", "RFC 8550 §3")
        )
    if host and not matches_host(certificate, host):
        found.append(
            Reason("host-differs", "identity", f"the certificate does not name {host}", "its owner needs one that does", "RFC 9525 §6")
        )
    return tuple(found)


def _tell(output: Output, result: PathResult, valid: bool, identity: tuple[Reason, ...]) -> None:
    output.text("valid" if valid else "not valid")
    for check in result.checks:
        output.text(f"\n{check.role}: {check.certificate.subject.text or '(no name)'}")
        if check.certificate.not_after is not None:
            output.text(
                f"  until {check.certificate.not_after:%Y-%m-%d %H:%M:%S} UTC, {check.certificate.key_type}, {check.revocation.value}"
            )
        tell_reasons(output, check.reasons)
    if identity:
        output.text("")
        tell_reasons(output, identity)
    for request in result.missing:
        if request.urls:
            output.text(f"\n{request.kind} at {', '.join(request.urls)}")
