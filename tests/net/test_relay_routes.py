"""Where mail goes: routes, MX records, and every way in which a domain can say no."""

from __future__ import annotations

import itertools

import pytest

from mailsec.errors import Refused, Unavailable
from mailsec.interfaces import run_now
from mailsec.model.settings import NextHop, RelaySettings
from mailsec.net.relay_routes import Destination, Routes, targets_of

MX = NextHop("mx")
SMART = NextHop("smtp", "smart.example.org", 587)
STORE = NextHop("lmtp", path="/run/lmtp")


class Runtime:
    """DNS from a table; random octets that go up."""

    def __init__(self, records):
        self.records = records
        self.numbers = itertools.count()
        self.asked = []

    async def resolve(self, name, kind):
        self.asked.append((name, kind))
        if self.records is None:
            raise Unavailable("silence")
        return self.records.get((name, kind), ())

    def random(self, octets):
        return next(self.numbers).to_bytes(octets, "big")


def targets(domain, records, hop=MX):
    found = run_now(targets_of(Destination(hop, domain if hop.scheme == "mx" else ""), Runtime(records), "gw.example.org"))
    return [target.address for target in found]


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("example.org", STORE),
        ("EXAMPLE.org.", STORE),
        ("a.example.org", SMART),
        ("badexample.org", MX),
        ("example.net", MX),
        ("xn--bcher-kva.example", STORE),
        ("bücher.example", STORE),
    ],
)
def test_the_first_route_that_matches_wins(domain, expected):
    routes = Routes(RelaySettings(MX, routes=(("example.org", STORE), (".example.org", SMART), ("bücher.example", STORE))))
    for _ in range(2):
        assert routes.destination(domain).hop == expected


def test_recipients_of_one_smart_host_share_a_destination_and_mx_domains_do_not():
    smart = Routes(RelaySettings(SMART))
    assert smart.destination("a.example") == smart.destination("b.example")
    mx = Routes(RelaySettings(MX))
    assert mx.destination("a.example") != mx.destination("b.example")
    assert mx.destination("a.example") == mx.destination("A.Example.")


def test_a_hundred_thousand_domains_do_not_fill_memory():
    routes = Routes(RelaySettings(MX))
    for number in range(25_000):
        routes.destination(f"{number}.example")
    assert len(routes._known) <= 10_000


def test_hosts_in_order_of_preference_and_equal_ones_in_any_order():
    records = {("x.example", "MX"): [(20, "c.example."), (10, "a.example"), (10, "b.example")]}
    orders = {tuple(targets("x.example", records)) for _ in range(3)}
    assert all(order[2] == "c.example:25" and set(order[:2]) == {"a.example:25", "b.example:25"} for order in orders)


def test_without_mx_the_domain_itself_is_the_host():
    assert targets("x.example", {("x.example", "AAAA"): ["2001:db8::1"]}) == ["x.example:25"]


def test_a_domain_that_does_not_exist():
    with pytest.raises(Refused) as caught:
        targets("x.example", {})
    assert caught.value.reply.enhanced == "5.1.2"


def test_a_domain_that_takes_no_mail():
    with pytest.raises(Refused) as caught:
        targets("x.example", {("x.example", "MX"): [(0, ".")]})
    assert caught.value.reply[:2] == (556, "5.1.10")


def test_a_root_among_other_hosts_is_no_null_mx():
    assert targets("x.example", {("x.example", "MX"): [(0, "."), (5, "a.example")]}) == ["a.example:25"]


def test_mail_that_would_come_back_to_us_is_refused():
    records = [(10, "GW.example.org"), (20, "backup.example")]
    with pytest.raises(Refused) as caught:
        targets("x.example", {("x.example", "MX"): records})
    assert caught.value.reply.enhanced == "5.4.6"


def test_where_we_are_a_backup_only_better_hosts_are_tried():
    records = [(5, "first.example"), (10, "gw.example.org"), (10, "same.example"), (20, "last.example")]
    assert targets("x.example", {("x.example", "MX"): records}) == ["first.example:25"]


def test_a_zone_with_a_thousand_hosts_gets_ten():
    assert len(targets("x.example", {("x.example", "MX"): [(10, f"h{number}.example") for number in range(1000)]})) == 10


def test_address_literals_are_hosts():
    assert targets("[192.0.2.1]", {}) == ["192.0.2.1:25"]
    assert targets("[IPv6:2001:db8::1]", {}) == ["[2001:db8::1]:25"]


def test_a_silent_resolver_is_no_refusal():
    with pytest.raises(Unavailable):
        targets("x.example", None)


@pytest.mark.parametrize(
    ("hop", "private"),
    [
        (NextHop("mx", tls="verified"), False),
        (NextHop("smtp", "mail.example.org", tls="opportunistic"), False),
        (NextHop("smtp", "mail.example.org", tls="required"), False),
        (NextHop("smtp", "mail.example.org", tls="verified"), True),
        (NextHop("smtp", "10.0.0.1", tls="none"), False),
        (NextHop("smtp", "127.0.0.1", tls="none"), True),
        (NextHop("lmtp", "::1", tls="none"), True),
        (NextHop("smtp", "LOCALHOST", tls="none"), True),
        (NextHop("smtp", "localhost.example.org", tls="none"), False),
        (NextHop("lmtp", path="/run/lmtp", tls="none"), True),
    ],
)
def test_promise_8_where_decrypted_mail_may_go(hop, private):
    assert Destination(hop, "example.org" if hop.scheme == "mx" else "").is_ours_and_private is private


def test_smart_hosts_and_sockets_ask_no_dns():
    assert targets("", None, SMART) == ["smart.example.org:587"]
    assert targets("", None, STORE) == ["unix:/run/lmtp"]
    assert targets("", None, NextHop("smtp", "2001:db8::1")) == ["[2001:db8::1]:25"]
