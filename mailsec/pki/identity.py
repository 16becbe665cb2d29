"""Whether a certificate belongs to an address (RFC 8550 §3) or to a host (RFC 9525 §6).

Invariant: only whole names are compared, in one normal form (`Address.key`); nothing is searched for within a text.
"""

from __future__ import annotations

from ipaddress import ip_address

from mailsec.errors import AddressError
from mailsec.model.address import Address, normalise_domain
from mailsec.x509.certificate import Certificate

__all__ = ["matches", "matches_host"]


def matches(certificate: Certificate, address: Address | str) -> bool:
    """RFC 8550 §3: whether an address of the certificate is this one.

    Addresses are rfc822Name and SmtpUTF8Mailbox of subjectAltName, or emailAddress of the subject where there are none. Local parts are
    compared without case, as mail systems do (RFC 8550 §3 leaves it to us); domains without case, A-labels and U-labels being the same.
    """
    if isinstance(address, str):
        try:
            address = Address.parse(address)
        except AddressError:
            return False
    key = address.key
    return any(candidate.key == key for candidate in certificate.addresses)


def matches_host(certificate: Certificate, host: str) -> bool:
    """RFC 9525 §6: whether the certificate names this host or IP address in subjectAltName."""
    try:
        wanted = ip_address(host.strip("[]")).packed
    except ValueError:
        name = normalise_domain(host)
        return any(_host_matches(pattern, name) for pattern in certificate.dns_names)
    # RFC 9525 §6.5: an IP address is compared with iPAddress only, octet by octet.
    return any(kind == 7 and value == wanted for kind, value in certificate.alternative_names or ())


def _host_matches(pattern: str, host: str) -> bool:
    pattern = normalise_domain(pattern)
    # RFC 9525 §6.3: a wildcard is the whole left-most label, stands for one label, and at least two follow it.
    if pattern.startswith("*."):
        label, dot, rest = host.partition(".")
        return bool(label and dot) and rest == pattern[2:] and "." in rest
    return pattern == host and "*" not in pattern
