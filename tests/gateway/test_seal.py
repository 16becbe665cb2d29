"""The seal: what it is believed for, what delivery may do to it, and every way in which somebody may lend it to something else."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.builtin.mailbox import MailboxPlugin
from mailsec.builtin.rules import RulesPlugin
from mailsec.gateway.mailbox import Copy
from mailsec.gateway.seal import read_seal, sealed
from mailsec.keys.software import SoftwareKey
from mailsec.mime.index import index_message
from mailsec.model.octets import BytesOctets, Segments
from mailsec.model.seal import SealKey
from mailsec.model.session import Identity, Origin
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.memory import MemorySealKeys
from mailsec.testing.runtime import EPOCH, FakeRuntime

from .test_mailbox import ALICE, encrypted

KEY = SealKey("0123456789abcdef", b"k" * 32, EPOCH - timedelta(days=1), EPOCH + timedelta(days=1000))
OLD = SealKey("fedcba9876543210", b"o" * 32, EPOCH - timedelta(days=900), EPOCH - timedelta(days=1))
ID = "gw.example.org"
TEXT = (
    "From: Alice <alice@example.org>\nTo: bob@example.net\nSubject: two  blanks\nDate: Thu, 1 Jan 2026 12:00:00 +0000\n"
    "Message-ID: <1@x>\nMIME-Version: 1.0\nContent-Type: text/plain\n\nbody\n"
)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def gateway(authority: Authority, *addresses: str, rules=()) -> MemoryGateway:
    keys = MemoryKeys(*(authority.issue(address) for address in addresses))
    return MemoryGateway(keys, built_in=[RulesPlugin(RuleSet(rules))], trust=MemoryTrust(authority.anchor), seals=MemorySealKeys(KEY, OLD))


@pytest.fixture(scope="module")
def delivered(authority: Authority) -> bytes:
    """A signed message as the gateway delivers it from the Internet."""
    sender = gateway(authority, "alice@example.org", rules=[compile_rule("all", sign="required")])
    assert sender.submit(TEXT).code == 250
    gate = gateway(authority)
    assert gate.arrive(sender.ready[0]).code == 250
    return gate.ready[0]


@pytest.fixture(scope="module")
def gate(authority: Authority) -> MemoryGateway:
    return gateway(authority)


def read(octets: bytes, keys: MemorySealKeys | None = None, authserv_id: str = ID):
    runtime = FakeRuntime()
    message = index_message(BytesOctets(octets))
    return runtime.run(read_seal(message, keys or MemorySealKeys(KEY, OLD), runtime, authserv_id))


def verdict_of(octets: bytes) -> str:
    """The one result of ours."""
    found = re.findall(rb"^Authentication-Results: gw.example.org; smime=(\w+)", octets, re.MULTILINE)
    assert len(found) == 1, octets[:600]
    return found[0].decode()


def test_what_is_delivered_is_sealed_and_known_again(delivered, gate):
    assert delivered.startswith(b"X-Mailsec-Seal: v=1; t=") and verdict_of(delivered) == "pass"
    reading = read(delivered)
    assert reading.valid and reading.at == EPOCH
    copy = gate.retrieve(delivered)
    assert copy.sealed and copy.segments.join() == delivered


@pytest.mark.parametrize(
    "added",
    [
        b"Return-Path: <carol@example.net>\r\nDelivered-To: alice@example.org\r\nReceived: from gw.example.org\r\n\tby mail.example.org; x\r\n",
        b"X-Spam-Score: 3\r\nX-Sieve: CMU\r\nList-Id: <x.example>\r\n",
        b"Authentication-Results: other.example; smime=fail\r\nAuthentication-Results: gw.example.org; spf=pass\r\n",
        b"DKIM-Signature: v=1; d=example.org\r\n",
    ],
)
def test_what_delivery_adds_breaks_no_seal(delivered, added):
    assert read(added + delivered).valid
    assert read(delivered + b"\r\n\r\n").valid, "empty lines at the end"
    head, _, body = delivered.partition(b"\r\n\r\n")
    assert read(head + b"\r\n" + added + b"\r\n" + body).valid, "below the header"


ALTERED = {
    "body altered": (b"\r\nbody\r\n", b"\r\nBody\r\n"),
    "line added to the body": (b"\r\nbody\r\n", b"\r\nbody\r\nmore\r\n"),
    "blank at the end of a line": (b"\r\nbody\r\n", b"\r\nbody \r\n"),
    "verdict improved": (b"smime=pass", b'smime=pass reason="really"'),
    "verdict in another case": (b"smime=pass", b"smime=PASS"),
    "subject changed": (b"Subject: two  blanks", b"Subject: three"),
    "blanks in a field": (b"Subject: two  blanks", b"Subject: two blanks"),
    "field folded": (b"Subject: two  blanks", b"Subject: two\r\n  blanks"),
    "folded with a line of blanks": (b"Subject: two  blanks", b"Subject: two\r\n \r\n blanks"),
    "field taken out": (b"To: bob@example.net\r\n", b""),
    "date changed": (b"Date: Thu, 1 Jan 2026", b"Date: Fri, 2 Jan 2026"),
    "encoding added": (b"X-Mailsec-Seal", b"Content-Transfer-Encoding: base64\r\nX-Mailsec-Seal"),
    "disposition added": (b"X-Mailsec-Seal", b"Content-Disposition: attachment\r\nX-Mailsec-Seal"),
    "content type taken out": (b"MIME-Version: 1.0\r\n", b""),
    "second From above": (b"X-Mailsec-Seal", b"From: evil@example.net\r\nX-Mailsec-Seal"),
    "second From in another spelling": (b"X-Mailsec-Seal", b"fROM : evil@example.net\r\nX-Mailsec-Seal"),
    "From with a NUL in its name": (b"X-Mailsec-Seal", b"Fr\0om: evil@example.net\r\nX-Mailsec-Seal"),
    "From behind a blank": (b"Message-ID:", b"x\r\n From: evil@example.net\r\nMessage-ID:"),
    "second Content-Type above": (b"X-Mailsec-Seal", b"Content-Type: text/html\r\nX-Mailsec-Seal"),
    "a Content field of no name": (b"X-Mailsec-Seal", b"Content-Whatever: x\r\nX-Mailsec-Seal"),
    "Sender added": (b"X-Mailsec-Seal", b"Sender: evil@example.net\r\nX-Mailsec-Seal"),
    "Cc added, for a mailbox that it was not for": (b"X-Mailsec-Seal", b"Cc: mallory@example.org\r\nX-Mailsec-Seal"),
    "second To": (b"X-Mailsec-Seal", b"To: mallory@example.org\r\nX-Mailsec-Seal"),
    "Reply-To added": (b"X-Mailsec-Seal", b"Reply-To: evil@example.net\r\nX-Mailsec-Seal"),
    "second result of ours": (b"X-Mailsec-Seal", b"Authentication-Results: gw.example.org; smime=fail\r\nX-Mailsec-Seal"),
    "result of ours in disguise": (b"X-Mailsec-Seal", b'Authentication-Results: "GW.example.org."(x); smime=pass\r\nX-Mailsec-Seal'),
    "fields put in another order": (b"To: bob@example.net\r\nSubject: two  blanks\r\n", b"Subject: two  blanks\r\nTo: bob@example.net\r\n"),
    "a line that is no field": (b"Message-ID:", b"From evil@example.net\r\nMessage-ID:"),
    "header ended early": (b"Message-ID:", b"\r\nMessage-ID:"),
    "instant changed": (b"v=1; t=1", b"v=1; t=2"),
    "another key": (b"k=0123456789abcdef", b"k=fedcba9876543210"),
    "unknown key": (b"k=0123456789abcdef", b"k=0000000000000000"),
    "two values": (b"v=1; t=", b"v=1; v=1; t="),
    "seal folded": (b"; k=0123", b";\r\n k=0123"),
    "seal twice": (b"X-Mailsec-Seal", b"X-Mailsec-Seal: v=1; t=1; k=0123456789abcdef; b=" + b"A" * 43 + b"=\r\nX-Mailsec-Seal"),
    "seal twice, once in disguise": (b"X-Mailsec-Seal", b"X-Mail\0sec-Seal: x\r\nX-Mailsec-Seal"),
    "seal cut": (b"=\r\nAuth", b"\r\nAuth"),
}


@pytest.mark.parametrize("attack", ALTERED)
def test_altered_seal_is_not_believed_and_is_removed(delivered, gate, attack):
    old, new = ALTERED[attack]
    assert old in delivered, attack
    octets = delivered.replace(old, new, 1)
    reading = read(octets)
    assert not reading.valid and reading.reason
    copy = gate.retrieve(octets)
    shown = copy.segments.join()
    assert not copy.sealed and copy.verdict is not None
    assert b"mailsec-seal" not in shown.partition(b"\r\n\r\n")[0].lower() or copy.enclosed
    # The verdict is what the octets deserve now, and nobody else's.
    if not copy.enclosed:
        assert verdict_of(shown) == copy.verdict.word.value


def test_seal_moved_to_another_message_is_not_believed(delivered, gate):
    seal, _, _ = delivered.partition(b"\r\n")
    forged = seal + b"\r\nAuthentication-Results: gw.example.org; smime=pass\r\nFrom: evil@example.net\r\n\r\nsend money\r\n"
    assert "another message" in read(forged).reason
    shown = gate.retrieve(forged).segments.join()
    assert verdict_of(shown) == "none" and b"Mailsec-Seal" not in shown


def test_whole_sealed_header_with_another_body_is_not_believed(delivered):
    assert not read(delivered.partition(b"\r\n\r\n")[0] + b"\r\n\r\nanother\r\n").valid


def seal_with(key: SealKey, at=EPOCH) -> bytes:
    return sealed(Segments.of(values.message(TEXT).octets), key, at, ID).join()


def test_replay_of_an_old_key_is_not_believed():
    """A key that has retired, or was stolen long after: nothing that it says is believed any more."""
    octets = seal_with(OLD, EPOCH - timedelta(days=800))
    assert "no longer believed" in read(octets).reason


@pytest.mark.parametrize("days", [-30, 30])
def test_seal_from_a_time_at_which_its_key_was_not_used(days):
    assert "at which its key was not used" in read(seal_with(KEY, EPOCH + timedelta(days=days))).reason


def test_seal_of_a_gateway_with_the_same_key_id_and_another_secret():
    stranger = SealKey(KEY.id, b"s" * 32, KEY.created_at, KEY.retires_at)
    assert not read(seal_with(stranger)).valid


def test_result_under_another_name_of_ours_is_not_covered_and_not_shown(delivered):
    """The host was renamed: results under the old name are not ours any more, and the seal covers another list of fields."""
    assert not read(delivered, authserv_id="new.example.org").valid


def test_message_with_a_line_that_is_no_field_is_not_sealed():
    """Somebody could read it as one of the covered fields."""
    octets = b"From: a@example.org\r\nFrom evil@example.net\r\n\r\nx\r\n"
    assert sealed(Segments.of(octets), KEY, EPOCH, ID).join() == octets


def test_bare_line_feed_in_a_field_that_no_seal_covers(delivered, gate):
    """ "X-Note: a<LF>Subject: b" is one field to us and two to many readers."""
    octets = b"X-Note: a\nSubject: forged\r\n" + delivered
    assert read(octets).valid, "by itself it would be believed"
    copy = gate.retrieve(octets, loose=True)
    assert not copy.sealed and copy.verdict is not None


def test_what_was_sealed_closed_is_opened_when_the_key_is_there(authority):
    key = authority.issue("alice@example.org", kind="rsa-2048")
    result = b"Authentication-Results: gw.example.org; smime=none\r\n"
    closed = sealed(Segments((result + encrypted(key),)), KEY, EPOCH, ID).join()

    def retrieve(*keys: SoftwareKey, who: Identity | None = ALICE) -> Copy:
        built_in = [RulesPlugin(RuleSet([])), MailboxPlugin()]
        gate = MemoryGateway(MemoryKeys(*keys), built_in=built_in, trust=MemoryTrust(authority.anchor), seals=MemorySealKeys(KEY, OLD))
        return gate.retrieve(closed, who=who)

    for copy in (retrieve(), retrieve(key, who=None), retrieve(authority.issue("alice@example.org", kind="rsa-2048"))):
        assert copy.sealed and copy.segments.join() == closed, "without the key it keeps the verdict that it has"
    opened = retrieve(key)
    assert not opened.sealed and opened.verdict is not None and opened.verdict.encrypted
    assert b"the secret" in opened.segments.join() and b"X-Mailsec-Seal" not in opened.segments.join()
    assert verdict_of(opened.segments.join()) == "none"


@pytest.mark.parametrize("origin", [Origin.INTERNET, Origin.SUBMISSION, Origin.TRUSTED])
def test_seal_is_believed_from_mailboxes_only(delivered, gate, origin):
    before = len(gate.spool.rows)
    reply = gate.send(delivered.replace(b"\r\nbody\r\n", b"\r\nBody\r\n"), origin, "alice@example.org", "alice@example.org")
    assert reply.code == 250
    (row,) = gate.spool.rows[before:]
    header = row.octets.partition(b"\r\n\r\n")[0]
    assert header.count(b"X-Mailsec-Seal") == (1 if origin is Origin.INTERNET else 0), "its own, or none"
    if origin is Origin.INTERNET:
        assert verdict_of(row.octets) == "fail", "judged again"


def test_message_that_comes_round_is_sealed_anew(delivered, gate):
    before = len(gate.spool.rows)
    assert gate.arrive(delivered).code == 250
    (row,) = gate.spool.rows[before:]
    assert row.octets.count(b"X-Mailsec-Seal") == 1 and read(row.octets).valid


@pytest.mark.parametrize("origin", [Origin.INTERNET, Origin.TRUSTED])
def test_message_that_comes_round_is_told_of_and_a_forged_seal_is_not(delivered, authority, origin):
    gate = gateway(authority)
    gate.send(delivered, origin, "alice@example.org", "alice@example.org")
    gate.send(delivered.replace(b"Subject: two  blanks", b"Subject: x"), origin, "alice@example.org", "alice@example.org")
    assert [event.name for event in gate.events] == ["came round", "received", "received"]
    assert gate.events[0].fields["delivered_at"].startswith("2026-01-01")


def test_secret_is_in_no_repr():
    assert "kkk" not in repr(KEY)


bodies = st.lists(st.sampled_from([b"\r\n", b"a", b"b\r\n", b"\r", b"\n", b".", b"\0"]), max_size=12).map(b"".join)


@given(bodies, st.integers(1, 7))
def test_octets_in_any_blocks_have_one_seal(body, size):
    octets = b"From: a@example.org\r\nSubject: x\r\n\r\n" + body
    whole = sealed(Segments.of(octets), KEY, EPOCH, ID).join()
    pieces = [octets[at : at + size] for at in range(0, len(octets), size)]
    assert sealed(Segments(tuple(pieces)), KEY, EPOCH, ID).join() == whole
    assert read(whole).valid


@given(bodies, bodies)
def test_bodies_that_differ_before_their_end_have_different_seals(one, other):
    head = b"From: a@example.org\r\n\r\n"
    first, second = (sealed(Segments.of(head + body), KEY, EPOCH, ID).join() for body in (one, other))
    if one.rstrip(b"\r\n") != other.rstrip(b"\r\n"):
        assert first.partition(b"\r\n")[0] != second.partition(b"\r\n")[0]
