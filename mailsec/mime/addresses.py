"""Mailboxes of From, Sender, To and their like (RFC 5322 §3.4, §4.4; RFC 6532 §3.2).

The one invariant: an address is only what stands as an addr-spec. What a display name, a comment, a quoted string or an encoded word holds
is never an address, whatever it looks like; what cannot be read is a problem beside the addresses, and never silently left out.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

from mailsec.errors import AddressError, LimitExceeded
from mailsec.mime.fields import decode_words
from mailsec.model.address import Address
from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = ["Mailboxes", "mailboxes"]


class Mailboxes(NamedTuple):
    """What one field holds."""

    addresses: tuple[Address, ...]
    display_names: tuple[str, ...]
    """The display name of each, decoded; "" where it has none."""
    problems: tuple[str, ...]
    """ "bad-syntax", "bad-address", "group", "route", "encoded-word", "empty"; none for a well-formed list."""


# RFC 5322 §3.2.3 atext with RFC 6532 §3.2's characters; quoted string; comment; domain literal; specials; blanks.
_TOKENS = re.compile(
    r"""(?P<blank>[ \t\r\n]+)
      | (?P<atom>[A-Za-z0-9!#$%&'*+\-/=?^_`{|}~.\u0080-\U0010ffff]+)
      | (?P<quoted>"(?:[^"\\\r\n\x00]|\\[^\r\n\x00]|\r\n(?=[ \t]))*+")
      | (?P<literal>\[[^\[\]\\\s]*\])
      | (?P<special>[<>@,;:])
      | (?P<open>\()
      | (?P<bad>.)""",
    re.VERBOSE | re.DOTALL,
)
_COMMENT = re.compile(r"[()]|\\.", re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_CACHED_LENGTH = 512


def mailboxes(value: str, limits: Limits = DEFAULT_LIMITS) -> Mailboxes:
    """Read an address list as it stands in the header, encoded words undecoded. Raise LimitExceeded for too many addresses, nothing else."""
    return _cached(value, limits.addresses) if len(value) <= _CACHED_LENGTH else _read(value, limits.addresses)


class _Token(NamedTuple):
    kind: str
    text: str


def _tokens(value: str) -> list[_Token]:
    """Cut the value into tokens, without comments; an unfinished comment or quoted string becomes a "bad" token."""
    tokens: list[_Token] = []
    at = 0
    while at < len(value):
        match = _TOKENS.match(value, at)
        assert match is not None and match.lastgroup is not None
        kind = match.lastgroup
        at = match.end()
        if kind == "blank":
            continue
        if kind == "open":
            depth = 1
            for step in _COMMENT.finditer(value, at):
                sign = step.group()
                depth += 1 if sign == "(" else -1 if sign == ")" else 0
                if depth == 0:
                    at = step.end()
                    break
            else:
                return [*tokens, _Token("bad", "(")]
            continue
        if kind == "bad" and match.group() == '"':  # a quoted string without an end: nothing behind it can be told apart
            return [*tokens, _Token("bad", '"')]
        tokens.append(_Token(kind, match.group()))
    return tokens


def _read(value: str, most: int) -> Mailboxes:
    reader = _Reader(most)
    item: list[_Token] = []
    in_angle = False
    in_group = False
    for token in _tokens(value):
        if token.kind == "special":
            if token.text == "<":
                in_angle = True
            elif token.text == ">":
                in_angle = False
            elif token.text == "," and not in_angle:
                reader.mailbox(item)
                item = []
                continue
            elif token.text == ":" and not in_angle:
                # RFC 5322 §3.4: group = display-name ":" [group-list] ";"
                reader.problem("group" if item and not in_group else "bad-syntax")
                in_group = True
                item = []
                continue
            elif token.text == ";" and not in_angle:
                if not in_group:
                    reader.problem("bad-syntax")
                reader.mailbox(item)
                in_group = False
                item = []
                continue
        item.append(token)
    reader.mailbox(item)
    if in_group:
        reader.problem("bad-syntax")
    if not reader.addresses and not reader.problems:
        reader.problem("empty")
    return Mailboxes(tuple(reader.addresses), tuple(reader.names), tuple(reader.problems))


_cached = lru_cache(maxsize=1024)(_read)


class _Reader:
    """Collects mailboxes and problems of one field."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.addresses: list[Address] = []
        self.names: list[str] = []
        self.problems: dict[str, None] = {}

    def problem(self, code: str) -> None:
        self.problems[code] = None

    def mailbox(self, item: list[_Token]) -> None:
        """mailbox = [display-name] "<" addr-spec ">" / addr-spec. Empty items between commas are allowed (RFC 5322 §4.4)."""
        if not item:
            return
        name = ""
        angles = [at for at, token in enumerate(item) if token.kind == "special" and token.text in "<>"]
        if angles:
            if len(angles) != 2 or item[angles[0]].text != "<" or angles[1] != len(item) - 1:
                # "<a@x> <b@y>", "<a@x> b@y", "<<a@x>>": which of them a reader shows cannot be known.
                self.problem("bad-syntax")
                return
            phrase = item[: angles[0]]
            item = item[angles[0] + 1 : -1]
            name = self.phrase(phrase)
            if any(token.kind in ("special", "literal", "bad") for token in phrase) and not _same(phrase, item):
                # `alice@bank.example <mallory@evil.example>`: the first is no address, and some readers take it for one.
                self.problem("bad-syntax")
            if item and item[0].text == "@":
                # RFC 5322 §4.4: obs-route, which must be accepted and ignored.
                self.problem("route")
                colon = next((at for at, token in enumerate(item) if token.text == ":"), None)
                if colon is None:
                    self.problem("bad-syntax")
                    return
                item = item[colon + 1 :]
        address = self.addr_spec(item)
        if address is not None:
            if len(self.addresses) >= self.most:
                raise LimitExceeded("addresses", f"a field holds more than {self.most} addresses", stage="parse")
            self.addresses.append(address)
            self.names.append(name)

    @staticmethod
    def phrase(tokens: list[_Token]) -> str:
        """A display name as people see it: quoted pairs undone, encoded words decoded (RFC 2047 §5 (3))."""
        words = [
            _QUOTED_PAIR.sub(r"\1", token.text[1:-1].replace("\r\n", "")) if token.kind == "quoted" else token.text for token in tokens
        ]
        return decode_words(" ".join(words))

    def addr_spec(self, tokens: list[_Token]) -> Address | None:
        # RFC 5322 §3.4.1: addr-spec = local-part "@" domain; RFC 5322 §4.4 lets blanks and comments stand around dots.
        at = [index for index, token in enumerate(tokens) if token.text == "@" and token.kind == "special"]
        if len(at) != 1 or any(token.kind == "bad" or (token.kind == "special" and token.text != "@") for token in tokens):
            self.problem("bad-syntax")
            return None
        local, domain = tokens[: at[0]], tokens[at[0] + 1 :]
        if not (_joined(local, ("atom", "quoted")) and _joined(domain, ("atom", "literal"))):
            self.problem("bad-syntax")
            return None
        local_part = "".join(token.text for token in local)
        if "=?" in local_part and "?=" in local_part:
            # RFC 2047 §5: an encoded word must not stand in an addr-spec; some readers decode it, and then see another address.
            self.problem("encoded-word")
        try:
            return Address.parse(f"{local_part}@{''.join(token.text for token in domain)}")
        except AddressError:
            self.problem("bad-address")
            return None


def _joined(tokens: list[_Token], kinds: tuple[str, ...]) -> bool:
    """True for one token, or several that dots hold together: `a . b`, but not `a b`, which would be read as another address."""
    if not tokens or any(token.kind not in kinds for token in tokens):
        return False
    return all(left.text.endswith(".") or right.text.startswith(".") for left, right in pairwise(tokens))


def _same(phrase: list[_Token], item: list[_Token]) -> bool:
    """True where the display name is the very address behind it: `a@b <a@b>`, which the world sends and which misleads nobody."""
    return "".join(token.text for token in phrase).lower() == "".join(token.text for token in item).lower()
