"""Our own keys: revoked is not used, with an alarm; unknown is used; signing waits once at most."""

from __future__ import annotations

OCSP = "http://ocsp.example/"


def submit(world, person, kit):
    return world.gate.submit(kit.LETTER.format(address=person.address), sender=person.address, identity=kit.identity(person.address))


def alarms(world):
    return [event for event in world.gate.events if event.name == "key revoked"]


def test_a_good_key_signs(ca, kit):
    alice = ca.person("alice@example.org", ocsp=OCSP)
    world = kit.World(ca, keys=[alice.handle])
    world.network.places[OCSP] = ca.answer
    assert submit(world, alice, kit).code == 250 and b"multipart/signed" in world.gate.ready[0]
    assert world.network.asked == [OCSP] and not alarms(world)


def test_a_revoked_key_is_not_used_and_somebody_is_told(ca, kit):
    alice = ca.person("alice@example.org", ocsp=OCSP)
    ca.revoke(alice)
    world = kit.World(ca, keys=[alice.handle])
    world.network.places[OCSP] = ca.answer
    reply = submit(world, alice, kit)
    assert reply.code == 550 and "revoked" in reply.text and world.gate.ready == []
    (alarm,) = alarms(world)
    assert alarm.fields["key"] == "alice@example.org" and "keyCompromise" in alarm.fields["reason"]


def test_another_key_of_the_sender_is_used_instead(ca, kit):
    old, new = ca.person("alice@example.org", ocsp=OCSP), ca.person("alice@example.org", ocsp=OCSP)
    old.handle = type(old.handle)("old", old.key.private_bytes(*_pkcs8()), certificate=old.der, assigned=("alice@example.org",))
    ca.revoke(old)
    world = kit.World(ca, keys=[old.handle, new.handle])
    world.network.places[OCSP] = ca.answer
    assert submit(world, new, kit).code == 250 and len(alarms(world)) == 1


def _pkcs8():
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Encoding.DER, PrivateFormat.PKCS8, NoEncryption()


def test_a_key_about_which_nothing_is_known_is_used(ca, kit):
    alice = ca.person("alice@example.org", ocsp=OCSP)
    world = kit.World(ca, keys=[alice.handle], mode="require")
    world.network.places[OCSP] = lambda _: "hangs"
    assert submit(world, alice, kit).code == 250
    waited = world.network.monotonic()
    assert waited <= 25
    assert submit(world, alice, kit).code == 250 and world.network.monotonic() == waited, "the next message does not wait"


def test_a_key_of_an_authority_that_is_no_anchor_here_is_used_and_nobody_is_asked(ca, kit):
    elsewhere = kit.Authority("Public CA", at=ca.at)
    alice = elsewhere.person("alice@example.org", ocsp=OCSP)
    world = kit.World(ca, keys=[alice.handle])
    assert submit(world, alice, kit).code == 250 and world.network.asked == []


def test_a_key_is_asked_after_again_beside_the_mail(ca, kit):
    alice = ca.person("alice@example.org", ocsp=OCSP)
    world = kit.World(ca, keys=[alice.handle])
    world.network.places[OCSP] = lambda request: ca.answer(request, at=world.network.at, hours=1)
    assert submit(world, alice, kit).code == 250
    ca.revoke(alice)
    world.network.advance(2 * 3600)
    assert submit(world, alice, kit).code == 250, "this message does not wait for the answer"
    world.network.run(world.network.sleep(1))
    assert submit(world, alice, kit).code == 550


def test_nothing_is_asked_where_revocation_is_off(ca, kit):
    alice = ca.person("alice@example.org", ocsp=OCSP)
    ca.revoke(alice)
    world = kit.World(ca, keys=[alice.handle], mode="off")
    world.network.places[OCSP] = ca.answer
    assert submit(world, alice, kit).code == 250 and world.network.asked == []


def test_mail_that_its_author_has_signed_makes_nobody_ask(ca, kit):
    alice = ca.person("alice@example.org", ocsp=OCSP)
    world = kit.World(ca, keys=[])
    reply = world.gate.submit(kit.signed(alice), sender=alice.address, identity=kit.identity(alice.address))
    assert reply.code == 250 and world.network.asked == []
