"""A circuit breaker, as a value: what is down is not waited for twice. One for all: responders, servers of lists, tokens, plugins.

States: closed (questions are asked), open (they are not, until an instant), half open (that instant has come: one question is let through,
and its end decides). The one invariant: while the thing is down, at most one question a period waits for it. Instants are seconds of any
clock that does not go back; nothing here reads one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["CLOSED", "Breaker", "BreakerPolicy", "Breakers"]


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """How soon it opens, and for how long. Seconds."""

    failures: int = 1
    """Failures in a row that open it."""
    first: float = 30.0
    """How long it stays open for the first time; each further failure doubles that."""
    longest: float = 600.0
    trial: float = 30.0
    """How long the question that is let through may take before another one is."""


DEFAULT_POLICY = BreakerPolicy()


@dataclass(frozen=True, slots=True)
class Breaker:
    """One state. `admit` before a question, `failed` or `succeeded` after it; each gives the next state."""

    failures: int = 0
    """Failures in a row."""
    blocked_until: float = float("-inf")
    """Nothing is asked before this instant."""
    policy: BreakerPolicy = DEFAULT_POLICY

    def state(self, now: float) -> str:
        """ "closed", "open" or "half-open"."""
        if self.failures < self.policy.failures:
            return "closed"
        return "open" if now < self.blocked_until else "half-open"

    def admit(self, now: float) -> Breaker | None:
        """The state while a question is out; None where none may be asked now."""
        state = self.state(now)
        if state == "open":
            return None
        # Whoever comes while the trial is out does not wait for it.
        return self if state == "closed" else replace(self, blocked_until=now + self.policy.trial)

    def failed(self, now: float) -> Breaker:
        """A question failed, or was not answered in time."""
        failures = self.failures + 1
        over = failures - self.policy.failures
        if over < 0:
            return replace(self, failures=failures)
        period = min(self.policy.first * 2.0 ** min(over, 32), self.policy.longest)
        return replace(self, failures=failures, blocked_until=now + period)

    def succeeded(self) -> Breaker:
        """A question was answered."""
        return self if not self.failures else Breaker(policy=self.policy)


CLOSED = Breaker()


class Breakers:
    """The states of many things by name: hosts, sources, tokens, plugins. Whoever asks them has one of these.

    `admit` before a question; then `failed` or `succeeded`. What is not known here works. Of more than `most` the oldest is forgotten.
    """

    __slots__ = ("_most", "_policy", "_states")

    def __init__(self, policy: BreakerPolicy = DEFAULT_POLICY, most: int = 2048) -> None:
        self._policy = policy
        self._most = most
        self._states: dict[str, Breaker] = {}

    def admit(self, now: float, *names: str) -> bool:
        """True where a question that needs all of these may be asked now; if one is down, it is a trial for none."""
        admitted = {name: known.admit(now) for name in names if (known := self._states.get(name)) is not None}
        if None in admitted.values():
            return False
        self._states.update((name, state) for name, state in admitted.items() if state is not None)
        return True

    def state(self, name: str, now: float) -> str:
        """ "closed", "open" or "half-open", for people."""
        return self._states.get(name, CLOSED).state(now)

    def failed(self, name: str, now: float) -> None:
        """A question to it failed, or was not answered in time."""
        if len(self._states) >= self._most and name not in self._states:
            del self._states[next(iter(self._states))]
        self._states[name] = self._states.get(name, Breaker(policy=self._policy)).failed(now)

    def succeeded(self, *names: str) -> None:
        """They answered."""
        for name in names:
            self._states.pop(name, None)
