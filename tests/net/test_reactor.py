"""The worker's reactor: an error in one socket's protocol costs that connection only; who closes is noticed."""

from __future__ import annotations

import subprocess
import sys

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
