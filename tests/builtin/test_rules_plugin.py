"""The built-in rules as a plugin: plans from rules and candidates, no plan weaker than required."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailsec.builtin.rules import RulesPlugin
from mailsec.model.address import Address
from mailsec.model.protection import Candidates
from mailsec.model.session import Origin
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing import values

ALICE, BOB = Address.parse("alice@example.org"), Address.parse("bob@example.net")
TRANSACTION = values.transaction("From: alice@example.org\n\n", in_session=values.session(Origin.SUBMISSION))


def plan(rules: RuleSet, **candidates):
    return RulesPlugin(rules).plan_protection(TRANSACTION, Candidates(**{"sender": ALICE, "recipient": BOB} | candidates))


WORDS = st.sampled_from(["required", "if-possible", "never"])


@given(
    WORDS,
    WORDS,
    st.sampled_from(["refuse", "hold"]),
    st.sampled_from([(), ("alice",), ("alice", "other")]),
    st.sampled_from([(), ("digest",)]),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["", "token:HSM 1"]),
    st.sampled_from([ALICE, None]),
)
def test_what_is_required_is_done_or_refused_or_waited_for(sign, encrypt, failure, signers, certificates, signed, encrypted, wait, sender):
    chosen = plan(
        RuleSet([compile_rule("all", sign=sign, encrypt=encrypt, failure=failure)]),
        sender=sender,
        signers=signers,
        certificates=certificates,
        already_signed=signed,
        already_encrypted=encrypted,
        wait=wait,
    )
    stopped = chosen.refusal is not None
    if sign == "required" and sender is not None and not signed:
        assert chosen.sign or chosen.wait or stopped
    if encrypt == "required" and not encrypted:
        assert chosen.encrypt or stopped
    if sign == "never" or sender is None or signed:
        assert not chosen.sign and not chosen.wait
    if encrypt == "never":
        assert not chosen.encrypt
    assert not (chosen.wait and stopped)
    assert chosen.signer in ("", *signers) and bool(chosen.signer) == chosen.sign
    assert chosen.failure == failure and chosen.rule == "all"


def test_encryption_and_signature_from_different_rules_are_both_named():
    rules = RuleSet(
        [compile_rule("tls partners", {"recipient": "@example.net"}, encrypt="if-possible"), compile_rule("all", sign="required")]
    )
    assert plan(rules, signers=("alice",)).rule == "all, tls partners"


def test_rule_by_header_reads_decoded_words():
    transaction = values.transaction(
        "From: alice@example.org\nX-Class: =?utf-8?Q?VS-NfD?=\n\n", in_session=values.session(Origin.SUBMISSION)
    )
    rules = RuleSet([compile_rule("classified", {"header": {"x-class": "^vs-nfd$"}}, sign="never")])
    assert RulesPlugin(rules).plan_protection(transaction, Candidates(ALICE, BOB, ("alice",))).rule == "classified"
