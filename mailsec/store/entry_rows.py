"""Rows of the certificate tables: what their columns mean, how they are made, and which entry is the best of several.

Rows may have been edited by anybody: reading them never fails, whatever stands in a column. The one invariant: what decides is read
from verified rows only, by whoever calls this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from mailsec.errors import UsageError
from mailsec.model.address import Address, normalise_domain
from mailsec.model.trust import CertificateEntry, TrustFlags
from mailsec.store.facts import Facts
from mailsec.store.ledger import Changes
from mailsec.store.patterns import check_patterns
from mailsec.x509.certificate import load_certificate

__all__ = [
    "PURPOSES",
    "anchor_purposes",
    "best_first",
    "demand_domains",
    "insert_certificate",
    "instant_of",
    "key_place",
    "may_be_authority",
    "own_first",
    "patterns_for",
    "seconds_of",
    "strings",
    "trust_columns",
]

# RFC 5280 §4.2.1.9: basicConstraints, critical or not, with cA TRUE first.
_CA_TRUE: Final = re.compile(rb"\x06\x03\x55\x1d\x13(?:\x01\x01[^\x00])?\x04.\x30.\x01\x01[^\x00]", re.DOTALL)

PURPOSES: Final = ("email", "tls-server", "tls-client")


def insert_certificate(
    changes: Changes, der: bytes, digest: bytes, facts: Facts, nickname: str, source: str, at: datetime, columns: Mapping[str, Any]
) -> int:
    """Add a certificate and the addresses that it names; `columns` are its trust, and what else differs from nothing."""
    number = changes.insert(
        "certificates",
        {
            "sha256": digest,
            "der": der,
            "nickname": nickname,
            "distrust_after": None,
            "state": "",
            **columns,
            "subject": facts.subject,
            "key_id": facts.key_id,
            "not_before": seconds_of(facts.not_before),
            "not_after": seconds_of(facts.not_after),
            "source": source[:128],
            "learnt_at": int(at.timestamp()),
        },
    )
    for address in facts.addresses:
        changes.insert("certificate_addresses", {"certificate_id": number, "address": address, "bound": False})
    return number


def best_first(
    built: Iterable[tuple[CertificateEntry, Mapping[str, Any]]], at: datetime
) -> list[tuple[CertificateEntry, Mapping[str, Any]]]:
    """Design: of several certificates with one name, our own newest valid one is used."""
    second = int(at.timestamp())

    def worth(item: tuple[CertificateEntry, Mapping[str, Any]]) -> tuple[bool, bool, bool, int, int]:
        entry, row = item
        # An edited row may hold anything in any column.
        begins, ends = (row["not_before"] or 0, row["not_after"] or 0) if entry.verified else (0, 0)
        return entry.verified, begins <= second <= ends, entry.has_key, begins, entry.id

    return sorted(built, key=worth, reverse=True)


def own_first(
    built: Iterable[tuple[CertificateEntry, Mapping[str, Any]]], address: Address, at: datetime
) -> list[tuple[CertificateEntry, Mapping[str, Any]]]:
    """Valid ones of the address itself before those that are for its whole domain; then the others, in the same order."""
    second = int(at.timestamp())

    def place(item: tuple[CertificateEntry, Mapping[str, Any]]) -> tuple[bool, bool]:
        entry, row = item
        return not (row["not_before"] or 0) <= second <= (row["not_after"] or 0), entry.for_whom(address) != address.key

    return sorted(built, key=place)


def anchor_purposes(trust: TrustFlags, der: bytes) -> tuple[str, ...]:
    """What the letters make of a certificate: an authority that vouches for others (C, T), or one that stands for itself alone (P).

    As certutil's verdicts are: C on a certificate that is no authority means nothing, and P on an authority does not make it vouch for others.
    """
    certificate = load_certificate(der)
    constraints = certificate.basic_constraints
    # Old roots have no basicConstraints; a leaf that somebody marked C by mistake has none, and an issuer.
    if certificate.is_self_issued if constraints is None else constraints.ca:
        usable = {"email": trust.email_anchor, "tls-server": "C" in trust.tls, "tls-client": "T" in trust.tls}
    else:
        usable = {"email": trust.email_peer, "tls-server": "P" in trust.tls, "tls-client": "P" in trust.tls}
    if "p" in trust.tls:
        usable |= {"tls-server": False, "tls-client": False}
    return tuple(purpose for purpose in PURPOSES if usable[purpose])


def may_be_authority(der: bytes) -> bool:
    """False for certificates that are surely none: cheap enough to be asked of a million."""
    return _CA_TRUE.search(der) is not None


def trust_columns(trust: TrustFlags, domains: Sequence[str]) -> dict[str, str]:
    return {"trust_tls": trust.tls, "trust_email": trust.email, "trust_object": trust.object, "domains": json.dumps(list(domains))}


def demand_domains(trust: TrustFlags, domains: Sequence[str]) -> tuple[str, ...]:
    """Design §6: anchors added by hand are for named domains."""
    named = tuple(dict.fromkeys("*" if domain == "*" else normalise_domain(domain.removeprefix("@")) for domain in domains))
    if trust.email_anchor and not named:
        raise UsageError("an anchor for e-mail needs the domains that it may vouch for", hint='name them with --for, or "--for any"')
    for domain in named:
        if domain != "*":
            check_patterns(["@" + domain])
    return named


def key_place(number: int, key_id: bytes) -> bytes:
    return b"private_keys|%d|" % number + key_id


def strings(text: str) -> tuple[str, ...]:
    try:
        values = json.loads(text)
    except (ValueError, TypeError, RecursionError):  # an edited row: it is not verified, but it can be shown
        return ()
    return tuple(value for value in values if isinstance(value, str)) if isinstance(values, list) else ()


def seconds_of(instant: datetime | None) -> int | None:
    return None if instant is None else int(instant.timestamp())


def instant_of(seconds: Any) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError, TypeError):
        return None


def patterns_for(address: Address) -> list[str]:
    """Every pattern that means `address` (`model.session.matches_pattern`), so that an index can find them."""
    labels = address.domain_key.split(".")
    above = ["@." + ".".join(labels[start:]) for start in range(1, len(labels))]
    return ["*", address.key, "@" + address.domain_key, *above]
