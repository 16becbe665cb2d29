"""Patterns of addresses as the database stores them: `name@domain`, `@domain`, `@.domain`, `*` (`model.session.matches_pattern`)."""

from __future__ import annotations

from collections.abc import Iterable

from mailsec.errors import AddressError, UsageError
from mailsec.model.address import Address, normalise_domain

__all__ = ["check_patterns"]


def check_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """The patterns in the form in which they are compared; raise UsageError for one that would mean nobody."""
    return tuple(dict.fromkeys(_check(pattern.strip()) for pattern in patterns))


def _check(pattern: str) -> str:
    if pattern == "*":
        return pattern
    prefix = "@." if pattern.startswith("@.") else "@" if pattern.startswith("@") else ""
    try:
        if prefix:
            return prefix + normalise_domain(Address.parse("a@" + pattern[len(prefix) :]).domain)
        return Address.parse(pattern).key
    except AddressError as error:
        raise UsageError(f"not an address or pattern: {error.message}", hint="write name@domain, @domain, @.domain or *") from None
