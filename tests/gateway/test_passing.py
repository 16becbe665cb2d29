"""Proxy mode: the client is told what the next hop says; what cannot be passed on at once goes by the spool, and nothing in between."""

from __future__ import annotations

import pytest

from mailsec.errors import KeyUnavailable, Reply, Unavailable
from mailsec.hookspecs import hookimpl
from mailsec.model.queue import State
from mailsec.model.session import Origin
from mailsec.model.settings import ListenerSettings
from mailsec.model.verdict import Decision, Revocation, SmimeResult, SmimeWord, Verdict
from mailsec.rules.ruleset import compile_rule
from mailsec.testing import values

OWN = "From: alice@example.org\nTo: bob@example.net\nSubject: hi\n\nbody\n"
FOREIGN = "From: carol@example.net\nTo: alice@example.org\nSubject: hi\n\nbody\n"
TAKEN = Reply(250, "2.0.0", "queued as X1")
BUSY = Reply(450, "4.2.1", "busy")
NOBODY = Reply(550, "5.1.1", "nobody")


class NextHop:
    """Says `replies` to the recipients; None: it is for the spool."""

    def __init__(self, *replies):
        self.replies = replies
        self.entries = []

    async def forward(self, entry):
        self.entries.append((entry, entry.segments.join()))
        if not self.replies:
            return None
        if isinstance(self.replies[0], Exception):
            raise self.replies[0]
        return self.replies


class Decides:
    @hookimpl
    def decide_message(self, transaction):
        action = str(transaction.envelope.recipients[0].address)[0]
        return {"h": Decision("hold", reason="look"), "r": Decision("refuse", NOBODY)}.get(action, Decision("deliver"))


def proxy(kit, hop, *plugins, **more):
    listeners = tuple(
        ListenerSettings(origin.value, "127.0.0.1:25", "smtp", origin, senders=("@example.org",), proxy=True)
        for origin in (Origin.SUBMISSION, Origin.TRUSTED, Origin.INTERNET)
    )
    gate = kit.Gate(*plugins, listeners=listeners, **more)
    gate.pipeline.forwarder = hop
    return gate


def test_promise_1_250_is_the_next_hops_and_nothing_is_spooled(kit):
    hop = NextHop(TAKEN)
    gate = proxy(kit, hop, rules=[compile_rule("all", sign="required")])
    reply = gate.submit(OWN)
    assert reply.code == 250 and "queued as X1" in reply.text
    assert gate.rows == [] and gate.spool.commits == 0
    ((_, octets),) = hop.entries
    assert b"Signed: alice key" in octets and octets.startswith(b"Received:")


@pytest.mark.parametrize("said", [BUSY, NOBODY])
def test_what_the_next_hop_refuses_is_refused_and_nothing_is_kept(kit, said):
    gate = proxy(kit, NextHop(said, said))
    assert gate.submit(OWN, "a@example.net", "b@example.net") == said
    assert gate.rows == []


def test_of_several_refusals_one_that_passes_is_told(kit):
    """A client that is told 5yz would forget them all."""
    gate = proxy(kit, NextHop(NOBODY, BUSY))
    assert gate.submit(OWN, "a@example.net", "b@example.net") == BUSY


def test_whom_the_next_hop_does_not_take_beside_others_is_the_relays(kit):
    gate = proxy(kit, NextHop(TAKEN, BUSY, NOBODY))
    assert gate.submit(OWN, "a@example.net", "b@example.net", "c@example.net").code == 250
    (row,) = gate.rows
    assert row.state is State.READY and [str(one.address) for one in row.envelope.recipients] == ["b@example.net", "c@example.net"]


def test_lmtp_has_a_reply_for_each_and_nothing_is_spooled(kit):
    gate = proxy(kit, NextHop(TAKEN, BUSY, NOBODY))
    envelope = values.envelope("alice@example.org", "a@example.net", "b@example.net", "c@example.net")
    replies = gate.runtime.run(gate.pipeline.receive_each(values.session(Origin.SUBMISSION), envelope, values.message(OWN).octets))
    assert replies == (TAKEN, BUSY, NOBODY) and gate.rows == []


def test_what_the_next_hop_cannot_get_at_once_goes_by_the_spool(kit):
    gate = proxy(kit, NextHop())
    assert gate.submit(OWN).code == 250
    assert [row.state for row in gate.rows] == [State.READY]


def test_an_error_on_the_way_is_no_250(kit):
    gate = proxy(kit, NextHop(Unavailable("gone")))
    assert gate.submit(OWN).code == 451 and gate.rows == []


def test_what_waits_for_a_token_goes_by_the_spool(kit):
    hop = NextHop(TAKEN)
    gate = proxy(kit, hop, rules=[compile_rule("all", sign="required")])
    gate.keys.out = KeyUnavailable("the card is out", stage="token:x")
    assert gate.submit(OWN).code == 250
    assert [row.state for row in gate.rows] == [State.RAW] and hop.entries == []


@pytest.mark.parametrize(("recipients", "states"), [("h", ["held"]), ("dh", ["ready", "held"]), ("dr", ["ready", "ready"])])
def test_what_is_held_or_has_several_ends_goes_by_the_spool(kit, recipients, states):
    hop = NextHop(TAKEN)
    gate = proxy(kit, hop, Decides())
    assert gate.submit(OWN, *(f"{letter}@example.net" for letter in recipients)).code == 250
    assert [row.state.value for row in gate.rows] == states and hop.entries == []


def test_refused_by_a_rule_is_refused_before_anybody_is_asked(kit):
    hop = NextHop(TAKEN)
    gate = proxy(kit, hop, Decides())
    assert gate.submit(OWN, "r@example.net") == NOBODY
    assert hop.entries == [] and gate.rows == []


def test_promise_2_what_came_encrypted_is_never_passed_on_here(kit):
    hop = NextHop(TAKEN)
    gate = proxy(kit, hop)
    encrypted = Verdict(SmimeWord.NONE, False, True, None, None, Revocation.NOT_CHECKED, None, False)
    gate.engine.shown = lambda message: (SmimeResult(signed=False, encrypted=True), encrypted)
    assert gate.arrive(FOREIGN).code == 250
    assert [row.state for row in gate.rows] == [State.RAW] and hop.entries == []


def test_signed_mail_from_outside_is_verified_and_passed_on(kit):
    hop = NextHop(TAKEN)
    gate = proxy(kit, hop)
    assert gate.arrive(FOREIGN).code == 250
    assert gate.rows == [] and b"smime=none" in hop.entries[0][1]


def test_a_listener_that_is_no_proxy_spools(kit):
    hop = NextHop(TAKEN)
    gate = kit.Gate()
    gate.pipeline.forwarder = hop
    assert gate.submit(OWN).code == 250
    assert hop.entries == [] and len(gate.rows) == 1
