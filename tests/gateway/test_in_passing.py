"""A message that is only shown to us (a milter): no hop is made, nothing is opened, and the answer is there at once."""

from __future__ import annotations

from mailsec.builtin.rules import RulesPlugin
from mailsec.errors import Reply
from mailsec.interfaces import Outcome
from mailsec.interfaces.runtime import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.model.session import Origin
from mailsec.model.verdict import SmimeWord
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.smime.protect import protect_message
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.memory import MemorySealKeys
from mailsec.testing.runtime import EPOCH
from mailsec.testing.values import message

CA = Authority()
ALICE = CA.issue("alice@example.org")
BOB = CA.issue("bob@example.net")
LETTER = "From: carol@example.net\nTo: alice@example.org\nSubject: hi\n\nthe secret\n"


def outcomes(gateway: MemoryGateway, text: str | bytes, origin: Origin, sender: str, *recipients: str, **session) -> list[Outcome]:
    octets = values.message(text).octets
    made = values.session(origin, in_passing=True, **session)

    async def all_of_them() -> list[Outcome]:
        return [one async for one in gateway.pipeline.process(gateway.pipeline.begin(made, values.envelope(sender, *recipients), octets))]

    return gateway.runtime.run(all_of_them())


def encrypted_for_alice() -> bytes:
    async def work(cost, function, *arguments):
        return function(*arguments)

    made = protect_message(
        message(LETTER),
        ProtectionPlan(encrypt=True),
        signers=(),
        recipients=[EncryptionRecipient(ALICE.certificate)],
        backend=SoftwareBackend(),
        random=lambda size: b"r" * size,
        work=work,
        at=EPOCH,
    )
    return run_now(made).join()


def test_attack_what_is_encrypted_is_not_opened_though_the_key_is_there():
    gateway = MemoryGateway(MemoryKeys(ALICE), trust=MemoryTrust(CA.anchor))
    octets = encrypted_for_alice()
    [outcome] = outcomes(gateway, octets, Origin.INTERNET, "carol@example.net", "alice@example.org")
    assert outcome.decision.action == "deliver" and not outcome.need and not outcome.secret
    assert outcome.verdict is not None and outcome.verdict.word is not SmimeWord.PASS and outcome.verdict.text is None
    assert outcome.segments is not None and outcome.segments.join().endswith(octets)


def test_attack_a_rule_is_not_passed_by_encrypting():
    rule = compile_rule("signed only", {"origin": ["internet"]}, inbound="required")
    gateway = MemoryGateway(MemoryKeys(ALICE), built_in=[RulesPlugin(RuleSet([rule]))], trust=MemoryTrust(CA.anchor))
    [outcome] = outcomes(gateway, encrypted_for_alice(), Origin.INTERNET, "carol@example.net", "alice@example.org")
    assert outcome.decision.reply == Reply(550, "5.7.1", "a trusted S/MIME signature is required here")


def test_no_hop_is_made_and_nothing_is_sealed():
    gateway = MemoryGateway(trust=MemoryTrust(CA.anchor), seals=MemorySealKeys())
    [outcome] = outcomes(gateway, LETTER, Origin.INTERNET, "carol@example.net", "alice@example.org")
    assert outcome.segments is not None
    added = outcome.segments.join().removesuffix(LETTER.replace("\n", "\r\n").encode())
    assert added.startswith(b"Authentication-Results: gw.example.org; smime=none") and b"Received:" not in added


def test_an_outgoing_copy_says_how_it_was_to_be_protected():
    rule = compile_rule("all", {}, sign="required", encrypt="required")
    gateway = MemoryGateway(
        MemoryKeys(ALICE), MemoryDirectory.of(BOB), built_in=[RulesPlugin(RuleSet([rule]))], trust=MemoryTrust(CA.anchor)
    )
    letter = "From: alice@example.org\nTo: bob@example.net\nSubject: hi\n\nthe secret\n"
    [outcome] = outcomes(gateway, letter, Origin.SUBMISSION, "alice@example.org", "bob@example.net")
    assert outcome.plan is not None and outcome.plan.encrypt and outcome.plan.signer == "alice@example.org"
    assert outcome.segments is not None and b"secret" not in outcome.segments.join() and b"Received:" not in outcome.segments.join()
