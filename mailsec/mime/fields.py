"""Values of header fields: media types and dispositions read, encoded words decoded, new fields written.

RFC 2045 §5.1, RFC 2183, RFC 2231, RFC 2047, RFC 5322 §2.2.3. The one invariant: any text gives a value, in linear time; what is wrong
with it is told by name, beside the value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from mailsec.errors import MimeError
from mailsec.mime.charsets import decode_text
from mailsec.mime.transfer import decode_word
from mailsec.model.message import ContentType

__all__ = [
    "DEFAULT_CONTENT_TYPE",
    "Parameterised",
    "content_type",
    "decode_words",
    "encode_field",
    "read_content_type",
    "read_parameterised",
    "without_comments",
]

# RFC 2045 §5.1: token; characters over 127 are let in, because the world sends them raw.
_WORD_OF_TYPE = r"[^\x00-\x20\x7f()<>@,;:\\\"/\[\]?=]+"
_QUOTED = r'"((?:[^"\\]|\\.)*+)"'
_VALUE = re.compile(rf"[ \t\r\n]*({_WORD_OF_TYPE}(?:/{_WORD_OF_TYPE})?)[ \t\r\n]*")
# Readers take unquoted values with characters that a token may not have (boundary=a/b=c), up to a blank or semicolon.
_PARAMETER = re.compile(rf"[ \t\r\n]*({_WORD_OF_TYPE})[ \t\r\n]*=[ \t\r\n]*(?:{_QUOTED}|([^;\"\s][^;\s]*+)?)[ \t\r\n]*", re.DOTALL)
_SECTION = re.compile(r"([^*]+)(?:\*(0|[1-9][0-9]{0,2}))?(\*)?\Z")
_UNESCAPE = re.compile(r"\\(.)", re.DOTALL)
# RFC 5322 §3.2.2, §3.2.4: within a comment a quotation mark is text, within a quoted string a parenthesis is.
_OUTSIDE_COMMENT = re.compile(r'\(|\\.|"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_IN_COMMENT = re.compile(r"[()]|\\.", re.DOTALL)
_MAX_PARAMETERS = 100
_KEPT = 512

DEFAULT_CONTENT_TYPE = ContentType("text", "plain", MappingProxyType({}))
"""RFC 2045 §5.2: what is not labelled is plain text."""


class Parameterised(NamedTuple):
    """A value with parameters: "attachment; filename=x" (RFC 2183 §2), or a media type."""

    value: str
    """In lower case; "" where it cannot be read."""
    parameters: Mapping[str, str]
    problems: tuple[str, ...]
    """ "bad-value", "bad-parameter", "duplicate-parameter", "too-many-parameters"."""


def without_comments(text: str) -> str:
    """Replace comments (RFC 5322 §3.2.2, nested to any depth) outside quoted strings by one blank each; one that never ends goes on to the end."""
    if "(" not in text:
        return text
    out: list[str] = []
    depth = 0
    at = 0
    shown = 0  # where the text that is kept and not yet copied begins
    while True:
        match = (_IN_COMMENT if depth else _OUTSIDE_COMMENT).search(text, at)
        if match is None:
            break
        at = match.end()
        sign = match.group()
        if sign == "(":
            if depth == 0:
                out.append(text[shown : match.start()])
            depth += 1
        elif sign == ")":
            depth -= 1
            if depth == 0:
                out.append(" ")
                shown = at
    if depth == 0:
        out.append(text[shown:])
    return "".join(out)


def read_parameterised(text: str) -> Parameterised:
    """Read a value and its parameters (RFC 2045 §5.1, RFC 2231). The first of two parameters with one name counts."""
    return _kept_parameterised(text) if len(text) <= _KEPT else _read_parameterised(text)


def _read_parameterised(text: str) -> Parameterised:
    text = without_comments(text)
    match = _VALUE.match(text)
    if match is None:
        return Parameterised("", MappingProxyType({}), ("bad-value",))
    value = match.group(1).lower()
    problems: dict[str, None] = {}
    found: dict[str, str] = {}
    at = match.end()
    # A last semicolon with nothing behind it is everywhere. (Looking behind each one whether it is the last would be quadratic.)
    size = len(text.rstrip(" \t\r\n;"))
    count = 0
    while at < size:
        if text[at] == ";":
            at += 1
            match = _PARAMETER.match(text, at)
            if match is not None:
                count += 1
                if count > _MAX_PARAMETERS:
                    problems["too-many-parameters"] = None
                    break
                name = match.group(1).lower()
                quoted, plain = match.group(2), match.group(3)
                if name in found:
                    problems["duplicate-parameter"] = None
                elif quoted is not None:
                    # RFC 5322 §2.2.3: folding within a quoted string is undone.
                    found[name] = _UNESCAPE.sub(r"\1", quoted.replace("\r\n", ""))
                else:
                    found[name] = plain or ""
                at = match.end()
                continue
        problems["bad-parameter"] = None
        at = text.find(";", at)
        if at < 0:
            break
    if any("*" in name for name in found):
        found = _join_sections(found, problems)
    return Parameterised(value, MappingProxyType(found), tuple(problems))


# Values repeat from message to message. Only short ones are kept, so that a hostile header cannot fill memory.
_kept_parameterised = lru_cache(maxsize=1024)(_read_parameterised)


def _join_sections(found: Mapping[str, str], problems: dict[str, None]) -> dict[str, str]:
    """RFC 2231 §3, §4: name*0, name*1* … are joined in the order of their numbers; starred ones are percent-encoded."""
    plain = {name: value for name, value in found.items() if "*" not in name}
    sections: dict[str, dict[int, tuple[bool, str]]] = {}
    for name, value in found.items():
        if "*" not in name:
            continue
        match = _SECTION.match(name)
        if match is None:
            problems["bad-parameter"] = None
            continue
        number = int(match.group(2) or 0)
        if sections.setdefault(match.group(1), {}).setdefault(number, (bool(match.group(3)), value))[1] is not value:
            problems["duplicate-parameter"] = None
    for name, numbered in sections.items():
        if name in plain:
            # Both name and name*: a reader that knows RFC 2231 takes the extended one, another one does not.
            problems["duplicate-parameter"] = None
            continue
        if 0 not in numbered:
            problems["bad-parameter"] = None
            continue
        charset = ""
        raw = b""
        for number in range(len(numbered)):
            if number not in numbered:
                problems["bad-parameter"] = None
                break
            extended, value = numbered[number]
            if extended and number == 0:
                # RFC 2231 §4: charset'language'text in the first section.
                charset, _, rest = value.partition("'")
                value = rest.partition("'")[2]
            raw += unquote_to_bytes(value) if extended else value.encode("utf-8", "surrogateescape")
        plain[name] = decode_text(raw, charset or "utf-8")
    return plain


def _read_content_type(text: str) -> tuple[ContentType, tuple[str, ...]]:
    read = _read_parameterised(text)
    kind, slash, subtype = read.value.partition("/")
    if not slash:
        # RFC 2045 §5.2: what cannot be read is treated as plain text; "text" alone is an older spelling of it.
        return DEFAULT_CONTENT_TYPE, ("bad-content-type",)
    return ContentType(kind, subtype, read.parameters), read.problems


_kept_content_type = lru_cache(maxsize=1024)(_read_content_type)


def read_content_type(text: str) -> tuple[ContentType, tuple[str, ...]]:
    """Return the media type and what is wrong with it: "bad-content-type" (then text/plain), or the problems of its parameters."""
    return _kept_content_type(text) if len(text) <= _KEPT else _read_content_type(text)


def content_type(value: str) -> ContentType:
    """Return the media type; text/plain where it cannot be read (RFC 2045 §5.2)."""
    return read_content_type(value)[0]


# -- encoded words (RFC 2047) ---------------------------------------------------------------------------------------------------

# RFC 2047 §2: =?charset*language?encoding?text?=; the length of a word is not enforced on reading.
_WORD = re.compile(r"=\?([!-)+->@-~]{1,40})(?:\*[!->@-~]{0,40})?\?([bBqQ])\?([^?\x00-\x1f]*+)\?=")


def decode_words(value: str) -> str:
    """Decode the encoded words of an unstructured value or phrase. Never for addresses before they were parsed (RFC 2047 §6.2)."""
    if "=?" not in value:
        return value
    out: list[str] = []
    pending = b""
    charset = ""
    at = 0
    for match in _WORD.finditer(value):
        raw = decode_word(match.group(2), match.group(3))
        if raw is None:
            continue
        between = value[at : match.start()]
        adjacent = bool(charset) and not between.strip(" \t\r\n")
        if not (adjacent and charset == match.group(1).lower()):
            if charset:
                out.append(decode_text(pending, charset))
            # RFC 2047 §6.2: blanks between two encoded words are not shown.
            if not adjacent:
                out.append(between)
            pending = b""
            charset = match.group(1).lower()
        # Writers cut words within a character: octets of adjacent words in one charset are joined before they are decoded.
        pending += raw
        at = match.end()
    if charset:
        out.append(decode_text(pending, charset))
    out.append(value[at:])
    return "".join(out)


# -- writing --------------------------------------------------------------------------------------------------------------------

_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}\Z")
_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_LINE = 78
_LONGEST = 998
_BREAK = re.compile(r"[ \t](?=[^ \t])")


def encode_field(name: str, value: str) -> bytes:
    """Return "name: value" folded at blanks, with its CRLF; words that are not ASCII become encoded words (RFC 2047 §5).

    Unfolding gives the value again. Raise MimeError for control characters (an injected line), and for a word over 998 octets.
    """
    if not _FIELD_NAME.match(name):
        raise MimeError(f"not a field name: {name[:80]!r}", stage="edit")
    if _FORBIDDEN.search(value):
        # RFC 5322 §2.2: a value holds no CR or LF but folding. Header injection ends here.
        raise MimeError(f"the value of {name} holds a control character", stage="edit")
    line = f"{name}: {value}"
    if not line.isascii():
        line = f"{name}: {_encode_words(value)}"
    if len(line) <= _LINE:
        return line.encode("ascii") + b"\r\n"
    return _fold(line).encode("ascii") + b"\r\n"


def _fold(line: str) -> str:
    """RFC 5322 §2.1.1, §2.2.3: lines of at most 78 characters where blanks allow it, of at most 998 always, none of them blank."""
    lines: list[str] = []
    start = 0  # where this line begins
    last = -1  # the last blank seen at which it could end
    for match in _BREAK.finditer(line, line.index(":") + 2):
        here = match.start()
        if here - start > _LINE and last > start:
            lines.append(line[start:last])
            start = last
        last = here
    if len(line) - start > _LINE and last > start:
        lines.append(line[start:last])
        start = last
    lines.append(line[start:])
    if any(len(one) > _LONGEST for one in lines):
        raise MimeError("a header field has a word that is too long for a line", stage="edit", hint="put blanks into the value")
    return "\r\n".join(lines)


def _encode_words(value: str) -> str:
    """Encode each run of words that are not ASCII, with the blanks between them (which readers would drop), as UTF-8."""
    words = re.split(r"([ \t]+)", value)
    out: list[str] = []
    at = 0
    while at < len(words):
        if words[at].isascii():
            out.append(words[at])
            at += 1
            continue
        last = at
        while last + 2 < len(words) and not words[last + 2].isascii():
            last += 2
        out.append(_encoded("".join(words[at : last + 1])))
        at = last + 1
    return "".join(out)


def _encoded(text: str) -> str:
    """RFC 2047 §2: encoded words of at most 75 characters, each of whole characters, in Q where that is shorter."""
    words: list[str] = []
    raw = b""
    for character in text:
        octets = character.encode("utf-8", "replace")
        if len(raw) + len(octets) > 18:
            words.append(_one_word(raw))
            raw = b""
        raw += octets
    words.append(_one_word(raw))
    return " ".join(words)


def _one_word(raw: bytes) -> str:
    quoted = "".join(chr(octet) if chr(octet).isalnum() and octet < 128 else "_" if octet == 0x20 else f"={octet:02X}" for octet in raw)
    return f"=?utf-8?Q?{quoted}?="
