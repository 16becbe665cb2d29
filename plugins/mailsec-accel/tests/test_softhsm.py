"""The running gateway with SoftHSM2 as its accelerator, and with a module that computes wrongly or hangs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.index import index_message
from mailsec.model.octets import octets_of
from mailsec.model.protection import ProtectionPlan
from mailsec.smime.protect import protect_message
from tests.peers.gateway import until
from tests.peers.inbox import Inbox
from tests.peers.token_world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    before = dict(os.environ)
    with Inbox() as inbox:
        modules = [{"module": "soft", "token": "HSM 10", "mechanisms": ["rsa", "ecdsa"]}]
        made = World(
            tmp_path_factory.mktemp("accel"),
            inbox,
            plugins={"enabled": ["accel"]},
            plugin={"accel": {"modules": modules, "retry": 1, "deadline": 1}},
        )
        try:
            made.start()
            until(lambda: len(kinds(made, "accelerator is trusted")) == 4, what="the tests of the token")
            yield made
        finally:
            made.gateway.close()
            os.environ.clear()
            os.environ.update(before)


def kinds(world: World, event: str) -> list[str]:
    return [one["kind"] for one in world.gateway._events(event)]


def verdict(world: World, subject: str, *, change: bool = False) -> bytes:
    """What the gateway says of a message that carol, of another house, has signed."""
    carol = world.gateway.carol
    text = f"From: {carol.address}\r\nTo: alice@example.org\r\nSubject: {subject}\r\n\r\nthe words\r\n".encode()

    async def work(_cost, function, *args):
        return function(*args)

    protected = protect_message(
        index_message(octets_of(text)),
        ProtectionPlan(sign=True, signer=carol.key.name),
        signers=[carol.key],
        backend=SoftwareBackend(),
        random=os.urandom,
        work=work,
        at=datetime.now(UTC),
    )
    octets = run_now(protected).join()
    if change:
        octets = octets.replace(b"the words", b"the deeds")
    with world.gateway.client("internet") as client:
        client.sendmail(carol.address, ["alice@example.org"], octets)
    arrived = world.arrived(subject)
    return next(word for word in (b"smime=pass", b"smime=fail", b"smime=policy", b"smime=neutral") if word in arrived)


def test_mail_is_judged_with_the_tokens_help_and_without(world):
    # In this order: each turns to what the module does next.
    assert sorted(kinds(world, "accelerator is trusted")) == ["ec:secp256r1", "ec:secp384r1", "ec:secp521r1", "rsa"]
    assert verdict(world, "honest") == b"smime=pass"
    assert verdict(world, "honest, changed", change=True) == b"smime=fail"

    world.shim.say("C_Encrypt hang")
    assert verdict(world, "hanging") == b"smime=pass"
    until(lambda: kinds(world, "accelerator is left out"), what="the token to be left out")
    world.shim.say()
    until(lambda: kinds(world, "accelerator is trusted").count("rsa") == 2, 90, "the token to be trusted again")

    world.shim.say("C_Encrypt wrong")
    assert verdict(world, "wrong, changed", change=True) == b"smime=fail"
    assert verdict(world, "wrong") == b"smime=pass"
    until(lambda: "rsa" in kinds(world, "accelerator is wrong, and never asked again"), what="the token to be found out")
    assert world.shim.calls("C_Encrypt") > 0
    world.shim.say()
    assert verdict(world, "afterwards") == b"smime=pass"
