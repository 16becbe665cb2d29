"""Reading by POP3: Dovecot by itself and through the gateway, with the verification of each message, under TLS both times.

Readers ask as mail programs do, for one message at a time. The gateway reaches Dovecot over loopback without TLS.
"""

from __future__ import annotations

import shutil
import socket
import ssl
import statistics
import tempfile
import threading
import time
from pathlib import Path

from mailsec.app.demo.letters import signed
from tests.bench.load import peak_memory
from tests.peers.dovecot import Dovecot, why_not
from tests.peers.gateway import Gateway, server_certificate, until

__all__ = ["figures", "goals"]

_SMALL = 4096
_LARGE = 10 << 20
_MESSAGES = 300
_READERS = ("alice", "bob", "carol", "dave")


class Reader:
    """One logged-in client that looks at nothing but the end of a message."""

    def __init__(self, port: int, login: str) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._socket = context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=120))
        self._socket.recv(1000)
        for line in (f"USER {login}", "PASS secret"):
            self._socket.sendall(f"{line}\r\n".encode())
            assert self._socket.recv(1000).startswith(b"+OK"), line

    def retrieve(self, number: int) -> int:
        """Octets of one message."""
        self._socket.sendall(b"RETR %d\r\n" % number)
        octets, end = 0, b""
        buffer = bytearray(262_144)
        while True:
            received = self._socket.recv_into(buffer)
            assert received, "the connection ended"
            octets += received
            end = (end + buffer[max(received - 5, 0) : received])[-5:]
            if end == b"\r\n.\r\n":
                return octets

    def close(self) -> None:
        self._socket.sendall(b"QUIT\r\n")
        self._socket.close()


def _letter(size: int, gateway: Gateway) -> bytes:
    """A signed message of about `size` octets."""
    line = b"All of this is text that somebody has written, line by line.\r\n"
    head = (
        b"From: carol@partner.example\r\nTo: alice@example.org\r\nSubject: figures\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\r\n"
    )
    return signed(head + line * max(1, (size - 3000) // len(line)), gateway.carol)


def _rate(port: int, messages: int, readers: tuple[str, ...]) -> float:
    """Messages a second, over all readers at once."""
    clients = [Reader(port, login) for login in readers]
    clients[0].retrieve(1)

    def read(client: Reader) -> None:
        for number in range(1, messages + 1):
            client.retrieve(number)

    threads = [threading.Thread(target=read, args=(client,)) for client in clients]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begin
    for client in clients:
        client.close()
    return messages * len(clients) / seconds


def goals(found: dict[str, float]) -> list[tuple[str, float, float, float]]:
    """What must be reached, as (what, figure, must, aim)."""
    rows = [
        ("RETR 4 KiB verified, gateway / Dovecot", "RETR 4 KiB, gateway / Dovecot", 0.5, 1),
        ("RETR 10 MiB verified through the gateway, MB/s", "RETR 10 MiB verified through the gateway, MB/s", 100, 200),
        ("100 MiB by POP3: MiB above an idle worker (at most)", "RETR 100 MiB, MiB above idle", 64, 64),
    ]
    return [(what, found[name], must, aim) for what, name, must, aim in rows if name in found]


def figures(rounds: int = 3, scale: float = 1.0) -> dict[str, float]:
    """Rates and their ratio, medians of rounds in turn; empty where there is no Dovecot."""
    if why_not():
        return {}
    place = Path(tempfile.mkdtemp(prefix="mailsec-bench-dovecot-"))
    dovecot = Dovecot(place, *server_certificate(), users=_READERS)
    upstream = {"to": f"pop3://127.0.0.1:{dovecot.port}", "tls": "none", "domains": ["example.org"]}
    listener = {
        "name": "pop3s",
        "protocol": "pop3",
        "origin": "mailbox",
        "tls": "implicit",
        "certificate": "Server-Cert",
        "upstream": upstream,
    }
    gateway = Gateway(place / "gateway", f"lmtp:unix:{dovecot.lmtp}", listeners=[listener])
    try:
        dovecot.start()
        gateway.start()
        return _measure(dovecot, gateway, rounds, max(20, int(_MESSAGES * scale)))
    finally:
        gateway.close()
        dovecot.stop()
        shutil.rmtree(place, ignore_errors=True)


def _measure(dovecot: Dovecot, gateway: Gateway, rounds: int, messages: int) -> dict[str, float]:
    found: dict[str, float] = {}
    proxy = gateway.ports["pop3s"]
    small = _letter(_SMALL, gateway)
    found["RETR 100 MiB, MiB above idle"] = _memory(dovecot, gateway, small)
    for user in _READERS:
        dovecot.empty(user)
    for user in _READERS:
        for _ in range(messages):
            dovecot.put(user, small)
    pairs = [(_rate(dovecot.tls_port, messages, _READERS), _rate(proxy, messages, _READERS)) for _ in range(rounds)]
    found["RETR 4 KiB from Dovecot, messages/s"] = statistics.median(own for own, _ in pairs)
    found["RETR 4 KiB verified through the gateway, messages/s"] = statistics.median(through for _, through in pairs)
    found["RETR 4 KiB, gateway / Dovecot"] = statistics.median(through / own for own, through in pairs)
    for user in _READERS:
        dovecot.empty(user)
    sealed = _delivered(dovecot, gateway, small)
    for user in _READERS:
        for _ in range(messages):
            dovecot.put(user, sealed)
    pairs = [(_rate(dovecot.tls_port, messages, _READERS), _rate(proxy, messages, _READERS)) for _ in range(rounds)]
    found["RETR 4 KiB sealed by the gateway, gateway / Dovecot"] = statistics.median(through / own for own, through in pairs)
    for user in _READERS:
        dovecot.empty(user)
    large = _letter(_LARGE, gateway)
    for user in _READERS:
        for _ in range(4):
            dovecot.put(user, large)
    for name, port in (("from Dovecot", dovecot.tls_port), ("verified through the gateway", proxy)):
        rates = [_rate(port, 4, _READERS[:2]) for _ in range(rounds)]
        found[f"RETR 10 MiB {name}, MB/s"] = statistics.median(rates) * len(large) / 1e6
    return found


def _delivered(dovecot: Dovecot, gateway: Gateway, message: bytes) -> bytes:
    """The message as the gateway delivers it: judged, and sealed."""
    with gateway.client() as client:
        client.sendmail("carol@partner.example", ["alice@example.org"], message)
    (path,) = until(lambda: dovecot.messages("alice"), 30, "delivery")
    sealed: bytes = path.read_bytes().replace(b"\n", b"\r\n")
    dovecot.empty("alice")
    return sealed


def _memory(dovecot: Dovecot, gateway: Gateway, small: bytes) -> float:
    """MiB that the fullest worker needed for a large message, above its peak with small ones: of a gateway that has just begun."""
    port = gateway.ports["pop3s"]
    assert gateway.gateway is not None
    dovecot.put("alice", small)
    for _ in range(4):
        reader = Reader(port, "alice")
        reader.retrieve(1)
        reader.close()
    idle = peak_memory(gateway.gateway.pid)
    dovecot.put("bob", _letter(100 << 20, gateway))
    Reader(port, "bob").retrieve(1)
    after = peak_memory(gateway.gateway.pid)
    return max(peak - idle.get(process, 0.0) for process, peak in after.items())


if __name__ == "__main__":
    for name, figure in figures().items():
        print(f"{name:<60} {figure:10.2f}")
