"""Promise 7: whatever plugins do, a message is accepted only where each of them has answered, and never with less than the rules want."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.builtin.rules import RulesPlugin
from mailsec.hookspecs import hookimpl
from mailsec.model.protection import ProtectionPlan
from mailsec.model.queue import State
from mailsec.model.verdict import Decision, Finding
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing.authority import Authority, MemoryKeys
from mailsec.testing.gateway import MemoryGateway

KEYS = MemoryKeys(Authority().issue("alice@example.org"))
TEXT = "From: alice@example.org\nTo: bob@example.net\n\nbody\n"

PLANS = st.one_of(
    st.none(),
    st.builds(
        ProtectionPlan,
        sign=st.booleans(),
        encrypt=st.booleans(),
        signer=st.sampled_from(["", "alice@example.org", "somebody else"]),
        recipients=st.sampled_from([(), ("made up",)]),
    ),
)
ANYTHING = st.sampled_from(
    [None, 0, True, "", "deliver", b"", [], [None], {}, object(), Decision("deliver"), Decision("accept"), Finding("", "x", "")]
)


class Plugin:
    def __init__(self, finding, plan, decision, fields):
        self.finding, self.plan, self.decision, self.fields = finding, plan, decision, fields

    @hookimpl
    def check_message(self):
        return self.finding

    @hookimpl
    def plan_protection(self):
        return self.plan

    @hookimpl
    def decide_message(self):
        return self.decision

    @hookimpl
    def annotate_message(self):
        return self.fields


@settings(max_examples=100, deadline=None)
@given(ANYTHING, st.one_of(PLANS, ANYTHING), ANYTHING, st.one_of(ANYTHING, st.just([("X-A", "b")]), st.just([("X-A", "b\r\nBcc: c")])))
def test_no_answer_of_a_plugin_lets_an_unsigned_message_out(finding, plan, decision, fields):
    gate = MemoryGateway(
        Plugin(finding, plan, decision, fields), KEYS, built_in=[RulesPlugin(RuleSet([compile_rule("all", sign="required")]))]
    )
    reply = gate.submit(TEXT)
    for row in gate.spool.in_state(State.READY):
        assert b"application/pkcs7-signature" in row.octets and b"\r\nBcc" not in row.octets
    assert reply.code in (250, 451, 550)
    assert (reply.code == 250) == bool(gate.rows)
