"""A TLS session in words: for the log, for events, and for the Received field.

The one invariant: what stands in a certificate is a stranger's text; here it is printable ASCII, short, and cannot end a comment.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

from mailsec.model.session import TlsInfo
from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["days_left", "tls_comment", "tls_fields"]

_WORD = re.compile(r"[A-Za-z0-9._-]{1,80}\Z")
_UNSAFE = re.compile(r"[^ !#-'*-\[\]-~]")
"""All that is not printable ASCII, and what quotes, escapes or ends: `"`, `\\`, `(`, `)` (RFC 5322 §3.2.2)."""
_NAME = 80


def days_left(certificate: Certificate, at: datetime) -> int:
    """Whole days until the certificate ends; below 0 where it has ended."""
    return (certificate.not_after - at).days if certificate.not_after is not None else -1


def tls_fields(info: TlsInfo, at: datetime) -> Mapping[str, object]:
    """The fields of events: what a metric counts by, and what somebody looks for in the log."""
    fields: dict[str, object] = {
        "tls_version": info.version,
        "tls_cipher": info.cipher,
        "tls_group": info.group,
        "tls_resumed": info.resumed,
        "tls_name": info.server_name,
    }
    if info.peer_certificate is not None:
        certificate = load_certificate(info.peer_certificate)
        fields |= {
            "client_subject": certificate.subject.text,
            "client_fingerprint": certificate.fingerprint.hex(),
            "client_verified": info.peer_verified,
            "client_days_left": days_left(certificate, at),
            "client_reasons": "; ".join(info.peer_reasons),
        }
    return fields


def tls_comment(info: TlsInfo, at: datetime) -> str:
    """What stands in the Received field; "" where the version is no word of ours.

    RFC 8314 §7.4 has a clause of its own for it, which hardly anybody reads; the comment is what people look for.
    """
    client = "" if info.peer_certificate is None else _client(load_certificate(info.peer_certificate), info.peer_verified, at)
    words = _comment(info.version, info.cipher, info.cipher_bits, info.group, info.resumed)
    return f"({words}{client})" if words else ""


@lru_cache(maxsize=512)
def _comment(version: str, cipher: str, bits: int, group: str, resumed: bool) -> str:
    if not _WORD.match(version) or (cipher and not _WORD.match(cipher)):
        return ""
    words = [f"version={version}"]
    if cipher:
        words.append(f"cipher={cipher}")
    if bits:
        words.append(f"bits={bits}")
    if group and _WORD.match(group):
        words.append(f"group={group}")
    if resumed:
        words.append("resumed")
    return " ".join(words)


def _client(certificate: Certificate, verified: bool, at: datetime) -> str:
    name = _UNSAFE.sub("?", certificate.subject.text[:_NAME])
    return f'\r\n\tclient certificate "{name}" {"verified" if verified else "not verified"}, {days_left(certificate, at)} days left'
