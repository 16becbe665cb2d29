"""Next hops that offer PIPELINING and drop what comes in a pipeline: one time-out, and then the message is there."""

from __future__ import annotations

from functools import partial

import pytest

from mailsec.net import relay_login
from mailsec.net.relay_pipelines import BrokenPipelines
from mailsec.wire.smtp.client import ClientSettings
from tests.net.relay_gateway import BODY, entry
from tests.net.relay_peer import Peer
from tests.peers.gateway import until


class Forgetful(Peer):
    """Throws away what comes with a MAIL command in one segment, as long as `forgets`; `pipelines` says how often that came."""

    forgets = True
    pipelines = 0

    def _session(self, connection, file):
        super()._session(connection, self._lines(connection))

    def _lines(self, connection):
        while data := connection.recv(65536):
            lines = data.splitlines(keepends=True)
            if lines[0].startswith(b"MAIL") and len(lines) > 1:
                self.pipelines += 1
                if self.forgets:
                    del lines[1:]
            yield from lines


@pytest.fixture
def peer(monkeypatch):
    monkeypatch.setattr(relay_login, "ClientSettings", partial(ClientSettings, command_timeout=0.3))
    one = Forgetful()
    yield one
    one.close()


def test_one_that_drops_what_is_pipelined_is_asked_for_one_thing_at_a_time_after_the_first_time_out(gateway, peer):
    one = gateway(peer).start()
    one.commit(entry("m", recipients=("a@x.example", "b@x.example")))
    until(lambda: peer.messages and not one.queue())
    assert [(recipients, octets) for _, recipients, octets in peer.messages] == [(["a@x.example", "b@x.example"], BODY)]
    one.commit(entry("n"), entry("o"))
    until(lambda: len(peer.messages) == 3 and not one.queue())
    assert peer.pipelines == 1


def test_in_proxy_mode_its_first_client_is_told_to_come_again_and_the_next_is_served(gateway, peer):
    one = gateway(peer).start()
    (reply,) = one.loop.call(one.relay.forward, entry("m"))
    assert reply.temporary and peer.messages == []
    (reply,) = one.loop.call(one.relay.forward, entry("m"))
    assert reply.code == 250 and peer.pipelines == 1


def test_one_that_answers_pipelines_and_then_hangs_with_the_message_gets_pipelines_again(gateway, peer, monkeypatch):
    monkeypatch.setattr(relay_login, "ClientSettings", partial(ClientSettings, command_timeout=0.3, final_timeout=0.3))
    peer.forgets = False
    peer.script["END"] = "hang"
    one = gateway(peer).start()
    (reply,) = one.loop.call(one.relay.forward, entry("m"))
    assert reply.temporary
    peer.script.clear()
    (reply,) = one.loop.call(one.relay.forward, entry("m"))
    assert reply.code == 250 and peer.pipelines == 2


def test_it_is_trusted_again_after_a_day_and_attack_ever_new_hosts_fill_no_memory():
    now = [0.0]
    broken = BrokenPipelines(lambda: now[0])
    broken.add("192.0.2.1:25")
    now[0] = 24 * 3600.0
    assert broken.has("192.0.2.1:25") and not broken.has("192.0.2.2:25")
    now[0] += 1.0
    assert not broken.has("192.0.2.1:25")
    for number in range(5000):
        broken.add(f"host{number}:25")
    assert broken.has("host4999:25") and sum(broken.has(f"host{number}:25") for number in range(5000)) == 1000
