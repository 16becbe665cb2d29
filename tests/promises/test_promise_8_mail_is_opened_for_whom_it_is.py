"""Promise 8: a message is opened for an envelope recipient only with keys assigned to that recipient, or to a group or domain that lists them."""

from __future__ import annotations

import pytest

from mailsec.builtin.rules import RulesPlugin
from mailsec.errors import KeyUnavailable
from mailsec.keys.software import SoftwareKey
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.queue import State
from mailsec.model.session import matches_pattern
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway

AUTHORITY = Authority()
ALICE, BOB, CAROL = (AUTHORITY.issue(f"{name}@example.org") for name in ("alice", "bob", "carol"))
DAVE = AUTHORITY.issue("dave@example.net")
SECRET = b"the secret itself"
LETTER = "From: dave@example.net\nTo: alice@example.org, bob@example.org\nMessage-ID: <1@x>\n\nthe secret itself\n"


def encrypted(*to: SoftwareKey, text: str = LETTER) -> bytes:
    """dave's mail for these people, as it leaves his own gateway in one copy."""
    rules = RulesPlugin(RuleSet([compile_rule("all", sign="required", encrypt="required")]))
    gate = MemoryGateway(MemoryKeys(DAVE), MemoryDirectory.of(*to), built_in=[rules], trust=MemoryTrust(AUTHORITY.anchor))
    who = values.identity("dave", "dave@example.net")
    assert gate.submit(text, *(key.name for key in to), sender="dave@example.net", who=who).code == 250
    (octets,) = gate.ready
    return octets


def arrives(octets: bytes, *recipients: str, keys, **changes) -> MemoryGateway:
    gate = MemoryGateway(keys, built_in=[RulesPlugin(RuleSet(()))], trust=MemoryTrust(AUTHORITY.anchor), **changes)
    assert gate.arrive(octets, *recipients, sender="dave@example.net").code == 250
    for _ in range(20):
        waiting = [row for row in gate.rows if row.state is State.RAW and not row.need]
        if not waiting:
            break
        gate.resume(waiting[0].id)
    return gate


def read(gate: MemoryGateway) -> dict[str, bool]:
    """Who got it open."""
    return {
        str(one.address).partition("@")[0]: SECRET in row.octets
        for row in gate.spool.in_state(State.READY)
        for one in row.entry.envelope.recipients
    }


def test_each_of_several_recipients_is_opened_for_with_their_own_key():
    gate = arrives(encrypted(ALICE, BOB), "alice@example.org", "bob@example.org", keys=MemoryKeys(ALICE, BOB, CAROL))
    assert read(gate) == {"alice": True, "bob": True}
    assert all(row.entry.secret and row.entry.verdict == "pass" for row in gate.spool.in_state(State.READY))


@pytest.mark.parametrize("reader", ["alice", "carol"])
def test_attack_mail_for_bob_is_sent_to_somebody_else_too(reader):
    """Whoever has a copy of bob's encrypted mail sends it to somebody here, or to bob and somebody: only bob's copy is opened."""
    text = LETTER.replace("alice@example.org, ", "")
    octets, keys = encrypted(BOB, text=text), MemoryKeys(ALICE, BOB, CAROL)
    assert read(arrives(octets, f"{reader}@example.org", keys=keys)) == {reader: False}
    assert read(arrives(octets, f"{reader}@example.org", "bob@example.org", keys=keys)) == {reader: False, "bob": True}
    assert read(arrives(octets, "bob@example.org", f"{reader}@example.org", keys=keys)) == {reader: False, "bob": True}


def test_a_key_of_the_domain_opens_for_all_of_it_in_one_copy():
    shared = SoftwareKey("domain", _pkcs8(ALICE), certificate=ALICE.certificate, assigned=("@example.org",))
    gate = arrives(encrypted(ALICE), "alice@example.org", "bob@example.org", keys=MemoryKeys(shared))
    assert read(gate) == {"alice": True, "bob": True} and len(gate.ready) == 1


def test_attack_a_store_that_offers_a_key_of_somebody_else():
    class Lies(MemoryKeys):
        async def keys_for(self, address, usage):
            return self.keys

    octets = encrypted(BOB, text=LETTER.replace("alice@example.org, ", ""))
    assert read(arrives(octets, "alice@example.org", keys=Lies(ALICE, BOB))) == {"alice": False}


def test_a_token_that_is_out_keeps_only_its_own_people_waiting():
    class HalfOut(MemoryKeys):
        async def keys_for(self, address, usage):
            if str(address).startswith("bob"):
                raise KeyUnavailable("away", stage="token:HSM 1")
            return [key for key in self.keys if any(matches_pattern(one, address) for one in key.assigned)]

    gate = arrives(encrypted(ALICE, BOB), "alice@example.org", "bob@example.org", keys=HalfOut(ALICE, BOB))
    assert read(gate) == {"alice": True}
    (waiting,) = [row for row in gate.rows if row.state is State.RAW]
    assert (waiting.need, [str(one.address) for one in waiting.envelope.recipients]) == ("token:HSM 1", ["bob@example.org"])
    assert waiting.secret and waiting.sensitive


def test_attack_a_thousand_recipients_make_copies_beyond_all_bounds():
    """Each recipient's copy is opened anew; what that comes to at once is bounded, the rest is a row that goes on later."""
    from dataclasses import replace

    octets = encrypted(ALICE, BOB, CAROL, text=LETTER.replace("bob@", "carol@example.org, bob@"))
    limits = replace(DEFAULT_LIMITS, max_expansion=1, expansion_octets=100)
    gate = arrives(octets, "alice@example.org", "bob@example.org", "carol@example.org", keys=MemoryKeys(ALICE, BOB, CAROL), limits=limits)
    assert read(gate) == {"alice": True, "bob": True, "carol": True}


def _pkcs8(key: SoftwareKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key._key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
