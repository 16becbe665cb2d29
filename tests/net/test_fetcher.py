"""Fetching for strangers: what a certificate names may lead anywhere, and does not get there."""

from __future__ import annotations

import socket
import threading

import pytest

from mailsec.errors import LimitExceeded, MailsecError, Unavailable
from mailsec.model.limits import Limits
from mailsec.model.networks import read_network
from mailsec.net.fetcher import Fetcher, FetchRules
from mailsec.net.runtime import TwistedRuntime
from tests.peers.gateway import until

LOOPBACK = (read_network("127.0.0.0/8"),)


class Names:
    """A resolver whose answers are given; each question uses up one."""

    def __init__(self, **answers: list[list[str]]) -> None:
        self.answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked: list[str] = []

    async def addresses(self, host: str) -> list[str]:
        self.asked.append(host)
        found = self.answers.get(host)
        if found is None:
            return [host]
        return found.pop(0) if len(found) > 1 else found[0]


class Server:
    """Says what it is told to whoever connects; remembers what was asked."""

    def __init__(self, *answers: bytes, endless: bytes = b"", hold: bool = False) -> None:
        self.requests: list[bytes] = []
        self.sent = 0
        self._answers = list(answers)
        self._endless, self._hold = endless, hold
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._open: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._open.append(connection)
            request = connection.recv(65536)
            while b"\r\n\r\n" not in request and (more := connection.recv(65536)):
                request += more
            self.requests.append(request)
            if self._hold:
                continue
            try:
                connection.sendall(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])
                while self._endless:
                    connection.sendall(self._endless)
                    self.sent += len(self._endless)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def close(self) -> None:
        for one in (self._socket, *self._open):
            one.close()


@pytest.fixture
def serve():
    servers = []

    def make(*answers: bytes, **options) -> Server:
        servers.append(Server(*answers, **options))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


def ok(body: bytes = b"evidence") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def moved(where: str, code: int = 302) -> bytes:
    return f"HTTP/1.1 {code} Moved\r\nLocation: {where}\r\nContent-Length: 0\r\n\r\n".encode()


def fetch(loop, url, names=None, *, rules=None, body=None, limit=1000, timeout=10):
    fetcher = Fetcher(loop.reactor, names or Names(), rules or FetchRules(networks=LOOPBACK, ports=frozenset()))
    return loop.call(fetcher.fetch, url, body=body, content_type="application/ocsp-request" if body else "", limit=limit, timeout=timeout)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://0/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://metadata.internal/",
    ],
)
def test_ssrf_by_address_or_name_is_refused(loop, url):
    names = Names(metadata_internal=[["10.0.0.5"]])
    with pytest.raises(Unavailable, match="no public address"):
        fetch(loop, url, names, rules=FetchRules())


@pytest.mark.parametrize("url", ["ftp://a.example/", "file:///etc/passwd", "gopher://a/", "http://u:p@a.example/", "http:///x", "http://a:x/",
                                 "http://a.example/\r\nHost: b", "http://ä.example/", "http://a b/", "ldap://a/"])  # fmt: skip
def test_urls_of_other_kinds_are_refused(loop, url):
    names = Names()
    with pytest.raises(Unavailable):
        fetch(loop, url, names, rules=FetchRules())
    assert names.asked == []


@pytest.mark.parametrize("port", [22, 25, 8080, 6379])
def test_other_ports_are_refused(loop, port):
    with pytest.raises(Unavailable, match="not for HTTP"):
        fetch(loop, f"http://ca.example:{port}/", Names(ca_example=[["192.0.1.1"]]), rules=FetchRules())


def test_own_public_address_is_refused(loop, monkeypatch):
    from mailsec.net import fetcher

    monkeypatch.setattr(fetcher, "is_public", lambda address: True)
    with pytest.raises(Unavailable, match="no public address"):
        fetch(loop, "http://ca.example/", Names(ca_example=[["127.0.0.1"]]), rules=FetchRules())


def test_a_name_that_changes_its_address_after_the_check_is_connected_to_the_checked_one(loop, serve):
    good = serve(ok())
    names = Names(rebind_example=[["127.0.0.1"], ["10.0.0.1"]])
    assert fetch(loop, f"http://rebind.example:{good.port}/x", names) == b"evidence"
    assert names.asked == ["rebind.example"], "it is resolved once, and that address is used"
    assert b"Host: rebind.example" in good.requests[0]


def test_only_allowed_addresses_of_a_name_are_used(loop, serve):
    good = serve(ok())
    assert fetch(loop, f"http://mixed.example:{good.port}/", Names(mixed_example=[["10.0.0.1", "127.0.0.1"]])) == b"evidence"


def test_the_second_address_is_tried(loop, serve):
    good = serve(ok())
    assert fetch(loop, f"http://two.example:{good.port}/", Names(two_example=[["127.0.0.9", "127.0.0.1"]])) == b"evidence"


def test_redirects_are_followed_and_each_is_checked(loop, serve):
    good = serve(ok())
    first = serve(moved(f"http://127.0.0.1:{good.port}/crl"))
    assert fetch(loop, f"http://127.0.0.1:{first.port}/") == b"evidence"
    inside = serve(moved("http://10.0.0.1/"))
    with pytest.raises(Unavailable, match="no public address"):
        fetch(loop, f"http://127.0.0.1:{inside.port}/")
    for where in ("file:///etc/passwd", "http://u:p@127.0.0.1/", "//[::1", ""):
        elsewhere = serve(moved(where), moved(where))
        with pytest.raises(Unavailable):
            fetch(loop, f"http://127.0.0.1:{elsewhere.port}/")


def test_a_redirect_to_where_we_do_not_go_is_not_the_fault_of_the_host_that_was_asked(loop, serve):
    for where in ("http://10.0.0.1/", "ftp://x.example/", "http://[", "http://127.0.0.1:1/"):
        with pytest.raises(Unavailable) as caught:
            fetch(loop, f"http://127.0.0.1:{serve(moved(where)).port}/")
        assert caught.value.stage == "http", where


def test_redirects_in_a_circle_end(loop, serve):
    circle = serve(moved("/again"))
    with pytest.raises(Unavailable, match="redirects"):
        fetch(loop, f"http://127.0.0.1:{circle.port}/")
    assert len(circle.requests) == 4


def test_a_question_is_not_turned_into_another_by_a_redirect(loop, serve):
    good = serve(ok())
    with pytest.raises(Unavailable, match="302"):
        fetch(loop, f"http://127.0.0.1:{serve(moved('/x')).port}/", body=b"question")
    kept = serve(moved(f"http://127.0.0.1:{good.port}/", 307))
    assert fetch(loop, f"http://127.0.0.1:{kept.port}/", body=b"question") == b"evidence"
    assert good.requests[0].startswith(b"POST")


@pytest.mark.parametrize(
    ("head", "endless"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n", b"x" * 65536),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"400\r\n" + b"x" * 0x400 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X-Header: endless\r\n" * 1000),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    ],
)
def test_a_responder_that_sends_ten_gigabytes_is_cut_off(loop, serve, head, endless):
    server = serve(head, endless=endless)
    with pytest.raises(MailsecError) as caught:
        fetch(loop, f"http://127.0.0.1:{server.port}/", limit=100_000)
    assert isinstance(caught.value, LimitExceeded)
    assert server.sent < 50_000_000


def test_the_connection_of_a_responder_that_hangs_is_dropped(loop, serve):
    server = serve(b"", hold=True)
    runtime = TwistedRuntime(loop.reactor, local_networks=True, limits=Limits(fetch_timeout=0.2))
    with pytest.raises(TimeoutError):
        loop.call(lambda: runtime.fetch(f"http://127.0.0.1:{server.port}/"))
    until(lambda: server._open)
    server._open[0].settimeout(60)
    try:
        assert server._open[0].recv(1) == b""
    except ConnectionResetError:
        pass


def test_the_same_question_is_out_once(loop, serve):
    server = serve(ok())
    runtime = TwistedRuntime(loop.reactor, local_networks=True)
    url = f"http://127.0.0.1:{server.port}/"
    assert loop.call(lambda: runtime.gather([runtime.fetch(url) for _ in range(5)])) == [b"evidence"] * 5
    assert len(server.requests) == 1
    assert loop.call(lambda: runtime.fetch(url)) == b"evidence"
    assert len(server.requests) == 2, "an answer is not kept here"


def test_whoever_gives_up_stops_nobody_else(loop, serve):
    server = serve(b"", hold=True)
    runtime = TwistedRuntime(loop.reactor, local_networks=True)
    url = f"http://127.0.0.1:{server.port}/"

    async def both():
        first = runtime.start(_caught(runtime.fetch(url)), "first")
        second = await _caught(runtime.within(0.05, runtime.fetch(url)))
        while not server.requests:
            await runtime.sleep(0.01)
        server._open[0].sendall(ok())
        return await first, second

    first, second = loop.call(both)
    assert first == b"evidence" and isinstance(second, TimeoutError)
    assert len(server.requests) == 1


async def _caught(awaitable):
    try:
        return await awaitable
    except (MailsecError, TimeoutError) as error:
        return error


def test_through_a_proxy(loop, serve):
    proxy = serve(ok())
    names = Names()
    rules = FetchRules(proxy=f"http://127.0.0.1:{proxy.port}")
    assert fetch(loop, "http://ca.example/crl", names, rules=rules) == b"evidence"
    assert proxy.requests[0].startswith(b"GET http://ca.example/crl HTTP/1.1\r\n"), "the proxy resolves the name"
    assert names.asked == ["127.0.0.1"], "only the proxy is resolved here"
    for url in ("http://10.0.0.1/", "http://ca.example:22/"):
        with pytest.raises(Unavailable):
            fetch(loop, url, names, rules=rules)
    assert len(proxy.requests) == 1


def test_a_proxy_that_is_down_is_told_apart(loop):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Unavailable, match="the proxy"):
        fetch(loop, "http://ca.example/", rules=FetchRules(proxy=f"http://127.0.0.1:{port}"))
