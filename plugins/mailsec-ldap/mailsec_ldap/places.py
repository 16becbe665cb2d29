"""Where one asks: servers as settings name them, and the `ldap:` URLs (RFC 4516) that certificates name for revocation lists.

URLs come from strangers. The one invariant: of a URL only a host that the settings name, an entry, and one of three attributes is used; no
filter, no scope but the entry itself, no extension.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from ldap3.core.exceptions import LDAPExceptionError
from ldap3.utils.dn import parse_dn

__all__ = ["ListAddress", "ServerAddress"]

_LONGEST_URL = 2048
_MOST_NAMES = 32
_LISTS = {one.lower(): one for one in ("certificateRevocationList", "authorityRevocationList", "deltaRevocationList")}
"""RFC 4523 §2.7, §2.8, §2.11."""
_PRESENT = re.compile(r"\(?objectclass=[a-z0-9*-]{1,64}\)?\Z", re.IGNORECASE)
"""Filters that say nothing about an entry that was named: Active Directory writes "objectClass=cRLDistributionPoint"."""


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """One server."""

    host: str
    """In lower case; without brackets."""
    port: int
    implicit_tls: bool = False

    @classmethod
    def of_setting(cls, text: str) -> ServerAddress:
        """Read "ldap://HOST[:PORT]" or "ldaps://HOST[:PORT]"; raise ValueError for anything else."""
        try:
            parts = urlsplit(text)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            host = ""
        if not host or parts.scheme not in ("ldap", "ldaps") or parts.path.strip("/") or parts.query or parts.username is not None:
            raise ValueError(f"not a server: {text[:80]!r}: write ldap://HOST, ldaps://HOST, with :PORT where it is another one")
        implicit = parts.scheme == "ldaps"
        return cls(host, port or (636 if implicit else 389), implicit)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ListAddress:
    """A revocation list in a directory, as a certificate names it."""

    host: str
    """Empty: whichever server one has (RFC 4516 §2)."""
    port: int
    entry: str
    """Its distinguished name (RFC 4514)."""
    attribute: str

    @classmethod
    def of_url(cls, url: str) -> ListAddress | None:
        """Read an `ldap:` URL; None where it is none, or asks for anything else than a revocation list."""
        if len(url) > _LONGEST_URL or not url.isascii() or url[:5].lower() != "ldap:":
            return None
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            return None
        if parts.username is not None or parts.fragment or any(one <= " " or one == "\x7f" for one in url):
            return None
        # RFC 4516 §2: ldap://host/dn?attributes?scope?filter?extensions
        attributes, scope, filter_, extensions = (*(unquote(one) for one in parts.query.split("?", 4)), "", "", "", "")[:4]
        attribute = _LISTS.get(attributes.lower().removesuffix(";binary") or "certificaterevocationlist")
        if attribute is None or scope.lower() not in ("", "base") or extensions:
            return None
        if filter_ and _PRESENT.match(filter_) is None:
            return None
        entry = unquote(parts.path.removeprefix("/"), errors="replace")
        return cls(host, port or 389, entry, attribute) if _is_name(entry) else None


def _is_name(text: str) -> bool:
    """True for a distinguished name of at most as many parts as are met."""
    if not text or "\x00" in text or "\ufffd" in text:
        return False
    try:
        return 0 < len(parse_dn(text)) <= _MOST_NAMES
    except (LDAPExceptionError, ValueError, IndexError):
        return False
