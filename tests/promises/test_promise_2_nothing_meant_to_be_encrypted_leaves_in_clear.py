"""Promise 2: where a rule or a plugin wants encryption and it cannot be done, nothing of the message leaves, and no report holds its body."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailsec.builtin.rules import RulesPlugin
from mailsec.hookspecs import hookimpl
from mailsec.model.queue import State
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing.authority import Authority, MemoryKeys
from mailsec.testing.gateway import MemoryGateway

BODY = "the secret itself"
LABELS = {
    "plain": "",
    "merely labelled enveloped-data": "Content-Type: application/pkcs7-mime; smime-type=enveloped-data\n",
    "merely labelled, old name": 'Content-Type: application/x-pkcs7-mime; name="smime.p7m"\n',
}


class WantsEncryption:
    @hookimpl
    def plan_protection(self, plan):
        return replace(plan, encrypt=True)


def gateway(*plugins, failure: str = "refuse", encrypt: str = "required") -> MemoryGateway:
    rules = [compile_rule("plain", {"recipient": "@plain.example"}), compile_rule("all", encrypt=encrypt, failure=failure)]
    keys = MemoryKeys(Authority().issue("alice@example.org"))
    return MemoryGateway(*plugins, keys, built_in=[RulesPlugin(RuleSet(rules))])


@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS.keys())
@pytest.mark.parametrize("recipients", [["bob@example.net"], ["bob@example.net", "carol@example.com"]])
@pytest.mark.parametrize("sign", [True, False])
def test_encryption_that_a_rule_requires(label, recipients, sign):
    for gate, code in ((gateway(), 550), (gateway(failure="hold"), 250), (gateway(WantsEncryption(), encrypt="never"), None)):
        if not sign:
            for plugin in gate.plugins.implementations("register_key_stores"):
                plugin.function()[0].keys.clear()
        reply = gate.submit(f"From: alice@example.org\nTo: bob@example.net\n{label}\n{BODY}\n", *recipients)
        assert code is None or reply.code == code
        assert not [row for row in gate.spool.in_state(State.READY) if BODY.encode() in row.octets]
        assert all(row.entry.secret for row in gate.spool.in_state(State.HELD))
