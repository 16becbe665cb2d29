"""Promise 1, as far as the pipeline can show it: after a 250 every recipient is in a row, or its sender is told; after anything else, none is."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.errors import Reply, StorageFull
from mailsec.hookspecs import hookimpl
from mailsec.model.address import Address
from mailsec.model.queue import State
from mailsec.model.session import Envelope, Origin, Recipient
from mailsec.model.verdict import Decision
from mailsec.testing import values
from mailsec.testing.gateway import MemoryGateway

TEXT = "From: alice@example.org\nTo: bob@example.net\n\nbody\n"


class ByLetter:
    """Decides by the first letter of each recipient's address."""

    @hookimpl
    def decide_message(self, transaction):
        (recipient,) = transaction.envelope.recipients
        return {
            "d": Decision("deliver"),
            "r": Decision("refuse", Reply(550, "5.7.1", "no")),
            "h": Decision("hold", reason="look"),
            "l": Decision("defer", Reply(450, "4.7.1", "later")),
        }[recipient.address.local_part[0]]


def covered(gate: MemoryGateway) -> list[str]:
    """Every recipient that is in a row or in a report, as often as it is."""
    found = []
    for row in gate.spool.rows:
        if row.entry.rule == "report":
            reported = [line for line in row.octets.decode().splitlines() if line.startswith("Final-Recipient:")]
            found += [line.rpartition(" ")[2] for line in reported]
        else:
            found += [str(one.address) for one in row.entry.envelope.recipients]
    return sorted(found)


LETTERS = st.text("drhl", min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(LETTERS, st.sampled_from([Origin.SUBMISSION, Origin.TRUSTED, Origin.INTERNET]), st.booleans(), st.lists(st.booleans(), min_size=6))
def test_every_recipient_of_a_250_is_somewhere_and_of_anything_else_nowhere(letters, origin, null_path, silent):
    gate = MemoryGateway(ByLetter())
    recipients = tuple(
        Recipient(Address(f"{letter}{number}", "example.org"), notify="NEVER" if silent[number] else "")
        for number, letter in enumerate(letters)
    )
    envelope = Envelope(None if null_path else Address("alice", "example.org"), recipients)
    reply = gate.runtime.run(gate.pipeline.receive(values.session(origin), envelope, values.message(TEXT).octets))
    everybody = sorted(str(one.address) for one in recipients)
    if reply.code == 250:
        assert covered(gate) == everybody
        for row in gate.spool.in_state(State.READY):
            assert row.entry.rule == "report" or all(one.address.local_part[0] == "d" for one in row.entry.envelope.recipients)
    else:
        assert gate.rows == [] and reply.code >= 400
        assert "l" in letters or set(letters) == {"r"}


@settings(max_examples=80, deadline=None)
@given(LETTERS, st.sampled_from([Origin.SUBMISSION, Origin.INTERNET]))
def test_lmtp_every_recipient_with_a_250_is_somewhere_and_the_others_nowhere(letters, origin):
    gate = MemoryGateway(ByLetter())
    envelope = values.envelope("alice@example.org", *(f"{letter}{number}@example.org" for number, letter in enumerate(letters)))
    replies = gate.runtime.run(gate.pipeline.receive_each(values.session(origin), envelope, values.message(TEXT).octets))
    taken = sorted(str(one.address) for one, reply in zip(envelope.recipients, replies, strict=True) if reply.code == 250)
    assert covered(gate) == taken


def test_commit_that_fails_is_never_answered_with_250():
    gate = MemoryGateway()
    gate.spool.fail_with = StorageFull("no room")
    assert gate.arrive(TEXT).code == 452
    gate.spool.fail_with = None
    assert gate.arrive(TEXT).code == 250 and len(gate.rows) == 1
