"""Answers that were signed before they were asked for again, and how many may be signed in a second.

The one invariant: a kept answer is given only while it says what the register says now, and while it holds.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from mailsec_ocsp.responses import Standing

__all__ = ["Allowance", "Answer", "KeptAnswers"]

_MOST: Final = 10_000
"""Answers that a worker keeps, each of one to three kilobytes. Only what was issued is kept, so strangers cannot make it more."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One OCSPResponse, and when it holds; None for those that are not signed, and hold for nobody else."""

    octets: bytes
    this_update: datetime | None = None
    next_update: datetime | None = None
    standing: Standing | None = None
    for_everybody: bool = False
    """True where caches may give it to others."""

    def is_fresh(self, at: datetime) -> bool:
        """True in the first half of its life."""
        return self.renewed_at is not None and at < self.renewed_at

    @property
    def renewed_at(self) -> datetime | None:
        """Where the second half of its life begins, in which another one is made."""
        if self.this_update is None or self.next_update is None:
            return None
        return self.this_update + (self.next_update - self.this_update) / 2

    def holds(self, at: datetime) -> bool:
        """True for as long as clients believe it."""
        return self.next_update is not None and at < self.next_update


class KeptAnswers:
    """By the CertID as it was asked; those that were not asked for longest go first."""

    def __init__(self) -> None:
        self._answers: OrderedDict[bytes, Answer] = OrderedDict()

    def get(self, cert_id: bytes, standing: Standing, at: datetime) -> Answer | None:
        """What was kept, if it is still true and holds."""
        answer = self._answers.get(cert_id)
        if answer is None:
            return None
        # A revocation, or a release from hold, makes it untrue at once.
        if answer.standing != standing or not answer.holds(at):
            del self._answers[cert_id]
            return None
        self._answers.move_to_end(cert_id)
        return answer

    def keep(self, cert_id: bytes, answer: Answer) -> None:
        """In place of what was there."""
        self._answers[cert_id] = answer
        self._answers.move_to_end(cert_id)
        if len(self._answers) > _MOST:
            self._answers.popitem(last=False)


class Allowance:
    """Signatures that may be made: `per_second` on average, twice as many at once."""

    def __init__(self, per_second: float, now: float) -> None:
        self._per_second = per_second
        self._left = self._most = max(1.0, 2 * per_second)
        self._at = now

    def take(self, now: float) -> bool:
        """True where one more may be made."""
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
