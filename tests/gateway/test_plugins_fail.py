"""A failing plugin defers; it never accepts, and none can weaken (promise 7). Each way to fail, at each hook, through the whole pipeline."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from mailsec.errors import Reply
from mailsec.hookspecs import hookimpl
from mailsec.model.protection import ProtectionPlan
from mailsec.model.verdict import Decision, Finding
from mailsec.rules.ruleset import compile_rule

OWN = "From: alice@example.org\nTo: bob@example.net\nSubject: hi\n\nbody\n"
FOREIGN = "From: carol@example.net\nTo: alice@example.org\nSubject: hi\n\nbody\n"


def _raises(**arguments):
    raise RuntimeError("the plugin's own secret")


def _exits(**arguments):
    raise SystemExit(0)


def _wrong_type(**arguments):
    return 7


WAYS = {"raises": _raises, "calls sys.exit": _exits, "returns the wrong type": _wrong_type}
HOOKS = {
    "check_message": lambda act: lambda self, transaction: act(),
    "plan_protection": lambda act: lambda self, transaction: act(),
    "decide_message": lambda act: lambda self, transaction: act(),
    "annotate_message": lambda act: lambda self, transaction: act(),
}


def plugin(hook: str, act) -> object:
    return type("Plugin", (), {hook: hookimpl(HOOKS[hook](act))})()


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("act", WAYS.values(), ids=WAYS.keys())
def test_plugin_that_fails_defers_and_never_accepts(kit, hook, act):
    gate = kit.Gate(plugin(hook, act))
    replies = [gate.submit(OWN)]
    if hook != "plan_protection":
        replies.append(gate.arrive(FOREIGN))
    for reply in replies:
        assert reply.code == 451, reply
        assert "secret" not in reply.text
    assert gate.rows == []


@pytest.mark.parametrize("hook", ["check_message", "annotate_message"])
def test_plugin_that_hangs_is_given_up_and_defers(kit, hook):
    async def hangs(self):
        await gate.runtime.sleep(1_000_000)

    gate = kit.Gate(type("Plugin", (), {hook: hookimpl(hangs)})())
    assert gate.arrive(FOREIGN).code == 451
    assert gate.rows == [] and gate.runtime.monotonic() == 30


@pytest.mark.parametrize("found", [lambda: [Finding("", "x", "")] * 1_000_000, lambda: itertools.repeat(Finding("", "x", ""))])
def test_plugin_with_a_million_findings_defers(kit, found):
    gate = kit.Gate(plugin("check_message", found))
    assert gate.arrive(FOREIGN).code == 451
    assert gate.rows == []


def test_findings_reach_the_deciding_plugins_and_decide_nothing_themselves(kit):
    seen = []

    class Decides:
        @hookimpl
        def decide_message(self, findings):
            seen.extend(findings)

    gate = kit.Gate(plugin("check_message", lambda: Finding("", "virus", "a virus", "warning")), Decides())
    assert gate.arrive(FOREIGN).code == 250
    assert [(one.source, one.code) for one in seen] == [("p0", "virus")]


def plans(change) -> object:
    class Plugin:
        @hookimpl
        def plan_protection(self, plan):
            return change(plan)

    return Plugin()


WEAKER = {
    "no signature": lambda plan: replace(plan, sign=False, signer=""),
    "an empty plan": lambda plan: ProtectionPlan(),
    "another's key": lambda plan: replace(plan, signer="bob key"),
    "a key of its own": lambda plan: replace(plan, signer="plugin key"),
}


@pytest.mark.parametrize("change", WEAKER.values(), ids=WEAKER.keys())
def test_plan_that_is_weaker_than_the_rules_is_refused(kit, change):
    gate = kit.Gate(plans(change), rules=[compile_rule("all", sign="required")])
    assert gate.submit(OWN).code == 451
    assert gate.rows == [] and gate.engine.signed == []


def test_plan_that_lifts_a_refusal_is_refused(kit):
    gate = kit.Gate(plans(lambda plan: replace(plan, refusal=None)), keys=kit.FakeKeys(), rules=[compile_rule("all", sign="required")])
    assert gate.submit(OWN).code == 451
    assert gate.rows == []


def test_plan_that_is_stricter_counts(kit):
    gate = kit.Gate(
        plans(lambda plan: replace(plan, sign=True, signer="alice key", form="opaque")), rules=[compile_rule("none", sign="never")]
    )
    assert gate.submit(OWN).code == 250
    assert [plan.form for _, plan in gate.engine.signed] == ["opaque"]


def test_plan_that_encrypts_is_not_sent_in_clear_while_nothing_can_encrypt(kit):
    gate = kit.Gate(plans(lambda plan: replace(plan, encrypt=True)))
    assert gate.submit(OWN).code == 550
    assert gate.rows == []


def decides(decision) -> object:
    class Plugin:
        @hookimpl
        def decide_message(self):
            return decision

    return Plugin()


def test_the_strictest_decision_counts_whoever_is_asked_first(kit):
    for order in itertools.permutations([Decision("deliver"), Decision("hold", reason="look"), Decision("refuse", reason="no")]):
        gate = kit.Gate(*map(decides, order))
        assert gate.arrive(FOREIGN).code == 550
        assert gate.rows == []


@pytest.mark.parametrize("reply", [None, Reply(250, "2.0.0", "fine"), Reply(451, "4.0.0", "later"), Reply(550, "2.0.0", "odd")])
def test_refusal_with_a_reply_that_is_none_is_still_a_refusal(kit, reply):
    got = kit.Gate(decides(Decision("refuse", reply))).arrive(FOREIGN)
    assert got == Reply(550, "5.7.1", "refused by policy")


@pytest.mark.parametrize("reply", [None, Reply(250, "2.0.0", "fine"), Reply(550, "5.0.0", "never")])
def test_deferral_with_a_reply_that_is_none_is_still_a_deferral(kit, reply):
    assert kit.Gate(decides(Decision("defer", reply))).arrive(FOREIGN).code == 451


def test_reply_of_a_plugin_is_one_line(kit):
    got = kit.Gate(decides(Decision("refuse", Reply(554, "5.7.1", "no\r\n250 fine " + "x" * 1000)))).arrive(FOREIGN)
    assert got.code == 554 and "\r" not in got.text and "\n" not in got.text and len(got.text) <= 400


def test_unknown_action_defers(kit):
    assert kit.Gate(decides(Decision("accept"))).arrive(FOREIGN).code == 451


def test_check_message_is_given_the_octets_as_received_and_the_transaction_without_forgeries(kit):
    seen = []

    class Plugin:
        @hookimpl
        def check_message(self, transaction, original, smime):
            seen.append((bytes(original.view(0, 9999)), transaction.message.first("authentication-results"), smime))

    gate = kit.Gate(Plugin())
    gate.arrive("Authentication-Results: gw.example.org; smime=pass\n" + FOREIGN)
    gate.submit(OWN)
    assert b"smime=pass" in seen[0][0] and seen[0][1] is None and seen[0][2] is not None
    assert seen[1][2] is None
