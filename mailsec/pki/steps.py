"""The steps of RFC 5280 §6.1 over one path, their letters in the comments; policies as RFC 9618 has them.

Every failed step is a reason, and the others go on: people see all that is wrong at once. Invariant: a path without reasons has passed
every step, and nothing in here looks at more certificates than the path holds.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from mailsec.errors import Asn1Error
from mailsec.interfaces import CryptoBackend
from mailsec.model.address import normalise_domain
from mailsec.model.trust import Anchor
from mailsec.model.verdict import Reason
from mailsec.pki.budget import Budget
from mailsec.pki.constraints import Constraints, subject_names
from mailsec.pki.policies import PolicyGraph
from mailsec.pki.profiled import profile_reasons
from mailsec.pki.purpose import Purpose
from mailsec.pki.result import CertificateCheck, PathOptions
from mailsec.pki.signatures import algorithm_reason, inherit_parameters, is_signed_by, key_reason, signature_reason, unchecked_reason
from mailsec.x509.certificate import Certificate
from mailsec.x509.extensions import ANY_EXTENDED_KEY_USAGE
from mailsec.x509.keys import key_facts
from mailsec.x509.names import printable

__all__ = ["check_alone", "check_path"]

Add = Callable[[str, str, str, str], None]

# Extensions whose critical form is understood: all that is processed here, and those that only say where to find something.
_PROCESSED = frozenset(
    {
        "2.5.29.14",  # subjectKeyIdentifier
        "2.5.29.15",  # keyUsage
        "2.5.29.17",  # subjectAltName
        "2.5.29.18",  # issuerAltName
        "2.5.29.19",  # basicConstraints
        "2.5.29.30",  # nameConstraints
        "2.5.29.31",  # cRLDistributionPoints
        "2.5.29.32",  # certificatePolicies
        "2.5.29.33",  # policyMappings
        "2.5.29.35",  # authorityKeyIdentifier
        "2.5.29.36",  # policyConstraints
        "2.5.29.37",  # extKeyUsage
        "2.5.29.46",  # freshestCRL
        "2.5.29.54",  # inhibitAnyPolicy
        "1.3.6.1.5.5.7.1.1",  # authorityInfoAccess
        "1.3.6.1.5.5.7.48.1.5",  # id-pkix-ocsp-nocheck
        "1.2.840.113549.1.9.15",  # sMIMECapabilities (RFC 4262)
    }
)

# Oddities that harm nobody: the certificate is unmistakable all the same.
_TOLERATED = frozenset({"serial-not-positive", "serial-too-long", "address-unreadable"})

_NAME_CHECKS = 1 << 20
"""Names times constraints of one certificate; OpenSSL draws the same line (NAME_CHECK_MAX)."""


class _Notes:
    """Reasons about one certificate."""

    __slots__ = ("reasons", "what")

    def __init__(self, certificate: Certificate) -> None:
        self.what = certificate.subject.text or "the certificate"
        self.reasons: list[Reason] = []

    def add(self, code: str, message: str, hint: str, rfc: str) -> None:
        self.reasons.append(Reason(code, "path", message, hint, rfc))


def check_path(
    anchor: Anchor,
    chain: tuple[Certificate, ...],
    *,
    purpose: Purpose,
    at: datetime,
    options: PathOptions,
    backend: CryptoBackend,
    budget: Budget,
) -> tuple[tuple[CertificateCheck, ...], frozenset[str]]:
    """Check a path (the end entity first, the anchor last); return its checks in the same order, and the policies it is valid for."""
    path = chain[::-1]
    last = len(path) - 1
    top = path[0]
    # RFC 5280 §6.1.2: (a) valid_policy_graph, (b) and (c) subtrees, (d) explicit_policy, (e) inhibit_anyPolicy, (f) policy_mapping,
    # (g) to (j) the anchor's key and name, (k) max_path_length.
    graph = PolicyGraph()
    constraints = Constraints()
    explicit_policy = 0 if options.explicit_policy else last + 1
    inhibit_any = 0 if options.inhibit_any_policy else last + 1
    mapping_allowed = 0 if options.inhibit_mapping else last + 1
    max_path_length = last if options.max_depth is None else options.max_depth
    working_key = top.spki
    checks: list[CertificateCheck] = []
    for index, certificate in enumerate(path):
        notes = _Notes(certificate)
        final = index == last
        self_issued = certificate.is_self_issued
        _check_always(certificate, notes, purpose, at, options, anchor=index == 0, final=final)
        if index:
            issuer = path[index - 1]
            # RFC 5280 §6.1.3 (a)(1): signed by the working key.
            _check_signature(certificate, notes, issuer, working_key, options, backend, budget)
            # RFC 5280 §6.1.3 (a)(4): the issuer's name is the subject of the certificate above.
            if not certificate.issuer.matches(issuer.subject):
                notes.add("issuer-differs", f"{notes.what}: not issued in the name of {issuer.subject}", "", "RFC 5280 §6.1.3 (a)(4)")
            # RFC 5280 §6.1.3 (b), (c): names within the constraints; not of self-issued certificates, unless it is the last.
            if constraints and (final or not self_issued):
                _check_names(certificate, notes, constraints, purpose)
            # RFC 5280 §6.1.3 (d), (e), RFC 9618 §5.3: the policies of the certificate.
            graph.process(certificate.policies, any_allowed=inhibit_any > 0 or (not final and self_issued))
            # RFC 5280 §6.1.3 (f): a policy, or none is asked for.
            if not graph and explicit_policy <= 0:
                notes.add(
                    "policy-missing",
                    f"{notes.what}: a policy is asked for, and none is valid along the path",
                    "ask for other policies, or for a certificate under them",
                    "RFC 5280 §6.1.3 (f)",
                )
            if final:
                # RFC 5280 §6.1.5 (a), (b): the last certificate may still ask for a policy.
                explicit_policy = max(explicit_policy - 1, 0)
                if certificate.policy_constraints is not None and certificate.policy_constraints.require_explicit_policy == 0:
                    explicit_policy = 0
            else:
                # RFC 5280 §6.1.4 (a), (b): mappings.
                if certificate.policy_mappings is not None:
                    if any("2.5.29.32.0" in pair for pair in certificate.policy_mappings):
                        notes.add("policy-mapping", f"{notes.what}: maps anyPolicy", "", "RFC 5280 §6.1.4 (a)")
                    graph.map(certificate.policy_mappings, allowed=mapping_allowed > 0)
                # RFC 5280 §6.1.4 (c) to (f): the next issuer's name and key.
                working_key = inherit_parameters(certificate.spki, certificate.key, working_key)
        if not final:
            # RFC 5280 §6.1.4 (g): name constraints of an authority hold for all below. An anchor's hold as well (RFC 5937 §3.2).
            if certificate.name_constraints is not None:
                try:
                    constraints.add(certificate.name_constraints)
                except (Asn1Error, UnicodeError) as error:
                    notes.add("name-constraints-unreadable", f"{notes.what}: {error}", "", "RFC 5280 §6.1.4 (g)")
            if index and not self_issued:
                # RFC 5280 §6.1.4 (l): one certificate less below, unless it is self-issued.
                if max_path_length <= 0:
                    notes.add(
                        "path-too-long", f"{notes.what}: one authority more than one above it allows below", "", "RFC 5280 §6.1.4 (l)"
                    )
                max_path_length -= 1
                # RFC 5280 §6.1.4 (h): count down.
                explicit_policy = max(explicit_policy - 1, 0)
                mapping_allowed = max(mapping_allowed - 1, 0)
                inhibit_any = max(inhibit_any - 1, 0)
            # RFC 5280 §6.1.4 (i), (j): policyConstraints, inhibitAnyPolicy.
            bounds = certificate.policy_constraints
            if bounds is not None:
                if bounds.require_explicit_policy is not None:
                    explicit_policy = min(explicit_policy, bounds.require_explicit_policy)
                if bounds.inhibit_policy_mapping is not None:
                    mapping_allowed = min(mapping_allowed, bounds.inhibit_policy_mapping)
            if certificate.inhibit_any_policy is not None:
                inhibit_any = min(inhibit_any, certificate.inhibit_any_policy)
            _check_authority(certificate, notes, purpose, anchor=index == 0)
            # RFC 5280 §6.1.4 (m): pathLenConstraint.
            basic = certificate.basic_constraints
            if basic is not None and basic.path_length is not None:
                max_path_length = min(max_path_length, basic.path_length)
        else:
            _check_end(certificate, notes, purpose)
            _check_anchor(certificate, notes, anchor, purpose)
        role = "end-entity" if final else "authority" if index else "anchor"
        checks.append(CertificateCheck(certificate, role, tuple(notes.reasons)))
    # RFC 5280 §6.1.5 (g), RFC 9618 §5.5: the policies that the user asked for.
    policies = graph.constrained(options.policies)
    if explicit_policy <= 0 and not policies and not any(reason.code == "policy-missing" for check in checks for reason in check.reasons):
        reason = Reason(
            "policy-missing",
            "path",
            "a policy is asked for, and the path is valid for none of those asked for",
            "ask for other policies, or for a certificate under them",
            "RFC 5280 §6.1.5 (g)",
        )
        checks[-1] = CertificateCheck(path[-1], checks[-1].role, (*checks[-1].reasons, reason))
    return tuple(checks[::-1]), policies


def check_alone(certificate: Certificate, *, purpose: Purpose, at: datetime, options: PathOptions) -> tuple[Reason, ...]:
    """What can be said of an end entity whose path is not known."""
    notes = _Notes(certificate)
    _check_always(certificate, notes, purpose, at, options, anchor=False, final=True)
    if certificate.readable:
        _check_end(certificate, notes, purpose)
    return tuple(notes.reasons)


def _check_always(
    certificate: Certificate, notes: _Notes, purpose: Purpose, at: datetime, options: PathOptions, *, anchor: bool, final: bool
) -> None:
    if certificate.problems:
        notes.reasons.extend(problem for problem in certificate.problems if problem.code not in _TOLERATED)
    if certificate.fingerprint in options.distrusted:
        notes.add("distrusted", f"{notes.what}: marked as distrusted", "see `mailsec cert show`", "")
    # RFC 5280 §6.1.3 (a)(2): the validity holds the instant. Seconds are whole, so the last one lasts to its end.
    start, end = certificate.not_before, certificate.not_after
    if start is not None and end is not None:
        if at < start:
            notes.add("not-yet-valid", f"{notes.what}: valid from {start:%Y-%m-%d %H:%M:%S} UTC", "", "RFC 5280 §6.1.3 (a)(2)")
        elif at.replace(microsecond=0) > end:
            notes.add(
                "expired",
                f"{notes.what}: expired {end:%Y-%m-%d %H:%M:%S} UTC",
                "its holder needs a new certificate" if final else "the authority needs a new certificate",
                "RFC 5280 §6.1.3 (a)(2)",
            )
    weak = key_reason(certificate, options.profile)
    if weak is not None:
        notes.reasons.append(weak)
    # RFC 5280 §6.1.4 (o), §6.1.5 (f): a critical extension that is not understood refuses the path.
    for extension in certificate.extensions:
        if extension.critical and extension.oid not in _PROCESSED:
            notes.add("unknown-critical-extension", f"{notes.what}: extension {extension.oid}", "", "RFC 5280 §6.1.4 (o)")
    if purpose.profiled:
        notes.reasons.extend(profile_reasons(certificate, notes.what, final=final))


def _check_signature(
    certificate: Certificate,
    notes: _Notes,
    issuer: Certificate,
    working_key: bytes,
    options: PathOptions,
    backend: CryptoBackend,
    budget: Budget,
) -> None:
    key = issuer.key if working_key == issuer.spki else key_facts(working_key)
    right = is_signed_by(
        certificate.fingerprint, certificate.tbs, certificate.signature_algorithm, certificate.signature, working_key, key, backend, budget
    )
    reason = signature_reason(right, notes.what, budget)
    if right is False:
        reason = unchecked_reason(certificate.signature_algorithm, working_key, key, notes.what, backend) or reason
    if reason is not None:
        notes.reasons.append(reason)
    reason = algorithm_reason(certificate.signature_algorithm, key, notes.what, options.profile)
    if reason is not None:
        notes.reasons.append(reason)


def _check_names(certificate: Certificate, notes: _Notes, constraints: Constraints, purpose: Purpose) -> None:
    names = subject_names(certificate, hosts_in_common_name=not purpose.name.startswith("email"))
    if len(names) * constraints.bases > _NAME_CHECKS:
        notes.add("name-checks", f"{notes.what}: too many names under too many constraints", "", "RFC 5280 §6.1.3 (b)")
        return
    for violation in constraints.violations(names):
        notes.add(
            "name-not-permitted",
            f"{notes.what}: {violation}",
            "an authority of the path may not vouch for this name",
            "RFC 5280 §6.1.3 (b), (c)",
        )
        return


def _check_authority(certificate: Certificate, notes: _Notes, purpose: Purpose, *, anchor: bool) -> None:
    basic = certificate.basic_constraints
    # RFC 5280 §6.1.4 (k): a version 3 certificate of an authority says cA; a version 1 one is an authority only as an anchor. A person's
    # certificate that is trusted by itself does not become an authority by that.
    if (basic is None and not (anchor and certificate.version == 1)) or (basic is not None and not basic.ca):
        notes.add("not-an-authority", f"{notes.what}: may not issue certificates", "", "RFC 5280 §6.1.4 (k)")
    # RFC 5280 §6.1.4 (n): keyCertSign, where keyUsage is present.
    if certificate.key_usage is not None and "keyCertSign" not in certificate.key_usage:
        notes.add("key-usage", f"{notes.what}: its key may not sign certificates", "", "RFC 5280 §6.1.4 (n)")
    # As Mozilla, Microsoft and OpenSSL read it: an authority with extendedKeyUsage issues for these purposes only.
    usages = certificate.extended_key_usage
    wanted = purpose.extended_key_usage
    if usages is not None and wanted and wanted not in usages and ANY_EXTENDED_KEY_USAGE not in usages and purpose.name != "ocsp":
        notes.add("extended-key-usage", f"{notes.what}: an authority for other purposes than {purpose.name}", "", "RFC 5280 §4.2.1.12")


def _check_end(certificate: Certificate, notes: _Notes, purpose: Purpose) -> None:
    wanted = purpose.usages(certificate.key)
    # RFC 8550 §4.4.2, RFC 5280 §4.2.1.3: where keyUsage is present, the use is one of those in it.
    if wanted and certificate.key_usage is not None and not wanted & certificate.key_usage:
        notes.add(
            "key-usage",
            f"{notes.what}: its key is not for {purpose.name}, but for {', '.join(sorted(certificate.key_usage)) or 'nothing'}",
            "its holder should use another certificate",
            "RFC 8550 §4.4.2",
        )
    usages = certificate.extended_key_usage
    # RFC 8550 §4.4.4: where extKeyUsage is present, it holds emailProtection or anyExtendedKeyUsage.
    if purpose.extended_key_usage and (usages is not None or purpose.must_have_extended_key_usage):
        usages = usages or frozenset()
        if purpose.extended_key_usage not in usages and not (purpose.any_extended_key_usage and ANY_EXTENDED_KEY_USAGE in usages):
            notes.add(
                "extended-key-usage",
                f"{notes.what}: not issued for {purpose.name}",
                "its holder needs another certificate",
                "RFC 8550 §4.4.4",
            )


def _check_anchor(certificate: Certificate, notes: _Notes, anchor: Anchor, purpose: Purpose) -> None:
    """What the anchor may vouch for (RFC 5280 §6.1.1 (d) leaves it to us, RFC 5914 has the same idea)."""
    if purpose.anchor and purpose.anchor not in anchor.purposes:
        notes.add("anchor-purpose", f"{notes.what}: the anchor is not trusted for {purpose.name}", "see `mailsec cert trust`", "")
    if anchor.not_after is not None and (certificate.not_before is None or certificate.not_before > anchor.not_after):
        notes.add("anchor-distrusted-after", f"{notes.what}: issued after the anchor lost its trust", "", "")
    if purpose.anchor == "email" and "*" not in anchor.domains:
        domains = tuple(normalise_domain(domain.lstrip(".")) for domain in anchor.domains)
        # All addresses, not one: else an authority for one domain could slip in an address of another beside it.
        for address in certificate.addresses:
            if not any(address.domain_key == domain or address.domain_key.endswith("." + domain) for domain in domains):
                shown = printable(str(address))
                notes.add(
                    "anchor-domain",
                    f"{notes.what}: the anchor is trusted for {', '.join(domains)}, not for {shown}",
                    "see `mailsec cert trust --for`",
                    "",
                )
        if not certificate.addresses:
            notes.add("anchor-domain", f"{notes.what}: names no address, and the anchor is trusted for {', '.join(domains)} only", "", "")
