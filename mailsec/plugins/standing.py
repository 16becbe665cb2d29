"""Which plugins are asked now: none that has failed several times in a row for a while (a circuit breaker), none that was switched off.

The one invariant (promise 7): a plugin that is not asked has failed; its message is deferred at once, never taken without its answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from mailsec.errors import PluginError
from mailsec.interfaces import Runtime
from mailsec.model.breaker import BreakerPolicy, Breakers
from mailsec.model.verdict import Event
from mailsec.plugins.answers import Implementation

__all__ = ["MESSAGE_HOOKS", "RELIED_ON", "Standing"]

MESSAGE_HOOKS: Final = frozenset({"check_message", "plan_protection", "decide_message", "annotate_message"})
"""Hooks that are asked for each message."""
RELIED_ON: Final = MESSAGE_HOOKS | {
    "register_crypto_backends",
    "register_key_stores",
    "register_authenticators",
    "register_certificate_directories",
    "register_recipient_directories",
    "register_revocation_sources",
}
"""Hooks without whose answer a message would be judged or protected by less than was configured."""

_POLICY: Final = BreakerPolicy(failures=5, first=10.0, longest=300.0)
"""Five failures in a row: then mail does not wait for that hook of the plugin, but is deferred at once until one message has gone well."""

_log = structlog.get_logger("mailsec.plugins")


class Standing:
    """`refuses` before a hook is asked, `heard` after it. Without a runtime there is no clock, and no breaker."""

    def __init__(self, runtime: Runtime | None, record: Callable[[Event], None]) -> None:
        self._runtime = runtime
        self._record = record
        self._breakers = Breakers(_POLICY)
        self.off: dict[str, str] = {}
        """Plugins that are switched off, and why."""
        self.failing: set[tuple[str, str]] = set()
        """(plugin, hook) of those whose last answer was a failure. Nearly always empty: then nothing else is looked at."""

    def refuses(self, implementation: Implementation) -> PluginError | None:
        """Why it is not asked now; None: ask it."""
        plugin, hook = implementation.plugin, implementation.hook
        if plugin in self.off:
            return self.absent(plugin, hook)
        if (
            self._runtime is None
            or (plugin, hook) not in self.failing
            or self._breakers.admit(self._runtime.monotonic(), _name(plugin, hook))
        ):
            return None
        return PluginError(
            plugin,
            hook,
            "it has failed again and again, and is not asked for a while",
            hint="the log says how; it is asked again by itself",
        )

    def resting(self) -> tuple[str, ...]:
        """Plugins that are switched off, or of which a hook is left alone."""
        runtime = self._runtime
        resting = {
            plugin
            for plugin, hook in self.failing
            if runtime is not None and self._breakers.state(_name(plugin, hook), runtime.monotonic()) == "open"
        }
        return tuple(sorted(resting | set(self.off)))

    def absent(self, plugin: str, hook: str) -> PluginError:
        """The failure that stands for a plugin that is switched off."""
        return PluginError(
            plugin, hook, f"it is off: {self.off[plugin]}", hint="`mailsec plugins` shows it, and how it is switched on again"
        )

    def heard(self, implementation: Implementation, failure: PluginError | None) -> None:
        """What became of it."""
        plugin, hook = key = (implementation.plugin, implementation.hook)
        runtime, name = self._runtime, _name(plugin, hook)
        if runtime is None or hook not in MESSAGE_HOOKS:
            return
        if failure is None:
            if key in self.failing:
                self.failing.discard(key)
                if self._breakers.state(name, runtime.monotonic()) != "closed":
                    self._record(Event("plugin works again", runtime.now(), {"plugin": plugin, "hook": hook}))
                self._breakers.succeeded(name)
            return
        self.failing.add(key)
        was = self._breakers.state(name, runtime.monotonic())
        self._breakers.failed(name, runtime.monotonic())
        _log.error("plugin failed", plugin=plugin, hook=hook, error=failure.message, hint=failure.hint)
        self._record(Event("plugin failed", runtime.now(), {"plugin": plugin, "hook": hook, "reason": failure.message}))
        if was == "closed" and self._breakers.state(name, runtime.monotonic()) == "open":
            self._record(Event("plugin rests", runtime.now(), {"plugin": plugin, "hook": hook, "reason": failure.message}))


def _name(plugin: str, hook: str) -> str:
    return f"{plugin} {hook}"
