"""Authentication-Results read, compared and written (RFC 8601 §2.2, §5; RFC 7281).

The one invariant: a field that some reader could take for ours is found, however it is spelled: in another case, quoted, folded, with
comments, with encoded words, with a last dot, with wide letters. What cannot be read is taken for ours where it could be.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from mailsec.mime.fields import decode_words, without_comments
from mailsec.mime.index import disguised_name
from mailsec.model.address import normalise_domain
from mailsec.model.message import HeaderField, Message

__all__ = ["FIELD", "AuthenticationResults", "Forged", "forged_results", "read_results", "result_value", "same_authserv_id"]

FIELD = "Authentication-Results"
_NAME = FIELD.lower()

_TOKEN = re.compile(r'[^\x00-\x20\x7f()<>@,;:\\"/\[\]?=]+')
_ID = re.compile(r'[ \t\r\n]*(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]+))', re.DOTALL)
# RFC 8601 §2.2: resinfo = ";" methodspec; methodspec = Keyword [ "/" version ] "=" result; blanks may stand between all of them.
_RESINFO = re.compile(r"[ \t\r\n]*([A-Za-z0-9-]+)[ \t\r\n]*(?:/[ \t\r\n]*[0-9]+[ \t\r\n]*)?=[ \t\r\n]*([A-Za-z0-9-]+)")
_SPLIT = re.compile(r';|"(?:[^"\\]|\\.)*+"?', re.DOTALL)
_UNESCAPE = re.compile(r"\\(.)", re.DOTALL)
_INVISIBLE = re.compile(r"[\x00-\x20\x7f\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]+")

_PIECE = 1024
_KEPT = 256


class AuthenticationResults(NamedTuple):
    """One field: who says it (decoded), and each (method, result, whole text of that result)."""

    authserv_id: str
    results: tuple[tuple[str, str, str], ...]
    readable: bool
    """False where the field does not follow the grammar: somebody may read it otherwise than we do."""

    @property
    def methods(self) -> frozenset[str]:
        """The methods that it speaks of, in lower case; "" for a piece that cannot be read."""
        return frozenset(method for method, _, _ in self.results)


def _pieces(text: str) -> list[str]:
    """Cut at semicolons outside quoted strings."""
    pieces: list[str] = []
    start = 0
    for match in _SPLIT.finditer(text):
        if match.group() == ";":
            pieces.append(text[start : match.start()])
            start = match.end()
    pieces.append(text[start:])
    return pieces


def read_results(value: str) -> AuthenticationResults:
    """Read a field's value, comments aside. Any text gives an answer."""
    pieces = _pieces(without_comments(decode_words(value)))
    match = _ID.match(pieces[0])
    if match is None:
        return AuthenticationResults("", tuple(("", "", piece) for piece in pieces[1:]), False)
    quoted, plain = match.groups()
    authserv_id = _UNESCAPE.sub(r"\1", quoted) if quoted is not None else plain
    # RFC 8601 §2.2: authserv-id [ CFWS authres-version ].
    rest = pieces[0][match.end() :].strip()
    readable = not rest or rest.isdigit()
    found: list[tuple[str, str, str]] = []
    for piece in pieces[1:]:
        if not piece.strip():
            continue
        result = _RESINFO.match(piece)
        if result is not None:
            found.append((result.group(1).lower(), result.group(2).lower(), piece.strip()))
        elif piece.strip().lower() != "none":  # RFC 8601 §2.2: no-result
            found.append(("", "", piece.strip()))
            readable = False
    return AuthenticationResults(authserv_id, tuple(found), readable)


def _fold(text: str) -> str:
    """The form in which identifiers are compared: compatibility letters, case, invisible characters, blanks and a last dot aside."""
    # In pieces: putting combining characters in order costs quadratic time, 10 s for a field of 256 KiB. No identifier is that long.
    pieces = [unicodedata.normalize("NFKC", text[at : at + _PIECE]) for at in range(0, len(text), _PIECE)]
    return normalise_domain(_INVISIBLE.sub("", "".join(pieces)).casefold())


# Our own name and those of the hosts before us come with every message. Only short ones are kept, so that a hostile field cannot fill memory.
_kept_folded = lru_cache(maxsize=1024)(_fold)


def _folded(text: str) -> str:
    return _kept_folded(text) if len(text) <= _KEPT else _fold(text)


def same_authserv_id(one: str, other: str) -> bool:
    """Compare two decoded identifiers (RFC 8601 §2.5: without case; as domain names: A-labels, without the last dot)."""
    return _folded(one) == _folded(other)


def _may_be_ours(read: AuthenticationResults, value: str, authserv_id: str) -> bool:
    if same_authserv_id(read.authserv_id, authserv_id):
        return True
    # Another field that is well-formed says whose it is. One that is not might be read as ours where our name stands at its head.
    if read.readable and _TOKEN.fullmatch(read.authserv_id):
        return False
    head = _folded(value.partition(";")[0])
    # `gw(x).example.org` is no identifier to us; a reader that only drops comments reads our name in it
    spellings = (head, _folded(decode_words(value).partition(";")[0]), _folded(without_comments(value).partition(";")[0]))
    return any(_folded(authserv_id) in one for one in spellings)


class Forged(NamedTuple):
    """What to take away, and what to write instead: arguments of `mime.edit.with_fields`."""

    remove: tuple[HeaderField, ...]
    add: tuple[tuple[str, str], ...]
    """Other results of a field of which only the `smime` ones were to go, in the order in which they stood."""


def forged_results(message: Message, authserv_id: str, *, method: str | None = None) -> Forged:
    """Find the fields that claim to be ours (RFC 8601 §5). With `method`, only its results go, and the others are written again.

    Fields of other identifiers are never touched.
    """
    remove: list[HeaderField] = []
    add: list[tuple[str, str]] = []
    for field in message.fields:
        if field.name != _NAME:
            # A line that is no field to us (a NUL in the name) may be one to a careless reader.
            if field.name or disguised_name(message.octets, field) != _NAME:
                continue
            remove.append(field)
            continue
        value = message.value(field)
        read = read_results(value)
        if not _may_be_ours(read, value, authserv_id):
            continue
        if method is None:
            remove.append(field)
            continue
        kept = [text for name, _, text in read.results if name != method and not (name == "" and method in text.lower())]
        if len(kept) == len(read.results) and read.readable:
            continue
        if not read.readable and method not in _folded(decode_words(value)):
            continue
        remove.append(field)
        if kept:
            add.append((FIELD, "; ".join([authserv_id, *(_plain(text) for text in kept)])))
    return Forged(tuple(remove), tuple(add))


def _plain(text: str) -> str:
    return re.sub(r"[\x00-\x20\x7f]+", " ", text)


def result_value(
    authserv_id: str, method: str, result: str, *, reason: str = "", comment: str = "", properties: Sequence[tuple[str, str]] = ()
) -> str:
    """The value of one field with one result: `gw.example; smime=fail reason="…" body.smime-part=…` (RFC 8601 §2.2, RFC 7281 §3.2.1)."""
    value = f"{_pvalue(authserv_id)}; {method}={result}"
    if comment:
        value += " (" + re.sub(r"[^ !#-'*-\[\]-~]", "_", comment) + ")"
    if reason:
        value += f" reason={_quoted(reason)}"
    for name, text in properties:
        value += f" {name}={_pvalue(text)}"
    return value


def _quoted(text: str) -> str:
    """A quoted string that no reader takes for more than it is: control characters and what is not ASCII become "?"."""
    plain = "".join(character if " " <= character <= "~" else "?" for character in text)
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _pvalue(text: str) -> str:
    """RFC 8601 §2.2: pvalue is a value, or an address; else it is quoted."""
    return text if re.fullmatch(r"[A-Za-z0-9!#$%&'*+\-.^_`{|}~]+(?:@[A-Za-z0-9.-]+)?", text) else _quoted(text)
