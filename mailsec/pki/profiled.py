"""What authorities must write into certificates (RFC 5280 §4), beyond what validation (§6.1) needs: held against TLS certificates.

Each rule here is one that public authorities keep; a certificate that breaks it was made by something else.
"""

from __future__ import annotations

from mailsec.model.verdict import Reason
from mailsec.x509.certificate import Certificate

__all__ = ["profile_reasons"]

_NEVER_CRITICAL = {
    "2.5.29.14": ("subjectKeyIdentifier", "RFC 5280 §4.2.1.2"),
    "2.5.29.35": ("authorityKeyIdentifier", "RFC 5280 §4.2.1.1"),
    "1.3.6.1.5.5.7.1.1": ("authorityInfoAccess", "RFC 5280 §4.2.2.1"),
}


def profile_reasons(certificate: Certificate, what: str, *, final: bool) -> list[Reason]:
    """Why a certificate is outside the profile; `final` for the end entity."""
    reasons: list[Reason] = []

    def add(message: str, rfc: str) -> None:
        reasons.append(
            Reason("profile", "path", f"{what}: {message}", "the authority should issue a certificate that follows the profile", rfc)
        )

    # RFC 5280 §4.1.2.2: serial numbers are positive and have at most 20 octets.
    if any(problem.code in ("serial-not-positive", "serial-too-long") for problem in certificate.problems):
        add("a serial number that is not positive, or too long", "RFC 5280 §4.1.2.2")
    for extension in certificate.extensions:
        if extension.critical and extension.oid in _NEVER_CRITICAL:
            name, rfc = _NEVER_CRITICAL[extension.oid]
            add(f"{name} is critical", rfc)
    # RFC 5280 §4.2.1.1: keyIdentifier in all certificates, self-signed ones excepted.
    if certificate.authority_key_id is None and not certificate.is_self_issued:
        add("authorityKeyIdentifier is absent", "RFC 5280 §4.2.1.1")
    is_authority = certificate.basic_constraints is not None and certificate.basic_constraints.ca
    if is_authority:
        # RFC 5280 §4.2.1.2: subjectKeyIdentifier in all certificates of authorities.
        if certificate.subject_key_id is None:
            add("subjectKeyIdentifier is absent", "RFC 5280 §4.2.1.2")
        # RFC 5280 §4.1.2.6: the subject of an authority is not empty.
        if certificate.subject.is_empty:
            add("an authority without a name", "RFC 5280 §4.1.2.6")
    else:
        # RFC 5280 §4.2.1.10: nameConstraints is for authorities.
        if certificate.name_constraints is not None:
            add("name constraints in a certificate that is no authority's", "RFC 5280 §4.2.1.10")
        # RFC 5280 §4.2.1.9: keyCertSign goes with cA.
        if certificate.key_usage is not None and "keyCertSign" in certificate.key_usage:
            add("its key may sign certificates, but it is no authority", "RFC 5280 §4.2.1.9")
    names = certificate.extension("2.5.29.17")
    # RFC 5280 §4.1.2.6: without a subject, subjectAltName is critical.
    if final and certificate.subject.is_empty and (names is None or not names.critical):
        add("an empty subject, and subjectAltName is not critical", "RFC 5280 §4.1.2.6")
    # RFC 5280 §4.2.1.6: dNSName has the preferred name syntax of RFC 1034 §3.5: letters, digits, hyphens; no underscore.
    for host in certificate.dns_names:
        labels = host.removeprefix("*.").split(".")
        if not host.isascii() or not all(label and label.replace("-", "").isalnum() for label in labels) or labels[-1].isdigit():
            add(f"{host[:80]!a} is no host name", "RFC 5280 §4.2.1.6")
            break
    return reasons
