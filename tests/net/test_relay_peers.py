"""The relay with real peers: aiosmtpd, Postfix, our own server under TLS and with a login; STARTTLS that fails."""

from __future__ import annotations

from dataclasses import replace

import pytest
from aiosmtpd.controller import Controller

from mailsec.model.address import Address
from mailsec.model.queue import RecipientState
from mailsec.model.session import Envelope, Recipient
from mailsec.model.settings import NextHop
from mailsec.wire.smtp.server import ServerSettings
from tests.net.relay_gateway import BODY, Gateway, entry
from tests.net.relay_peer import Peer
from tests.peers.gateway import until
from tests.peers.postfix import Postfix, free_port, why_not


@pytest.fixture
def gateway(loop, tmp_path):
    made = []

    def make(hop, *, roots=None, **relay):
        made.append(Gateway(loop, tmp_path / "spool", hop, **relay))
        return made[-1].start(roots=roots)

    yield make
    for one in made:
        one.stop(0.2)


@pytest.fixture
def peer():
    peers = []

    def make(*arguments, **more):
        peers.append(Peer(*arguments, **more))
        return peers[-1]

    yield make
    for one in peers:
        one.close()


def smtp(port, tls="none", **more):
    return NextHop("smtp", "127.0.0.1", port, tls=tls, **more)


class Inbox:
    def __init__(self):
        self.messages = []

    async def handle_DATA(self, server, session, envelope):
        self.messages.append((envelope.mail_from, envelope.rcpt_tos, envelope.original_content))
        return "250 taken"


def test_aiosmtpd_as_next_hop(gateway):
    inbox = Inbox()
    controller = Controller(inbox, hostname="127.0.0.1", port=free_port(), enable_SMTPUTF8=True)
    controller.start()
    try:
        one = gateway(smtp(controller.port))
        eight_bit = "Subject: Grüße\r\n\r\nmit Grüßen\r\n".encode()
        one.commit(entry("a"), entry("b", eight_bit, recipients=("jürgen@example.net", "bob@example.net")))
        until(lambda: len(inbox.messages) == 2 and not one.queue())
        by_length = sorted(inbox.messages, key=lambda message: len(message[1]))
        assert by_length[0] == ("alice@example.org", ["bob@example.net"], BODY)
        assert by_length[1] == ("alice@example.org", ["jürgen@example.net", "bob@example.net"], eight_bit)
    finally:
        controller.stop()


def test_postfix_as_next_hop(gateway, peer, tmp_path):
    reason = why_not()
    if reason:
        pytest.skip(reason)
    store = peer()
    (tmp_path / "postfix").mkdir()
    with Postfix(tmp_path / "postfix", main={"relayhost": f"[127.0.0.1]:{store.port}"}) as postfix:
        one = gateway(smtp(postfix.port))
        one.commit(*(entry(f"{number}") for number in range(20)))
        until(lambda: not one.queue(), 30)
        until(lambda: len(store.messages) == 20, 60)
        assert all(octets.endswith(b"\r\nhello\r\n.dot\r\n") for _, _, octets in store.messages)


@pytest.mark.parametrize("tls", ["opportunistic", "required", "verified"])
def test_mail_goes_under_tls_where_it_is_offered(gateway, serve, certificates, tls):
    port, inbox = serve(ServerSettings("peer", tls="starttls"))
    one = gateway(smtp(port, tls), roots=certificates.ca_pem)
    one.commit(entry("a"))
    until(lambda: len(inbox.messages) == 1 and not one.queue())
    assert inbox.clients[0].tls is not None


def test_a_certificate_that_cannot_be_verified_defers(gateway, serve, certificates):
    port, inbox = serve(ServerSettings("peer", tls="starttls"))
    one = gateway(smtp(port, "verified"), retry_first=60)
    one.commit(entry("a"))
    until(lambda: one.queue()["a"].attempts == 1)
    assert inbox.messages == []
    assert one.queue()["a"].recipients[0][1] is RecipientState.WAITING


@pytest.mark.parametrize("tls", ["required", "verified"])
def test_a_stripped_starttls_defers(gateway, peer, tls):
    stripped = peer()
    one = gateway(smtp(stripped.port, tls), retry_first=60)
    one.commit(entry("a"))
    until(lambda: one.queue()["a"].attempts == 1)
    assert stripped.messages == []


def test_opportunistic_tls_that_fails_is_tried_again_in_clear(gateway, peer):
    broken = peer({"STARTTLS": "220 go"}, offers=("PIPELINING", "STARTTLS"))
    one = gateway(smtp(broken.port, "opportunistic"))
    one.commit(entry("a"))
    until(lambda: len(broken.messages) == 1 and not one.queue())
    assert broken.connections >= 2


def test_a_smart_host_with_a_login(gateway, serve, certificates, tmp_path):
    (tmp_path / "password").write_text("secret\n")
    port, inbox = serve(ServerSettings("peer", tls="starttls-required", authenticate=True))
    hop = smtp(port, "verified", username="alice@example.org", password_file=str(tmp_path / "password"))
    one = gateway(hop, roots=certificates.ca_pem)
    one.commit(entry("a"))
    until(lambda: len(inbox.messages) == 1 and not one.queue())
    assert inbox.clients[0].identity.name == "alice@example.org"


def test_a_wrong_password_or_none_at_all_waits_for_the_operator(gateway, serve, certificates, tmp_path, capfd):
    (tmp_path / "password").write_text("wrong-and-private\n")
    port, inbox = serve(ServerSettings("peer", tls="starttls-required", authenticate=True))
    hop = smtp(port, "verified", username="alice@example.org", password_file=str(tmp_path / "password"))
    one = gateway(hop, roots=certificates.ca_pem)
    one.commit(entry("a"))
    until(lambda: one.queue()["a"].attempts >= 1)
    (tmp_path / "password").unlink()
    until(lambda: "cannot be read" in one.queue()["a"].recipients[0][2])
    (tmp_path / "password").write_text("secret")
    until(lambda: len(inbox.messages) == 1 and not one.queue())
    shown = capfd.readouterr()
    assert "wrong-and-private" not in shown.out + shown.err


def test_what_the_sender_asked_to_be_told_goes_through_the_spool_to_the_next_hop(gateway, serve):
    port, inbox = serve(ServerSettings("peer", dsn=True, smtputf8=True))
    one = gateway(smtp(port))
    asked = Recipient(Address.parse("bob@example.net"), "SUCCESS,DELAY", "rfc822;robert@example.com")
    envelope = Envelope(Address.parse("alice@example.org"), (asked,), ret="HDRS", envid="QQ+2B1", smtputf8=True)
    one.commit(replace(entry("a"), envelope=envelope))
    until(lambda: inbox.messages and not one.queue())
    ((received, _),) = inbox.messages
    assert (received.ret, received.envid, received.recipients) == ("HDRS", "QQ+2B1", (asked,))
    assert not received.smtputf8, "nothing in it needs that"
