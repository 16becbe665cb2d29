"""How people name keys: a nickname, "token:nickname" as in NSS, or a PKCS#11 URI (RFC 7512).

Invariant: a reference prints to a text that reads back as the same reference, and never holds a PIN.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from mailsec.errors import UsageError

__all__ = ["KeyReference", "parse_reference"]

# RFC 7512 §2.3: path attributes; they narrow down what is meant, so one that is not understood is refused.
_PATH: Final = (
    "token",
    "manufacturer",
    "serial",
    "model",
    "library-manufacturer",
    "library-version",
    "library-description",
    "object",
    "type",
    "id",
    "slot-manufacturer",
    "slot-description",
    "slot-id",
)
_QUERY: Final = ("pin-source", "pin-value", "module-name", "module-path")
_TYPES: Final = ("public", "private", "cert", "secret-key", "data")
# RFC 7512 §2.3: pk11-pchar and pk11-qchar, pct-encoded octets aside.
_PATH_VALUE: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*\Z")
_QUERY_VALUE: Final = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/?|]|%[0-9A-Fa-f]{2})*\Z")
_OCTETS: Final = 4096


@dataclass(frozen=True, slots=True)
class KeyReference:
    """What a reference says. Fields that are empty match anything."""

    nickname: str = ""
    """The object's label (CKA_LABEL)."""
    token: str = ""
    """The token's label; "" for the database."""
    id: bytes = b""
    """CKA_ID."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Other path attributes of a URI: manufacturer, serial, model, slot-id …"""
    module: str = ""
    """module-name of a URI."""
    uri: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "attributes", MappingProxyType(dict(self.attributes)))

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        if not self.uri:
            return f"{self.token}:{self.nickname}" if self.token else self.nickname
        parts = []
        if self.token:
            parts.append(f"token={_quoted(self.token)}")
        if self.nickname:
            parts.append(f"object={_quoted(self.nickname)}")
        if self.id:
            # RFC 7512 §2.3: the octets of an id are all pct-encoded.
            parts.append("id=" + "".join(f"%{octet:02X}" for octet in self.id))
        parts += [f"{name}={_quoted(value)}" for name, value in self.attributes.items()]
        return "pkcs11:" + ";".join(parts) + (f"?module-name={_quoted(self.module)}" if self.module else "")

    def matches_token(self, *, label: str, manufacturer: str = "", serial: str = "", model: str = "") -> bool:
        """Whether a token of these names (blanks at the end removed) can be the one that is meant."""
        # Token names match exactly: "HSM 1" never logs in to "HSM 10".
        wanted = {"manufacturer": manufacturer, "serial": serial, "model": model}
        return self.token in ("", label) and all(self.attributes.get(name, value) == value for name, value in wanted.items())


def _quoted(text: str) -> str:
    return quote(text, safe="")


def parse_reference(text: str) -> KeyReference:
    """Read a reference; raise UsageError with a hint for what is none."""
    if not text or len(text) > _OCTETS:
        raise UsageError("a reference to a key is empty or too long")
    # RFC 7512 §2.3: the scheme is compared without case (RFC 3986 §3.1).
    if text[:7].lower() == "pkcs11:":
        return _parse_uri(text)
    if any(ord(character) < 32 or character == "\x7f" for character in text):
        raise UsageError("a reference to a key holds control characters")
    token, colon, nickname = text.partition(":")
    if not colon:
        return KeyReference(nickname=text)
    if not token or not nickname:
        raise UsageError(f"not a reference to a key: {text!r}", hint='write it as "nickname", "token:nickname" or "pkcs11:…"')
    return KeyReference(nickname=nickname, token=token)


def _parse_uri(text: str) -> KeyReference:
    path, _, query = text[7:].partition("?")
    found = _attributes(path, ";", _PATH, _PATH_VALUE, refuse_unknown=True)
    asked = _attributes(query, "&", _QUERY, _QUERY_VALUE, refuse_unknown=False)
    if "pin-value" in asked:
        # RFC 7512 §5: a PIN in a URI stands in every log and process list.
        raise UsageError("a PKCS#11 URI with a PIN in it", hint="take pin-value out and configure [passphrase]")
    if "pin-source" in asked or "module-path" in asked:
        raise UsageError("a PKCS#11 URI with pin-source or module-path", hint="configure [passphrase] and [[module]] instead")
    kind = _text(found.get("type", b""))
    if kind and kind not in _TYPES:
        raise UsageError(f"a PKCS#11 URI of type {kind!r}", hint=f"one of {', '.join(_TYPES)}")
    if "slot-id" in found and not found["slot-id"].isdigit():
        raise UsageError("a PKCS#11 URI whose slot-id is no number")
    named = ("token", "object", "id")
    return KeyReference(
        nickname=_text(found.get("object", b"")),
        token=_text(found.get("token", b"")),
        id=found.get("id", b""),
        attributes={name: _text(value) for name, value in found.items() if name not in named},
        module=_text(asked.get("module-name", b"")),
        uri=True,
    )


def _attributes(text: str, separator: str, known: tuple[str, ...], allowed: re.Pattern[str], *, refuse_unknown: bool) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for part in text.split(separator) if text else ():
        name, equals, value = part.partition("=")
        if not equals or not allowed.match(value):
            raise UsageError(f"a PKCS#11 URI with the bad attribute {name[:40]!r}", hint="pct-encode other characters, as in token=HSM%201")
        if name not in known:
            if refuse_unknown:
                raise UsageError(f"a PKCS#11 URI with the attribute {name[:40]!r}, which is not known", hint=f"known: {', '.join(known)}")
            continue
        # RFC 7512 §2.3: an attribute stands once.
        if name in found:
            raise UsageError(f"a PKCS#11 URI with {name} twice")
        found[name] = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes.fromhex(match[1].decode("ascii")), value.encode("ascii"))
    return found


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError("a PKCS#11 URI whose names are not UTF-8") from None
