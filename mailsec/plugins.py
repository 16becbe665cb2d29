"""The pluggy manager: who answers each hook, in which order, and how an answer that goes wrong is contained.

The one invariant (promise 7): whatever a plugin does (raise, exit, hang, answer with the wrong type), the caller gets an `Answer` that says
so and names the plugin; it never gets an answer that looks like consent.

pluggy's own call is not used: it cannot await, and one raising plugin would abort all others. The manager reads pluggy's order once, at
start-up, and keeps a tuple of implementations for each hook, so that a hook without implementations costs one dictionary look-up.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import entry_points
from itertools import islice
from types import GeneratorType
from typing import Any, NamedTuple

import pluggy
import structlog

from mailsec import hookspecs
from mailsec.errors import ConfigurationError, PluginError
from mailsec.hookspecs import ASYNC_HOOKS
from mailsec.interfaces import Runtime
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.verdict import Event, Finding

__all__ = ["HOOKS", "Answer", "Implementation", "PluginManager"]

_NEVER_AWAITED: set[type] = set()
_KEPT_TYPES = 256
_log = structlog.get_logger("mailsec.plugins")

ENTRY_POINT_GROUP = "mailsec"

HOOKS: Mapping[str, tuple[str, ...]] = {
    name: tuple(inspect.signature(function).parameters)
    for name, function in vars(hookspecs).items()
    if inspect.isfunction(function) and hasattr(function, "mailsec_spec")
}
"""Every hook with the names of its parameters, in the order in which mailsec calls them."""


class Implementation(NamedTuple):
    """One plugin's function for one hook."""

    plugin: str
    hook: str
    function: Callable[..., Any]
    arguments: tuple[str, ...]


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


class PluginManager:
    """Loads plugins, and calls them one by one. `add` the built-in ones first, then `load` the enabled names once."""

    def __init__(self) -> None:
        self._enabled: list[tuple[str, object]] = []
        self._built_in: list[tuple[str, object]] = []
        self._implementations: dict[str, tuple[Implementation, ...]] = {}

    # -- start-up -------------------------------------------------------------------------------------------------------------

    def add(self, plugin: object, name: str, *, built_in: bool = True) -> None:
        """Add a plugin object; it counts from the next `load`. Built-in ones come after all others."""
        (self._built_in if built_in else self._enabled).append((name, plugin))

    def load(self, names: Sequence[str] = ()) -> None:
        """Import the plugins called `names` (entry points of the group "mailsec"; no other is imported) and settle the order.

        Raise ConfigurationError for a plugin that is absent, broken, or implements hooks that do not exist.
        """
        if names:
            installed = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
            for name in names:
                self._enabled.append((name, _import(name, installed)))
        manager = pluggy.PluginManager("mailsec")
        manager.add_hookspecs(hookspecs)
        # pluggy calls the last registered first
        for name, plugin in reversed([*self._enabled, *self._built_in]):
            try:
                if manager.register(plugin, name=name) is None:
                    raise ConfigurationError(f"plugin {name} is blocked")
            except (ValueError, pluggy.PluginValidationError) as error:
                raise ConfigurationError(f"plugin {name}: {_complaint(error)}", hint=_hint_for(str(error))) from error
        try:
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise ConfigurationError(_complaint(error), hint=_hint_for(str(error))) from error
        implementations: dict[str, tuple[Implementation, ...]] = {}
        for hook in HOOKS:
            found = getattr(manager.hook, hook).get_hookimpls()
            if found:
                implementations[hook] = tuple(_checked(hook, one) for one in reversed(found))
        self._implementations = implementations

    def implementations(self, hook: str) -> tuple[Implementation, ...]:
        """Who answers `hook`, in the order of the calls."""
        return self._implementations.get(hook, ())

    def order(self) -> Mapping[str, tuple[str, ...]]:
        """The names of the plugins that answer each hook, for `mailsec plugins --order`."""
        return {hook: tuple(one.plugin for one in self._implementations.get(hook, ())) for hook in HOOKS}

    def names(self) -> tuple[str, ...]:
        """All plugins in order, built-in ones last."""
        return tuple(name for name, _ in (*self._enabled, *self._built_in))

    def providers(self, hook: str, **arguments: Any) -> list[Any]:
        """What all plugins bring through a `register_*` hook, flattened, in order. Any failure is a ConfigurationError."""
        found: list[Any] = []
        for implementation in self.implementations(hook):
            answer = self.ask_now(implementation, arguments)
            if answer.failure is None and answer.value is not None:
                try:
                    found.extend(answer.value.items() if isinstance(answer.value, Mapping) else answer.value)
                except Exception as error:
                    answer = Answer(implementation.plugin, None, _failure(implementation, error))
            if answer.failure is not None:
                raise ConfigurationError(
                    answer.failure.message, hint="mend the plugin, or take it out of [plugins] enabled"
                ) from answer.failure
        return found

    # -- calls ----------------------------------------------------------------------------------------------------------------

    def ask_now(self, implementation: Implementation, arguments: Mapping[str, Any]) -> Answer:
        """Call one implementation of a synchronous hook."""
        try:
            value = implementation.function(*[arguments[name] for name in implementation.arguments])
        except (Exception, SystemExit) as error:
            return Answer(implementation.plugin, None, _failure(implementation, error))
        if _is_awaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            return Answer(implementation.plugin, None, _failure(implementation, TypeError("an awaitable from a synchronous hook")))
        return Answer(implementation.plugin, value)

    async def ask(self, implementation: Implementation, runtime: Runtime, limits: Limits, arguments: Mapping[str, Any]) -> Answer:
        """Call one implementation; await its answer, no longer than `limits.hook_timeout`."""
        try:
            value = implementation.function(*[arguments[name] for name in implementation.arguments])
            if _is_awaitable(value):
                value = await runtime.within(limits.hook_timeout, value)
        except TimeoutError:
            return Answer(implementation.plugin, None, _failure(implementation, TimeoutError(f"no answer in {limits.hook_timeout:g} s")))
        except (Exception, SystemExit) as error:
            if is_cancellation(error):
                raise
            return Answer(implementation.plugin, None, _failure(implementation, error))
        return Answer(implementation.plugin, value)

    async def call_each(self, hook: str, runtime: Runtime, limits: Limits = DEFAULT_LIMITS, **arguments: Any) -> list[Answer]:
        """Ask every plugin in turn; a failing plugin becomes an answer with a failure, not an outage."""
        return [await self.ask(implementation, runtime, limits, arguments) for implementation in self.implementations(hook)]

    async def findings(self, runtime: Runtime, limits: Limits = DEFAULT_LIMITS, **arguments: Any) -> tuple[Finding, ...]:
        """`check_message` of every plugin, each finding attributed; a failure is a finding with severity "failure"."""
        implementations = self._implementations.get("check_message", ())
        if not implementations:
            return ()
        found: list[Finding] = []
        for implementation in implementations:
            answer = await self.ask(implementation, runtime, limits, arguments)
            if answer.failure is None:
                answer = _read(implementation, answer, _findings, limits)
            if answer.failure is None:
                found.extend(answer.value)
            else:
                found.append(failure_finding(answer.failure))
        return tuple(found)

    async def header_fields(
        self, runtime: Runtime, limits: Limits = DEFAULT_LIMITS, **arguments: Any
    ) -> tuple[list[tuple[str, str]], PluginError | None]:
        """`annotate_message` of every plugin: the fields to add, in order; or the first failure."""
        fields: list[tuple[str, str]] = []
        for implementation in self._implementations.get("annotate_message", ()):
            answer = await self.ask(implementation, runtime, limits, arguments)
            if answer.failure is None:
                answer = _read(implementation, answer, _fields, limits)
            if answer.failure is not None:
                return [], answer.failure
            fields.extend(answer.value)
        return fields, None

    def record(self, event: Event) -> None:
        """`record_event` of every plugin. A failure is logged and changes nothing: the event has happened."""
        for implementation in self._implementations.get("record_event", ()):
            try:
                implementation.function(*((event,) if implementation.arguments else ()))
            except (Exception, SystemExit) as error:
                _log.error("plugin failed", plugin=implementation.plugin, hook="record_event", error=type(error).__name__)


def _is_awaitable(value: object) -> bool:
    """As `inspect` says, asked once for a type of which no object can be awaited: the question is slow, and every answer of a hook has it."""
    kind = type(value)
    if kind in _NEVER_AWAITED:
        return False
    if issubclass(kind, (Awaitable, GeneratorType)):
        return inspect.isawaitable(value)
    if len(_NEVER_AWAITED) < _KEPT_TYPES:
        _NEVER_AWAITED.add(kind)
    return False


def failure_finding(failure: PluginError) -> Finding:
    """The finding that stands for a plugin's failure: the message is deferred because of it."""
    return Finding(failure.plugin, "plugin-failure", failure.message, "failure")


# -- answers ------------------------------------------------------------------------------------------------------------------


def _read(implementation: Implementation, answer: Answer, items: Callable[[str, Any, Limits], Iterator[Any]], limits: Limits) -> Answer:
    """Read the items of an answer; iterators are the plugin's code too, so what they raise is its failure."""
    try:
        return Answer(answer.plugin, list(items(answer.plugin, answer.value, limits)))
    except (Exception, SystemExit) as error:
        return Answer(answer.plugin, None, _failure(implementation, error))


def _findings(plugin: str, value: object, limits: Limits) -> Iterator[Finding]:
    if value is None:
        return
    for finding in _few((value,) if isinstance(value, Finding) else value, limits.findings, "findings"):
        if not isinstance(finding, Finding):
            raise TypeError(f"a {type(finding).__name__} in place of a Finding")
        yield finding if finding.source == plugin else replace(finding, source=plugin)


def _fields(plugin: str, value: object, limits: Limits) -> Iterator[tuple[str, str]]:
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


def _failure(implementation: Implementation, error: BaseException) -> PluginError:
    """The failure for the log: the kind of error and its first line (a plugin's own text; never sent to a peer)."""
    text = _first_line(error)
    failure = PluginError(
        implementation.plugin,
        implementation.hook,
        f"{type(error).__name__}: {text}" if text else type(error).__name__,
        hint="mend the plugin, or take it out of [plugins] enabled; until then messages are deferred",
    )
    failure.__cause__ = error
    return failure


# -- start-up checks ----------------------------------------------------------------------------------------------------------


def _import(name: str, installed: Mapping[str, Any]) -> object:
    point = installed.get(name)
    if point is None:
        near = difflib.get_close_matches(name, installed, 1)
        hint = f"did you mean {near[0]}?" if near else "install its distribution into this environment"
        raise ConfigurationError(f"no plugin is called {name}", hint=hint)
    try:
        plugin = point.load()
        return plugin() if inspect.isclass(plugin) else plugin
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"plugin {name} cannot be imported: {type(error).__name__}: {_first_line(error)}", hint="reinstall or disable it"
        ) from error


def _checked(hook: str, implementation: Any) -> Implementation:
    """One implementation as pluggy read it; refuse what our calls would mishandle."""
    name, function = implementation.plugin_name, implementation.function
    if implementation.hookwrapper or implementation.wrapper:
        raise ConfigurationError(f"plugin {name}: {hook} is a hook wrapper", hint="hooks of mailsec take plain implementations only")
    if hook not in ASYNC_HOOKS and _is_async(function):
        raise ConfigurationError(
            f"plugin {name}: {hook} is async, and the hook is synchronous",
            hint="return an object with async methods from a register_ hook, and do the waiting there",
        )
    return Implementation(name, hook, function, tuple(implementation.argnames))


def _is_async(function: Callable[..., Any]) -> bool:
    inner = inspect.unwrap(function)
    # a partial, and an object whose class defines __call__, hide the function that is run
    candidates = (function, inner, getattr(inner, "func", None), vars(type(inner)).get("__call__"))
    return any(
        inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in candidates if one is not None
    ) or _returns_awaitable(inner)


def _returns_awaitable(function: Callable[..., Any]) -> bool:
    """True where the signature itself says that it returns something to await."""
    annotation = getattr(function, "__annotations__", {}).get("return")
    return annotation in (Awaitable,) or (isinstance(annotation, str) and annotation.startswith(("Awaitable[", "Coroutine[")))


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else ""


def _complaint(error: BaseException) -> str:
    """What pluggy complains of, on one line: its last line where there are several (the ones before quote the definition)."""
    lines = str(error).strip().splitlines()
    return lines[-1] if len(lines) < 2 else f"{lines[0]}: {lines[-1]}"


def _hint_for(text: str) -> str:
    """The hook that was probably meant by the misspelt one that pluggy's message names."""
    for word in text.replace("'", " ").replace('"', " ").split():
        near = difflib.get_close_matches(word, HOOKS, 1, 0.75)
        if near and near[0] != word:
            return f"did you mean {near[0]}({', '.join(HOOKS[near[0]])})?"
        if word in HOOKS:
            return f"the hook is {word}({', '.join(HOOKS[word])})"
    return "docs/hooks.md lists every hook with its parameters"
