"""What is never reached, because something before it takes all that it is for: routes, and what rules decide."""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.app.config import models
from mailsec.app.config.problems import Problem
from mailsec.model.address import normalise_domain
from mailsec.rules.ruleset import CONCERNS

__all__ = ["covers", "find_unreached_routes", "find_unreached_rules"]


def covers(pattern: str, domain: str) -> bool:
    """True where the route `pattern` takes all mail for `domain`, which may be a pattern itself."""
    wanted, given = normalise_domain(pattern.removeprefix(".")), normalise_domain(domain.removeprefix("."))
    if pattern.startswith("."):
        return given.endswith("." + wanted) or (given == wanted and domain.startswith("."))
    return given == wanted and not domain.startswith(".")


def find_unreached_routes(relay: models.Relay) -> list[Problem]:
    """Routes behind one that takes all their mail: the first that fits counts."""
    problems = []
    patterns = list(relay.routes)
    for index, pattern in enumerate(patterns):
        before = next((one for one in patterns[:index] if covers(one, pattern)), None)
        if before is not None:
            message = f'is never used: "{before}" stands before it and takes its mail'
            same = normalise_domain(before) == normalise_domain(pattern)
            hint = "take one of the two out" if same else "the first route that fits counts; write this one before it"
            problems.append(Problem(("relay", "routes", pattern), message, hint))
    return problems


def find_unreached_rules(rules: Sequence[models.Rule | None]) -> list[Problem]:
    """What a rule says though a rule before it has said it about all of its mail; and rules that say nothing at all."""
    problems: list[Problem] = []
    for index, rule in enumerate(rules):
        if rule is None:
            continue
        said = [concern for concern in CONCERNS if getattr(rule, concern)]
        if not said:
            message = f'"{rule.name}" decides nothing'
            problems.append(Problem(("rule", index), message, "add sign, encrypt or inbound, or take the rule out"))
        for name in sorted(rule.match.model_fields_set):
            if getattr(rule.match, name) in ([], {}):
                # Attack on oneself: who means "nobody" gets a rule for everybody.
                problems.append(Problem(("rule", index, "match", name), "is empty", "leave it out where it does not matter, or name some"))
        # Mail that programs read is decided by rules that name its kind, whatever stands before them.
        if rule.match.kind:
            continue
        for concern in said:
            for other in rules[:index]:
                if other is not None and getattr(other, concern) and (_is_for_all(other) or other.match == rule.match):
                    whom = "all mail" if _is_for_all(other) else "the same mail"
                    message = f'is never reached: the rule "{other.name}" before it decides that for {whom}'
                    problems.append(Problem(("rule", index, concern), message, "the first rule that matches counts; move this one up"))
                    break
    return problems


def _is_for_all(rule: models.Rule) -> bool:
    return not any(rule.match.model_dump().values())
