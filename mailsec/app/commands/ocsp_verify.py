"""`mailsec ocsp verify`: whether an OCSP response in a file may be believed, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from mailsec.app.output import Output, json_option
from mailsec.app.path_inputs import PathInputs, path_options, read_ders, reason_value, tell_reasons

if TYPE_CHECKING:
    from mailsec.interfaces import CryptoBackend
    from mailsec.model.trust import Anchor
    from mailsec.model.verdict import Reason
    from mailsec.pki.ocsp import OcspRules
    from mailsec.x509.certificate import Certificate
    from mailsec.x509.ocsp import OcspResponse, SingleResponse

__all__ = ["verify"]


@json_option
@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--issuer", metavar="FILE", default="", help="The authority that issued the certificate in question; believed if no --anchor is given."
)
@click.option("--cert", "subject", metavar="FILE", default="", help="The certificate in question.")
@click.option("--no-cert-checks", is_flag=True, help="The responder's certificate need not be for OCSP.")
@path_options
@click.pass_obj
def verify(output: Output, *, file: str, issuer: str, subject: str, no_cert_checks: bool, paths: PathInputs) -> int:
    """Say whether the response in FILE was signed by a responder that may, and what it says at this instant.

    The exit code is 0 if the response is a responder's that may; look at the status: "good", "revoked", or "unknown", which a response that
    is not current says too.
    """
    from mailsec.algorithms.profiles import PROFILES
    from mailsec.keys.software import SoftwareBackend
    from mailsec.model.verdict import Reason
    from mailsec.pki.ocsp import OcspRules, freshness
    from mailsec.x509.certificate import load_certificate
    from mailsec.x509.ocsp import read_ocsp_response

    response = read_ocsp_response(read_ders(file, "OCSP RESPONSE")[0])
    at = paths.instant()
    backend = SoftwareBackend()
    anchors, helpful, _ = paths.trust(output, backend)
    given = [load_certificate(der) for der in read_ders(issuer)] if issuer else []
    certificate = load_certificate(read_ders(subject)[0]) if subject else None
    rules = OcspRules(PROFILES["legacy" if paths.allow_legacy else "default"], check_responder=not no_cert_checks)
    authorities = _authorities(anchors, given, helpful, at, backend, paths)
    single, responder = _judge(response, certificate, authorities, helpful, at, backend, rules)
    valid = not isinstance(responder, Reason)
    reasons: tuple[Reason, ...] = (responder,) if isinstance(responder, Reason) else ()
    # A response that was right once is still its responder's; but what it says of this instant is not known.
    stale = freshness(single, at, rules) if valid and single is not None else None
    if stale is not None:
        reasons = (stale,)
    value: dict[str, Any] = {
        "valid": valid,
        "current": valid and stale is None,
        "status": None if not valid or single is None else "unknown" if stale is not None else single.status,
        "responder": None if isinstance(responder, Reason) else responder.subject.text,
        "produced_at": response.produced_at,
        "this_update": single.this_update if single is not None else None,
        "next_update": single.next_update if single is not None else None,
        "revoked_at": single.revoked_at if valid and single is not None else None,
        "reasons": [reason_value(reason) for reason in reasons],
    }

    def tell() -> None:
        output.text(f"valid: {value['status']}, says {value['responder']}" if valid else "not valid")
        if single is not None:
            output.text(
                f"  of {single.this_update:%Y-%m-%d %H:%M:%S} UTC"
                + (f", until {single.next_update:%Y-%m-%d %H:%M:%S} UTC" if single.next_update else "")
            )
        tell_reasons(output, reasons)

    output.result(value, tell)
    return 0 if valid else 1


def _authorities(
    anchors: Sequence[Anchor],
    given: Sequence[Certificate],
    helpful: Sequence[Certificate],
    at: datetime,
    backend: CryptoBackend,
    paths: PathInputs,
) -> list[Certificate]:
    """Issuers that are believed: anchors, the one that was named, and those that an anchor vouches for."""
    from mailsec.model.trust import Anchor
    from mailsec.pki.path import validate
    from mailsec.x509.certificate import load_certificate

    # Without an anchor, the issuer that was named is one.
    trusted = [*anchors] if anchors or paths.anchors else [Anchor(certificate.der) for certificate in given]
    found = [load_certificate(anchor.der) for anchor in trusted]
    pool = [*given, *helpful]
    for candidate in pool:
        if candidate not in found:
            path = validate(candidate, anchors=trusted, intermediates=pool, at=at, purpose="any", backend=backend, options=paths.options())
            if path.valid:
                found.append(candidate)
    return found


def _judge(
    response: OcspResponse,
    certificate: Certificate | None,
    authorities: Sequence[Certificate],
    helpful: Sequence[Certificate],
    at: datetime,
    backend: CryptoBackend,
    rules: OcspRules,
) -> tuple[SingleResponse | None, Certificate | Reason]:
    from mailsec.model.verdict import Reason
    from mailsec.pki.budget import Budget
    from mailsec.pki.ocsp import is_about, is_of_issuer, responder_of

    budget = Budget()
    if response.status != "successful":
        return None, Reason("ocsp-error", "revocation", f"the responder answered {response.status}", "ask it again later", "RFC 6960 §2.3")
    single = response.responses[0] if response.responses else None
    why = Reason(
        "ocsp-issuer-not-found",
        "revocation",
        "no authority that is believed issued the certificates in the response",
        "name it with --issuer or --anchor",
        "RFC 6960 §3.2",
    )
    for authority in authorities:
        if certificate is not None:
            about = [one for one in response.responses if is_about(one, certificate, authority)]
        else:
            # Without a certificate, all answers must be about this authority's.
            about = [one for one in response.responses if is_of_issuer(one, authority)]
            about = about if len(about) == len(response.responses) else []
        if not about:
            continue
        single = about[0]
        if response.unknown_critical or single.unknown_critical:
            return single, Reason("unknown-critical-extension", "revocation", "a critical extension that is not known", "", "RFC 6960 §4.4")
        responder = responder_of(response, authority, at=at, backend=backend, budget=budget, rules=rules, extra=helpful)
        if not isinstance(responder, Reason):
            return single, responder
        why = responder
    return single, why
