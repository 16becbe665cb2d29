"""Every hook is documented with its exact signature, and has a test here that shows it at work in a whole gateway."""

from __future__ import annotations

import itertools
import re
import sys
from pathlib import Path

import pytest

from mailsec.errors import ConfigurationError, KeyUnavailable
from mailsec.hookspecs import hookimpl
from mailsec.keys.software import SoftwareBackend
from mailsec.model.queue import State
from mailsec.model.settings import Problem
from mailsec.model.verdict import Decision, Finding
from mailsec.plugins import HOOKS
from mailsec.rules.ruleset import compile_rule
from mailsec.testing.gateway import MemoryGateway

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hooks.md"
OWN = "From: alice@example.org\nTo: bob@example.net\n\nbody\n"
FOREIGN = "From: carol@example.net\nTo: alice@example.org\n\nbody\n"


def test_page_lists_every_hook_in_order_with_its_signature():
    headings = re.findall(r"^### `(.+)`$", PAGE.read_text(), re.MULTILINE)
    assert headings == [f"{name}({', '.join(parameters)})" for name, parameters in HOOKS.items()]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_test(hook):
    assert hasattr(sys.modules[__name__], f"test_hook_{hook}"), f"write test_hook_{hook}"


PROJECT = PAGE.parents[1]


def test_every_hook_has_a_first_party_user():
    """Whoever calls a hook that nobody needs is not told when it does not fit."""
    sources = [*(PROJECT / "mailsec").rglob("*.py"), *(PROJECT / "plugins").glob("*/mailsec_*/**/*.py")]
    text = "".join(path.read_text() for path in sources if "testing" not in path.parts)
    used = set(re.findall(r"@hookimpl(?:\(.*\))?\n    (?:async )?def (\w+)\(", text))
    assert used == set(HOOKS)


def bring(**hooks) -> object:
    """A plugin with these hooks."""
    return type("Plugin", (), {name: hookimpl(function) for name, function in hooks.items()})()


class Named:
    """A provider that is only a name."""

    name = "named"
    mechanisms = frozenset({"PLAIN"})


def test_hook_register_config_models():
    gate = MemoryGateway(bring(register_config_models=lambda self: {"greeter": dict}))
    assert gate.plugins.providers("register_config_models") == [("greeter", dict)]


def test_hook_register_commands():
    def register(self, cli):
        cli.append("command")

    found: list[str] = []
    assert MemoryGateway(bring(register_commands=register)).plugins.providers("register_commands", cli=found) == []
    assert found == ["command"]


def test_hook_register_crypto_backends():
    given = []

    def register(self, gateway):
        given.append(gateway)
        return [SoftwareBackend()]

    gate = MemoryGateway(bring(register_crypto_backends=register))
    assert given == [gate.pipeline]


def test_gateway_without_a_crypto_backend_does_not_start(monkeypatch):
    monkeypatch.setattr("mailsec.testing.gateway._Software.register_crypto_backends", hookimpl(lambda self: []))
    with pytest.raises(ConfigurationError, match="crypto backend"):
        MemoryGateway()


def test_hook_register_key_stores(kit):
    gate = kit.Gate()
    assert gate.runtime.run(gate.pipeline.key("alice key")).name == gate.keys.keys[0].name
    assert gate.runtime.run(gate.pipeline.key("nobody's")) is None


def test_hook_register_authenticators():
    gate = MemoryGateway(bring(register_authenticators=lambda self: [Named()]))
    assert gate.pipeline.mechanisms == {"PLAIN"}


def test_hook_register_certificate_directories():
    class Directory(Named):
        async def certificates(self, address):
            return [str(address)]

    gate = MemoryGateway(bring(register_certificate_directories=lambda self: [Directory(), Directory()]))
    address = gate.pipeline.settings.postmaster
    assert gate.runtime.run(gate.pipeline.certificates(address)) == [address, address]


def test_hook_register_recipient_directories():
    class Directory(Named):
        async def exists(self, address):
            return None if address.local_part == "who" else True

    from mailsec.model.address import Address

    gate = MemoryGateway(bring(register_recipient_directories=lambda self, settings, runtime: [Directory()]))
    assert gate.runtime.run(gate.pipeline.recipient_exists(Address("a", "example.org"))) is True
    assert gate.runtime.run(gate.pipeline.recipient_exists(Address("who", "example.org"))) is None


def test_hook_register_revocation_sources():
    source = Named()
    gate = MemoryGateway(bring(register_revocation_sources=lambda self, settings, runtime: [source]))
    assert gate.plugins.providers("register_revocation_sources", settings=gate.settings, runtime=gate.runtime) == [source]


def test_hook_register_tcp_services():
    service = Named()
    gate = MemoryGateway(bring(register_tcp_services=lambda self, gateway: [service]))
    assert gate.pipeline.services() == [service]


def test_hook_check_configuration():
    async def check(self, gateway):
        return [Problem(("table",), f"{gateway.settings.hostname} is not in it", "write it there")]

    def problems(**hooks):
        gate = MemoryGateway(bring(**hooks))
        return gate.runtime.run(gate.plugins.problems(gate.runtime, gateway=gate.pipeline))

    assert problems(check_configuration=check) == [Problem(("plugin", "p0", "table"), "gw.example.org is not in it", "write it there")]
    assert problems(check_configuration=lambda self: None) == []


def test_a_check_of_the_configuration_that_fails_is_a_problem_and_one_that_cannot_say_now_is_none():
    def problems(answer):
        gate = MemoryGateway(bring(check_configuration=answer))
        return [(one.path, one.message, one.hint) for one in gate.runtime.run(gate.plugins.problems(gate.runtime, gateway=gate.pipeline))]

    def later(self):
        raise KeyUnavailable("the token is out")

    def raises(self):
        raise OSError("no such device")

    def endless(self):
        return (Problem((), str(number)) for number in itertools.count())

    where, hint = ("plugins", "enabled"), "mend the plugin, or take it out of [plugins] enabled"
    assert problems(later) == []
    assert problems(raises) == [(where, "plugin p0: check_configuration: OSError: no such device", hint)]
    assert problems(lambda self: "text") == [(where, "plugin p0: check_configuration: TypeError: a str in place of problems", hint)]
    assert problems(lambda self: [("a", "b")])[0][1].endswith("TypeError: a tuple in place of a Problem")
    assert "more than" in problems(endless)[0][1]


def test_hook_startup():
    started = []

    async def startup(self, gateway):
        started.append(gateway)

    def fails(self):
        raise OSError("no such device")

    gate = MemoryGateway(bring(startup=startup))
    gate.runtime.run(gate.pipeline.startup())
    assert started == [gate.pipeline]
    gate = MemoryGateway(bring(startup=fails))
    with pytest.raises(ConfigurationError, match="no such device"):
        gate.runtime.run(gate.pipeline.startup())


def test_hook_check_message():
    def check(self, original):
        return [Finding("", "size", str(len(original)))]

    def decide(self, findings):
        return Decision("hold", reason=f"{findings[0].source}: {findings[0].message}")

    gate = MemoryGateway(bring(check_message=check, decide_message=decide))
    assert gate.arrive(FOREIGN).code == 250
    assert [(row.state, row.reason) for row in gate.rows] == [(State.HELD, f"p0: {len(FOREIGN) + 4}")]


def test_hook_plan_protection(kit):
    seen = []

    def plan(self, transaction, candidates, findings, plan):
        seen.append((str(candidates.recipient), candidates.signers, plan.rule))

    gate = kit.Gate(bring(plan_protection=plan), rules=[compile_rule("all", sign="required")])
    gate.submit(OWN, "bob@example.net", "dave@example.net")
    assert seen == [("bob@example.net", ("alice key",), "all"), ("dave@example.net", ("alice key",), "all")]


def test_hook_decide_message():
    seen = []

    def decide(self, transaction, verdict, findings):
        seen.append(([str(one.address) for one in transaction.envelope.recipients], verdict.word.value))

    gate = MemoryGateway(bring(decide_message=decide))
    gate.arrive(FOREIGN, "alice@example.org", "dave@example.org")
    assert seen == [(["alice@example.org"], "none"), (["dave@example.org"], "none")]
    assert len(gate.ready) == 1


def test_hook_annotate_message():
    async def annotate(self, transaction, verdict, segments):
        return [("X-Seen", transaction.id)]

    gate = MemoryGateway(bring(annotate_message=annotate))
    gate.arrive(FOREIGN)
    assert gate.ready[0].startswith(f"X-Seen: {gate.rows[0].id}\r\nAuthentication-Results:".encode())


def test_hook_record_event():
    gate = MemoryGateway()
    gate.arrive(FOREIGN)
    assert [event.name for event in gate.events] == ["received"]


def test_hook_shutdown():
    ended = []

    def fails(self):
        raise OSError("x")

    async def shutdown(self, gateway):
        ended.append(gateway)

    gate = MemoryGateway(bring(shutdown=fails), bring(shutdown=shutdown))
    gate.runtime.run(gate.pipeline.shutdown())
    assert ended == [gate.pipeline]
