"""Regular expressions that rules hold against text from strangers, in bounded time.

The one invariant: a pattern that compiles here costs at most `WORK` steps on any text. Python's `re` backtracks, so a pattern's own shape
bounds its cost: what may repeat holds nothing that may vary, the product of all choices is bounded, and the text is cut at `TEXT`.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from typing import Any

from mailsec.errors import ConfigurationError

__all__ = ["TEXT", "compile_pattern", "found_in"]

TEXT = 256
"""Characters of a text that are looked at."""
WORK = TEXT**3
"""Steps that one search may cost at worst: about 0.2 s, reached only by a hostile text against the worst pattern that is allowed."""

_HINT = "anchor it with ^, use fewer * and +, or possessive ones (*+)"


def compile_pattern(text: str, *, ignore_case: bool = True) -> re.Pattern[str]:
    """Compile `text`, without regard to case unless it is told otherwise; raise ConfigurationError for a bad one and for one that could take long."""
    try:
        pattern = re.compile(text, re.IGNORECASE if ignore_case else 0)
        parsed = importlib.import_module("re._parser").parse(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigurationError(f"not a regular expression: {text!r}: {error}", hint="quote it with single quotes in TOML") from error
    items = list(parsed)
    anchored = bool(items) and str(items[0][0]) == "AT" and str(items[0][1]) in ("AT_BEGINNING", "AT_BEGINNING_STRING")
    if (1 if anchored else TEXT) * _choices(items, text, False) > WORK:
        raise ConfigurationError(f"this regular expression could take very long: {text!r}", hint=_HINT)
    return pattern


def found_in(pattern: re.Pattern[str], texts: Sequence[str]) -> bool:
    """True where `pattern` is found in one of `texts`."""
    return any(pattern.search(text, 0, TEXT) for text in texts)


def _choices(items: Sequence[Any], text: str, repeated: bool) -> int:
    """In how many ways a backtracking matcher may go through `items`, at most."""
    ways = 1
    for operator, argument in items:
        kind = str(operator)
        if kind in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            least, most, inner = argument
            varies = least != most
            if repeated and varies:
                raise ConfigurationError(f"a repetition within a repetition in {text!r} could take very long", hint=_HINT)
            ways *= _choices(inner, text, repeated or int(most) > 1)
            if varies and kind != "POSSESSIVE_REPEAT":
                ways *= max(2, min(int(most), TEXT) - min(int(least), TEXT))
        elif kind == "BRANCH":
            if repeated:
                raise ConfigurationError(f"alternatives within a repetition in {text!r} could take very long", hint=_HINT)
            ways *= sum(_choices(branch, text, repeated) for branch in argument[1])
        elif kind == "SUBPATTERN":
            ways *= _choices(argument[3], text, repeated)
        elif kind == "ATOMIC_GROUP":
            ways *= _choices(argument, text, repeated)
        elif kind in ("ASSERT", "ASSERT_NOT"):
            ways *= _choices(argument[1], text, repeated)
        elif kind in ("GROUPREF", "GROUPREF_EXISTS", "GROUPREF_IGNORE"):
            raise ConfigurationError(f"a reference to a group in {text!r} could take very long", hint=_HINT)
    return ways
