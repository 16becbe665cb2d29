"""The steps of a message's way, told as they happen: for `mailsec explain`.

The one invariant: telling changes nothing. Where nobody listens (`steps` is None) nothing is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from mailsec.interfaces import Outcome
from mailsec.model.verdict import Reason

__all__ = ["Explanation", "Step", "Steps", "note"]


@dataclass(frozen=True, slots=True)
class Step:
    """One step: its name as in docs/flow.md, what came of it, the rule that decided, the reason where it was a no."""

    name: str
    text: str
    rule: str = ""
    reason: Reason | None = None


Steps: TypeAlias = list[Step]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to a message, and why; nothing was signed, stored or sent."""

    steps: tuple[Step, ...]
    outcomes: tuple[Outcome, ...]


def note(steps: Steps | None, name: str, text: str, rule: str = "", reason: Reason | None = None) -> None:
    """Tell a step to whoever listens."""
    if steps is not None:
        steps.append(Step(name, text, rule, reason))
