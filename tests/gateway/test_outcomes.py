"""Rules through the whole pipeline: required, if-possible, never; refuse and hold; groups; what is committed and what is answered."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailsec.errors import CryptoError, KeyUnavailable, Refused, Reply, StorageFull, StoreError
from mailsec.hookspecs import hookimpl
from mailsec.model.address import Address
from mailsec.model.message import Message
from mailsec.model.queue import State
from mailsec.model.session import Envelope, Origin, Recipient
from mailsec.model.verdict import (
    Decision,
    LayerReport,
    LayerResult,
    Reason,
    Revocation,
    SignerReport,
    SmimeResult,
    SmimeWord,
    Verdict,
)
from mailsec.rules.ruleset import compile_rule
from mailsec.testing import values

OWN = "From: alice@example.org\nTo: bob@example.net\nSubject: hi\nMessage-ID: <1@example.org>\n\nbody\n"
FOREIGN = "From: carol@example.net\nTo: alice@example.org\nSubject: hi\n\nbody\n"
SIGNED = OWN.replace("Subject", 'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; boundary=x\nSubject')


# -- signing rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sign", "has_key", "code", "signed"),
    [
        ("required", True, 250, 1),
        ("if-possible", True, 250, 1),
        ("never", True, 250, 0),
        ("required", False, 550, 0),
        ("if-possible", False, 250, 0),
        ("never", False, 250, 0),
    ],
)
def test_sign(kit, sign, has_key, code, signed):
    gate = kit.Gate(keys=None if has_key else kit.FakeKeys(), rules=[compile_rule("all", sign=sign)])
    assert gate.submit(OWN).code == code
    assert len(gate.engine.signed) == signed and len(gate.rows) == (code == 250)


def test_refusal_tells_the_sender_why(kit):
    reply = kit.Gate(keys=kit.FakeKeys(), rules=[compile_rule("contracts", sign="required")]).submit(OWN)
    assert reply == Reply(550, "5.7.1", "a signature is required, and there is no signing key for alice@example.org")


def test_failure_hold_keeps_the_message_as_received_for_a_person(kit):
    gate = kit.Gate(keys=kit.FakeKeys(), rules=[compile_rule("all", sign="required", failure="hold")])
    assert gate.submit("Bcc: x@example.net\n" + OWN).code == 250
    (row,) = gate.spool.in_state(State.HELD)
    assert row.octets == ("Bcc: x@example.net\n" + OWN).replace("\n", "\r\n").encode()
    assert "no signing key" in row.entry.reason and row.entry.secret and row.entry.rule == "all" and row.entry.session


def test_encryption_that_is_required_is_refused_while_it_cannot_be_done(kit):
    """Promise 2: nothing meant to be encrypted leaves in clear."""
    gate = kit.Gate(rules=[compile_rule("all", encrypt="required")])
    reply = gate.submit(OWN)
    assert reply.code == 550 and "encrypt" in reply.text
    assert gate.rows == []


def test_default_is_to_sign_where_there_is_a_key(gate):
    assert gate.submit(OWN).code == 250
    assert len(gate.engine.signed) == 1


def test_rule_by_recipient_makes_groups(kit):
    gate = kit.Gate(rules=[compile_rule("plain", {"recipient": "@plain.example"}, sign="never"), compile_rule("all", sign="required")])
    assert gate.submit(OWN, "a@plain.example", "b@example.net", "c@plain.example").code == 250
    assert gate.spool.commits == 1
    assert [[str(one.address) for one in row.envelope.recipients] for row in gate.rows] == [
        ["a@plain.example", "c@plain.example"],
        ["b@example.net"],
    ]
    assert [row.rule for row in gate.rows] == ["plain", "all"]
    assert [row.id.rpartition(".")[2] for row in gate.rows] == ["1", "2"]
    assert len(gate.engine.signed) == 1


def test_one_copy_serves_recipients_with_the_same_plan(gate):
    gate.submit(OWN, *(f"r{number}@example.net" for number in range(50)))
    assert len(gate.engine.signed) == 1 and len(gate.rows) == 1


def test_rule_by_subject_listener_and_user(kit):
    rules = [
        compile_rule("edi", {"subject": r"^\[edi\]"}, sign="never"),
        compile_rule("user", {"user": "robot", "listener": "submission"}, sign="never"),
        compile_rule("all", sign="required"),
    ]
    gate = kit.Gate(rules=rules)
    gate.submit(OWN.replace("Subject: hi", "Subject: =?utf-8?Q?=5BEDI=5D_7?="))
    gate.submit(OWN, who=values.identity("robot", "alice@example.org"))
    assert gate.engine.signed == []
    assert [row.rule for row in gate.rows] == ["edi", "user"]
    gate.submit(OWN)
    assert len(gate.engine.signed) == 1


# -- signed already -----------------------------------------------------------------------------------------------------------


def shows(intact: bool, matches: bool | None, covers: bool = True, kind: str = "signed-data"):
    signer = SignerReport(intact, True, Revocation.NOT_CHECKED, matches, None, "sha256", "ecdsa", None)
    verdict = Verdict(SmimeWord.PASS, True, False, intact, True, Revocation.NOT_CHECKED, matches, True, (LayerReport(kind, (signer,)),))
    return lambda message: (SmimeResult(True, False, (LayerResult(kind, covers_all=covers),)), verdict)


@pytest.mark.parametrize(
    ("shown", "again"),
    [
        (shows(True, True), False),
        (shows(False, True), True),
        (shows(True, False), True),
        (shows(True, None), True),
        (shows(True, True, covers=False), True),
        (shows(True, True, kind="enveloped-data"), True),
        (lambda message: Refused("x"), None),
    ],
    ids=["intact and own", "broken", "of somebody else", "nobody's", "beside a footer", "encrypted", "unreadable"],
)
def test_only_an_intact_signature_of_the_author_is_not_signed_again(kit, shown, again):
    gate = kit.Gate(rules=[compile_rule("all", sign="required")])
    gate.engine.shown = shown
    reply = gate.submit(SIGNED)
    if again is None:
        assert reply.code == 550
    else:
        assert reply.code == 250 and bool(gate.engine.signed) is again


def test_message_that_is_not_signed_is_not_taken_apart(gate):
    gate.submit(OWN)
    assert gate.engine.looked_at == []


# -- keys that are out --------------------------------------------------------------------------------------------------------


def test_needed_key_that_is_out_is_committed_raw_and_answered_250(kit):
    gate = kit.Gate(rules=[compile_rule("all", sign="required")])
    gate.keys.out = KeyUnavailable("the card is out", stage="token:HSM 1")
    assert gate.submit("Bcc: x@example.net\n" + OWN).code == 250
    (row,) = gate.spool.in_state(State.RAW)
    assert row.entry.need == "token:HSM 1" and row.entry.secret
    assert row.octets.startswith(b"Bcc: x@example.net\r\n")

    gate.resume(row.entry.id)
    assert [one.state for one in gate.rows] == [State.RAW]

    gate.keys.out = None
    gate.runtime.advance(60)
    gate.resume(row.entry.id)
    (done,) = gate.spool.rows
    assert done.entry.state is State.READY and b"Signed: alice key" in done.octets and b"Bcc" not in done.octets
    assert done.entry.received_at == row.entry.received_at


def test_key_that_is_out_when_it_is_used_is_waited_for(kit):
    gate = kit.Gate(rules=[compile_rule("all", sign="required")])
    gate.engine.fails = KeyUnavailable("gone", stage="token:HSM 1")
    assert gate.submit(OWN).code == 250
    assert [(one.state, one.need) for one in gate.rows] == [(State.RAW, "token:HSM 1")]


def test_key_that_is_out_and_not_required_is_not_waited_for(gate):
    gate.keys.out = KeyUnavailable("the card is out", stage="token:HSM 1")
    assert gate.submit(OWN).code == 250
    assert [one.state for one in gate.rows] == [State.READY] and gate.engine.signed == []


def test_resumed_row_follows_the_rules_of_that_moment(kit):
    gate = kit.Gate(rules=[compile_rule("all", sign="required")])
    gate.keys.out = KeyUnavailable("the card is out", stage="token:HSM 1")
    gate.submit(OWN)
    gate.keys.out = None
    gate.keys.keys.clear()
    gate.resume(gate.rows[0].id)
    (report,) = gate.rows
    assert report.state is State.READY and str(report.envelope.recipients[0].address) == "alice@example.org"
    assert b"no signing key" in gate.ready[0] and gate.engine.signed == []


def test_resumed_row_with_a_session_that_was_tampered_with_is_held(kit):
    from dataclasses import replace

    gate = kit.Gate(rules=[compile_rule("all", sign="required")])
    gate.keys.out = KeyUnavailable("the card is out")
    gate.submit(OWN)
    spooled = gate.spool.spooled(gate.rows[0].id)
    gate.runtime.run(gate.pipeline.resume(replace(spooled, entry=replace(spooled.entry, session=b'{"origin":"submission"}'))))
    assert [one.state for one in gate.rows] == [State.HELD]


def test_signature_that_fails_defers(kit):
    gate = kit.Gate(rules=[compile_rule("all", sign="if-possible")])
    gate.engine.fails = CryptoError("no")
    assert gate.submit(OWN).code == 451
    assert gate.rows == []


# -- decisions and replies ----------------------------------------------------------------------------------------------------


class Decides:
    """Decides by the first letter of the recipient's address: d(eliver), r(efuse), h(old), l(ater)."""

    @hookimpl
    def decide_message(self, transaction):
        (recipient,) = transaction.envelope.recipients
        return {
            "d": Decision("deliver"),
            "r": Decision("refuse", Reply(550, "5.7.1", "refused one")),
            "h": Decision("hold", reason="look at it"),
            "l": Decision("defer", Reply(450, "4.7.1", "later")),
        }[str(recipient.address)[0]]


@pytest.mark.parametrize(
    ("origin", "recipients", "code", "states"),
    [
        (Origin.INTERNET, "d", 250, ["ready"]),
        (Origin.INTERNET, "h", 250, ["held"]),
        (Origin.INTERNET, "r", 550, []),
        (Origin.INTERNET, "rr", 550, []),
        (Origin.INTERNET, "l", 450, []),
        (Origin.INTERNET, "dr", 250, ["ready", "held"]),
        (Origin.INTERNET, "dl", 450, []),
        (Origin.INTERNET, "rl", 450, []),
        (Origin.INTERNET, "dhr", 250, ["ready", "held", "held"]),
        (Origin.SUBMISSION, "dr", 250, ["ready", "ready"]),
        (Origin.SUBMISSION, "hr", 250, ["held", "ready"]),
        (Origin.SUBMISSION, "dl", 250, ["ready", "raw"]),
        (Origin.TRUSTED, "ldl", 250, ["raw", "ready"]),
        (Origin.TRUSTED, "dlr", 250, ["ready", "raw", "ready"]),
        (Origin.TRUSTED, "lr", 450, []),
        (Origin.SUBMISSION, "l", 450, []),
        (Origin.TRUSTED, "rr", 550, []),
    ],
)
def test_reply_and_rows(kit, origin, recipients, code, states):
    gate = kit.Gate(Decides())
    addresses = [f"{letter}{number}@example.org" for number, letter in enumerate(recipients)]
    reply = gate.send(FOREIGN if origin is Origin.INTERNET else OWN, origin, "alice@example.org", *addresses)
    assert reply.code == code
    assert [row.state.value for row in gate.rows] == states
    assert gate.spool.commits == (1 if states else 0)


def test_refused_group_on_submission_is_told_to_the_sender(kit):
    gate = kit.Gate(Decides())
    gate.submit(OWN, "d@example.org", "r@example.org")
    report = gate.rows[1]
    assert report.envelope.reverse_path is None and str(report.envelope.recipients[0].address) == "alice@example.org"
    assert b"Final-Recipient: rfc822; r@example.org" in gate.ready[1] and b"refused one" in gate.ready[1]
    assert b"d@example.org" not in gate.ready[1] and b"body" not in gate.ready[1].partition(b"Subject: hi")[2]


def test_refused_group_whose_sender_wants_no_report_is_held(kit):
    gate = kit.Gate(Decides())
    recipients = (Recipient(Address.parse("d@example.org")), Recipient(Address.parse("r@example.org"), notify="NEVER"))
    envelope = Envelope(Address.parse("alice@example.org"), recipients)
    gate.runtime.run(gate.pipeline.receive(values.session(Origin.SUBMISSION), envelope, values.message(OWN).octets))
    assert [row.state for row in gate.rows] == [State.READY, State.HELD]


def test_refused_group_of_a_null_path_is_held_and_nobody_is_told(kit):
    gate = kit.Gate(Decides())
    gate.submit(OWN, "d@example.org", "r@example.org", sender=None)
    assert [row.state for row in gate.rows] == [State.READY, State.HELD]


def test_lmtp_answers_each_recipient(kit):
    gate = kit.Gate(Decides())
    envelope = values.envelope("alice@example.org", "d@example.org", "r@example.org", "l@example.org", "h@example.org")
    octets = values.message(OWN).octets
    replies = gate.runtime.run(gate.pipeline.receive_each(values.session(Origin.SUBMISSION), envelope, octets))
    assert [reply.code for reply in replies] == [250, 550, 450, 250]
    assert [row.state for row in gate.rows] == [State.READY, State.HELD]


@pytest.mark.parametrize(("error", "code"), [(StorageFull("no room"), 452), (StoreError("read-only"), 451)])
def test_spool_that_cannot_commit_is_no_250(gate, error, code):
    gate.spool.fail_with = error
    assert gate.submit(OWN).code == code
    gate.spool.fail_with = None
    assert gate.submit(OWN).code == 250


# -- inbound ------------------------------------------------------------------------------------------------------------------


def verdict(word: SmimeWord, trusted: bool = False, encrypted: bool = False):
    reason = () if trusted else (Reason("code", "path", "why not"),)
    return lambda message: (
        SmimeResult(True, encrypted, (LayerResult("enveloped-data" if encrypted else "signed-data"),)),
        Verdict(word, True, encrypted, True, trusted, Revocation.NOT_CHECKED, True, trusted, reasons=reason),
    )


@pytest.mark.parametrize("word", list(SmimeWord))
def test_verdict_is_told_on_top(gate, word):
    gate.engine.shown = verdict(word, word is SmimeWord.PASS)
    gate.arrive(FOREIGN)
    assert gate.ready[0].startswith(f"Authentication-Results: gw.example.org; smime={word.value}\r\nReceived: ".encode())
    assert gate.rows[0].verdict == word.value


@pytest.mark.parametrize(("failure", "code", "state"), [("refuse", 550, None), ("hold", 250, State.HELD)])
def test_rule_that_requires_trust_on_arrival(kit, failure, code, state):
    rule = compile_rule("strict", {"sender": "@example.net", "recipient": "alice@example.org"}, inbound="required", failure=failure)
    gate = kit.Gate(rules=[rule])
    gate.engine.shown = verdict(SmimeWord.POLICY)
    assert gate.arrive(FOREIGN).code == code
    assert [row.state for row in gate.rows] == ([state] if state else [])
    assert gate.arrive(FOREIGN, "dave@example.org").code == 250
    gate.engine.shown = verdict(SmimeWord.PASS, True)
    assert gate.arrive(FOREIGN).code == 250


def test_reply_to_a_stranger_does_not_say_what_was_wrong_inside(kit):
    gate = kit.Gate(rules=[compile_rule("strict", inbound="required")])
    gate.engine.shown = verdict(SmimeWord.POLICY)
    assert "why not" not in gate.arrive(FOREIGN).text


def test_encrypted_message_from_internet_is_answered_before_it_is_processed(kit):
    """Promise 6: what is inside changes no reply; the decision that refuses it comes after the 250, and holds."""

    class Refuses:
        @hookimpl
        def decide_message(self, verdict):
            return Decision("refuse", reason="seen inside")

    gate = kit.Gate(Refuses())
    gate.engine.shown = verdict(SmimeWord.POLICY, encrypted=True)
    assert gate.arrive(FOREIGN).code == 250
    (row,) = gate.spool.in_state(State.RAW)
    assert (row.entry.need, row.entry.sensitive, row.entry.secret) == ("", True, True)
    gate.resume(row.entry.id)
    held, report = gate.spool.rows
    assert held.entry.state is State.HELD and held.entry.sensitive
    assert str(report.entry.envelope.recipients[0].address) == "postmaster@example.org" and b"seen inside" in report.octets


def test_encrypted_message_is_delivered_after_it_was_processed(gate):
    gate.engine.shown = verdict(SmimeWord.POLICY, encrypted=True)
    gate.arrive(FOREIGN)
    assert gate.ready == []
    gate.resume(gate.rows[0].id)
    assert len(gate.ready) == 1 and gate.rows[0].sensitive


def opened(clear: str):
    result, told = verdict(SmimeWord.POLICY, encrypted=True)(None)
    return lambda message: (replace(result, clear=values.message(clear).octets), told)


def test_forged_result_within_the_encryption_never_arrives(gate):
    gate.engine.shown = opened("From: carol@example.net\nAuthentication-Results: gw.example.org; smime=pass\nSubject: hi\n\nbody\n")
    gate.arrive(FOREIGN)
    gate.resume(gate.rows[0].id)
    (octets,) = gate.ready
    assert octets.count(b"Authentication-Results:") == 1 and b"smime=pass" not in octets
    assert octets.endswith(b"From: carol@example.net\r\nSubject: hi\r\n\r\nbody\r\n") and gate.rows[0].secret


def test_folded_line_on_top_within_the_encryption_is_no_rest_of_our_field(gate):
    gate.engine.shown = opened(" ; smime=pass\nFrom: carol@example.net\n\nbody\n")
    gate.arrive(FOREIGN)
    gate.resume(gate.rows[0].id)
    assert gate.rows[0].state is State.HELD and b"smime=pass" not in b"".join(gate.ready)


def test_row_that_waits_knows_its_session(gate):
    from mailsec.gateway.waiting import read_session, write_session

    session = values.session(Origin.SUBMISSION)
    assert read_session(write_session(session)) == session


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b'{"tls":1}', b"[" * 100_000, b"\xff"])
def test_session_that_was_not_written_by_us_is_refused(data):
    from mailsec.errors import Tampered
    from mailsec.gateway.waiting import read_session

    with pytest.raises(Tampered):
        read_session(data)


# -- the log and explain ------------------------------------------------------------------------------------------------------


def test_one_event_for_each_message_and_no_subject_in_it(gate):
    gate.submit(OWN, "bob@example.net", "carol@example.net")
    (event,) = gate.events
    assert event.name == "received" and "hi" not in map(str, event.fields.values())
    fields = dict(event.fields)
    assert fields["id"] == gate.rows[0].id
    assert fields["message_id"] == "<1@example.org>" and fields["reverse_path"] == "alice@example.org"
    assert fields["recipients"] == ["bob@example.net", "carol@example.net"] and fields["size"] == len(OWN) + OWN.count("\n")
    assert fields["rule"] == "default" and fields["action"] == "deliver" and fields["reply"] == 250


def test_refusal_is_an_event_with_its_reason(kit):
    gate = kit.Gate(keys=kit.FakeKeys(), rules=[compile_rule("all", sign="required")])
    gate.submit(OWN)
    assert (gate.events[0].fields["reply"], gate.events[0].fields["rule"]) == (550, "all")
    assert "no signing key" in gate.events[0].fields["reason"]


def test_message_that_cannot_be_kept_is_an_event_too(gate):
    gate.spool.fail_with = StorageFull("no room")
    gate.submit(OWN)
    assert [(event.fields["reply"], event.fields["reason"]) for event in gate.events] == [(452, "no room")]


def test_message_id_that_we_add_is_the_one_in_row_and_log(gate):
    gate.submit(OWN.replace("Message-ID: <1@example.org>\n", ""))
    added = gate.events[0].fields["message_id"]
    assert added and gate.rows[0].message_id == added and f"Message-ID: {added}\r\n".encode() in gate.ready[0]


def test_explain_tells_each_step_and_does_nothing(kit):
    gate = kit.Gate(rules=[compile_rule("contracts", sign="required")])
    transaction = gate.transaction(OWN, Origin.SUBMISSION, "alice@example.org")
    explanation = gate.runtime.run(gate.pipeline.explain(transaction))
    assert [step.name for step in explanation.steps] == ["identity", "candidates", "plan", "settings", "decision"]
    assert explanation.steps[2].text == "sign (detached) with alice key" and explanation.steps[2].rule == "contracts"
    assert explanation.outcomes[0].decision.action == "deliver"
    assert gate.engine.signed == [] and gate.rows == [] and gate.events == []


def test_explain_tells_why_not(kit):
    gate = kit.Gate(keys=kit.FakeKeys(), rules=[compile_rule("contracts", sign="required")])
    explanation = gate.runtime.run(gate.pipeline.explain(gate.transaction(OWN, Origin.SUBMISSION, "alice@example.org")))
    reason = explanation.steps[2].reason
    assert reason is not None and reason.code == "no-signing-key" and "import or issue" in reason.hint
    refused = gate.runtime.run(gate.pipeline.explain(gate.transaction("\n", Origin.SUBMISSION, "alice@example.org")))
    assert refused.steps[-1].name == "decision" and "no From field" in refused.steps[-1].text


def test_process_yields_what_receive_would_commit(gate):
    async def collect():
        return [outcome async for outcome in gate.pipeline.process(gate.transaction(OWN, Origin.SUBMISSION, "alice@example.org"))]

    (outcome,) = gate.runtime.run(collect())
    assert outcome.segments.join().startswith(b"Received: ") and gate.rows == []


def test_message_value_is_what_plugins_see(gate):
    assert isinstance(gate.transaction(OWN, Origin.INTERNET, None).message, Message)
