"""Next hops and resolvers that misbehave behind the running gateway: mail waits, is reported or arrives; the way to others stays free."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace

import pytest

from mailsec.model.queue import RecipientState
from tests.faults.sender import letter
from tests.net.relay_peer import Peer
from tests.peers.gateway import Gateway, namespace_why_not, until
from tests.peers.inbox import Inbox
from tests.peers.postfix import free_port

CAROL = "carol@partner.example"
ALICE = "alice@example.org"
FAULTS = ("refuses", "hangs", "hangs-in-data", "cuts-data", "cuts-greeting", "mixed", "garbage", "stops")


@pytest.fixture(scope="module")
def hop(tmp_path_factory):
    """A gateway with a next hop for each fault, by the recipient's domain, and a healthy one for everybody else; DNS is silent."""
    peers = {
        "hangs": Peer({"MAIL": "hang"}),
        "hangs-in-data": Peer({"BODY": "hang"}),
        "cuts-data": Peer({"BODY": "close"}),
        "cuts-greeting": Peer({"CONNECT": "close"}),
        "mixed": Peer({"RCPT never@mixed.example": "550 5.1.1 nobody", "RCPT later@mixed.example": "450 4.2.1 busy"}),
        "garbage": Peer({"CONNECT": "\0\xff garbage " + "x" * 5000}),
        "stops": Peer(),
    }
    ports = {name: peer.port for name, peer in peers.items()} | {"refuses": free_port()}
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    address = f"127.{1 + os.getpid() % 250}.{os.getpid() // 250 % 250}.53"
    mount, routes = "", {f"{name}.example": f"smtp://[127.0.0.1]:{ports[name]}" for name in FAULTS}
    domains = ["example.org", *routes]
    directory = tmp_path_factory.mktemp("hop") / "gateway"
    if namespace_why_not() is None:
        silent.bind((address, 53))
        (directory.parent / "resolv.conf").write_text(f"nameserver {address}\n")
        mount = f"mount --bind {directory.parent}/resolv.conf /etc/resolv.conf"
        routes["silent.example"] = "mx"
    with Inbox() as healthy:
        proxy = {"name": "proxy", "proxy": True}
        gateway = Gateway(directory, healthy.port, listeners=[proxy], gateway={"domains": domains}, relay={"routes": routes})
        try:
            gateway.start(mount=mount)
            yield SimpleNamespace(gateway=gateway, peers=peers, ports=ports, healthy=healthy, silent=silent if mount else None)
        finally:
            gateway.close()
            for peer in peers.values():
                peer.close()
            silent.close()


def send(hop, *recipients: str, sender: str = CAROL, listener: str = "internet") -> str:
    """Send one message; its Message-ID."""
    octets = letter(sender, recipients[0])
    with hop.gateway.client(listener) as client:
        assert client.sendmail(sender, list(recipients), octets) == {}
    return octets.partition(b"Message-ID: ")[2].partition(b"\r\n")[0].decode()


def waiting(hop, address: str) -> str | None:
    """Why `address` waits, by `mailsec queue`; None where it does not, or nothing was tried yet."""
    for entry in hop.gateway.waiting():
        for recipient, state, reply in entry.recipients:
            if recipient == address and state is RecipientState.WAITING:
                return reply or None
    return None


def test_next_hop_that_refuses_connections_is_tried_until_it_is_there(hop):
    message_id = send(hop, "bob@refuses.example")
    until(lambda: waiting(hop, "bob@refuses.example"))
    with Inbox(hop.ports["refuses"]) as inbox:
        until(lambda: inbox.of(message_id))
        # Promise 10: no restart, and new mail goes at once.
        second = send(hop, "bob@refuses.example")
        until(lambda: inbox.of(second))


@pytest.mark.parametrize("fault", ["hangs", "hangs-in-data"])
def test_next_hop_that_hangs_keeps_no_other_mail_waiting_and_gets_it_when_it_is_restarted(hop, fault):
    peer = hop.peers[fault]
    message_id = send(hop, f"bob@{fault}.example")
    until(lambda: peer.connections)
    other = send(hop, "bob@example.org")
    until(lambda: hop.healthy.of(other))
    assert any(entry["message_id"] == message_id for entry in hop.gateway.queue())
    peer.script.clear()
    peer.stopped.set()  # whatever hangs ends
    peer.drop_all()
    until(lambda: any(message_id.encode() in octets for _, _, octets in list(peer.messages)))


@pytest.mark.parametrize("fault", ["cuts-data", "cuts-greeting", "garbage"])
def test_next_hop_that_goes_away_in_the_middle_gets_the_message_later(hop, fault):
    peer = hop.peers[fault]
    message_id = send(hop, f"bob@{fault}.example")
    until(lambda: waiting(hop, f"bob@{fault}.example"))
    assert peer.messages == []
    peer.script.clear()
    until(lambda: any(message_id.encode() in octets for _, _, octets in list(peer.messages)))


def test_next_hop_that_answers_4xx_and_5xx_for_some_recipients(hop):
    peer = hop.peers["mixed"]
    message_id = send(hop, "good@mixed.example", "never@mixed.example", "later@mixed.example", sender=ALICE, listener="trusted")

    def got(address: str) -> int:
        return sum(address in recipients and message_id.encode() in octets for _, recipients, octets in list(peer.messages))

    until(lambda: got("good@mixed.example"))
    # one report, to the sender, about one recipient
    report = until(lambda: [one for one in list(hop.healthy.messages) if "never@mixed.example" in one.reported])
    assert report[0].recipients == (ALICE,) and report[0].reported == ("never@mixed.example",)
    assert "busy" in until(lambda: waiting(hop, "later@mixed.example"))
    peer.script.clear()
    until(lambda: got("later@mixed.example"))
    assert got("good@mixed.example") == 1 and got("never@mixed.example") == 0
    assert len([one for one in hop.healthy.messages if "never@mixed.example" in one.reported]) == 1


def test_next_hop_that_is_restarted_between_two_messages_gets_both(hop):
    peer = hop.peers["stops"]
    for _ in range(3):
        message_id = send(hop, "bob@stops.example")
        until(lambda message_id=message_id: any(message_id.encode() in octets for _, _, octets in list(peer.messages)))
        peer.drop_all()


def test_dns_that_is_silent_delays_its_mail_and_no_other(hop):
    if hop.silent is None:
        pytest.skip(namespace_why_not() or "")
    message_id = send(hop, "bob@silent.example", sender=ALICE, listener="trusted")
    hop.silent.settimeout(20)
    assert hop.silent.recvfrom(2048)  # it was asked, and says nothing
    other = send(hop, "bob@example.org")
    until(lambda: hop.healthy.of(other))
    reason = until(lambda: waiting(hop, "bob@silent.example"), 60)
    assert "resolver" in reason or "dns" in reason.lower()
    assert [entry["state"] for entry in hop.gateway.queue() if entry["message_id"] == message_id] == ["ready"]


def test_in_proxy_mode_the_client_is_told_what_the_next_hop_says_and_nothing_is_queued(hop):
    def sent(*recipients: str) -> tuple[int, str]:
        octets = letter(CAROL, recipients[0])
        with hop.gateway.client("proxy") as client:
            client.ehlo()
            client.mail(CAROL)
            for recipient in recipients:
                assert client.rcpt(recipient)[0] == 250
            code, text = client.data(octets)
        mark = octets.partition(b"Message-ID: ")[2].partition(b"\r\n")[0].decode()
        assert (code == 250) or not any(entry["message_id"] == mark for entry in hop.gateway.queue())
        return code, text.decode() if code != 250 else mark

    code, mark = sent("bob@example.org")
    # It is there when the client is told so: nobody waits for it any more.
    assert code == 250 and hop.healthy.of(mark)
    hop.peers["mixed"].script["RCPT proxy@mixed.example"] = "550 5.1.1 nobody"
    assert sent("proxy@mixed.example") == (550, "5.1.1 nobody")
    assert sent("bob@refuses.example")[0] == 451
    # What has two next hops is no longer one thing to be told: it goes by the queue.
    code, mark = sent("bob@example.org", "bob@refuses.example")
    assert code == 250
    until(lambda: hop.healthy.of(mark))
    until(lambda: waiting(hop, "bob@refuses.example"))
