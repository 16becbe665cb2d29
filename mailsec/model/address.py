"""Mailbox addresses and the paths of SMTP (RFC 5321 §4.1.2, RFC 6531 §3.3).

The one invariant: an `Address` prints to exactly one string that reads back as the same `Address`, and holds no octet that could
end an SMTP command (no CR, LF, NUL, "<", ">" outside a quoted string).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from mailsec.errors import AddressError

__all__ = ["NULL_PATH", "Address", "normalise_domain"]

# RFC 5321 §4.1.2: Dot-string = Atom *("." Atom); RFC 6531 §3.3 adds every non-ASCII character to atext.
_ATEXT = r"[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~\u0080-\U0010ffff]"
_DOT_STRING = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*\Z")
# RFC 5321 §4.1.2: Quoted-string = DQUOTE *QcontentSMTP DQUOTE, with printable characters and blanks only.
_QUOTED = re.compile(r'"(?:[\x20\x21\x23-\x5b\x5d-\x7e\u0080-\U0010ffff]|\\[\x20-\x7e])*"\Z')
_LABEL = re.compile(r"[A-Za-z0-9\u0080-\U0010ffff_](?:[A-Za-z0-9\u0080-\U0010ffff_-]{0,61}[A-Za-z0-9\u0080-\U0010ffff_])?\Z")
# RFC 5321 §4.1.3: an address literal; its inside is kept as it stands and compared without case.
_LITERAL = re.compile(r"\[(?:IPv6:[0-9A-Fa-f:.]{2,45}|[0-9]{1,3}(?:\.[0-9]{1,3}){3})\]\Z")

# RFC 5321 §4.5.3.1.1, §4.5.3.1.2: octets of the local part and of the domain.
_LOCAL_PART_OCTETS = 64
_DOMAIN_OCTETS = 255

_DEVIATIONS = re.compile("[\u00df\u03c2\u200c\u200d]")

NULL_PATH = "<>"
"""How the null reverse path is written in logs and rules; in values it is `None`."""


@lru_cache(maxsize=4096)
def normalise_domain(domain: str) -> str:
    """Return `domain` in the form in which domains are compared: lower case, A-labels (RFC 5890 §2.3.2.1), no last dot.

    A label that IDNA refuses stays as it is in lower case: it then equals only itself.
    """
    # RFC 5892 §2.6: ß, ς and the joiners are characters of their own. The codec maps them as IDNA2003 did (ß to ss, joiners to nothing),
    # and the holder of strasse.example would sign for straße.example, which may belong to somebody else.
    domain = domain.rstrip(".").lower()
    if domain.isascii():
        return domain
    try:
        if _DEVIATIONS.search(domain):
            return ".".join(map(_a_label, domain.split(".")))
        return domain.encode("idna").decode("ascii")
    except UnicodeError:
        return domain


def _a_label(label: str) -> str:
    if label.isascii():
        return label
    if not _DEVIATIONS.search(label):
        return label.encode("idna").decode("ascii")
    return "xn--" + unicodedata.normalize("NFC", label).encode("punycode").decode("ascii")


@dataclass(frozen=True, slots=True)
class Address:
    """One mailbox: `local_part` as received (quotes included where it has them) and `domain` as received.

    Equality is of the octets received. Compare people with `key`: RFC 5321 §2.4 makes the local part case-sensitive, every mail
    system in the world does not; certificates and rules are matched without case, and addresses are passed on unchanged.
    """

    local_part: str
    domain: str

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `local@domain` (an addr-spec without blanks or comments); raise AddressError for anything else."""
        local_part, at, domain = text.rpartition("@")
        if not at or not local_part or not domain:
            raise AddressError(f"not an address: {text[:80]!r}", hint="write it as name@domain")
        if not (_DOT_STRING.match(local_part) or _QUOTED.match(local_part)):
            raise AddressError(f"bad local part in {text[:80]!r}")
        if len(local_part.encode("utf-8", "replace")) > _LOCAL_PART_OCTETS:
            raise AddressError("the local part is longer than 64 octets (RFC 5321 §4.5.3.1.1)")
        if not _is_domain(domain):
            raise AddressError(f"bad domain in {text[:80]!r}")
        return cls(local_part, domain)

    def __str__(self) -> str:
        return f"{self.local_part}@{self.domain}"

    @property
    def key(self) -> str:
        """The form in which people are compared: local part unquoted where that changes nothing, all in lower case, A-labels."""
        local_part = self.local_part
        if local_part.startswith('"'):
            plain = re.sub(r"\\(.)", r"\1", local_part[1:-1])
            if _DOT_STRING.match(plain):
                local_part = plain
        return f"{_lower(local_part)}@{normalise_domain(self.domain)}"

    @property
    def domain_key(self) -> str:
        """The domain in the form in which domains are compared."""
        return normalise_domain(self.domain)

    @property
    def is_ascii(self) -> bool:
        """False where SMTPUTF8 is needed to carry this address (RFC 6531 §3.2)."""
        return self.local_part.isascii() and self.domain.isascii()


def _lower(text: str) -> str:
    if text.isascii():
        return text.lower()
    # Attack: the Kelvin sign is a "k" in lower case, and its holder would be somebody else (RFC 9598 §5: local parts are compared by octets).
    return "".join(one.lower() if one.isascii() or not one.lower().isascii() else one for one in text)


def _is_domain(domain: str) -> bool:
    if len(domain.encode("utf-8", "replace")) > _DOMAIN_OCTETS:
        return False
    if domain.startswith("["):
        return _LITERAL.match(domain) is not None
    return all(_LABEL.match(label) for label in domain.split("."))
