"""The pipeline with real keys and real S/MIME: what one gateway signs, another one verifies, and every way in which that can fail."""

from __future__ import annotations

import pytest

from mailsec.builtin.rules import RulesPlugin
from mailsec.keys.software import SoftwareKey
from mailsec.model.address import Address
from mailsec.model.queue import State
from mailsec.model.session import Origin
from mailsec.model.trust import Anchor
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec.x509.issue import issue_mail, make_key, public_key_of
from tests.gateway.chains import authority_called

OWN = "From: Alice <alice@example.org>\nTo: bob@example.net\nSubject: hi\nDate: Thu, 1 Jan 2026 12:00:00 +0000\nMessage-ID: <1@x>\n\nbody\n"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def gateway(authority: Authority, *addresses: str, rules=(), trusts: Authority | None = None, kind: str = "ec-p256") -> MemoryGateway:
    keys = MemoryKeys(*(authority.issue(address, kind=kind) for address in addresses))
    anchors = (trusts or authority).anchor
    return MemoryGateway(keys, built_in=[RulesPlugin(RuleSet(rules))], trust=MemoryTrust(anchors))


def verdict_of(octets: bytes) -> str:
    """The result word on top of a delivered message."""
    first = octets.partition(b"\r\nReceived:")[0].decode()
    assert first.startswith("Authentication-Results: gw.example.org; smime="), first
    return first.partition("smime=")[2].split()[0]


def signed(authority: Authority, form: str = "detached", kind: str = "ec-p256", text: str = OWN) -> bytes:
    gate = gateway(authority, "alice@example.org", rules=[compile_rule("all", sign="required", form=form)], kind=kind)
    assert gate.submit(text).code == 250
    return gate.ready[0]


def arrives(authority: Authority, octets: bytes, trusts: Authority | None = None) -> str:
    gate = gateway(authority, trusts=trusts)
    assert gate.arrive(octets).code == 250
    # promise 3: passed on octet for octet
    assert gate.ready[0].endswith(octets)
    assert gate.rows[0].verdict == verdict_of(gate.ready[0])
    return gate.rows[0].verdict


@pytest.mark.parametrize("form", ["detached", "opaque"])
@pytest.mark.parametrize("kind", ["ec-p256", "rsa-2048"])
def test_signed_here_is_trusted_there(authority, form, kind):
    octets = signed(authority, form, kind)
    assert b"multipart/signed" in octets if form == "detached" else b"application/pkcs7-mime" in octets
    assert arrives(authority, octets) == "pass"


def test_changed_word_fails(authority):
    assert arrives(authority, signed(authority).replace(b"\r\nbody\r\n", b"\r\nBody\r\n")) == "fail"


def test_signature_under_a_strangers_ca_is_policy(authority):
    assert arrives(authority, signed(Authority("Stranger")), trusts=authority) == "policy"


def test_signature_for_another_from_is_policy(authority):
    octets = signed(authority).replace(b"From: Alice <alice@example.org>", b"From: Bob <bob@example.org>")
    assert arrives(authority, octets) == "policy"


def test_unsigned_is_none_and_a_forged_pass_is_removed(authority):
    gate = gateway(authority)
    gate.arrive("Authentication-Results: gw.example.org; smime=pass\n" + OWN)
    assert verdict_of(gate.ready[0]) == "none" and gate.ready[0].count(b"smime=") == 1


@pytest.mark.parametrize("form", ["detached", "opaque"])
def test_message_that_its_author_has_signed_is_not_signed_again(authority, form):
    octets = signed(authority, form)
    gate = gateway(authority, "alice@example.org", rules=[compile_rule("all", sign="required")])
    assert gate.submit(octets).code == 250
    assert gate.ready[0].endswith(octets)


def test_broken_signature_counts_as_unsigned_and_is_signed_over(authority):
    octets = signed(authority).replace(b"\r\nbody\r\n", b"\r\nBody\r\n")
    gate = gateway(authority, "alice@example.org", rules=[compile_rule("all", sign="required")])
    assert gate.submit(octets).code == 250
    assert gate.ready[0].count(b"Content-Type: multipart/signed") == 2


def test_signature_of_somebody_else_counts_as_unsigned(authority):
    octets = signed(authority).replace(b"From: Alice <alice@example.org>", b"From: bob@example.org")
    gate = gateway(authority, "bob@example.org", rules=[compile_rule("all", sign="required")])
    who = "bob@example.org"
    assert gate.submit(octets, sender=who, who=values.identity("bob")).code == 250
    assert gate.ready[0].count(b"Content-Type: multipart/signed") == 2


@pytest.mark.parametrize("form", ["detached", "opaque"])
def test_bcc_and_forged_results_are_taken_out_of_what_is_signed(authority, form):
    text = "Bcc: secret@example.net\nAuthentication-Results: gw.example.org; smime=pass\n" + OWN
    octets = signed(authority, form, text=text)
    assert b"secret" not in octets and b"smime=pass" not in octets
    assert arrives(authority, octets) == "pass"


@pytest.mark.parametrize(
    "junk",
    [
        b"Content-Type: multipart/signed; boundary=x; protocol=application/pkcs7-signature\r\n\r\n--x\r\n\r\nhi\r\n--x\r\n\r\nno cms\r\n--x--\r\n",
        b"Content-Type: application/pkcs7-mime; smime-type=signed-data\r\n\r\n\x30\x80\x00",
        b"Content-Type: application/pkcs7-mime; smime-type=enveloped-data\r\nContent-Transfer-Encoding: base64\r\n\r\nMIAGCSqGSIb3DQEHA6CA\r\n",
        b"Content-Type: multipart/mixed; boundary=" + b"y" * 1000 + b"\r\n\r\n",
        b"\r\n\x00\xff\r\n",
    ],
)
def test_anything_that_arrives_gets_a_reply_and_a_row(authority, junk):
    gate = gateway(authority)
    assert gate.arrive(b"From: x@example.net\r\n" + junk).code == 250
    assert [row.state for row in gate.rows] in ([State.READY], [State.RAW])
    if gate.rows[0].state is State.RAW:
        gate.resume(gate.rows[0].id)
        assert [row.state for row in gate.rows] == [State.READY]


def test_explain_of_a_signed_message_tells_the_verdict(authority):
    gate = gateway(authority)
    transaction = gate.pipeline.begin(
        values.session(Origin.INTERNET), values.envelope("a@example.net", "alice@example.org"), values.message(signed(authority)).octets
    )
    explanation = gate.runtime.run(gate.pipeline.explain(transaction))
    assert explanation.steps[0].name == "verdict" and explanation.steps[0].text.startswith("smime=pass")
    assert gate.rows == []


def test_an_authority_at_hand_helps_a_sender_who_left_it_out_and_is_not_believed_itself(authority):
    top = authority_called("Top CA", None, authority.at)
    middle = authority_called("Middle CA", top, authority.at)
    key = make_key("ec-p256")
    certificate = issue_mail(
        middle, addresses=[Address.parse("alice@example.org")], public_key=public_key_of(key), at=authority.at, random=authority.random
    )
    handle = SoftwareKey("alice", key, certificate=certificate, assigned=("alice@example.org",))
    rules = RulesPlugin(RuleSet([compile_rule("all", sign="required")]))
    gate = MemoryGateway(MemoryKeys(handle), built_in=[rules], trust=MemoryTrust())
    assert gate.submit(OWN).code == 250
    octets = gate.ready[0]

    def verdict(trust: MemoryTrust) -> str:
        reader = MemoryGateway(MemoryKeys(), built_in=[RulesPlugin(RuleSet(()))], trust=trust)
        for _ in range(2):  # the second one is answered from memory
            assert reader.arrive(octets).code == 250
        assert reader.rows[0].verdict == reader.rows[1].verdict
        return reader.rows[0].verdict

    assert verdict(MemoryTrust(Anchor(top.certificate))) == "policy"
    assert verdict(MemoryTrust(Anchor(top.certificate), authorities=[middle.certificate])) == "pass"
    # Attack: the authority alone, without an anchor above it.
    assert verdict(MemoryTrust(authorities=[middle.certificate, top.certificate])) == "policy"
    assert verdict(MemoryTrust(Authority("Other").anchor, authorities=[middle.certificate, top.certificate])) == "policy"
