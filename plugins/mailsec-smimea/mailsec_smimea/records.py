"""What SMIMEA records say, and how they are written (RFC 8162 §2, with the fields of RFC 6698 §2.1).

Only a record with a whole certificate gives one: a hash tells which certificate is meant, not what it is. The one invariant: what is not
authentic gives nothing that is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256, sha512
from typing import Any

from mailsec.interfaces import FoundCertificate
from mailsec.model.verdict import Reason
from mailsec.x509.certificate import load_certificate

__all__ = ["DANE_EE", "MATCHING", "PKIX_EE", "SELECTORS", "SmimeaRecord", "certificates_of", "read_records", "record_for"]

# RFC 7218 §2.1: the words for certificate usages 0 to 3.
PKIX_TA, PKIX_EE, DANE_TA, DANE_EE = range(4)
SELECTORS = {"cert": 0, "spki": 1}
"""RFC 7218 §2.2."""
MATCHING = {"full": 0, "sha2-256": 1, "sha2-512": 2}
"""RFC 7218 §2.3."""

_MOST = 8
"""Records of one name that are looked at: attack: a name with hundreds, each of which is judged."""
_OCTETS = 32 * 1024

_UNSIGNED = Reason(
    "smimea-unsigned",
    "policy",
    "DNSSEC does not vouch for the record",
    hint="its zone is not signed, or no validating resolver is asked: see [plugin.smimea] resolver",
    rfc="RFC 8162 §6",
)


@dataclass(frozen=True, slots=True)
class SmimeaRecord:
    """One record."""

    usage: int
    selector: int
    matching: int
    data: bytes

    @property
    def certificate(self) -> bytes | None:
        """The certificate that stands in it (DER); None where it is a hash, or a bare key."""
        whole = self.selector == SELECTORS["cert"] and self.matching == MATCHING["full"]
        return self.data if whole and len(self.data) <= _OCTETS else None

    def text(self, owner: str, ttl: int) -> str:
        """The line of a zone file (RFC 6698 §2.2)."""
        return f"{owner}. {ttl} IN SMIMEA {self.usage} {self.selector} {self.matching} {self.data.hex()}"


def read_records(records: Sequence[Any]) -> tuple[SmimeaRecord, ...]:
    """The records as a resolver gives them, the first few."""
    return tuple(SmimeaRecord(one.usage, one.selector, one.mtype, bytes(one.cert)) for one in records[:_MOST])


def certificates_of(records: Sequence[SmimeaRecord], owner: str, *, authentic: bool, binding: bool) -> tuple[FoundCertificate, ...]:
    """What the records of one name give, those first for which the domain itself vouches.

    `authentic`: DNSSEC vouches for them; else each is shown, and not used. `binding`: usage 3 needs no anchor.
    """
    # RFC 6698 §2.1.1: usages 0 and 2 name an authority. It helps to build a path, and is believed no more than any other.
    chain = tuple(one.certificate for one in records if one.usage in (PKIX_TA, DANE_TA) and one.certificate is not None)
    found = []
    for record in sorted(records, key=lambda one: one.usage != DANE_EE):
        if record.usage not in (PKIX_EE, DANE_EE) or record.certificate is None:
            continue
        # RFC 8162 §6, RFC 6698 §4.1: without DNSSEC whoever answers faster says whose certificate it is.
        found.append(
            FoundCertificate(
                record.certificate,
                "smimea",
                # RFC 7671 §5.1: usage 3 is the key's binding itself: neither names nor issuers count.
                trusted_binding=authentic and binding and record.usage == DANE_EE,
                against=None if authentic else _UNSIGNED,
                chain=chain,
                origin=f"usage {record.usage}, {owner}",
            )
        )
    return tuple(found)


def record_for(certificate: bytes, *, usage: int = DANE_EE, selector: str = "cert", matching: str = "full") -> SmimeaRecord:
    """The record that says `certificate` (DER)."""
    data = certificate if selector == "cert" else load_certificate(certificate).spki
    if matching == "sha2-256":
        data = sha256(data).digest()
    elif matching == "sha2-512":
        data = sha512(data).digest()
    return SmimeaRecord(usage, SELECTORS[selector], MATCHING[matching], data)
