"""Whose address a login is, at a server whose logins are addresses in domains that the configuration names.

The one invariant (promise 8): an address comes of a login only within those domains, and no two logins that a server could tell apart
become one address.
"""

from __future__ import annotations

from string import ascii_lowercase, ascii_uppercase

from mailsec.errors import AddressError
from mailsec.model.address import Address, normalise_domain

__all__ = ["address_of"]

_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


def address_of(login: str, domains: tuple[str, ...]) -> Address | None:
    """The address that `login` is; a plain name is one in the first domain. None where it is none in `domains`."""
    # Attack: an account called "alice" with the quotes, alice@exam<soft hyphen>ple.org, or Kate with a KELVIN SIGN: somebody else to a
    # server, and the same person as alice or kate to whoever compares addresses.
    if not _says_what_it_means(login):
        return None
    try:
        if "@" not in login:
            # A plain name is one in the first domain: in another it may be somebody else's.
            return Address.parse(f"{login}@{domains[0]}") if not domains[0].startswith(".") else None
        address = Address.parse(login)
    except AddressError:
        return None
    within = address.domain_key
    for domain in domains:
        if within.endswith("." + normalise_domain(domain[1:])) if domain.startswith(".") else within == normalise_domain(domain):
            return address
    return None


def _says_what_it_means(login: str) -> bool:
    """True where no two logins that differ in more than the case of ASCII letters lead to one address."""
    if '"' in login:
        return False
    plain = login.translate(_LOWER)
    local_part, _, domain = plain.rpartition("@") if "@" in plain else (plain, "", "")
    if local_part.lower() != local_part:
        return False
    try:
        return domain.isascii() or normalise_domain(domain).encode("ascii").decode("idna") == domain
    except UnicodeError:
        return False
