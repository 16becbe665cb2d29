"""Tag lists: `name=value; name=value` (RFC 6376 §3.2), as signatures and key records have them.

The one invariant: a list is read wholly or not at all; where two programs could read two lists in it, nobody reads any.
"""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

__all__ = ["Tag", "TagError", "base64_octets", "read_tags", "unfolded"]

_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]*\Z")
# RFC 6376 §3.2: a value is of printable characters without the semicolon, with folding white space inside.
_VALUE = re.compile(rb"[\x21-\x3a\x3c-\x7e \t\r\n]*\Z")
_BLANKS = b" \t\r\n"


class TagError(Exception):
    """Why a list is none."""


class Tag(NamedTuple):
    """A value, and where it stands in the text that was read: from behind the equals sign up to the semicolon."""

    value: str
    start: int
    end: int


def read_tags(text: bytes) -> dict[str, Tag]:
    """The tags by name, in their order. Raise TagError."""
    found: dict[str, Tag] = {}
    at = 0
    specifications = text.split(b";")
    for number, one in enumerate(specifications):
        name, equals, value = one.partition(b"=")
        start = at + len(name) + 1
        at += len(one) + 1
        if not one.strip(_BLANKS) and number == len(specifications) - 1:
            break  # the list may end in a semicolon
        plain = name.strip(_BLANKS)
        if not equals or not _NAME.match(plain) or not _VALUE.match(value):
            raise TagError("no list of tags")
        key = plain.decode("ascii")
        if key in found:
            # RFC 6376 §3.2: tags with duplicate names must not occur; the whole list is then invalid
            raise TagError(f"tag {key} stands twice")
        found[key] = Tag(unfolded(value), start, start + len(value))
    return found


def unfolded(value: bytes) -> str:
    """A value with folding undone and outer blanks removed."""
    return value.replace(b"\r\n", b"").strip(_BLANKS).decode("ascii")


def base64_octets(text: str) -> bytes:
    """Base64 with blanks in it (RFC 6376 §2.10). Raise TagError."""
    try:
        return binascii.a2b_base64(re.sub(r"[ \t\r\n]+", "", text), strict_mode=True)
    except binascii.Error:
        raise TagError("no base64") from None
