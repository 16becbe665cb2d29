"""The plugin manager: what is refused at start-up, the order of calls, and how every kind of failure is contained (promise 7)."""

from __future__ import annotations

import itertools

import pytest

from mailsec.errors import ConfigurationError
from mailsec.hookspecs import hookimpl
from mailsec.model.limits import Limits
from mailsec.model.verdict import Event, Finding
from mailsec.plugins import HOOKS, PluginManager
from mailsec.testing.runtime import CancelledError, FakeRuntime

NOTHING = {"transaction": None, "original": None, "smime": None}


def manager(*plugins: object) -> PluginManager:
    loaded = PluginManager()
    for number, plugin in enumerate(plugins):
        loaded.add(plugin, f"p{number}", built_in=False)
    loaded.load()
    return loaded


def check(function) -> object:
    """A plugin whose check_message is `function(transaction)`."""

    class Plugin:
        @hookimpl
        def check_message(self, transaction):
            return function(transaction)

    return Plugin()


def findings(*plugins: object, runtime: FakeRuntime | None = None, limits: Limits | None = None) -> tuple[Finding, ...]:
    runtime = runtime or FakeRuntime()
    return runtime.run(manager(*plugins).findings(runtime, limits or Limits(), **NOTHING))


# -- start-up -----------------------------------------------------------------------------------------------------------------


def test_misspelt_hook_is_refused_with_the_one_that_was_meant():
    class Plugin:
        @hookimpl
        def chek_message(self, transaction): ...

    with pytest.raises(ConfigurationError) as error:
        manager(Plugin())
    assert "chek_message" in error.value.message
    assert "did you mean check_message(transaction, original, smime)?" in error.value.hint


def test_misspelt_argument_is_refused_with_the_right_ones():
    class Plugin:
        @hookimpl
        def check_message(self, trnsaction): ...

    with pytest.raises(ConfigurationError) as error:
        manager(Plugin())
    assert "trnsaction" in error.value.message
    assert "check_message(transaction, original, smime)" in error.value.hint


@pytest.mark.parametrize("hook", ["plan_protection", "decide_message", "record_event", "register_key_stores"])
def test_async_implementation_of_a_synchronous_hook_is_refused(hook):
    async def implementation(self):
        return None

    plugin = type("Plugin", (), {hook: hookimpl(implementation)})()
    with pytest.raises(ConfigurationError, match="synchronous"):
        manager(plugin)


def test_hook_wrapper_is_refused():
    class Plugin:
        @hookimpl(wrapper=True)
        def check_message(self, transaction):
            yield

    with pytest.raises(ConfigurationError, match="wrapper"):
        manager(Plugin())


def test_unknown_plugin_name_is_refused():
    with pytest.raises(ConfigurationError, match="no plugin is called nonesuch"):
        PluginManager().load(["nonesuch"])


def test_only_enabled_entry_points_are_imported_and_classes_are_made(monkeypatch):
    imported = []

    class Greeter:
        @hookimpl
        def decide_message(self): ...

    class Point:
        def __init__(self, name):
            self.name = name

        def load(self):
            imported.append(self.name)
            return Greeter

    monkeypatch.setattr("mailsec.plugins.loading.entry_points", lambda group: [Point("wanted"), Point("other")])
    loaded = PluginManager()
    loaded.load(["wanted"])
    assert imported == ["wanted"]
    assert loaded.order()["decide_message"] == ("wanted",)


def test_plugin_that_exits_while_it_is_imported_is_a_configuration_error(monkeypatch):
    class Point:
        name = "bad"

        def load(self):
            raise SystemExit(3)

    monkeypatch.setattr("mailsec.plugins.loading.entry_points", lambda group: [Point()])
    with pytest.raises(ConfigurationError, match="bad cannot be imported: SystemExit"):
        PluginManager().load(["bad"])


def test_the_same_name_twice_is_refused():
    loaded = PluginManager()
    loaded.add(object(), "one")
    loaded.add(object(), "one")
    with pytest.raises(ConfigurationError):
        loaded.load()


def test_order_is_the_order_of_the_configuration_and_built_in_plugins_come_last():
    def plugin():
        return check(lambda transaction: None)

    loaded = PluginManager()
    loaded.add(plugin(), "built-in 1")
    loaded.add(plugin(), "built-in 2")
    loaded.add(plugin(), "first", built_in=False)
    loaded.add(plugin(), "second", built_in=False)
    loaded.load()
    assert loaded.order()["check_message"] == ("first", "second", "built-in 1", "built-in 2")
    assert loaded.order()["shutdown"] == ()


def test_providers_are_flattened_in_order():
    class One:
        @hookimpl
        def register_key_stores(self, settings, runtime):
            return ["a", "b"]

    class Two:
        @hookimpl
        def register_key_stores(self):
            return iter(["c"])

    assert manager(One(), Two()).providers("register_key_stores", settings=None, runtime=None) == ["a", "b", "c"]


@pytest.mark.parametrize("brings", [lambda: 1 / 0, lambda: 7, lambda: (1 / 0 for _ in "x")], ids=["raises", "wrong type", "late"])
def test_provider_that_fails_stops_the_start(brings):
    class Plugin:
        @hookimpl
        def register_key_stores(self):
            return brings()

    with pytest.raises(ConfigurationError, match="plugin p0: register_key_stores"):
        manager(Plugin()).providers("register_key_stores", settings=None, runtime=None)


def test_every_hook_is_in_the_catalogue():
    assert set(HOOKS) > {"startup", "check_message", "plan_protection", "decide_message", "annotate_message", "record_event", "shutdown"}


# -- calls --------------------------------------------------------------------------------------------------------------------


def test_findings_of_all_kinds_of_answers_are_attributed():
    async def later(transaction):
        return [Finding("somebody else", "two", "")]

    found = findings(
        check(lambda transaction: Finding("", "one", "")),
        check(later),
        check(lambda transaction: None),
        check(lambda transaction: iter(())),
    )
    assert [(one.source, one.code) for one in found] == [("p0", "one"), ("p1", "two")]


def _raises(transaction):
    raise ValueError("secret detail\nsecond line")


def _exits(transaction):
    raise SystemExit(0)


async def _raises_later(transaction):
    raise ValueError("later")


async def _exits_later(transaction):
    raise SystemExit(0)


async def _wrong_type_later(transaction):
    return 7


FAILING = {
    "raises": _raises,
    "exits": _exits,
    "raises in a coroutine": _raises_later,
    "exits in a coroutine": _exits_later,
    "wrong type": lambda transaction: 7,
    "wrong type in a coroutine": _wrong_type_later,
    "a string": lambda transaction: "fine",
    "wrong items": lambda transaction: [None],
    "a million findings": lambda transaction: [Finding("", "x", "")] * 1_000_000,
    "endless findings": lambda transaction: itertools.repeat(Finding("", "x", "")),
    "raises while it is read": lambda transaction: (1 // 0 for _ in "x"),
}


@pytest.mark.parametrize("function", FAILING.values(), ids=FAILING.keys())
def test_failure_of_a_plugin_is_a_finding_that_names_it_and_the_others_are_still_asked(function):
    found = findings(check(function), check(lambda transaction: Finding("", "fine", "")))
    assert [(one.source, one.severity, one.code) for one in found] == [("p0", "failure", "plugin-failure"), ("p1", "info", "fine")]
    assert "check_message" in found[0].message and "\n" not in found[0].message


def test_plugin_that_hangs_is_given_up_after_the_limit():
    runtime = FakeRuntime()

    async def hangs(transaction):
        await runtime.sleep(3600)

    found = findings(check(hangs), runtime=runtime, limits=Limits(hook_timeout=5.0))
    assert found[0].severity == "failure" and "no answer in 5 s" in found[0].message
    assert runtime.monotonic() == 5.0


def test_cancellation_passes_through_a_plugin():
    runtime = FakeRuntime()

    async def waits(transaction):
        await runtime.signal().wait()

    async def main():
        task = runtime.start(manager(check(waits)).findings(runtime, **NOTHING), "message")
        await runtime.sleep(1)
        task.cancel()
        await task

    with pytest.raises(CancelledError):
        runtime.run(main())


def test_awaitable_answer_of_a_synchronous_hook_is_a_failure():
    async def later():
        return None

    class Plugin:
        @hookimpl
        def decide_message(self):
            return later()

    loaded = manager(Plugin())
    answer = loaded.ask_now(loaded.implementations("decide_message")[0], {})
    assert answer.failure is not None and answer.value is None


@pytest.mark.parametrize("field", [("X-A", "b\r\nBcc: c"), ("X A", "b"), ("", "b"), ("X-A", "b\0"), ("X:", "b"), ("X-A", 7), "X-A: b"])
def test_header_field_that_would_be_two_is_a_failure(field):
    class Plugin:
        @hookimpl
        def annotate_message(self):
            return [field]

    runtime = FakeRuntime()
    fields, failure = runtime.run(manager(Plugin()).header_fields(runtime, transaction=None, verdict=None, segments=None))
    assert fields == [] and failure is not None


def test_header_fields_of_all_plugins_in_order():
    class One:
        @hookimpl
        def annotate_message(self):
            return [("X-A", "1")]

    class Two:
        @hookimpl
        async def annotate_message(self, verdict):
            return [("X-B", "2")]

    runtime = FakeRuntime()
    assert runtime.run(manager(One(), Two()).header_fields(runtime, transaction=None, verdict=None, segments=None)) == (
        [("X-A", "1"), ("X-B", "2")],
        None,
    )


def test_failing_record_event_changes_nothing_and_the_others_see_the_event():
    seen = []

    class Bad:
        @hookimpl
        def record_event(self, event):
            raise SystemExit(1)

    class Good:
        @hookimpl
        def record_event(self, event):
            seen.append(event)

    event = Event("received", FakeRuntime().now())
    manager(Bad(), Good()).record(event)
    assert seen == [event]
