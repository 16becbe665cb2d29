"""Mail that is sent back to be opened and judged again: whose keys, to whom, and who may ask for it."""

from __future__ import annotations

import base64

import pytest

from mailsec.builtin.rules import RulesPlugin
from mailsec.model.queue import State
from mailsec.model.session import Identity, Origin
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing.authority import Authority, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway

from .test_mailbox import HEAD, encrypted

AGAIN = "again@example.org"
OUTER = b"From: alice@example.org\r\nTo: again@example.org\r\nSubject: please\r\nMIME-Version: 1.0\r\n"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def gate(authority):
    keys = MemoryKeys(*(authority.issue(address, kind="rsa-2048") for address in ("alice@example.org", "bob@example.org")))
    rules = RulesPlugin(RuleSet([compile_rule("all", sign="if-possible")]))
    gate = MemoryGateway(keys, built_in=[rules], trust=MemoryTrust(authority.anchor), reprocess_address=AGAIN)
    gate.alice, gate.bob = keys.keys
    return gate


def attached(*messages: bytes, encoding: str = "8bit") -> bytes:
    parts = b"".join(
        b"--x\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: " + encoding.encode() + b"\r\n\r\n" + one + b"\r\n"
        for one in messages
    )
    head = OUTER + b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\nContent-Type: text/plain\r\n\r\nhere\r\n'
    return head + parts + b"--x--\r\n"


def delivered(gate: MemoryGateway) -> list[tuple[str, bytes]]:
    """(recipient, octets) of all that leaves, waiting rows processed."""
    for row in list(gate.spool.in_state(State.RAW)):
        gate.resume(row.entry.id)
    return [(str(row.entry.envelope.recipients[0].address), row.octets) for row in gate.spool.in_state(State.READY)]


def test_what_is_attached_comes_back_opened(gate):
    reply = gate.submit(attached(encrypted(gate.alice)), AGAIN)
    assert reply.code == 250
    (row,) = gate.rows
    assert row.state is State.RAW and row.origin is Origin.INTERNET and row.envelope.reverse_path is None
    ((recipient, octets),) = delivered(gate)
    assert (
        recipient == "alice@example.org"
        and b"the secret" in octets
        and octets.startswith(b"Authentication-Results: gw.example.org; smime=")
    )
    assert b"please" not in octets, "the message around it is not sent on"


def test_only_keys_of_whoever_sent_it_open_it_and_only_they_get_it(gate):
    """Attack: alice has caught a message for bob, and attaches it; it names bob as its recipient, too."""
    caught = encrypted(gate.bob).replace(b"To: alice@example.org", b"To: bob@example.org")
    assert gate.submit(attached(caught), AGAIN).code == 250
    ((recipient, octets),) = delivered(gate)
    assert recipient == "alice@example.org" and b"the secret" not in octets


def test_who_may_send_for_a_whole_domain_has_no_mailbox_by_that(gate):
    for addresses in (("@example.org",), ("*",), ("alice@elsewhere.example",), ()):
        who = Identity("relay", addresses, "PLAIN")
        reply = gate.submit(attached(encrypted(gate.alice)), AGAIN, identity=who)
        assert reply.code == 550 and not gate.rows


def test_mail_from_chooses_no_mailbox(gate):
    """Attack: an identity that may send as bob says MAIL FROM:<bob@…>."""
    who = Identity("alice", ("alice@example.org", "@example.org"), "PLAIN")
    assert gate.submit(attached(encrypted(gate.bob)), AGAIN, sender="bob@example.org", identity=who).code == 250
    ((recipient, octets),) = delivered(gate)
    assert recipient == "alice@example.org" and b"the secret" not in octets


@pytest.mark.parametrize("origin", [Origin.INTERNET, Origin.TRUSTED])
def test_for_others_the_address_does_not_exist(gate, origin):
    from mailsec.model.address import Address
    from mailsec.testing import values

    for text in (AGAIN, "AGAIN@Example.ORG"):
        refused = gate.pipeline.admit_recipient(values.session(origin), None, Address.parse(text))
        assert refused is not None and refused.code == 550


def test_it_is_sent_there_alone(gate):
    reply = gate.submit(attached(encrypted(gate.alice)), AGAIN, "bob@example.net")
    assert reply.code == 550 and not gate.rows


@pytest.mark.parametrize("text", [OUTER + b"\r\nno attachment\r\n", attached()])
def test_without_an_attached_message_it_is_refused(gate, text):
    reply = gate.submit(text, AGAIN)
    assert reply.code == 550 and "attach" in reply.text and not gate.rows


def test_several_are_taken_all_or_none(gate):
    plain = HEAD + b"\r\nhello\r\n"
    assert gate.submit(attached(encrypted(gate.alice), plain), AGAIN).code == 250
    assert len(gate.rows) == 2
    loop = b"Received: x\r\n" * 60 + plain
    assert gate.submit(attached(plain, loop), AGAIN).code == 554
    assert len(gate.rows) == 2


def test_in_base64_it_is_read_too(gate):
    whole = encrypted(gate.alice)
    assert gate.submit(attached(base64.encodebytes(whole).replace(b"\n", b"\r\n"), encoding="base64"), AGAIN).code == 250
    assert b"the secret" in delivered(gate)[0][1]
    assert gate.submit(attached(b"!!!!\r\n", encoding="base64"), AGAIN).code == 550


def test_a_verdict_and_a_seal_that_it_brings_are_taken_away(gate):
    claim = b"X-Mailsec-Seal: v=1\r\nAuthentication-Results: gw.example.org; smime=pass\r\n" + HEAD + b"\r\nhello\r\n"
    assert gate.submit(attached(claim), AGAIN).code == 250
    ((_, octets),) = delivered(gate)
    assert b"smime=pass" not in octets and b"Seal" not in octets and b"smime=none" in octets


def test_nothing_of_it_is_signed_in_the_name_of_whoever_sent_it(gate):
    own = b"From: alice@example.org\r\nTo: x@example.net\r\n\r\nin my name\r\n"
    assert gate.submit(attached(own), AGAIN).code == 250
    assert b"multipart/signed" not in delivered(gate)[0][1]


def test_without_a_reprocess_address_it_is_mail_like_any_other(authority):
    gate = MemoryGateway(MemoryKeys(), built_in=[RulesPlugin(RuleSet([]))], trust=MemoryTrust(authority.anchor))
    assert gate.submit(attached(b"x: y\r\n\r\n"), AGAIN).code == 250
    assert gate.rows[0].state is State.READY
