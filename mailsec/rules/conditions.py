"""Facts about a message for one recipient, and conditions over them.

The one invariant: an absent fact matches nothing. A rule that asks for a sender never applies to a message that has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailsec.errors import AddressError, ConfigurationError
from mailsec.model.address import Address, normalise_domain
from mailsec.model.message import KINDS
from mailsec.model.session import Origin
from mailsec.rules.expressions import Expression, Lookup, compile_expression
from mailsec.rules.patterns import compile_pattern, found_in
from mailsec.rules.session_variables import is_variable

__all__ = ["Addresses", "Condition", "Facts", "compile_condition"]


_KEYS = ("listener", "origin", "user", "sender", "recipient", "kind", "subject", "header", "tls")


def _no_header(name: str) -> Sequence[str]:
    return ()


def _no_variable(name: str) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What conditions may ask about one message and one recipient."""

    listener: str
    origin: Origin
    user: str = ""
    """The name of the identity; "" where there is none."""
    sender: Address | None = None
    """The one From address; the reverse path where there is no single From address."""
    recipient: Address | None = None
    header: Callable[[str], Sequence[str]] = _no_header
    """The decoded values of all fields with a lower-case name; computed only when a rule asks."""
    kind: str = ""
    """A word of `model.message.KINDS`; "" for other mail."""
    session: Lookup = _no_variable
    """The variables of `rules.session_variables`."""


class Addresses:
    """Patterns of `model.session.matches_pattern`, compiled: whole addresses and domains are looked up, not compared one by one."""

    __slots__ = ("_below", "_domains", "_everybody", "_keys")

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raise ConfigurationError for a pattern that could never match."""
        self._everybody = "*" in patterns
        self._below = tuple("." + normalise_domain(one[2:]) for one in patterns if one.startswith("@."))
        self._domains = frozenset(normalise_domain(one[1:]) for one in patterns if one.startswith("@") and not one.startswith("@."))
        keys = set()
        for one in patterns:
            if one != "*" and not one.startswith("@"):
                try:
                    keys.add(Address.parse(one).key)
                except AddressError as error:
                    raise ConfigurationError(
                        f"not a pattern of addresses: {one!r}", hint="write name@domain, @domain, @.domain or *"
                    ) from error
        self._keys = frozenset(keys)

    def match(self, address: Address) -> bool:
        """True where one of the patterns means `address`."""
        if self._everybody:
            return True
        if self._keys and address.key in self._keys:
            return True
        domain = address.domain_key
        return domain in self._domains or (bool(self._below) and domain.endswith(self._below))


@dataclass(frozen=True, slots=True)
class Condition:
    """All that a rule asks; what it does not ask is None or empty. `[[rule]]` without `match` applies to everything."""

    listeners: frozenset[str] | None = None
    origins: frozenset[Origin] | None = None
    users: frozenset[str] | None = None
    kinds: frozenset[str] | None = None
    sender: Addresses | None = None
    recipient: Addresses | None = None
    headers: tuple[tuple[str, re.Pattern[str]], ...] = ()
    tls: Expression | None = None

    def holds(self, facts: Facts) -> bool:
        """True where every part holds; the cheap parts are asked first."""
        return (
            (self.origins is None or facts.origin in self.origins)
            and (self.listeners is None or facts.listener in self.listeners)
            and (self.users is None or facts.user.casefold() in self.users)
            and (self.kinds is None or facts.kind in self.kinds)
            and (self.recipient is None or (facts.recipient is not None and self.recipient.match(facts.recipient)))
            and (self.sender is None or (facts.sender is not None and self.sender.match(facts.sender)))
            and all(found_in(pattern, facts.header(name)) for name, pattern in self.headers)
            and (self.tls is None or self.tls(facts.session))
        )


def compile_condition(match: Mapping[str, Any]) -> Condition:
    """Compile the `match` table of a `[[rule]]`; raise ConfigurationError for a key or value that means nothing.

    Keys: listener, origin, user, sender, recipient, kind (a string or a list of them), subject (a regular expression), header (a table of
    field name to regular expression), tls (an expression over `rules.session_variables`).
    """
    unknown = set(match) - set(_KEYS)
    if unknown:
        raise ConfigurationError(f"a rule cannot match {sorted(unknown)[0]!r}", hint=f"it matches {', '.join(_KEYS)}")
    headers = [(str(name).lower(), compile_pattern(text)) for name, text in dict(match.get("header") or {}).items()]
    if "subject" in match:
        headers.append(("subject", compile_pattern(match["subject"])))
    origins = _texts(match, "origin")
    try:
        known = None if origins is None else frozenset(Origin(one) for one in origins)
    except ValueError as error:
        raise ConfigurationError(f"there is no origin {origins!r}", hint="origins are " + ", ".join(one.value for one in Origin)) from error
    kinds = _texts(match, "kind")
    if kinds is not None and not set(kinds) <= set(KINDS):
        raise ConfigurationError(f"there is no kind {sorted(set(kinds) - set(KINDS))[0]!r} of mail", hint="kinds are " + ", ".join(KINDS))
    listeners, users = _texts(match, "listener"), _texts(match, "user")
    senders, recipients = _texts(match, "sender"), _texts(match, "recipient")
    return Condition(
        None if listeners is None else frozenset(listeners),
        known,
        None if users is None else frozenset(one.casefold() for one in users),
        None if kinds is None else frozenset(kinds),
        None if senders is None else Addresses(senders),
        None if recipients is None else Addresses(recipients),
        tuple(headers),
        compile_expression(str(match["tls"]), is_variable) if match.get("tls") else None,
    )


def _texts(match: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    value = match.get(key)
    if value is None:
        return None
    texts = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Sequence) else ()
    if not texts or not all(isinstance(one, str) for one in texts):
        raise ConfigurationError(f"{key} of a rule is a string or a list of strings", hint=f"leave {key} out to match everything")
    return texts
