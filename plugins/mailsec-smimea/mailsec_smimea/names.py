"""The names under which SMIMEA records stand: a hash of the local part, below `_smimecert`, below the domain (RFC 8162 §3)."""

from __future__ import annotations

import re
import unicodedata
from hashlib import sha256

from mailsec.model.address import Address

__all__ = ["canonical_local_part", "owner_name", "owner_names"]

_HASH_OCTETS = 28


def canonical_local_part(text: str) -> str:
    """What is hashed of a local part: no quotes and no quoting, and Unicode in Normalization Form C. Case is kept."""
    # RFC 8162 §3: enclosing double quotes and literal quoting are removed. (Comments and blanks around dots stand in no `Address`.)
    if text.startswith('"'):
        text = re.sub(r"\\(.)", r"\1", text[1:-1])
    if text.isascii():
        return text
    normal = unicodedata.normalize("NFC", text)
    # Attack: the Kelvin sign becomes a "K", and its holder would be somebody else.
    return text if normal.isascii() else normal


def owner_name(local_part: str, domain: str) -> str:
    """The name of the record of one canonical local part, without the last dot."""
    # RFC 8162 §3: SHA2-256 of the local part in UTF-8, cut to 28 octets, in hexadecimal.
    return f"{sha256(local_part.encode('utf-8')).digest()[:_HASH_OCTETS].hex()}._smimecert.{domain}"


def owner_names(address: Address) -> tuple[str, ...]:
    """The names to ask for, in order: as it is written, then in lower case; none where the domain is an address literal.

    RFC 8162 §4: local parts are hashed as they are, so "Bob" and "bob" have different names, and people write either.
    """
    domain = address.domain_key
    if domain.startswith("["):
        return ()
    written = canonical_local_part(address.local_part)
    lower = written.lower() if written.isascii() else written
    return tuple(dict.fromkeys(owner_name(one, domain) for one in (written, lower)))
