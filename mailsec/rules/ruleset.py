"""Rules in order: for each concern the first rule that has an opinion and whose condition holds decides.

The one invariant: rules are values. Which key exists and what a message holds is not known here; `builtin.rules` puts the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mailsec.algorithms.profiles import PROFILES
from mailsec.errors import ConfigurationError
from mailsec.model.protection import HEADER_PROTECTIONS
from mailsec.rules.conditions import Condition, Facts, compile_condition

__all__ = ["CONCERNS", "WORDS", "Rule", "RuleSet", "compile_rule"]

CONCERNS: dict[str, tuple[str, ...]] = {
    "sign": ("required", "if-possible", "never"),
    "encrypt": ("required", "if-possible", "never"),
    "inbound": ("report", "required"),
}
"""What rules decide, with the words that each takes. `inbound = "required"`: a message that is not trusted meets `failure`."""


WORDS: dict[str, tuple[str, ...]] = {
    "form": ("detached", "opaque"),
    "wrap": ("sign", "triple"),
    "header_protection": HEADER_PROTECTIONS,
    "compress": ("yes", "no"),
    "encrypt_to_sender": ("yes", "no"),
    "failure": ("refuse", "hold"),
}
"""What else a rule may say about what it decides. What it leaves open is the partner's (`model.partner`), then the default."""


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
    form: str = ""
    wrap: str = ""
    header_protection: str = ""
    compress: str = ""
    encrypt_to_sender: str = ""
    profile: str = ""
    failure: str = ""
    """What happens where something required cannot be done: "refuse" or "hold"."""


DEFAULT = Rule("default", sign="if-possible", encrypt="never", inbound="report")
"""What holds where no rule has an opinion: sign if there is a key, let everything through with its verdict."""


def compile_rule(name: str, match: Mapping[str, Any] | None = None, **values: str) -> Rule:
    """Compile one rule; raise ConfigurationError for a word that means nothing."""
    for setting, words in (CONCERNS | WORDS).items():
        if values.get(setting, "") not in ("", *words):
            raise ConfigurationError(f"rule {name!r}: {setting} = {values[setting]!r}", hint=f"{setting} is one of: {', '.join(words)}")
    profile = values.get("profile", "")
    if profile and profile not in PROFILES:
        raise ConfigurationError(f"rule {name!r}: there is no profile {profile!r}", hint=f"profiles are: {', '.join(PROFILES)}")
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
