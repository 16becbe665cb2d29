"""Promise 5: whatever comes in, the whole pipeline answers in time that grows with its size, with a reply of ours and never a traceback."""

from __future__ import annotations

import base64
import dataclasses
import re
import time
from pathlib import Path

import pytest

from mailsec.builtin.rules import RulesPlugin
from mailsec.errors import Reply
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.octets import BytesOctets
from mailsec.model.session import Origin
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway

AUTHORITY = Authority()
KEYS = MemoryKeys(AUTHORITY.issue("alice@example.org"))
FROM = b"From: alice@example.org\r\nTo: b@example.net\r\n"
MIB = 1 << 20


def fill(piece: bytes, octets: int = MIB) -> bytes:
    return piece * (octets // len(piece))


def nested(depth: int) -> bytes:
    opening = b"".join(b"Content-Type: multipart/signed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(depth))
    return FROM + opening + b"\r\nx\r\n"


def smime(body: bytes) -> bytes:
    kind = b"Content-Type: application/pkcs7-mime; smime-type=signed-data\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    return FROM + kind + base64.encodebytes(body).replace(b"\n", b"\r\n")


SIGNED = b"\x30\x80\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02\xa0\x80\x30\x80\x02\x01\x01\x31\x00\x30\x80"
HOSTILE = {
    "fields": FROM + fill(b"X: y\r\n"),
    "one-endless-field": FROM + b"X: " + fill(b"y") + b"\r\n\r\n",
    "folded-lines": FROM + b"X: y\r\n" + fill(b" \r\n") + b"\r\n",
    "encoded-words": FROM + b"Subject: " + fill(b"=?utf-8?q?a?= ", 200_000) + b"\r\n\r\n",
    "unended-encoded-words": FROM + b"Subject: " + fill(b"=?", 200_000) + b"\r\n\r\n",
    "addresses": b"From: " + fill(b"a@b.example, ", 200_000) + b"\r\n\r\n",
    "comments": b"From: " + fill(b"(", 200_000) + b"\r\n\r\n",
    "quoted-strings": b"From: " + fill(b'"\\', 200_000) + b"\r\n\r\n",
    "angles": b"From: " + fill(b"<", 200_000) + b"\r\n\r\n",
    "forged-results": FROM + fill(b"Authentication-Results: gw.example.org; smime=pass\r\n", 90_000) + b"\r\n",
    "results-of-comments": FROM + b"Authentication-Results: " + fill(b"(a", 200_000) + b"\r\n\r\n",
    "parameters": FROM + b"Content-Type: multipart/signed" + fill(b"; a*0*=''%41", 200_000) + b"\r\n\r\n",
    "nested-1000": nested(1000),
    "nested-10000": nested(10_000),
    "boundaries": FROM + b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + fill(b"--b\r\n", 2 * MIB),
    "almost-boundaries": FROM
    + b"Content-Type: multipart/signed; boundary="
    + b"b" * 70
    + b"\r\n\r\n"
    + fill(b"--" + b"b" * 69 + b"\r\n", 2 * MIB),
    "two-character-lines": FROM + b"Content-Type: multipart/signed; boundary=b\r\n\r\n--b\r\n\r\n" + fill(b"-\r\n", 2 * MIB) + b"--b--\r\n",
    "trailing-blanks": FROM + b"\r\n" + fill(b"x" + b" " * 60 + b"\r\n", 2 * MIB),
    "blanks": FROM + b"\r\n" + fill(b" ", 2 * MIB) + b"\r\n",
    "base64-that-is-none": smime(b"")[:-2] + fill(b"=", MIB),
    "ber-depth": smime(fill(b"\x30\x80", 200_000)),
    "ber-chunks": smime(SIGNED + b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01\xa0\x80\x24\x80" + fill(b"\x04\x01x", MIB)),
    "ber-zeroes": smime(SIGNED + fill(b"\x00", MIB)),
    "ber-oid": smime(b"\x30\x83\x03\x00\x00\x06\x82\xff\xff" + b"\x81" * 65_000),
}


def gateway(**limits) -> MemoryGateway:
    rules = RulesPlugin(RuleSet([compile_rule("all", sign="required")]))
    changes = {"limits": dataclasses.replace(DEFAULT_LIMITS, **limits)} if limits else {}
    return MemoryGateway(KEYS, built_in=[rules], trust=MemoryTrust(AUTHORITY.anchor), **changes)


def answer(gate: MemoryGateway, origin: Origin, octets: bytes) -> Reply:
    """What a client hears that sends this."""
    sender, recipient = ("alice@example.org", "b@example.net") if origin.outbound else ("c@example.net", "alice@example.org")
    return gate.runtime.run(gate.pipeline.receive(values.session(origin), values.envelope(sender, recipient), BytesOctets(octets)))


@pytest.mark.parametrize("origin", [Origin.SUBMISSION, Origin.TRUSTED, Origin.INTERNET])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_message_is_answered_in_little_time(name, origin):
    gate = gateway()
    began = time.process_time()
    reply = answer(gate, origin, HOSTILE[name])
    spent = time.process_time() - began
    assert reply.code in (250, 550, 552, 554), reply
    assert spent < 1.5, spent
    assert gate.runtime.failures == []


def test_every_limit_has_a_name_a_default_and_its_attack():
    page = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()
    for field in dataclasses.fields(Limits):
        assert getattr(DEFAULT_LIMITS, field.name) > 0
        assert re.search(rf"^\| `{field.name}` \| [0-9,.]+ \| \S.*\S \|$", page, re.MULTILINE), field.name


def test_message_over_a_limit_is_refused_and_the_log_says_what_was_too_much():
    gate = gateway(header_fields=10)
    reply = answer(gate, Origin.INTERNET, FROM + b"X: y\r\n" * 20 + b"\r\nbody\r\n")
    assert reply.code in (552, 554)
    (event,) = [event for event in gate.events if event.name == "received"]
    assert "more than 10 fields" in str(event.fields["reason"])
