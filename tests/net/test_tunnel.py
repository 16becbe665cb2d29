"""https through a proxy: the proxy sees the name alone, and nothing goes through before it has said yes."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest

from mailsec.errors import LimitExceeded, MailsecError, Unavailable
from mailsec.net.fetcher import Fetcher, FetchRules


class Proxy:
    """Answers CONNECT with `reply`, and relays to `port` if it says 200; `heard` is what came before that."""

    def __init__(
        self, port: int, reply: bytes = b"HTTP/1.1 200 Connection established\r\nVia: 1.1 proxy\r\n\r\n", then: str = "relay"
    ) -> None:
        self.heard: list[bytes] = []
        self._to, self._reply, self._then = port, reply, then
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._open.append(connection)
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65536)
            self.heard.append(request)
            try:
                if self._then == "close":
                    connection.close()
                    continue
                connection.sendall(self._reply)
                while self._then == "endless":
                    connection.sendall(self._reply)
            except OSError:
                continue
            if self._then == "relay":
                target = socket.create_connection(("127.0.0.1", self._to))
                self._open.append(target)
                for ends in ((connection, target), (target, connection)):
                    threading.Thread(target=_pump, args=ends, daemon=True).start()

    def close(self) -> None:
        for one in (self._socket, *self._open):
            one.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.fixture
def https(certificates, tmp_path):
    """Makes a TLS server of "localhost" that says `answer` to every request; gives its port."""
    pair = tmp_path / "pair.pem"
    pair.write_bytes(certificates.key_pem + certificates.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    opened = []

    def make(answer: bytes) -> int:
        listening = socket.create_server(("127.0.0.1", 0))
        opened.append(listening)

        def run() -> None:
            while True:
                try:
                    plain, _ = listening.accept()
                    connection = context.wrap_socket(plain, server_side=True)
                    request = b""
                    while b"\r\n\r\n" not in request:
                        request += connection.recv(65536)
                    connection.sendall(answer)
                    connection.close()
                except OSError:
                    if listening.fileno() < 0:
                        return

        threading.Thread(target=run, daemon=True).start()
        return listening.getsockname()[1]

    yield make
    for one in opened:
        one.close()


@pytest.fixture
def proxied():
    opened = []

    def make(port: int = 0, **options) -> Proxy:
        opened.append(Proxy(port, **options))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


class Names:
    async def addresses(self, host: str) -> list[str]:
        assert host == "127.0.0.1", "only the proxy is resolved here"
        return [host]


def fetch(loop, url: str, proxy: Proxy, *, limit: int = 1000, ports=frozenset()):
    fetcher = Fetcher(loop.reactor, Names(), FetchRules(ports=ports, proxy=f"http://127.0.0.1:{proxy.port}"))
    return loop.call(fetcher.fetch, url, body=None, content_type="", limit=limit, timeout=10)


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nevidence"


@pytest.fixture
def trusted(certificates, tmp_path, monkeypatch):
    """The system trusts the authority of the test."""
    file = tmp_path / "roots.pem"
    file.write_bytes(certificates.ca_pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))


def test_https_through_a_proxy(loop, https, proxied, trusted):
    proxy = proxied(https(OK))
    # The name that the certificate has; the proxy finds where it is.
    with pytest.raises(Unavailable, match="no public address"):
        fetch(loop, "https://localhost/crl", proxy)
    assert fetch(loop, "https://ca.example.org/crl", proxy) == b"evidence"
    assert proxy.heard[0].startswith(b"CONNECT ca.example.org:443 HTTP/1.1\r\n")


def test_a_server_with_another_name_behind_the_proxy_is_refused(loop, https, proxied, trusted):
    with pytest.raises(Unavailable):
        fetch(loop, "https://other.example/crl", proxied(https(OK)))


def test_a_server_that_nobody_vouches_for_is_refused(loop, https, proxied):
    with pytest.raises(Unavailable):
        fetch(loop, "https://ca.example.org/crl", proxied(https(OK)))


@pytest.mark.parametrize(
    ("reply", "then", "why"),
    [
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "hold", "403"),
        (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "hold", "407"),
        (b"220 mail.example.org ESMTP\r\n\r\n", "hold", "HTTP"),
        (b"HTTP/1.1 2000 What\r\n\r\n", "hold", "to CONNECT"),
        (b"X-Header: endless\r\n", "endless", "no end"),
        (b"", "close", "closed"),
    ],
)
def test_a_proxy_that_does_not_connect(loop, proxied, reply, then, why):
    proxy = proxied(reply=reply, then=then)
    with pytest.raises(Unavailable, match=f"the proxy: .*{why}"):
        fetch(loop, "https://ca.example.org/crl", proxy)


def test_ten_gigabytes_through_a_proxy_are_cut_off(loop, https, proxied, trusted):
    answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000_000
    with pytest.raises(MailsecError) as caught:
        fetch(loop, "https://ca.example.org/crl", proxied(https(answer)), limit=100_000)
    assert isinstance(caught.value, LimitExceeded)


@pytest.mark.parametrize(
    "url",
    [
        "http://10.0.0.1/",
        "https://10.0.0.1/",
        "http://127.1/",
        "http://0x7f.1/",
        "http://0x7f000001/",
        "http://2130706433/",
        "http://127.0.0.1./",
        "http://localhost/",
        "http://metadata.localhost./",
        "http://[::ffff:10.0.0.1]/",
        "https://[fe80::1]/",
    ],
)
def test_ssrf_through_the_proxy_by_what_it_may_take_for_an_address_is_refused(loop, proxied, url):
    proxy = proxied()
    with pytest.raises(Unavailable, match="no public address"):
        fetch(loop, url, proxy)
    assert proxy.heard == []


def test_other_ports_are_refused_through_a_proxy_too(loop, proxied):
    proxy = proxied()
    with pytest.raises(Unavailable, match="not for HTTP"):
        fetch(loop, "https://ca.example.org:25/", proxy, ports=frozenset({80, 443}))
    assert proxy.heard == []
