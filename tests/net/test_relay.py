"""The relay against next hops that take, refuse, hang and vanish: every row is delivered, reported, or still there (promise 1)."""

from __future__ import annotations

import dataclasses
import email
import socket
import threading
import time

import pytest
import structlog

from mailsec.model.queue import RecipientState, State
from mailsec.model.settings import NextHop
from mailsec.store.spool_queue import list_queue
from tests.net.relay_gateway import BODY, Gateway, entry
from tests.peers.gateway import until


def test_a_message_arrives_octet_for_octet_and_leaves_the_spool(gateway, peers):
    peer = peers()
    one = gateway(peer).start()
    large = b"Subject: large\r\n\r\n" + b"0123456789" * 7 + b"\r\n" + b".line of text\r\n" * 100_000
    one.commit(entry("a"), entry("b", large))
    until(lambda: len(peer.messages) == 2 and not one.queue())
    assert sorted(octets for _, _, octets in peer.messages) == sorted([BODY, large])
    assert {mail for mail, _, _ in peer.messages} == {"<alice@example.org>"}


def test_a_decrypted_row_is_delivered_in_clear_from_its_sealed_file(gateway, peers):
    peer = peers()
    one = gateway(peer)
    one.start()
    large = b"Subject: large\r\n\r\n" + b"line of text\r\n" * 50_000
    one.commit(entry("a", large, secret=True))
    until(lambda: not one.queue())
    assert peer.messages[0][2] == large


def test_connections_are_kept_and_used_again(gateway, peers):
    peer = peers()
    one = gateway(peer).start()
    for number in range(10):
        one.commit(entry(f"{number}"))
        until(lambda number=number: one.relay.delivered == number + 1)
    assert peer.connections == 1


def test_under_load_several_connections_and_no_more_than_allowed(gateway, peers):
    peer = peers(slow=0.05)
    one = gateway(peer, connections_per_hop=4).start()
    one.commit(*(entry(f"{number}") for number in range(40)))
    until(lambda: len(peer.messages) == 40 and not one.queue())
    assert 2 <= peer.connections <= 4


def test_an_unused_connection_is_closed_with_quit(gateway, peers):
    peer = peers()
    one = gateway(peer, idle_timeout=0.1).start()
    one.commit(entry("a"))
    until(lambda: len(peer.messages) == 1)
    until(lambda: not one.relay._hops or not next(iter(one.relay._hops.values()))._connections)


def test_a_next_hop_that_closed_an_idle_connection_costs_no_delay(gateway, peers):
    peer = peers()
    one = gateway(peer, retry_first=3600).start()
    one.commit(entry("a"))
    until(lambda: len(peer.messages) == 1)
    peer.drop_all()
    one.commit(entry("b"))
    until(lambda: len(peer.messages) == 2 and not one.queue())


def test_recipients_of_one_next_hop_travel_together_and_others_apart(gateway, peers):
    main, other = peers(), peers()
    routes = (("b.example", NextHop("smtp", "127.0.0.1", other.port, tls="none")),)
    one = gateway(main, routes=routes).start()
    one.commit(entry("m", recipients=("x@a.example", "y@B.example", "z@c.example")))
    until(lambda: not one.queue())
    assert [to for _, to, _ in main.messages] == [["x@a.example", "z@c.example"]]
    assert [to for _, to, _ in other.messages] == [["y@B.example"]]


def test_lmtp_over_a_unix_socket_answers_for_each_recipient(gateway, peers, tmp_path):
    peers({"END b@x.example": "452 4.2.2 over quota"}, path=str(tmp_path / "lmtp"), lmtp=True)
    one = gateway(NextHop("lmtp", path=str(tmp_path / "lmtp"), tls="none"), retry_first=60).start()
    one.commit(entry("m", recipients=("a@x.example", "b@x.example")))
    until(lambda: one.queue()["m"].attempts >= 1)
    states = [(address, state) for address, state, _ in one.queue()["m"].recipients]
    assert states == [("a@x.example", RecipientState.DELIVERED), ("b@x.example", RecipientState.WAITING)]
    assert "over quota" in one.queue()["m"].recipients[1][2]


# -- refusals


def test_4xx_for_some_recipients_is_tried_again_for_those_only(gateway, peers):
    answers = iter(["450 4.2.1 later", "450 4.2.1 later"])
    peer = peers({"RCPT b@x.example": lambda: next(answers, "250 ok")})
    one = gateway(peer).start()
    one.commit(entry("m", recipients=("a@x.example", "b@x.example", "c@x.example")))
    until(lambda: not one.queue())
    assert [to for _, to, _ in peer.messages] == [["a@x.example", "c@x.example"], ["b@x.example"]]


def test_5xx_for_some_recipients_is_reported_to_the_sender(gateway, peers):
    peer = peers({"RCPT b@x.example": "550 5.1.1 no such user"})
    one = gateway(peer).start()
    one.commit(entry("m", recipients=("a@x.example", "b@x.example"), header=b"Subject: quarterly\r\n"))
    until(lambda: not one.queue())
    assert [(mail, to) for mail, to, _ in peer.messages] == [("<alice@example.org>", ["a@x.example"]), ("<>", ["alice@example.org"])]
    report = email.message_from_bytes(peer.messages[1][2])
    assert report.get_content_type() == "multipart/report"
    status = report.get_payload(1).get_payload(1)
    assert status["final-recipient"] == "rfc822; b@x.example"
    assert status["diagnostic-code"] == "smtp; 550 5.1.1 no such user"
    assert b"quarterly" in peer.messages[1][2]
    assert b"hello" not in peer.messages[1][2]


def test_a_message_that_waited_too_long_is_reported(gateway, peers):
    peer = peers({"RCPT b@x.example": "450 4.2.1 never"})
    one = gateway(peer, give_up_after=0.5).start()
    one.commit(entry("m", recipients=("b@x.example",)))
    until(lambda: not one.queue())
    assert [mail for mail, _, _ in peer.messages] == ["<>"]
    assert b"Status: 4.4.7" in peer.messages[0][2]


def test_a_report_that_cannot_be_delivered_makes_no_report_and_is_not_forgotten(gateway, peers):
    peer = peers({"RCPT b@x.example": "550 no", "RCPT alice@example.org": "550 no"})
    one = gateway(peer).start()
    one.commit(entry("m", recipients=("b@x.example",)))
    until(lambda: len(peer.messages) == 1 and [row.paused for row in one.queue().values()] == [True])
    [row] = one.queue().values()
    assert row.id == "m.d0"
    assert row.reverse_path == ""
    assert "no sender to tell" in row.reason
    # The postmaster is told.
    assert peer.messages[0][1] == ["postmaster@example.org"]
    # And where not even the postmaster can be told, it ends there.
    peer.script["RCPT postmaster@example.org"] = "550 no"
    one.commit(entry("n", recipients=("b@x.example",)))
    until(lambda: sum(row.paused for row in one.queue().values()) == 3)
    time.sleep(0.3)
    assert len(one.queue()) == 3


def test_released_after_it_was_held_it_is_tried_again(gateway, peers):
    peer = peers({"RCPT b@x.example": "550 no"})
    one = gateway(peer).start()
    made = entry("m", recipients=("b@x.example",))
    one.commit(dataclasses.replace(made, envelope=dataclasses.replace(made.envelope, reverse_path=None)))
    until(lambda: "m" in one.queue() and one.queue()["m"].paused)
    peer.script.clear()
    one.wish("release", "m")
    until(lambda: "m" not in one.queue())
    assert ["b@x.example"] in [to for _, to, _ in peer.messages]


def test_what_was_encrypted_inside_never_makes_a_report_that_quotes_the_next_hop(gateway, peers):
    peer = peers({"END": "554 5.7.1 malware inside", "RCPT postmaster@example.org": "250 ok"})
    one = gateway(peer).start()
    one.commit(entry("m", recipients=("bob@example.org",), sensitive=True, secret=True))
    until(lambda: one.queue().get("m") is not None and one.queue()["m"].paused)
    assert not any("alice@example.org" in address for row in one.queue().values() for address, _, _ in row.recipients)


def test_promise_6_a_next_hop_that_knows_no_dsn_is_told_of_no_sender(gateway, peers):
    peer = peers()
    one = gateway(peer).start()
    one.commit(entry("m", recipients=("bob@example.org",), sensitive=True, secret=True), entry("n"))
    until(lambda: not one.queue())
    assert sorted(mail for mail, _, _ in peer.messages) == ["<>", "<alice@example.org>"]


def test_a_recipient_who_wants_no_report_gets_none(gateway, peers):
    peer = peers({"RCPT": "550 no"})
    one = gateway(peer).start()
    made = entry("m")
    recipient = dataclasses.replace(made.envelope.recipients[0], notify="NEVER")
    one.commit(dataclasses.replace(made, envelope=dataclasses.replace(made.envelope, recipients=(recipient,))))
    until(lambda: not one.queue())
    assert peer.messages == []


# -- faults


@pytest.mark.parametrize("stage", ["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "BODY", "END"])
def test_a_next_hop_that_closes_loses_nothing(gateway, peers, stage):
    peer = peers({stage: "close"})
    one = gateway(peer).start()
    one.commit(entry("a"))
    until(lambda: one.queue()["a"].attempts >= 1)
    del peer.script[stage]
    until(lambda: not one.queue(), 30)
    assert peer.messages[-1][2] == BODY


@pytest.mark.parametrize("reply", ["421 4.3.2 closing", "554 5.7.1 go away", "not a reply at all"])
def test_a_next_hop_that_refuses_everybody_is_tried_again(gateway, peers, reply):
    peer = peers({"CONNECT": reply})
    one = gateway(peer).start()
    one.commit(entry("a"))
    until(lambda: one.queue()["a"].attempts >= 1)
    assert one.queue()["a"].recipients[0][1] is RecipientState.WAITING
    peer.script.clear()
    until(lambda: not one.queue(), 30)


def test_a_next_hop_that_is_not_there_and_comes_back(gateway, peers):
    reserved = socket.create_server(("127.0.0.1", 0))
    port = reserved.getsockname()[1]
    reserved.close()
    one = gateway(NextHop("smtp", "127.0.0.1", port, tls="none")).start()
    one.commit(*(entry(f"{number}") for number in range(5)))
    until(lambda: all(row.attempts for row in one.queue().values()))
    assert len(one.queue()) == 5


def test_a_next_hop_that_hangs_does_not_stop_the_others(gateway, peers):
    hanging, good = peers({"MAIL": "hang"}), peers()
    routes = (("slow.example", NextHop("smtp", "127.0.0.1", hanging.port, tls="none")),)
    one = gateway(good, routes=routes).start()
    one.commit(*(entry(f"h{number}", recipients=("x@slow.example",)) for number in range(20)))
    one.commit(entry("a"))
    until(lambda: len(good.messages) == 1 and len(one.queue()) == 20, 30, "a letter while the others hang, for a minute")


@pytest.mark.parametrize("reply", ["530 5.7.0 Authentication required", "535 5.7.8 bad", "538 5.7.11 encrypt", "534 5.7.9 weak"])
@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
def test_a_smart_host_that_does_not_know_us_costs_nobody_a_message(gateway, peers, verb, reply):
    peer = peers({verb: reply})
    one = gateway(peer).start()
    one.commit(entry("m"))
    until(lambda: one.queue()["m"].attempts >= 1)
    assert reply[:3] in one.queue()["m"].recipients[0][2]
    peer.script.clear()
    until(lambda: not one.queue())
    assert [mail for mail, _, _ in peer.messages] == ["<alice@example.org>"]


def test_a_mistake_in_our_own_report_does_not_deliver_the_same_mail_again_and_again(gateway, peers):
    peer = peers({"RCPT b@x.example": "550 no"})
    one = gateway(peer, retry_first=0.2)
    one.settings = dataclasses.replace(one.settings, postmaster="p\u00f6st@example.org")
    one.start()
    one.commit(entry("m", recipients=("b@x.example", "c@x.example")))
    until(lambda: one.queue()["m"].attempts >= 3)
    assert [to for _, to, _ in peer.messages] == [["c@x.example"]]


def test_servers_that_never_answer_do_not_take_every_descriptor(gateway, peers):
    hanging, peer = peers({"CONNECT": "hang"}), peers()
    one = gateway(peer, routes=(("d0.example", NextHop("smtp", "127.0.0.1", hanging.port, tls="none")),))
    one.settings = dataclasses.replace(one.settings, limits=dataclasses.replace(one.settings.limits, outgoing_connections=1))
    one.start()
    one.commit(entry("slow", recipients=("a@d0.example",)))
    until(lambda: hanging.connections == 1)
    one.commit(entry("m", recipients=("b@other.example",)))
    until(lambda: one.relay._hops and any(hop.stranded for hop in one.relay._hops.values()))
    assert peer.connections == 0 and one.relay.outgoing == 1
    hanging.drop_all()
    until(lambda: len(peer.messages) == 1)
    until(lambda: "m" not in one.queue() and one.relay.outgoing <= 1)


def test_promise_8_decrypted_mail_is_held_where_its_next_hop_is_not_private(gateway, peers):
    peer = peers()
    one = gateway(peer, routes=(("far.example", NextHop("mx", tls="opportunistic")),)).start()
    one.commit(entry("m", recipients=("b@far.example",), secret=True, sensitive=True))
    until(lambda: one.queue().get("m") is not None and one.queue()["m"].paused)
    assert "decrypted mail must" in one.queue()["m"].reason
    # Nobody but the postmaster is told.
    until(lambda: len(peer.messages) == 1 and list(one.queue()) == ["m"])
    assert peer.messages[0][1] == ["postmaster@example.org"]


def test_a_silent_dns_defers(gateway):
    from mailsec.errors import Unavailable

    async def silent(name, kind):
        raise Unavailable("the resolver does not answer")

    one = gateway(NextHop("mx", tls="none")).start(resolve=silent)
    one.commit(entry("a"))
    until(lambda: one.queue()["a"].attempts >= 1)
    assert "resolver does not answer" in one.queue()["a"].recipients[0][2]


# -- a person's wishes, restarts


def test_a_held_row_stays_until_it_is_released(gateway, peers):
    peer = peers({"RCPT bob@example.net": "450 later"})
    one = gateway(peer).start()
    one.commit(entry("a"))
    until(lambda: one.queue()["a"].attempts >= 1)
    one.wish("hold", "a")
    until(lambda: one.queue()["a"].paused)
    peer.script.clear()
    time.sleep(1.0)
    assert peer.messages == []
    one.wish("release", "a")
    until(lambda: not one.queue())


def test_flush_does_not_wait_for_the_next_attempt(gateway, peers):
    peer = peers({"RCPT bob@example.net": "450 later"})
    one = gateway(peer, retry_first=3600).start()
    one.commit(entry("a"))
    until(lambda: one.queue()["a"].attempts >= 1)
    peer.script.clear()
    one.wish("flush", "a")
    until(lambda: not one.queue())


def test_a_stopped_relay_finishes_what_is_in_flight_and_keeps_the_rest(gateway, peers, loop, tmp_path):
    begun, stopping = threading.Event(), threading.Event()
    peer = peers({"DATA": lambda: begun.set() or "354 go on", "END": lambda: stopping.wait(30) and "250 2.0.0 taken"})
    one = gateway(peer, connections_per_hop=2).start()
    relay = one.relay
    one.commit(*(entry(f"{number}") for number in range(10)))
    assert begun.wait(30)
    stopped = threading.Thread(target=one.stop)
    stopped.start()
    until(lambda: relay._stopping)
    stopping.set()
    stopped.join(60)
    arrived = len(peer.messages)
    assert 1 <= arrived <= 4
    assert len(one.queue()) == 10 - arrived
    again = Gateway(loop, one.directory, one.settings.relay.next_hop).start()
    until(lambda: len(peer.messages) == 10)
    again.stop()
    assert list_queue(one.directory) == []


def test_raw_and_held_rows_are_not_the_relays(gateway, peers):
    peer = peers()
    one = gateway(peer).start()
    one.commit(entry("r", state=State.RAW), entry("h", state=State.HELD), entry("a"))
    until(lambda: len(peer.messages) == 1)
    one.wish("flush", "r", "h")
    time.sleep(0.3)
    assert len(peer.messages) == 1
    assert len(one.queue()) == 2


def test_the_log_tells_of_each_delivery_and_never_the_subject(gateway, peers):
    peer = peers({"RCPT b@x.example": "450 4.2.1 later\x1b[31m"})
    one = gateway(peer, retry_first=60)
    with structlog.testing.capture_logs() as lines:
        one.start()
        one.commit(entry("m", b"Subject: secret plan\r\n\r\nx\r\n", recipients=("a@x.example", "b@x.example"), rule="r1", verdict="pass"))
        until(lambda: len([line for line in lines if line["event"] in ("delivered", "deferred")]) == 2)
    delivered, deferred = sorted((line for line in lines if line["event"] in ("delivered", "deferred")), key=lambda line: line["recipient"])
    assert delivered["event"] == "delivered"
    assert delivered == {
        "event": "delivered", "log_level": "info", "id": "m", "message_id": "<m@example.org>", "reverse_path": "alice@example.org",
        "recipient": "a@x.example", "size": 27, "rule": "r1", "verdict": "pass", "next_hop": f"127.0.0.1:{peer.port}",
        "reply": "250 2.0.0 taken",
    }  # fmt: skip
    assert deferred["event"] == "deferred"
    assert not any("secret plan" in str(line) for line in lines)
