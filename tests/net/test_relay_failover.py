"""Several next hops: the first that can be reached gets the mail; each as many connections as it may have."""

from __future__ import annotations

import pytest

from mailsec.errors import Unavailable
from mailsec.model.settings import NextHop, RelaySettings
from mailsec.net.relay_hop import Hop, Job
from mailsec.net.relay_routes import Routes
from mailsec.testing.runtime import FakeRuntime
from tests.net.relay_gateway import entry
from tests.peers.gateway import until
from tests.peers.postfix import free_port


def hop(*ports, **more):
    first, *others = [NextHop("smtp", "127.0.0.1", port, tls="none", **more) for port in ports]
    return NextHop("smtp", "127.0.0.1", first.port, tls="none", others=tuple(others), **more)


def test_the_second_gets_it_where_the_first_is_away(gateway, peers):
    second = peers()
    one = gateway(hop(free_port(), second.port)).start()
    one.commit(*(entry(f"m{number}") for number in range(5)))
    until(lambda: len(second.messages) == 5 and not one.queue())


@pytest.mark.parametrize("greeting", ["421 4.3.2 too busy", "close"])
def test_one_that_refuses_in_its_greeting_or_cuts_off_is_passed_over(gateway, peers, greeting):
    first, second = peers({"CONNECT": greeting}), peers()
    one = gateway(hop(first.port, second.port)).start()
    one.commit(entry("m"))
    until(lambda: len(second.messages) == 1 and not one.queue())
    assert first.connections == 1


def test_one_that_was_away_is_not_asked_by_every_connection_again(gateway, peers):
    away, second = peers({"CONNECT": "421 4.3.2 too busy"}), peers()
    one = gateway(hop(away.port, second.port)).start()
    for number in range(4):
        one.commit(entry(f"m{number}"))
        until(lambda number=number: len(second.messages) == number + 1 and not one.queue())
        second.drop_all()
        until(lambda: all(not found._connections for found in one.relay._hops.values()))
    assert away.connections == 1 and second.connections == 4


def test_the_first_refusing_a_recipient_is_its_answer_and_no_reason_to_ask_the_next(gateway, peers):
    first, second = peers({"RCPT b@x.example": "550 5.1.1 nobody"}), peers()
    one = gateway(hop(first.port, second.port)).start()
    one.commit(entry("m", recipients=("b@x.example",)))
    until(lambda: not one.queue())
    assert second.connections == 0 and [mail for mail, _, _ in first.messages] == ["<>"]


def test_a_smart_host_behind_mx_gets_mail_while_dns_is_silent(gateway, peers):
    peer = peers()
    fallback = NextHop("smtp", "127.0.0.1", peer.port, tls="none")

    async def silent(name, kind):
        raise Unavailable("no answer", stage="dns")

    one = gateway(NextHop("mx", tls="none", others=(fallback,))).start(resolve=silent)
    one.commit(entry("m"))
    until(lambda: len(peer.messages) == 1 and not one.queue())


def test_a_next_hop_may_have_fewer_connections_than_others(gateway, peers):
    peer = peers(slow=0.05)
    one = gateway(hop(peer.port, connections=1), connections_per_hop=8).start()
    one.commit(*(entry(f"m{number}") for number in range(12)))
    until(lambda: len(peer.messages) == 12 and not one.queue())
    assert peer.connections == 1


def test_promise_8_decrypted_mail_goes_to_no_stranger_behind_a_next_hop_of_our_own(gateway, peers):
    peer = peers()
    stranger = NextHop("smtp", "mail.example.net", 25)
    one = gateway(NextHop("smtp", "127.0.0.1", peer.port, tls="none", others=(stranger,))).start()
    one.commit(entry("m", secret=True, sensitive=True))
    until(lambda: one.queue()["m"].paused)
    assert not any(b"hello" in octets for _, _, octets in peer.messages)


def test_flush_asks_a_next_hop_anew_that_was_away_a_moment_ago(gateway, peers):
    port = free_port()
    # An hour until the next attempt: only what flush brings about can deliver it in the time of this test.
    one = gateway(hop(port), retry_first=3600.0, retry_longest=3600.0).start()
    one.commit(entry("a"))
    until(lambda: one.queue()["a"].next_attempt is not None and one.queue()["a"].attempts == 1)
    one.commit(entry("b"))
    until(lambda: one.queue()["b"].attempts == 1)
    peer = peers(port=port)
    one.wish("flush", "a", "b")
    until(lambda: len(peer.messages) == 2 and not one.queue())


def test_flush_begins_with_the_first_host_again_though_it_was_away(gateway, peers):
    port, second = free_port(), peers({"RCPT b@x.example": "451 4.7.1 later"})
    one = gateway(hop(port, second.port), retry_first=3600.0, retry_longest=3600.0).start()
    one.commit(entry("a", recipients=("b@x.example",)))
    until(lambda: one.queue()["a"].attempts == 1)
    second.drop_all()
    until(lambda: all(not found._connections for found in one.relay._hops.values()))
    first = peers(port=port)
    one.wish("flush", "a")
    until(lambda: len(first.messages) == 1 and not one.queue())


def test_what_is_known_of_a_next_hop_is_kept_for_as_long_as_it_is_used():
    runtime = FakeRuntime()

    class Deliveries:
        settings = RelaySettings(hop(25), retry_first=3600.0)
        done = staticmethod(lambda job, answers, where: None)

    deliveries = Deliveries()
    deliveries.runtime = runtime
    one = Hop(Routes(deliveries.settings).destination("x.example"), deliveries)
    one._tried(Unavailable("away"), None)
    runtime.advance(4)
    one.submit(Job(None, (0,), None))
    assert one.unused and one.used_at == runtime.monotonic()
