"""PINs in the supervisor's memory: to whom they go, how often, and when they are forgotten."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from twisted.internet.task import Clock

from mailsec.app.config.models import Module, Passphrase
from mailsec.app.pins import Pins
from mailsec.app.token_hosts import HostTiming, _Place
from mailsec.net.token_client import ListedToken


@pytest.fixture
def pins() -> Pins:
    made = Pins(Passphrase(method="builtin"))
    made.keep("hsm", "HSM 1", b"1234")
    made.keep("hsm", "HSM 10", b"ten")
    made.keep("other", "HSM 1", b"not of hsm")
    return made


def place(pins: Pins, **module: object) -> _Place:
    hosts = SimpleNamespace(reactor=Clock(), pins=pins, timing=HostTiming(), stopping=False)
    return _Place(hosts, Module(name="hsm", library="/lib/x.so", **module), {})


def test_a_host_gets_the_pins_of_its_own_module(pins: Pins):
    assert place(pins)._pins() == {"pins": {"HSM 1": "MTIzNA==", "HSM 10": "dGVu"}, "proven": place(pins)._pins()["proven"]}
    assert sorted(place(pins)._pins()["proven"]) == ["HSM 1", "HSM 10"]
    assert "1234" not in repr(pins) and "MTIzNA" not in repr(pins)


def test_after_a_crash_a_pin_is_given_again_at_most_once_a_minute(pins: Pins):
    one = place(pins)
    one.crashed = True
    assert one._pins()["pins"]
    one.crashed = True
    one.hosts.reactor.advance(59)
    assert one._pins() == {}
    one.hosts.reactor.advance(1.5)
    assert one._pins()["pins"]


def test_a_pin_that_was_refused_is_given_to_nobody_again(pins: Pins):
    one = place(pins)
    one._listed([ListedToken("HSM 1", "HSM 1", problem="token 'HSM 1' refuses the PIN (CKR_PIN_INCORRECT)")])
    assert list(one._pins()["pins"]) == ["HSM 10"]
    assert not one._wants_pin(ListedToken("HSM 1", "HSM 1"))
    pins.keep("hsm", "HSM 1", b"typed")
    assert sorted(one._pins()["pins"]) == ["HSM 1", "HSM 10"]


def test_pins_are_asked_for_once_and_for_named_tokens_only():
    one = place(Pins(Passphrase(method="builtin")), tokens=["HSM 1"])
    assert one._wants_pin(ListedToken("HSM 1", "HSM 1"))
    for token in (
        ListedToken("HSM 10", "HSM 10"),
        ListedToken("HSM 1", "HSM 1", usable=True),
        ListedToken("HSM 1", "HSM 1", login_required=False),
        ListedToken("HSM 1", "HSM 1", problem="a mark stands"),
    ):
        assert not one._wants_pin(token)
    one.hosts.pins.obtain("hsm", ListedToken("HSM 1", "HSM 1"))
    assert not one._wants_pin(ListedToken("HSM 1", "HSM 1"))


def test_a_pin_pad_is_asked_itself():
    pins = Pins(Passphrase(method="builtin"))
    assert pins.obtain("hsm", ListedToken("HSM 1", "HSM 1", pin_pad=True))
    assert pins.of("hsm") == {"HSM 1": None}
