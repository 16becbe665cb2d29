"""Signing oracles: nobody gets a signature for a name that is not theirs (promise 8). Each test is named for its attack."""

from __future__ import annotations

import pytest

from mailsec.model.session import Origin
from mailsec.rules.ruleset import compile_rule
from mailsec.testing import values

BODY = "To: bob@example.net\nSubject: hello\nDate: Thu, 1 Jan 2026 12:00:00 +0000\nMessage-ID: <1@example.org>\n\nhello\n"
FROM_ALICE = "From: Alice <alice@example.org>\n" + BODY


def test_own_message_on_submission_is_signed(gate):
    assert gate.submit(FROM_ALICE).code == 250
    assert [name for name, _ in gate.engine.signed] == ["alice key"]
    assert b"Signed: alice key\r\nFrom: Alice" in gate.ready[0]


def test_forged_own_domain_from_on_internet_is_never_signed(kit):
    gate = kit.Gate(rules=[compile_rule("all", sign="required")])
    assert gate.arrive(FROM_ALICE, "alice@example.org", sender="alice@example.org").code == 250
    assert gate.engine.signed == []


def test_forged_own_domain_from_on_internet_with_a_login_is_never_signed(kit):
    gate = kit.Gate(rules=[compile_rule("all", sign="required")])
    assert gate.arrive(FROM_ALICE, "alice@example.org", sender="alice@example.org", who=values.identity()).code == 250
    assert gate.engine.signed == []


REFUSED_HEADERS = {
    "From of somebody else": "From: bob@example.org\n",
    "two From fields": "From: alice@example.org\nFrom: bob@example.org\n",
    "two From fields, both own": "From: alice@example.org\nFrom: alice@example.org\n",
    "two addresses in From": "From: alice@example.org, bob@example.org\n",
    "two own addresses in From": "From: alice@example.org, Alice <alice@example.org>\n",
    "From with a blank before the colon": "From: alice@example.org\nFrom : bob@example.org\n",
    "From in capitals": "From: alice@example.org\nFROM: bob@example.org\n",
    "folded From": "From: alice@example.org,\n bob@example.org\n",
    "address in a display name": "From: alice@example.org <bob@example.org>\n",
    "two angle addresses": "From: <alice@example.org> <bob@example.org>\n",
    "group": "From: friends: alice@example.org;\n",
    "no From": "",
    "empty From": "From:\n",
    "unreadable From": "From: alice\n",
    "Sender of somebody else": "From: alice@example.org\nSender: bob@example.org\n",
    "two addresses in Sender": "From: alice@example.org\nSender: alice@example.org, alice@example.org\n",
    "unreadable Sender": "From: alice@example.org\nSender: <<bob@example.org>\n",
    "Resent-From of somebody else": "From: alice@example.org\nResent-From: bob@example.org\n",
    "Resent-Sender of somebody else": "From: alice@example.org\nResent-Sender: bob@example.org\n",
    "second Resent-From of somebody else": "Resent-From: alice@example.org\nResent-From: bob@example.org\nFrom: alice@example.org\n",
}


@pytest.mark.parametrize("origin", [Origin.SUBMISSION, Origin.TRUSTED])
@pytest.mark.parametrize("header", REFUSED_HEADERS.values(), ids=REFUSED_HEADERS.keys())
@pytest.mark.parametrize("sign", ["required", "never"])
def test_name_that_the_identity_may_not_use_is_refused_whatever_the_rule_says(kit, origin, header, sign):
    gate = kit.Gate(rules=[compile_rule("all", sign=sign)])
    reply = gate.send(header + BODY, origin, "alice@example.org")
    assert reply.code == 550, reply
    assert gate.engine.signed == [] and gate.rows == []


def test_user_a_with_mail_from_b_on_submission_is_refused(gate):
    session = values.session(Origin.SUBMISSION)
    reply = gate.pipeline.admit_sender(session, values.envelope("bob@example.org", "x@example.net").reverse_path)
    assert reply is not None and (reply.code, reply.enhanced) == (550, "5.7.1")
    assert gate.submit(FROM_ALICE, sender="bob@example.org").code == 550
    assert gate.engine.signed == []


def test_mail_from_a_and_from_b_on_trusted_is_refused(gate):
    assert gate.trust(FROM_ALICE, sender="bob@example.org").code == 550
    assert gate.engine.signed == [] and gate.rows == []


def test_mail_from_a_and_from_a_on_trusted_is_signed(gate):
    assert gate.trust(FROM_ALICE).code == 250
    assert [name for name, _ in gate.engine.signed] == ["alice key"]


def test_null_path_on_trusted_is_relayed_and_never_signed(kit):
    gate = kit.Gate(rules=[compile_rule("all", sign="required")])
    assert gate.trust(FROM_ALICE, sender=None).code == 250
    assert gate.engine.signed == [] and len(gate.ready) == 1


def test_null_path_on_submission_is_signed_for_who_logged_in(gate):
    assert gate.submit(FROM_ALICE, sender=None).code == 250
    assert [name for name, _ in gate.engine.signed] == ["alice key"]


def test_submission_without_a_login_is_refused(gate):
    session = values.session(Origin.SUBMISSION, identity=None)
    assert gate.pipeline.admit_sender(session, None).code == 530
    assert gate.submit(FROM_ALICE, identity=None).code == 530
    assert gate.engine.signed == [] and gate.rows == []


def test_key_of_somebody_else_that_a_store_offers_is_not_used(kit):
    class Careless(kit.FakeKeys):
        async def keys_for(self, address, usage):
            return self.keys

    gate = kit.Gate(keys=Careless(kit.FakeKey("bob key", "bob@example.org")))
    assert gate.submit(FROM_ALICE).code == 250
    assert gate.engine.signed == []


def test_rule_that_names_the_key_of_somebody_else_does_not_get_it(kit):
    keys = kit.FakeKeys(kit.FakeKey("alice key", "alice@example.org"), kit.FakeKey("bob key", "bob@example.org"))
    gate = kit.Gate(keys=keys, rules=[compile_rule("all", sign="required", signer="bob key")])
    reply = gate.submit(FROM_ALICE)
    assert reply.code == 550 and "bob key" in reply.text
    assert gate.engine.signed == []


def test_case_of_an_address_makes_no_difference(gate):
    assert gate.submit("From: ALICE@Example.ORG\n" + BODY).code == 250
    assert len(gate.engine.signed) == 1


def test_domain_pattern_of_an_identity_covers_its_addresses(kit):
    gate = kit.Gate(keys=kit.FakeKeys(kit.FakeKey("domain key", "@example.org")))
    who = values.identity("robot", "@example.org")
    assert gate.submit("From: any@example.org\n" + BODY, sender="other@example.org", who=who).code == 250
    assert gate.submit("From: any@sub.example.org\n" + BODY, sender="other@example.org", who=who).code == 550
    assert len(gate.engine.signed) == 1


def test_reply_does_not_repeat_what_the_sender_wrote(gate):
    reply = gate.submit('From: "x\\r\\n250 fine" <mallory@evil.example>\n' + BODY)
    assert "mallory" not in reply.text and "\r" not in reply.text
