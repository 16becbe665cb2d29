"""A server in front that is known by its certificate (XCLIENT, XFORWARD), against the running gateway; and what its clients have of that."""

from __future__ import annotations

import smtplib

import pytest

from tests.peers.gateway import until

LETTER = "From: carol@example.net\r\nTo: alice@example.org\r\nSubject: hello\r\nMessage-ID: <{}@fronts>\r\n\r\nhello\r\n"


def fronted(scene, listener: str, *attributes: str) -> smtplib.SMTP:
    """The server in front, which has said who its client is; and that one's EHLO."""
    client = scene.client(listener, scene.front)
    client.ehlo()
    assert client.docmd("XCLIENT", " ".join(("ADDR=192.0.2.9", "HELO=c.example", *attributes)))[0] == 220
    client.ehlo("c.example")
    return client


def sent(scene, client: smtplib.SMTP, name: str) -> bytes:
    client.sendmail("carol@example.net", ["alice@example.org"], LETTER.format(name))
    return until(lambda: scene.inbox.of(f"<{name}@fronts>"), 60, name)[0].octets


def test_its_certificate_may_say_who_the_client_is(scene):
    with fronted(scene, "front") as client:
        message = sent(scene, client, "announced")
    assert b"from c.example ([192.0.2.9])" in message and b"client certificate" not in message
    (event,) = [one for one in scene.events("received") if one.get("message_id") == "<announced@fronts>"]
    assert event["peer"] == "192.0.2.9" and not event.get("client_verified")


def test_its_certificate_may_say_who_spoke_to_it(scene):
    with scene.client("front", scene.front) as client:
        client.ehlo()
        assert "xforward" in client.esmtp_features
        assert client.docmd("XFORWARD", "ADDR=192.0.2.77")[0] == 250
        sent(scene, client, "forwarded")
    (event,) = [one for one in scene.events("received") if one.get("message_id") == "<forwarded@fronts>"]
    assert event["client"] == "192.0.2.77" and event["peer"] == "127.0.0.1"


@pytest.mark.parametrize("who", ["mta", "alice", "foreign", "expired", "revoked", None])
@pytest.mark.parametrize("verb", ["XCLIENT", "XFORWARD"])
def test_attack_another_certificate_or_none_speaks_for_others(scene, who, verb):
    with scene.client("front", getattr(scene, who) if who else None) as client:
        client.ehlo()
        assert "xclient" not in client.esmtp_features and "xforward" not in client.esmtp_features
        assert client.docmd(verb, "ADDR=192.0.2.9 LOGIN=alice")[0] == 550
        assert client.noop()[0] == 250


def test_what_a_listener_requires_of_who_connects_the_front_answers(scene):
    with fronted(scene, "front-required") as client:
        sent(scene, client, "required")
        # The next client on the same connection.
        assert client.docmd("XCLIENT", "ADDR=192.0.2.10")[0] == 220
        client.ehlo("d.example")
        assert b"from d.example ([192.0.2.10])" in sent(scene, client, "next")


def test_attack_a_condition_over_certificates_lets_clients_of_the_front_through(scene):
    with scene.client("front-condition", scene.front) as client:
        client.ehlo()
        assert client.mail("carol@example.net")[0] == 250, "the front itself"
    with fronted(scene, "front-condition") as client:
        assert client.mail("carol@example.net")[0] == 554
        # Again on the same connection, and again.
        assert client.docmd("XCLIENT", "ADDR=192.0.2.10")[0] == 220
        client.ehlo()
        assert client.mail("carol@example.net")[0] == 554


def test_attack_a_client_of_the_front_sends_as_the_front(scene):
    with scene.client("front-people", scene.front) as client:
        client.ehlo()
        assert client.mail("front@example.org")[0] == 250, "the front itself"
    with fronted(scene, "front-people") as client:
        assert "EXTERNAL" not in client.esmtp_features["auth"]
        assert client.docmd("AUTH", "EXTERNAL =")[0] == 504
        assert client.mail("front@example.org")[0] == 530
        client.login("alice", scene.gateway.password)
        assert client.mail("alice@example.org")[0] == 250
        client.rset()
        assert client.mail("front@example.org")[0] == 550
        client.rset()
        client.sendmail("alice@example.org", ["bob@example.org"], LETTER.format("people").replace("carol@example.net", "alice@example.org"))
    (event,) = until(lambda: [one for one in scene.events("received") if one.get("message_id") == "<people@fronts>"], 30, "the line")
    assert event["rule"] == "nothing", "a rule for the front's certificate is not for its clients"


def test_login_is_believed_only_where_the_listener_says_so(scene):
    with scene.client("front-people", scene.front) as client:
        client.ehlo()
        assert client.docmd("XCLIENT", "ADDR=192.0.2.9 LOGIN=alice")[0] == 501
    with fronted(scene, "front-logins", "LOGIN=alice") as client:
        assert client.mail("alice@example.org")[0] == 250
        client.rset()
        assert client.mail("bob@example.org")[0] == 550
        client.rset()
        # Who comes next is not alice.
        assert client.docmd("XCLIENT", "ADDR=192.0.2.10 LOGIN=[UNAVAILABLE]")[0] == 220
        client.ehlo()
        assert client.mail("alice@example.org")[0] == 530
