"""How CMS names a certificate: by issuer and serial number (RFC 5652 §10.2.4).

Invariant: a name and a number, or an `Asn1Error`. Correspondents write the same one in each message: short ones are read once.
"""

from __future__ import annotations

from functools import lru_cache

from mailsec.asn1.reader import SEQUENCE, Element, read_element
from mailsec.asn1.values import read_integer
from mailsec.errors import Asn1Error

__all__ = ["issuer_and_serial"]

# Only short ones are kept, so that no message can fill memory.
_KEPT = 512


def issuer_and_serial(element: Element) -> tuple[bytes, int]:
    """IssuerAndSerialNumber: DER of the issuer's name, and the serial number."""
    return _kept(element.encoding) if len(element) <= _KEPT else _read(element)


def _read(element: Element) -> tuple[bytes, int]:
    parts = element.expect(SEQUENCE, "issuerAndSerialNumber").children()
    if len(parts) != 2:
        raise Asn1Error("issuerAndSerialNumber of more or less than two parts")
    return parts[0].expect(SEQUENCE, "issuer").encoding, read_integer(parts[1])


@lru_cache(maxsize=1024)
def _kept(encoding: bytes) -> tuple[bytes, int]:
    return _read(read_element(encoding))
