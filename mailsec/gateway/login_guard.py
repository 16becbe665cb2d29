"""Guessing passwords gets slow: after some wrong ones, an address and an account have to wait, longer each time.

The one invariant: while somebody has to wait no password is looked at, so a right one is told from a wrong one no sooner than the wait
allows; no more are looked at together than may be wrong. Who logged in from an address before does not wait there for what others do to the
account elsewhere.
"""

from __future__ import annotations

import hashlib
import stringprep
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.networks import client_of

__all__ = ["LoginGuard", "Now", "Recent"]

_MOST_KNOWN = 10_000


class Recent(Protocol):
    """How often something happened of late (`store.tallies.Tally`)."""

    def add(self, name: str, at: float, by: int = 1) -> None: ...

    def recent(self, name: str, at: float) -> tuple[float, float]:
        """(how often, when last)."""
        ...


class Now(Protocol):
    """How much of something each name has now, over all workers (`store.tallies.Gauges`)."""

    def change(self, name: str, by: int) -> None: ...

    def total(self, name: str) -> int: ...


class LoginGuard:
    """One for each worker; `failures` is shared by all, and so are `known`, who logged in from where of late, and `looked_at`, who does now."""

    def __init__(
        self, failures: Recent, limits: Limits = DEFAULT_LIMITS, known: Recent | None = None, looked_at: Now | None = None
    ) -> None:
        self._failures = failures
        self._everywhere = looked_at
        self._shared = known
        self._limits = limits
        self._known: OrderedDict[bytes, None] = OrderedDict()
        self.accounts: Callable[[str], Sequence[str]] = lambda login: (login,)
        """Whose accounts a login may be, as those who check it take it: "alice" may be alice@example.org."""
        self._looking: Counter[str] = Counter()
        """How many logins of a name are being looked at in this worker."""

    def wait(self, peer: str, login: str, at: float) -> float:
        """Seconds until this login is looked at; 0: now. `at`: seconds since the epoch."""
        return max((self._left(name, free, longest, at) for name, free, longest in self._names(peer, login, at)), default=0.0)

    def crowd(self, peer: str, login: str, at: float) -> str:
        """Whose logins are being looked at in such a number that this one waits for the end of one of them; "": nobody's.

        Attack: a thousand guesses at once, none of which counts when the others begin.
        """
        for name, free, _ in self._names(peer, login, at):
            # Attack: the same to all workers at once.
            looking = max(self._looking[name], self._everywhere.total(name) if self._everywhere is not None else 0)
            if looking >= max(1.0, free - self._failures.recent(name, at)[0]):
                return name
        return ""

    def begin(self, peer: str, login: str, at: float) -> Sequence[str]:
        """A login is being looked at, until `end` of what is returned."""
        names = [name for name, _, _ in self._names(peer, login, at)]
        self._looking.update(names)
        self._count(names, 1)
        return names

    def end(self, names: Sequence[str]) -> None:
        """What became of it was said before."""
        self._count(names, -1)
        for name in names:
            self._looking[name] -= 1
            if self._looking[name] <= 0:
                del self._looking[name]

    def is_alone(self, name: str) -> bool:
        """True where who looks at logins of `name` are in this worker: their end is told here."""
        return self._everywhere is None or self._everywhere.total(name) <= self._looking[name]

    def _count(self, names: Sequence[str], by: int) -> None:
        if self._everywhere is not None:
            for name in names:
                self._everywhere.change(name, by)

    def _names(self, peer: str, login: str, at: float) -> Iterator[tuple[str, int, float]]:
        """What counts for this login: (name, how many failures are free, the longest wait)."""
        limits = self._limits
        client = client_of(peer)
        if client:
            yield f"address {client}", limits.login_failures_per_address, limits.login_wait_of_address
        for account in self._accounts(login):
            if not self._is_known(_pair(client, account), at):
                yield f"login {account}", limits.login_failures_per_account, limits.login_wait_of_account

    def _accounts(self, login: str) -> Sequence[str]:
        return self.accounts(_account(login)) if login else ()

    def failed(self, peer: str, login: str, at: float) -> None:
        """A wrong password, or a login that does not exist."""
        client = client_of(peer)
        if client:
            self._failures.add(f"address {client}", at)
        for account in self._accounts(login):
            self._failures.add(f"login {account}", at)

    def succeeded(self, peer: str, login: str, at: float, account: str = "") -> None:
        """The right one. `account`: whose it turned out to be, of all that the login may be; "": any."""
        client = client_of(peer)
        for one in (_account(account),) if account else self._accounts(login):
            pair = _pair(client, one)
            if self._shared is not None:
                self._shared.add(pair.hex(), at)
            self._known[pair] = None
            self._known.move_to_end(pair)
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)

    def _is_known(self, pair: bytes, at: float) -> bool:
        # Attack: an account's owner is kept out by who guesses at it as soon as another worker, or a new one, has their connection.
        return pair in self._known or (self._shared is not None and self._shared.recent(pair.hex(), at)[0] > 0)

    def _left(self, name: str, free: int, longest: float, at: float) -> float:
        often, last = self._failures.recent(name, at)
        if often < free:
            return 0.0
        # 1, 2, 4 … seconds behind the last failure
        wait: float = min(longest, 2.0 ** min(often - free, 30.0))
        return max(0.0, last + wait - at)


def _account(login: str) -> str:
    # Attack: guessing at one account by a thousand ways to write it, each counted by itself. RFC 4013 §2.1, §2.2: what SASLprep makes equal
    # (wide letters, what is mapped to nothing) is one; that it makes more equal than any server does costs a wait only.
    return unicodedata.normalize("NFKC", "".join(c for c in login if not stringprep.in_table_b1(c))).lower()


def _pair(client: str, account: str) -> bytes:
    return hashlib.blake2b(f"{client} {account}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
