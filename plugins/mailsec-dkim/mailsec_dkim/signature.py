"""A DKIM-Signature field as a value (RFC 6376 §3.5, §6.1.1): read, and held against what a verifier must refuse.

The one invariant: what is not in the grammar, or stands in it twice, is a fault of that signature; nothing is guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mailsec_dkim.result import PERMERROR, Fault
from mailsec_dkim.tags import Tag, TagError, base64_octets, read_tags

__all__ = ["ALGORITHMS", "Signature", "read_signature"]

ALGORITHMS = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
"""RFC 8301 §3.1: rsa-sha1 must not be used; RFC 8463 §3: ed25519-sha256."""
_REQUIRED = ("v", "a", "b", "bh", "d", "h", "s")
_DOMAIN = re.compile(
    r"(?=.{1,253}\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\Z"
)
_NUMBER = re.compile(r"[0-9]{1,12}\Z")
_LENGTH = re.compile(r"[0-9]{1,76}\Z")
_FIELD = re.compile(r"[!-9;-~]+\Z")


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature, as it claims to be."""

    algorithm: str
    domain: str
    selector: str
    identity: str
    signature: bytes
    body_hash: bytes
    fields: tuple[str, ...]
    """The names of h=, in lower case, in their order."""
    relaxed_header: bool
    relaxed_body: bool
    length: int | None
    signed_at: int | None
    expires_at: int | None
    label: str
    """The first eight characters of b=."""
    b: Tag
    """Where the value of b= stands in the field's value."""

    @property
    def record(self) -> str:
        """The name at which the key is (RFC 6376 §3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"


def read_signature(value: bytes) -> Signature:
    """Read the octets behind the colon of a DKIM-Signature field. Raise Fault."""
    try:
        tags = read_tags(value)
    except TagError as error:
        raise _malformed(str(error)) from None
    for name in _REQUIRED:
        if name not in tags:
            raise _malformed(f"there is no {name}=")
    text = {name: tag.value for name, tag in tags.items()}
    if text["v"] != "1":
        raise _malformed(f"version {text['v'][:10]}")
    algorithm = text["a"].lower()
    if algorithm not in ALGORITHMS:
        raise Fault(PERMERROR, "algorithm", f"algorithm {_shown(algorithm)} is not accepted")
    domain, selector = text["d"].lower(), text["s"].lower()
    if not _DOMAIN.match(domain) or not _DOMAIN.match(selector) or len(domain) + len(selector) > 240:
        raise _malformed("d= or s= is no domain name")
    fields = tuple(name.strip(" \t\r\n").lower() for name in text["h"].split(":"))
    if not all(_FIELD.match(name) for name in fields):
        raise _malformed("h= is no list of field names")
    if "from" not in fields:
        # RFC 6376 §5.4: From must be signed
        raise Fault(PERMERROR, "from-unsigned", "the From field is not signed")
    # RFC 6376 §3.5: i= is d= or below it
    identity = text.get("i", f"@{domain}")
    below = identity.rpartition("@")[2].lower()
    if "@" not in identity or (below != domain and not below.endswith("." + domain)):
        raise _malformed("i= is outside d=")
    if "q" in text and "dns/txt" not in [one.strip().lower() for one in text["q"].split(":")]:
        raise _malformed("the key is not in DNS")
    relaxed_header, relaxed_body = _canonicalization(text.get("c", "simple/simple"))
    signed_at, expires_at = _number(text, "t"), _number(text, "x")
    if expires_at is not None and signed_at is not None and expires_at <= signed_at:
        raise _malformed("it expires before it was made")
    length: int | None = None
    if "l" in text:
        if not _LENGTH.match(text["l"]):
            raise _malformed("l= is no number")
        length = int(text["l"])
    try:
        signature, body_hash = base64_octets(text["b"]), base64_octets(text["bh"])
    except TagError:
        raise _malformed("b= or bh= is no base64") from None
    label = "".join(text["b"].split())[:8]
    return Signature(
        algorithm, domain, selector, identity, signature, body_hash, fields, relaxed_header, relaxed_body, length, signed_at, expires_at,
        label, tags["b"],
    )  # fmt: skip


def _canonicalization(text: str) -> tuple[bool, bool]:
    header, slash, body = text.lower().partition("/")
    # RFC 6376 §3.5: without the second word the body is "simple"
    words = (header.strip(), body.strip() if slash else "simple")
    if not set(words) <= {"simple", "relaxed"}:
        raise Fault(PERMERROR, "canonicalization", f"canonicalization {_shown(text)} is not known")
    return words[0] == "relaxed", words[1] == "relaxed"


def _number(text: dict[str, str], name: str) -> int | None:
    if name not in text:
        return None
    if not _NUMBER.match(text[name]):
        raise _malformed(f"{name}= is no number")
    return int(text[name])


def _malformed(why: str) -> Fault:
    return Fault(PERMERROR, "malformed", f"the signature cannot be read: {why}")


def _shown(text: str) -> str:
    return "".join(sign if " " < sign <= "~" else "?" for sign in text[:40])
