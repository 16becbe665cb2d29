"""What plugins answer: a value, or a failure in its place; read item by item, because an iterator is the plugin's code, too."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from operator import itemgetter
from types import GeneratorType
from typing import Any, NamedTuple

from mailsec.errors import PluginError
from mailsec.model.limits import Limits
from mailsec.model.settings import Problem
from mailsec.model.verdict import Finding

__all__ = [
    "Answer",
    "Implementation",
    "failure_of",
    "fields_of",
    "findings_of",
    "first_line",
    "is_awaitable",
    "is_cancellation",
    "problems_of",
    "read",
]

_NEVER_AWAITED: set[type] = set()
_KEPT_TYPES = 256


class Implementation(NamedTuple):
    """One plugin's function for one hook."""

    plugin: str
    hook: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]
    pick: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    """What it is called with, of all that the hook gives."""
    silent: Answer
    """Its answer where it has nothing to say: nearly always."""

    @classmethod
    def of(cls, plugin: str, hook: str, function: Callable[..., Any], arguments: tuple[str, ...]) -> Implementation:
        """Made once, at start-up, so that a call costs little more than the call."""
        picked: Callable[[Mapping[str, Any]], Any]
        if len(arguments) > 1:
            picked = itemgetter(*arguments)
        else:
            picked = lambda given: tuple(given[name] for name in arguments)  # noqa: E731 - of one name itemgetter makes no tuple
        return cls(plugin, hook, function, arguments, picked, Answer(plugin, None))


class Answer(NamedTuple):
    """What one plugin answered: a value, or the failure in its place; never both."""

    plugin: str
    value: Any
    failure: PluginError | None = None


def is_cancellation(error: BaseException) -> bool:
    """True for the error by which a runtime cancels an await.

    Twisted's CancelledError is an `Exception` and this room does not import Twisted, so it is known by its name. It must pass: a plugin's
    failure is an answer, the end of our own task is not.
    """
    return any(kind.__name__ == "CancelledError" for kind in type(error).__mro__)


def is_awaitable(value: object) -> bool:
    """As `inspect` says, asked once for a type of which no object can be awaited: the question is slow, and every answer of a hook has it."""
    kind = type(value)
    if kind in _NEVER_AWAITED:
        return False
    if issubclass(kind, (Awaitable, GeneratorType)):
        return inspect.isawaitable(value)
    if len(_NEVER_AWAITED) < _KEPT_TYPES:
        _NEVER_AWAITED.add(kind)
    return False


def read(implementation: Implementation, answer: Answer, items: Callable[[str, Any, Limits], Iterator[Any]], limits: Limits) -> Answer:
    """Read the items of an answer; iterators are the plugin's code too, so what they raise is its failure."""
    try:
        return Answer(answer.plugin, list(items(answer.plugin, answer.value, limits)))
    except (Exception, SystemExit) as error:
        return Answer(answer.plugin, None, failure_of(implementation, error))


def findings_of(plugin: str, value: object, limits: Limits) -> Iterator[Finding]:
    if value is None:
        return
    for finding in _few((value,) if isinstance(value, Finding) else value, limits.findings, "findings"):
        if not isinstance(finding, Finding):
            raise TypeError(f"a {type(finding).__name__} in place of a Finding")
        yield finding if finding.source == plugin else replace(finding, source=plugin)


def problems_of(plugin: str, value: object, limits: Limits) -> Iterator[Problem]:
    """Each at its place in the whole document: in the table of the plugin."""
    if value is None:
        return
    for problem in _few(value, limits.findings, "problems"):
        if not isinstance(problem, Problem):
            raise TypeError(f"a {type(problem).__name__} in place of a Problem")
        yield replace(problem, path=("plugin", plugin, *problem.path))


def fields_of(plugin: str, value: object, limits: Limits) -> Iterator[tuple[str, str]]:
    if value is None:
        return
    for field in _few(value, limits.findings, "header fields"):
        name, text = field
        if not isinstance(name, str) or not isinstance(text, str):
            raise TypeError("a header field is a pair of strings")
        # RFC 5322 §3.6.8: a field name is printable US-ASCII except the colon; a line end in a value would add a field or end the header
        if not name or not all("!" <= sign <= "~" and sign != ":" for sign in name):
            raise ValueError("a bad header field name")
        if any(sign in text for sign in "\r\n\0"):
            raise ValueError("a line end in a header field value")
        yield name, text


def _few(value: object, most: int, what: str) -> Iterator[Any]:
    """The items of `value`; over `most` it is refused, so that an endless generator ends."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"a {type(value).__name__} in place of {what}")
    items = iter(value)
    yield from islice(items, most)
    for _ in items:
        raise ValueError(f"more than {most} {what}")


def failure_of(implementation: Implementation, error: BaseException) -> PluginError:
    """The failure for the log: the kind of error and its first line (a plugin's own text; never sent to a peer)."""
    text = first_line(error)
    failure = PluginError(
        implementation.plugin,
        implementation.hook,
        f"{type(error).__name__}: {text}" if text else type(error).__name__,
        hint="mend the plugin, or take it out of [plugins] enabled; until then messages are deferred",
    )
    failure.__cause__ = error
    return failure


def first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else ""
