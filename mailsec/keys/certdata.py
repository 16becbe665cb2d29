"""Root certificates with Mozilla's trust bits for e-mail, as values, and the file in which Mozilla publishes them (certdata.txt).

The file is a list of PKCS#11 objects in words and octal octets: certificates, and trust objects that name them by SHA-1. Octets in, values out,
linear. The one invariant: a root without a trust object that can be read is trusted for nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from mailsec.errors import InputError, LimitExceeded
from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = ["Root", "distrust_after_of", "is_certdata", "read_certdata"]

_OCTAL: Final = re.compile(rb"\\([0-3][0-7]{2})")
_TRUST: Final = {"CKT_NSS_TRUSTED_DELEGATOR": "C", "CKT_NSS_NOT_TRUSTED": "p"}


@dataclass(frozen=True, slots=True)
class Root:
    """One root of the list."""

    name: str
    der: bytes
    email: str
    """The trust letter for e-mail: "C" (a CA for it), "p" (never), "" (nothing)."""
    distrust_after: datetime | None = None
    """Certificates for mail that it issued later are not believed."""


def is_certdata(data: bytes) -> bool:
    """True where `data` looks like the file."""
    return b"CKO_NSS_TRUST" in data and b"CKA_CLASS CK_OBJECT_CLASS" in data


def read_certdata(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> Sequence[Root]:
    """The roots of the file, in its order. Raise InputError where there are none."""
    if len(data) > limits.message_size:
        raise LimitExceeded("message_size", "a list of roots that is too large")
    certificates: list[tuple[str, bytes, datetime | None]] = []
    trust: dict[bytes, str] = {}
    for values in _objects(data):
        kind = values.get("CKA_CLASS", b"")
        if kind == b"CKO_CERTIFICATE" and values.get("CKA_VALUE"):
            name = values.get("CKA_LABEL", b"").decode("utf-8", "replace")
            certificates.append((name, values["CKA_VALUE"], distrust_after_of(values.get("CKA_NSS_EMAIL_DISTRUST_AFTER"))))
        elif kind == b"CKO_NSS_TRUST" and (digest := values.get("CKA_CERT_SHA1_HASH")):
            trust[digest] = _TRUST.get(values.get("CKA_TRUST_EMAIL_PROTECTION", b"").decode("ascii", "replace"), "")
    roots = [Root(name, der, trust.get(hashlib.sha1(der, usedforsecurity=False).digest(), ""), after) for name, der, after in certificates]
    if not roots:
        raise InputError("no root certificate in this list", hint="Mozilla's certdata.txt has CKO_CERTIFICATE objects", stage="parse")
    return roots


def distrust_after_of(octets: bytes | None) -> datetime | None:
    """CKA_NSS_EMAIL_DISTRUST_AFTER: a UTCTime, or the boolean false (one zero octet) where there is none."""
    if octets is None or len(octets) != 13:
        return None
    try:
        # RFC 5280 §4.1.2.5.1: two digits below 50 are of this century.
        return datetime.strptime("20" + octets.decode("ascii"), "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _objects(data: bytes) -> Iterator[Mapping[str, bytes]]:
    """The attributes of each object: numbers and words as they stand, texts without quotes, octets decoded."""
    values: dict[str, bytes] = {}
    name, collecting = "", bytearray()
    octal = False
    for line in data.splitlines():
        line = line.strip()
        if octal:
            if line == b"END":
                values[name], octal = bytes(collecting), False
            else:
                collecting += bytes(int(digits, 8) & 0xFF for digits in _OCTAL.findall(line))
            continue
        if not line or line.startswith(b"#"):
            continue
        words = line.split(None, 2)
        if words[0] == b"CKA_CLASS":
            if values:
                yield values
            values = {}
        name = words[0].decode("ascii", "replace")
        if len(words) == 2 and words[1] == b"MULTILINE_OCTAL":
            octal, collecting = True, bytearray()
        elif len(words) == 3:
            text = words[2]
            values[name] = text[1:-1] if words[1] == b"UTF8" and len(text) >= 2 else text
    if values:
        yield values
