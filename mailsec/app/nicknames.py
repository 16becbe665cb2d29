"""What certificates are called where nobody says it."""

from __future__ import annotations

from typing import Final

from mailsec.store.nicknames import make_nickname
from mailsec.x509.certificate import load_certificate
from mailsec.x509.names import decode

__all__ = ["nickname_for"]

_COMMON_NAME: Final = b"\x55\x04\x03"
"""id-at-commonName (2.5.4.3), as DER has it."""


def nickname_for(der: bytes) -> str:
    """What a certificate is called where nobody said it: its first mail address, host or common name."""
    certificate = load_certificate(der)
    names = [str(address) for address in certificate.addresses[:1]] + list(certificate.dns_names[:1])
    names += [decode(tag, value) or "" for tag, value in certificate.subject.values(_COMMON_NAME)[:1]]
    return make_nickname(next((name for name in names if name), ""), "imported")
