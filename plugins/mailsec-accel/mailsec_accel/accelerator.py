"""One token that computes: what it is trusted with now, how it did, and when it is tested again.

The one invariant: it is asked only about kinds of signatures for which it has passed its test since it last failed; one that ever gave a wrong
answer is not asked about that kind again.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Final

from mailsec.errors import MailsecError
from mailsec.interfaces import CryptoBackend, TokenHost
from mailsec_accel.computing import CURVES, Question
from mailsec_accel.selftest import why_not

__all__ = ["Accelerator"]

_LONGEST: Final = 3600.0


class Accelerator:
    """`connect` gives a connection to its host: one for each thread, as they block."""

    def __init__(
        self,
        name: str,
        token: str,
        mechanisms: tuple[str, ...],
        connect: Callable[[], TokenHost],
        *,
        deadline: float,
        retry: float,
    ) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        """ "right", "wrong" (answers about signatures), "failed" (no answer), "mistaken" (software did not agree)."""
        self.changes: deque[tuple[str, str, str]] = deque(maxlen=100)
        """(event, kind, reason), until somebody has told of them."""
        self._token = token
        self._connect = connect
        self._deadline = deadline
        self._retry = retry
        self._trusted: frozenset[str] = frozenset()
        self._local = threading.local()
        self._lock = threading.Lock()
        kinds = [kind for name in mechanisms for kind in (("rsa",) if name == "rsa" else tuple(f"ec:{curve}" for curve in CURVES))]
        self._next: dict[str, float] = dict.fromkeys(kinds, float("-inf"))
        """When each kind is tested that is not trusted; one that is not in here never is again."""
        self._failures: Counter[str] = Counter()

    def trusts(self, kind: str) -> bool:
        """True where it is asked about signatures of this kind."""
        return kind in self._trusted

    @property
    def trusted(self) -> frozenset[str]:
        """All kinds that it is asked about."""
        return self._trusted

    def ask(self, question: Question, now: float) -> bool | None:
        """Its answer; None where there was none in time: then it is left out until it has been tested again."""
        try:
            answer = question.ask(self._host(), self._token, self._deadline)
        except MailsecError as error:
            self.counts["failed"] += 1
            self._leave_out(question.kind, error.message, now)
            return None
        self.counts["right" if answer else "wrong"] += 1
        return answer

    def mistaken(self, kind: str) -> None:
        """Software did not agree with its answer."""
        self.counts["mistaken"] += 1
        with self._lock:
            self._trusted -= {kind}
            self._next.pop(kind, None)
            self.changes.append(("accelerator is wrong, and never asked again", kind, "software does not agree with its answer"))

    def due(self, now: float) -> tuple[str, ...]:
        """Kinds that are to be tested now."""
        return tuple(kind for kind, at in self._next.items() if kind not in self._trusted and at <= now)

    def test(self, kind: str, software: CryptoBackend, random: Callable[[int], bytes], now: float) -> None:
        """Test one kind, and trust it where every answer was right. Blocking."""
        try:
            reason = why_not(kind, self._host(), self._token, software, random)
        except MailsecError as error:
            self._leave_out(kind, error.message, now)
            return
        with self._lock:
            if reason:
                self._next.pop(kind, None)
                self.changes.append(("accelerator is wrong, and never asked again", kind, reason))
            elif kind in self._next:
                self._trusted |= {kind}
                self.changes.append(("accelerator is trusted", kind, ""))

    def report(self) -> Mapping[str, object]:
        """How it did, for the log."""
        return {"accelerator": self.name, "trusted": sorted(self._trusted), **self.counts}

    def _leave_out(self, kind: str, reason: str, now: float) -> None:
        with self._lock:
            known = kind in self._trusted or not self._failures[kind]
            self._trusted -= {kind}
            if kind in self._next:
                self._next[kind] = now + min(_LONGEST, self._retry * 2 ** min(self._failures[kind], 20))
            self._failures[kind] += 1
            if known:
                self.changes.append(("accelerator is left out", kind, reason))

    def _host(self) -> TokenHost:
        host: TokenHost | None = getattr(self._local, "host", None)
        if host is None:
            host = self._local.host = self._connect()
        return host
