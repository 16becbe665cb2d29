"""Logins that succeeded a short while ago, so that a login for each message does not cost 50 ms of PBKDF2 each.

What is kept is a keyed digest of login and password, under a key that exists in this process only. The one invariant: an entry
lives for `remembered_login_seconds`, there are `remembered_logins` at most, and a change of the database ends all (its owner makes a new
`Logins`). Failed logins are never kept: a guesser pays the full price for every guess.
"""

from __future__ import annotations

import hmac

from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.trust import UserEntry

__all__ = ["Logins"]


class Logins:
    """Successful logins by keyed digest. `key` are 32 random octets of this process."""

    __slots__ = ("_key", "_known", "_limits")

    def __init__(self, key: bytes, limits: Limits = DEFAULT_LIMITS) -> None:
        self._limits = limits
        self._key = key
        self._known: dict[bytes, tuple[float, UserEntry]] = {}

    def __repr__(self) -> str:
        return f"Logins({len(self._known)})"

    def _digest(self, login: str, password: bytes) -> bytes:
        name = login.encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, b"%d:%b%b" % (len(name), name, password), "sha256")

    def find(self, login: str, password: bytes, now: float) -> UserEntry | None:
        """The user who logged in like this not longer ago than the limit, at `now` (monotonic)."""
        known = self._known.get(self._digest(login, password))
        return known[1] if known is not None and now < known[0] else None

    def keep(self, login: str, password: bytes, user: UserEntry, now: float) -> None:
        """Remember a login that has just succeeded."""
        if len(self._known) >= self._limits.remembered_logins:
            self._known = {digest: known for digest, known in self._known.items() if now < known[0]}
            while len(self._known) >= self._limits.remembered_logins:
                del self._known[next(iter(self._known))]
        self._known[self._digest(login, password)] = (now + self._limits.remembered_login_seconds, user)
