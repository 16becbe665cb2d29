"""Expressions over the variables of a TLS session, in the language of mod_nss's NSSRequire (mod_ssl's ssl_expr).

    %{SSL_CLIENT_VERIFY} == "SUCCESS" and %{SSL_CLIENT_S_DN_O} in {"Example", "Example Ltd"} and not %{SSL_CIPHER} =~ m/CBC/

`and or not && || !`, `== != < <= > >=` and their words `eq ne lt le gt ge`, `in {…}`, `=~` and `!~` with `m/…/` or `m/…/i`, `true false`.
As there, `<` and its like compare lengths first and then octets: right for numbers, wrong for versions. The one invariant: an expression
is read once, wholly, or refused; what it costs then is bounded by its length and by `rules.patterns`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from mailsec.errors import ConfigurationError
from mailsec.rules.patterns import compile_pattern, found_in

__all__ = ["Expression", "Lookup", "compile_expression"]

Lookup = Callable[[str], str]
"""The value of a variable by its name; "" where there is none."""
Expression = Callable[[Lookup], bool]

_LONGEST = 2000
_DEEPEST = 40
_TOKEN = re.compile(
    r"""\s*(?:
      %\{(?P<variable>[A-Za-z_][A-Za-z0-9_:]*)\}
    | "(?P<double>(?:[^"\\]|\\.)*)" | '(?P<single>(?:[^'\\]|\\.)*)'
    | (?P<number>[0-9]+)
    | m(?P<mark>[^\sA-Za-z0-9])(?P<pattern>(?:(?!(?P=mark)).)*)(?P=mark)(?P<flags>i?)
    | (?P<operator>&&|\|\||==|!=|<=|>=|=~|!~|[!<>(){},=])
    | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    )""",
    re.VERBOSE,
)
_SAME = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "=": "==", "&&": "and", "||": "or", "!": "not"}
_COMPARISONS: dict[str, Callable[[int], bool]] = {
    "==": lambda order: order == 0,
    "!=": lambda order: order != 0,
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
}


def compile_expression(text: str, variables: Callable[[str], bool] = lambda name: True) -> Expression:
    """Compile `text`. `variables` says whether there is a variable of a name. Raise ConfigurationError for what cannot be read."""
    return _Reader(text, variables).whole()


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, text: str, variables: Callable[[str], bool]) -> None:
        self._text = text
        self._variables = variables
        self._tokens = self._split(text)
        self._at = 0
        self._depth = 0

    def _split(self, text: str) -> Sequence[tuple[str, re.Match[str]]]:
        if len(text) > _LONGEST:
            raise ConfigurationError(f"an expression of {len(text)} characters is too long", hint=f"{_LONGEST} at most: make several rules")
        tokens, at, end = [], 0, len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._error(f"cannot be read at {text[at : at + 20]!r}")
            kind = "pattern" if match.lastgroup in ("flags", "pattern", "mark") else match.lastgroup or ""
            tokens.append((kind, match))
            at = match.end()
        return tokens

    def _error(self, why: str) -> ConfigurationError:
        return ConfigurationError(f"not an expression: {self._text[:80]!r}: {why}", hint="docs/tls.md has the language, and examples")

    def _peek(self) -> str:
        """The operator or word that is next; "" for anything else."""
        if self._at >= len(self._tokens):
            return ""
        kind, match = self._tokens[self._at]
        if kind not in ("operator", "word"):
            return ""
        return _SAME.get(match[kind].lower(), match[kind].lower())

    def _take(self, wanted: str) -> bool:
        if self._peek() == wanted:
            self._at += 1
            return True
        return False

    def whole(self) -> Expression:
        """The expression; all of the text belongs to it."""
        found = self._or()
        if self._at != len(self._tokens):
            raise self._error(f"what stands behind {self._tokens[self._at - 1][1][0].strip()!r} belongs to nothing")
        return found

    def _or(self) -> Expression:
        found = [self._and()]
        while self._take("or"):
            found.append(self._and())
        return found[0] if len(found) == 1 else lambda lookup: any(one(lookup) for one in found)

    def _and(self) -> Expression:
        found = [self._not()]
        while self._take("and"):
            found.append(self._not())
        return found[0] if len(found) == 1 else lambda lookup: all(one(lookup) for one in found)

    def _not(self) -> Expression:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._error("it is nested too deeply")
        try:
            if self._take("not"):
                denied = self._not()
                return lambda lookup: not denied(lookup)
            if self._take("("):
                inner = self._or()
                if not self._take(")"):
                    raise self._error("a parenthesis is not closed")
                return inner
            for word, value in (("true", True), ("false", False)):
                if self._take(word):
                    return lambda lookup, value=value: value  # type: ignore[misc]  # bound now
            return self._comparison()
        finally:
            self._depth -= 1

    def _comparison(self) -> Expression:
        left = self._value()
        operator = self._peek()
        self._at += 1
        if operator in _COMPARISONS:
            right, holds = self._value(), _COMPARISONS[operator]
            return lambda lookup: holds(_order(left(lookup), right(lookup)))
        if operator == "in":
            if not self._take("{"):
                raise self._error('behind "in" stands a list: {"a", "b"}')
            values = [self._value()]
            while self._take(","):
                values.append(self._value())
            if not self._take("}"):
                raise self._error("a list is not closed")
            return lambda lookup: left(lookup) in [value(lookup) for value in values]
        if operator in ("=~", "!~"):
            if self._at >= len(self._tokens) or self._tokens[self._at][0] != "pattern":
                raise self._error(f"behind {operator} stands a regular expression: m/…/")
            match = self._tokens[self._at][1]
            self._at += 1
            pattern, wanted = compile_pattern(match["pattern"], ignore_case=match["flags"] == "i"), operator == "=~"
            return lambda lookup: found_in(pattern, (left(lookup),)) is wanted
        raise self._error("a comparison is incomplete")

    def _value(self) -> Callable[[Lookup], str]:
        if self._at >= len(self._tokens):
            raise self._error("it ends too early")
        kind, match = self._tokens[self._at]
        self._at += 1
        if kind == "variable":
            name = match["variable"]
            if not self._variables(name):
                raise self._error(f"there is no variable {name}")
            return lambda lookup: lookup(name)
        if kind in ("double", "single"):
            text = re.sub(r"\\(.)", r"\1", match[kind])
            return lambda lookup: text
        if kind == "number":
            number = match["number"]
            return lambda lookup: number
        if kind == "word" and match["word"] == "file":
            raise self._error("file(…) is not read here: write the words out")
        raise self._error(f'{match[0].strip()!r} is no value: write %{{VARIABLE}}, "text" or a number')


def _order(left: str, right: str) -> int:
    one, other = (len(left), left), (len(right), right)
    return (one > other) - (one < other)
