"""What a mail server in front of us says of its client: the attributes of XCLIENT and XFORWARD (Postfix's XCLIENT_README, XFORWARD_README).

The one invariant: nothing of it is believed before the caller has made sure who says it; what cannot be read is refused, whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mailsec.errors import Reply
from mailsec.model.networks import read_address
from mailsec.wire.smtp.commands import CommandError, client_name
from mailsec.wire.smtp.offers import XCLIENT, XFORWARD
from mailsec.wire.smtp.questions import Announced, Forwarded

__all__ = ["read_forwarded", "read_xclient"]

_SYNTAX = Reply(501, "5.5.4", "bad attribute")
_ATTRIBUTE = re.compile(rb"[A-Za-z]{1,10}=[\x21-\x7e]{1,400}\Z")
_XTEXT = re.compile(rb"\+([0-9A-Fa-f]{2})")
_NOT_KNOWN = (b"[UNAVAILABLE]", b"[TEMPUNAVAIL]")


def read_xclient(argument: bytes, *, login: bool) -> Announced:
    """What stands behind `XCLIENT `; `login` says whether LOGIN is taken. Raise CommandError."""
    found = _attributes(argument, (*XCLIENT, "LOGIN") if login else XCLIENT)
    return Announced(_address(found.get("ADDR", "")), _port(found.get("PORT", "")), found.get("HELO", ""), found.get("LOGIN", ""))


def read_forwarded(argument: bytes) -> Forwarded:
    """What stands behind `XFORWARD `. Raise CommandError."""
    found = _attributes(argument, XFORWARD)
    _port(found.get("PORT", ""))
    return Forwarded(_address(found["ADDR"]) if "ADDR" in found else None)


def _attributes(argument: bytes, known: Sequence[str]) -> Mapping[str, str]:
    """Attributes by name, "" for what the server says it does not know. Raise CommandError."""
    found: dict[str, str] = {}
    for word in argument.split():
        name, equals, value = word.partition(b"=")
        key = name.decode("ascii", "replace").upper()
        if not equals or key not in known or key in found or not _ATTRIBUTE.match(word):
            raise CommandError(_SYNTAX)
        try:
            text = "" if value in _NOT_KNOWN else _XTEXT.sub(lambda match: bytes([int(match[1], 16)]), value).decode("utf-8")
        except UnicodeDecodeError:
            raise CommandError(_SYNTAX) from None
        if not text.isprintable():
            raise CommandError(_SYNTAX)
        found[key] = client_name(text.encode()) if key in ("NAME", "HELO") else text
    if not found:
        raise CommandError(_SYNTAX)
    return found


def _address(text: str) -> str:
    """An IP address as XCLIENT writes it ("192.0.2.1", "IPV6:2001:db8::1"); "" for "". Raise CommandError."""
    if not text:
        return ""
    try:
        return read_address(text[5:] if text[:5].upper() == "IPV6:" else text)
    except ValueError:
        raise CommandError(_SYNTAX) from None


def _port(text: str) -> int:
    """A port; 0 for "". Raise CommandError."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or int(text[:6]) > 65535:
        raise CommandError(_SYNTAX)
    return int(text[:6])
