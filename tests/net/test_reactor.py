"""The worker's reactor: an error in one socket's protocol costs that connection only; who closes is noticed; clocks may jump."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import socket
from mailsec.net.reactor import install
reactor = install()
from twisted.internet import reactor as installed
from twisted.internet.protocol import Factory, Protocol
assert installed is reactor
ended = []
class Echo(Protocol):
    def dataReceived(self, data):
        if data == b"fail":
            raise ValueError("a bug")
        self.transport.write(data)
    def connectionLost(self, reason):
        ended.append(type(reason.value).__name__)
        if len(ended) == 2:
            reactor.stop()
factory = Factory()
factory.protocol = Echo
port = reactor.listenTCP(0, factory, interface="127.0.0.1")
def clients():
    said = []
    for words in (b"fail", b"hello"):
        client = socket.create_connection(("127.0.0.1", port.getHost().port))
        client.settimeout(10)
        client.sendall(words)
        try:
            said.append(client.recv(100))
        except ConnectionResetError:
            said.append(b"")
        client.close()
    print(said)
reactor.callInThread(clients)
reactor.callLater(20, reactor.stop)
reactor.run()
print(ended)
"""


def test_a_failing_protocol_loses_its_own_connection_only():
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["[b'', b'hello']", "['ValueError', 'ConnectionDone']"]


_CLOCK = """
import sys, threading, time
real, ahead = time.time, [0.0]
time.time = lambda: real() + ahead[0]  # before Twisted takes hold of it
if sys.argv[1] == "worker":
    from mailsec.net.reactor import install
    reactor = install()
else:
    from twisted.internet import reactor
    from mailsec.net.reactor import steady
    steady(reactor)
fired = []
def jump():
    ahead[0] = float(sys.argv[2])
reactor.callLater(0.1, jump)
reactor.callLater(0.3, lambda: (fired.append("soon"), reactor.stop()))
reactor.callLater(600, lambda: fired.append("in ten minutes"))
threading.Thread(target=lambda: (time.sleep(10), reactor.callFromThread(reactor.stop)), daemon=True).start()
reactor.run()
print(fired)
"""


@pytest.mark.parametrize("which", ["worker", "supervisor"])
@pytest.mark.parametrize("jump", ["-3600", "3600"])
def test_a_clock_that_jumps_wakes_nobody_early_or_late(which, jump):
    done = subprocess.run([sys.executable, "-c", _CLOCK, which, jump], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['soon']\n"
