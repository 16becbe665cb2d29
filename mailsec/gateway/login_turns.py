"""Whose password is looked at when: logins in their turn, whatever protocol they come by.

The one invariant: of logins that share an address or an account no more are looked at together than may be wrong (`login_guard`); the others
wait for the end of one of them, or are sent away. Who looks at a password has taken a turn, and gives it back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from mailsec.errors import Unavailable
from mailsec.gateway.login_guard import LoginGuard
from mailsec.interfaces import Runtime, Signal

__all__ = ["LoginTurns", "Password"]

T = TypeVar("T")

_LOOK_AGAIN = 0.05
"""Seconds after which it is looked whether a login has ended in another worker, which tells nobody."""


class Password(NamedTuple):
    """What a look at a password has shown."""

    right: bool | None
    """None: it cannot be said, and counts against nobody."""
    account: str = ""
    """Whose it is, of all that the login may be; "": any."""


class LoginTurns:
    """One for each worker; without a `guard` everybody is looked at."""

    def __init__(self, guard: LoginGuard | None, runtime: Runtime) -> None:
        self._guard = guard
        self._runtime = runtime
        self._waiting: dict[str, list[Signal]] = {}
        """Logins that wait for the end of others, by the name that they share."""

    def demand(self, peer: str, login: str) -> None:
        """Raise Unavailable for who has to wait: no password is looked at before."""
        wait = self._guard.wait(peer, login, self._now()) if self._guard is not None else 0.0
        if wait:
            raise Unavailable(f"too many wrong passwords: {wait:.0f} s to wait", stage="login")

    async def look(self, peer: str, login: str, ask: Callable[[], Awaitable[tuple[T, Password]]]) -> T:
        """What `ask` says, in its turn; raise Unavailable for who has to wait, and whatever `ask` raises."""
        guard = self._guard
        if guard is None:
            return (await ask())[0]
        looked_at = await self._take(guard, peer, login)
        try:
            answer, password = await ask()
            if password.right:
                guard.succeeded(peer, login, self._now(), password.account)
            elif password.right is not None:
                guard.failed(peer, login, self._now())
            return answer
        finally:
            guard.end(looked_at)
            for name in looked_at:
                for turn in self._waiting.pop(name, ()):
                    turn.fire(None)

    def failed(self, peer: str, login: str) -> None:
        """It is wrong, without a look at its password."""
        if self._guard is not None:
            self._guard.failed(peer, login, self._now())

    async def _take(self, guard: LoginGuard, peer: str, login: str) -> Sequence[str]:
        """Until so few others are being looked at that each counts before the next."""
        while True:
            self.demand(peer, login)
            crowd = guard.crowd(peer, login, self._now())
            if not crowd:
                return guard.begin(peer, login, self._now())
            if not guard.is_alone(crowd):
                await self._runtime.sleep(_LOOK_AGAIN)
                continue
            turn = self._runtime.signal()
            self._waiting.setdefault(crowd, []).append(turn)
            await turn.wait()

    def _now(self) -> float:
        return self._runtime.now().timestamp()
