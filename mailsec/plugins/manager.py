"""The pluggy manager: who answers each hook, in which order, and how an answer that goes wrong is contained.

The one invariant (promise 7): whatever a plugin does (raise, exit, hang, answer with the wrong type), the caller gets an `Answer` that says
so and names the plugin; it never gets an answer that looks like consent.

pluggy's own call is not used: it cannot await, and one raising plugin would abort all others. The manager reads pluggy's order once, at
start-up, and keeps a tuple of implementations for each hook, so that a hook without implementations costs one dictionary look-up.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pluggy
import structlog

from mailsec import hookspecs
from mailsec.errors import ConfigurationError, PluginError
from mailsec.interfaces import Runtime
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.settings import Problem
from mailsec.model.verdict import Event, Finding
from mailsec.plugins.answers import (
    Answer,
    Implementation,
    failure_of,
    fields_of,
    findings_of,
    is_awaitable,
    is_cancellation,
    problems_of,
    read,
)
from mailsec.plugins.loading import HOOKS, checked, complaint, hint_for, import_plugins
from mailsec.plugins.origins import Origins
from mailsec.plugins.services import switched_off
from mailsec.plugins.standing import MESSAGE_HOOKS, RELIED_ON, Standing

__all__ = ["PluginManager"]

_log = structlog.get_logger("mailsec.plugins")


class PluginManager:
    """Loads plugins, and calls them one by one. `add` the built-in ones first, then `load` the enabled names once.

    `runtime` is the clock by which a plugin that fails again and again is left alone for a while.
    """

    def __init__(self, runtime: Runtime | None = None) -> None:
        self._enabled: list[tuple[str, object]] = []
        self._built_in: list[tuple[str, object]] = []
        self._implementations: dict[str, tuple[Implementation, ...]] = {}
        self._absent: tuple[Finding, ...] = ()
        self._standing = Standing(runtime, self.record)

    # -- start-up -------------------------------------------------------------------------------------------------------------

    def add(self, plugin: object, name: str, *, built_in: bool = True) -> None:
        """Add a plugin object; it counts from the next `load`. Built-in ones come after all others."""
        (self._built_in if built_in else self._enabled).append((name, plugin))

    def switch_off(self, name: str, why: str) -> None:
        """From the next `load` on the plugin is not asked: what would rely on its answers is deferred."""
        self._standing.off[name] = why

    def load(self, names: Sequence[str] = (), paths: Sequence[str] = ()) -> None:
        """Import the plugins called `names` (entry points of the group "mailsec", and files in the directories `paths`; no other is
        imported) and settle the order. Raise ConfigurationError for a plugin that is absent, broken, or implements hooks that do not exist.
        """
        self._enabled += import_plugins(names, paths)
        manager = pluggy.PluginManager("mailsec")
        manager.add_hookspecs(hookspecs)
        # pluggy calls the last registered first
        for name, plugin in reversed([*self._enabled, *self._built_in]):
            try:
                if manager.register(plugin, name=name) is None:
                    raise ConfigurationError(f"plugin {name} is blocked")
            except (ValueError, pluggy.PluginValidationError) as error:
                raise ConfigurationError(f"plugin {name}: {complaint(error)}", hint=hint_for(str(error))) from error
        try:
            manager.check_pending()
        except pluggy.PluginValidationError as error:
            raise ConfigurationError(complaint(error), hint=hint_for(str(error))) from error
        implementations: dict[str, tuple[Implementation, ...]] = {}
        for hook in HOOKS:
            found = getattr(manager.hook, hook).get_hookimpls()
            if found:
                implementations[hook] = tuple(checked(hook, one) for one in reversed(found))
        self._implementations = implementations
        self._absent = tuple(
            failure_finding(self._standing.absent(name, "check_message"))
            for name in self._standing.off
            if any(one.plugin == name for hook in RELIED_ON for one in implementations.get(hook, ()))
        )

    def origins(self) -> Origins:
        """Whose code a module is, for whoever looks at a stack."""
        return Origins(self._enabled)

    def standing(self) -> Mapping[str, str]:
        """Plugins that are switched off, and why."""
        return dict(self._standing.off)

    def resting(self) -> Sequence[str]:
        """Plugins that are not asked now: switched off, or left alone for a while because a hook of theirs has failed again and again."""
        return self._standing.resting()

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
            off = self._standing.off.get(implementation.plugin)
            if off is not None and hook in RELIED_ON:
                continue  # every message is deferred for it
            answer = self.ask_now(implementation, arguments)
            if answer.failure is None and answer.value is not None:
                try:
                    brought = list(answer.value.items() if isinstance(answer.value, Mapping) else answer.value)
                    found.extend(switched_off(brought, off) if off is not None and hook == "register_tcp_services" else brought)
                except Exception as error:
                    answer = Answer(implementation.plugin, None, failure_of(implementation, error))
            if answer.failure is not None:
                raise ConfigurationError(
                    answer.failure.message, hint="mend the plugin, or take it out of [plugins] enabled"
                ) from answer.failure
        return found

    # -- calls ----------------------------------------------------------------------------------------------------------------

    def ask_now(self, implementation: Implementation, arguments: Mapping[str, Any]) -> Answer:
        """Call one implementation of a synchronous hook."""
        standing = self._standing
        troubled = standing.failing or standing.off
        if troubled and implementation.hook in MESSAGE_HOOKS and (refused := standing.refuses(implementation)) is not None:
            return Answer(implementation.plugin, None, refused)
        try:
            value = implementation.function(*implementation.pick(arguments))
            if value is not None and is_awaitable(value):
                if inspect.iscoroutine(value):
                    value.close()
                raise TypeError("an awaitable from a synchronous hook")
        except (Exception, SystemExit) as error:
            return self._failed(implementation, error)
        if troubled:
            standing.heard(implementation, None)
        return implementation.silent if value is None else Answer(implementation.plugin, value)

    async def ask(self, implementation: Implementation, runtime: Runtime, limits: Limits, arguments: Mapping[str, Any]) -> Answer:
        """Call one implementation; await its answer, no longer than `limits.hook_timeout`."""
        off = self._standing.off
        if off and implementation.plugin in off:
            return Answer(implementation.plugin, None, self._standing.absent(implementation.plugin, implementation.hook))
        answer = self._call(implementation, arguments)
        return answer if answer is implementation.silent else await self._awaited(implementation, runtime, limits, answer)

    def _call(self, implementation: Implementation, arguments: Mapping[str, Any]) -> Answer:
        """What the function returns: `silent`, a failure, a value, or something to await."""
        try:
            value = implementation.function(*implementation.pick(arguments))
        except (Exception, SystemExit) as error:
            if is_cancellation(error):
                raise
            return self._failed(implementation, error)
        return implementation.silent if value is None else Answer(implementation.plugin, value)

    async def _awaited(self, implementation: Implementation, runtime: Runtime, limits: Limits, answer: Answer) -> Answer:
        if answer.failure is not None or not is_awaitable(answer.value):
            return answer
        try:
            return Answer(implementation.plugin, await runtime.within(limits.hook_timeout, answer.value))
        except TimeoutError:
            return self._failed(implementation, TimeoutError(f"no answer in {limits.hook_timeout:g} s"))
        except (Exception, SystemExit) as error:
            if is_cancellation(error):
                raise
            return self._failed(implementation, error)

    async def _items(
        self,
        hook: str,
        runtime: Runtime,
        limits: Limits,
        arguments: Mapping[str, Any],
        items: Callable[[str, Any, Limits], Iterator[Any]],
    ) -> list[Answer]:
        """Ask all, and read the items of each answer. Who has nothing to say is left out, at the cost of one call."""
        standing = self._standing
        answers: list[Answer] = []
        for implementation in self._implementations.get(hook, ()):
            troubled = standing.failing or standing.off
            if troubled and (refused := standing.refuses(implementation)) is not None:
                answers.append(Answer(implementation.plugin, None, refused))
                continue
            answer = self._call(implementation, arguments)
            if answer is not implementation.silent:
                answer = await self._awaited(implementation, runtime, limits, answer)
                if answer.failure is None and answer.value is not None:
                    answer = read(implementation, answer, items, limits)
                    if answer.failure is not None:
                        standing.heard(implementation, answer.failure)
                if answer.failure is not None or answer.value is not None:
                    answers.append(answer)
            if troubled and answer.failure is None:
                standing.heard(implementation, None)
        return answers

    def _failed(self, implementation: Implementation, error: BaseException) -> Answer:
        failure = failure_of(implementation, error)
        self._standing.heard(implementation, failure)
        return Answer(implementation.plugin, None, failure)

    async def call_each(self, hook: str, runtime: Runtime, limits: Limits = DEFAULT_LIMITS, **arguments: Any) -> list[Answer]:
        """Ask every plugin in turn; a failing plugin becomes an answer with a failure, not an outage.

        Attack: mail that makes a plugin block three workers would keep every worker from starting, if one that is off had failed at `startup`.
        """
        off = self._standing.off if hook not in RELIED_ON else {}
        asked = [one for one in self.implementations(hook) if one.plugin not in off]
        return [await self.ask(implementation, runtime, limits, arguments) for implementation in asked]

    async def findings(self, runtime: Runtime, limits: Limits = DEFAULT_LIMITS, **arguments: Any) -> tuple[Finding, ...]:
        """`check_message` of every plugin, each finding attributed; a failure is a finding with severity "failure"."""
        found = list(self._absent)
        for answer in await self._items("check_message", runtime, limits, arguments, findings_of):
            if answer.failure is None:
                found.extend(answer.value)
            elif answer.plugin not in self._standing.off:
                found.append(failure_finding(answer.failure))
        return tuple(found)

    async def problems(self, runtime: Runtime, limits: Limits = DEFAULT_LIMITS, **arguments: Any) -> list[Problem]:
        """`check_configuration` of every plugin. One that cannot say now says nothing; one that fails is a problem itself."""
        found: list[Problem] = []
        for answer in await self._items("check_configuration", runtime, limits, arguments, problems_of):
            if answer.failure is None:
                found.extend(answer.value)
            elif not getattr(answer.failure.__cause__, "temporary", False):
                found.append(
                    Problem(("plugins", "enabled"), answer.failure.message, "mend the plugin, or take it out of [plugins] enabled")
                )
        return found

    async def header_fields(
        self, runtime: Runtime, limits: Limits = DEFAULT_LIMITS, **arguments: Any
    ) -> tuple[list[tuple[str, str]], PluginError | None]:
        """`annotate_message` of every plugin: the fields to add, in order; or the first failure."""
        fields: list[tuple[str, str]] = []
        for answer in await self._items("annotate_message", runtime, limits, arguments, fields_of):
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


def failure_finding(failure: PluginError) -> Finding:
    """The finding that stands for a plugin's failure: the message is deferred because of it."""
    return Finding(failure.plugin, "plugin-failure", failure.message, "failure")
