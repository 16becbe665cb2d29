"""Rules in order: for each concern the first rule that has an opinion and whose condition holds decides.

The one invariant: rules are values. Which key exists and what a message holds is not known here; `builtin.rules` puts the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mailsec.errors import ConfigurationError
from mailsec.rules.conditions import Condition, Facts, compile_condition

__all__ = ["CONCERNS", "Rule", "RuleSet", "compile_rule"]

CONCERNS: Mapping[str, tuple[str, ...]] = {
    "sign": ("required", "if-possible", "never"),
    "encrypt": ("required", "if-possible", "never"),
    "inbound": ("report", "required"),
}
"""What rules decide, with the words that each takes. `inbound = "required"`: a message that is not trusted meets `failure`."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One `[[rule]]`. "" stands for "says nothing about it"."""

    name: str
    condition: Condition = field(default_factory=Condition)
    sign: str = ""
    encrypt: str = ""
    inbound: str = ""
    signer: str = "from"
    """ "from": a key that belongs to the From address; or the name of one, which must belong to it too (promise 8)."""
    form: str = "detached"
    profile: str = "default"
    failure: str = "refuse"
    """What happens where something required cannot be done: "refuse" or "hold"."""


DEFAULT = Rule("default", sign="if-possible", encrypt="never", inbound="report")
"""What holds where no rule has an opinion: sign if there is a key, let everything through with its verdict."""


def compile_rule(name: str, match: Mapping[str, Any] | None = None, **values: str) -> Rule:
    """Compile one rule; raise ConfigurationError for a word that means nothing."""
    for concern, words in CONCERNS.items():
        if values.get(concern, "") not in ("", *words):
            raise ConfigurationError(f"rule {name!r}: {concern} = {values[concern]!r}", hint=f"{concern} is one of: {', '.join(words)}")
    if values.get("failure", "refuse") not in ("refuse", "hold"):
        raise ConfigurationError(f"rule {name!r}: failure = {values['failure']!r}", hint="failure is one of: refuse, hold")
    if values.get("form", "detached") not in ("detached", "opaque"):
        raise ConfigurationError(f"rule {name!r}: form = {values['form']!r}", hint="form is one of: detached, opaque")
    try:
        return Rule(name, compile_condition(match or {}), **values)
    except ConfigurationError as error:
        raise ConfigurationError(f"rule {name!r}: {error.message}", hint=error.hint) from error


class RuleSet:
    """All rules in the order of the configuration, and the default behind them."""

    def __init__(self, rules: Sequence[Rule] = (), default: Rule = DEFAULT) -> None:
        self.rules = tuple(rules)
        self.default = default
        self._concerned = {concern: tuple(rule for rule in self.rules if getattr(rule, concern)) for concern in CONCERNS}

    def choose(self, concern: str, facts: Facts) -> Rule:
        """The rule that decides `concern`."""
        for rule in self._concerned[concern]:
            if rule.condition.holds(facts):
                return rule
        return self.default

    def has_opinion(self, concern: str) -> bool:
        """False where only the default could decide: callers then save the work of gathering facts."""
        return bool(self._concerned[concern])
