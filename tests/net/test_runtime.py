"""The Twisted runtime: tasks, signals, threads, time limits, names, HTTP."""

from __future__ import annotations

import http.server
import socket
import socketserver
import threading

import dns.flags
import dns.message
import dns.rrset
import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed

from mailsec.errors import ConfigurationError, LimitExceeded, Unavailable
from mailsec.interfaces import DnsAnswer
from mailsec.model.limits import Limits
from mailsec.net.runtime import TwistedRuntime


@pytest.fixture
def runtime(loop):
    runtime = TwistedRuntime(loop.reactor, limits=Limits(fetch_timeout=20.0))
    yield runtime
    loop.call(runtime.close)


def test_clock_and_chance(runtime):
    assert runtime.now().utcoffset().total_seconds() == 0
    assert len(runtime.random(16)) == 16 and runtime.random(16) != runtime.random(16)
    assert runtime.monotonic() <= runtime.monotonic()


def test_gather_waits_for_all_and_raises_the_first_error(loop, runtime):
    order = []

    async def one(name, seconds, error=None):
        await runtime.sleep(seconds)
        order.append(name)
        if error:
            raise error
        return name

    assert loop.call(lambda: runtime.gather([one("a", 0.02), one("b", 0.0)])) == ["a", "b"]
    order.clear()
    with pytest.raises(Unavailable):
        loop.call(lambda: runtime.gather([one("slow", 0.03), one("bad", 0.0, Unavailable("x")), one("worse", 0.01, ValueError())]))
    assert sorted(order) == ["bad", "slow", "worse"]
    assert loop.call(lambda: runtime.gather([])) == []


def test_within_gives_the_value_the_error_or_timeout(loop, runtime):
    async def value():
        return 7

    async def fails():
        await runtime.sleep(0)
        raise Unavailable("x")

    assert loop.call(lambda: runtime.within(1, value())) == 7
    with pytest.raises(Unavailable):
        loop.call(lambda: runtime.within(1, fails()))
    cancelled = []

    async def hangs():
        try:
            await Deferred()
        except CancelledError:
            cancelled.append(True)
            raise

    with pytest.raises(TimeoutError):
        loop.call(lambda: runtime.within(0.01, hangs()))
    assert cancelled == [True]


def test_within_does_not_wait_for_what_cannot_be_cancelled(loop, runtime):
    async def stubborn():
        try:
            await Deferred()
        except CancelledError:
            await runtime.sleep(0.2)

    with pytest.raises(TimeoutError):
        loop.call(lambda: runtime.within(0.01, stubborn()), timeout=0.15)


def test_task_can_be_awaited_by_several_and_cancelled(loop, runtime):
    async def work():
        await runtime.sleep(0.01)
        return "done"

    async def both():
        task = runtime.start(work(), "work")
        return await task, await task

    assert loop.call(both) == ("done", "done")

    async def cancel():
        task = runtime.start(work(), "work")
        task.cancel()
        await task

    with pytest.raises(CancelledError):
        loop.call(cancel)


def test_signal_before_and_after(loop, runtime):
    async def run():
        signal = runtime.signal()
        waiting = runtime.gather([signal.wait(), signal.wait()])
        signal.fire(3)
        signal.fire(4)
        return await waiting, await signal.wait(), signal.fired

    assert loop.call(run) == ([3, 3], 3, True)


def test_lanes_have_threads_of_their_own(loop, runtime):
    async def run():
        name = await runtime.in_thread(lambda: threading.current_thread().name, lane="spool")
        other = await runtime.in_thread(lambda: threading.current_thread().name, lane="bulk")
        return name, other

    name, other = loop.call(run)
    assert "spool" in name and "bulk" in other
    with pytest.raises(ConfigurationError):
        loop.call(lambda: runtime.in_thread(int, lane="nowhere"))
    with pytest.raises(ZeroDivisionError):
        loop.call(lambda: runtime.in_thread(lambda: 1 // 0))


def test_threads_of_one_lane_do_not_wait_for_another(loop, runtime):
    held = threading.Event()

    async def run():
        busy = runtime.start(runtime_thread(), "busy")
        answer = await runtime.in_thread(lambda: "free", lane="database")
        held.set()
        await busy
        return answer

    async def runtime_thread():
        return await runtime.in_thread(held.wait, 5, lane="spool")

    assert loop.call(run) == "free"


def test_a_refused_connection_is_told_once_and_in_the_words_of_the_system():
    from twisted.internet.error import ConnectionRefusedError, TimeoutError

    from mailsec.net.connect import _words

    assert _words(ConnectionRefusedError(111, "Connection refused")) == "connection refused"
    assert _words(TimeoutError()) == "no answer in time"


def test_cancelled_connect_tries_no_other_address(loop):
    from twisted.internet.testing import MemoryReactorClock

    from mailsec.wire.smtp.client import ClientSettings, SmtpClient

    reactor = MemoryReactorClock()
    runtime = TwistedRuntime(reactor)
    ends: list[object] = []
    runtime._resolver.addresses = lambda host: succeed(["192.0.2.1", "192.0.2.2"])
    connecting = runtime.connect("mx.example:25", SmtpClient(ClientSettings("gw.example.org")), ends.append, timeout=5)
    connecting.addErrback(ends.append)
    assert len(reactor.tcpClients) == 1
    connecting.cancel()
    assert len(reactor.tcpClients) == 1 and isinstance(ends[0].value, CancelledError)


# -- names ------------------------------------------------------------------------------------------------------------------------------


class Dns:
    """A resolver on loopback that answers from a table, over UDP and TCP."""

    def __init__(self) -> None:
        self.table: dict[tuple[str, str], list[str]] = {}
        self.questions = 0
        self.truncate = False
        self.silent = False
        self.liar = False
        self.validates = True
        outer = self

        class Udp(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data, sock = self.request
                if not outer.silent:
                    if outer.liar:
                        forged = dns.message.make_response(dns.message.from_wire(data))
                        forged.id ^= 1
                        sock.sendto(forged.to_wire(), self.client_address)
                    sock.sendto(outer.answer(data, udp=True), self.client_address)

        class Tcp(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                length = int.from_bytes(self.request.recv(2), "big")
                wire = outer.answer(self.request.recv(length), udp=False)
                self.request.sendall(len(wire).to_bytes(2, "big") + wire)

        for _ in range(20):
            self.udp = socketserver.UDPServer(("127.0.0.1", 0), Udp)
            self.port = self.udp.server_address[1]
            try:
                self.tcp = socketserver.TCPServer(("127.0.0.1", self.port), Tcp)
                break
            except OSError:
                self.udp.server_close()
        for server in (self.udp, self.tcp):
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()

    def answer(self, wire: bytes, *, udp: bool) -> bytes:
        self.questions += 1
        query = dns.message.from_wire(wire)
        response = dns.message.make_response(query)
        if self.validates and query.flags & dns.flags.AD:
            response.flags |= dns.flags.AD
        question = query.question[0]
        kind = dns.rdatatype.to_text(question.rdtype)
        if udp and self.truncate:
            response.flags |= dns.flags.TC
            return response.to_wire()
        name = question.name
        followed: set[str] = set()
        while (alias := self.table.get((str(name), "CNAME"))) and str(name) not in followed:
            followed.add(str(name))
            response.answer.append(dns.rrset.from_text(name, 60, "IN", "CNAME", alias[0]))
            name = dns.name.from_text(alias[0])
        records = self.table.get((str(name), kind))
        if records == ["SERVFAIL"]:
            response.set_rcode(2)
        elif records:
            response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *records))
        elif not any(known == str(name) for known, _ in self.table):
            response.set_rcode(3)
        return response.to_wire()

    def close(self) -> None:
        for server in (self.udp, self.tcp):
            server.shutdown()
            server.server_close()


@pytest.fixture
def dns_server():
    server = Dns()
    yield server
    server.close()


@pytest.fixture
def resolving(loop, dns_server):
    runtime = TwistedRuntime(loop.reactor, resolver=f"127.0.0.1:{dns_server.port}", limits=Limits(fetch_timeout=20.0))
    yield runtime
    loop.call(runtime.close)


def test_mx_addresses_aliases_and_nothing(loop, resolving, dns_server):
    dns_server.table = {
        ("b.example.", "MX"): ["20 mx2.b.example.", "10 MX1.b.example."],
        ("mx1.b.example.", "A"): ["192.0.2.1", "192.0.2.2"],
        ("mx1.b.example.", "AAAA"): ["2001:db8::1"],
        ("alias.example.", "CNAME"): ["mx1.b.example."],
        ("null.example.", "MX"): ["0 ."],
        ("t.example.", "TXT"): ['"a" "b"'],
        ("bad.example.", "MX"): ["SERVFAIL"],
    }
    resolve = resolving.resolve
    assert loop.call(resolve, "b.example", "MX") == ((10, "MX1.b.example"), (20, "mx2.b.example"))
    assert sorted(loop.call(resolve, "mx1.b.example", "A")) == ["192.0.2.1", "192.0.2.2"]
    assert loop.call(resolve, "alias.example", "AAAA") == ("2001:db8::1",)
    assert loop.call(resolve, "null.example", "MX") == ((0, ""),)
    assert loop.call(resolve, "t.example", "TXT") == (b"ab",)
    assert loop.call(resolve, "nowhere.example", "MX") == ()
    assert loop.call(resolve, "b.example", "A") == ()
    assert loop.call(resolve, "bad..name", "A") == ()
    with pytest.raises(Unavailable, match="SERVFAIL"):
        loop.call(resolve, "bad.example", "MX")
    before = dns_server.questions
    loop.call(resolve, "b.example", "MX")
    assert dns_server.questions == before, "kept for its time to live"


def test_aliases_in_a_circle_or_to_nowhere_are_no_answer(loop, resolving, dns_server):
    """Mail for such a name waits: nobody is told that it does not exist."""
    dns_server.table = {
        ("one.example.", "CNAME"): ["two.example."],
        ("two.example.", "CNAME"): ["one.example."],
    }
    for kind in ("MX", "A"):
        with pytest.raises(Unavailable, match="aliases"):
            loop.call(resolving.resolve, "one.example", kind)


def test_a_server_that_fails_for_aaaa_does_not_take_the_addresses_of_a(loop, resolving, dns_server):
    dns_server.table = {
        ("half.example.", "A"): ["192.0.2.1"],
        ("half.example.", "AAAA"): ["SERVFAIL"],
        ("no.example.", "AAAA"): ["SERVFAIL"],
    }
    assert loop.call(resolving._resolver.addresses, "half.example") == ["192.0.2.1"]
    with pytest.raises(Unavailable):
        loop.call(resolving._resolver.addresses, "no.example")


def test_a_validating_resolver_on_this_machine_is_believed(loop, resolving, dns_server):
    dns_server.table = {("b.example.", "TXT"): ['"a"'], ("c.example.", "TXT"): ['"a"']}
    assert loop.call(resolving.look_up, "b.example", "TXT") == DnsAnswer((b"a",), True)
    dns_server.validates = False
    assert loop.call(resolving.look_up, "c.example", "TXT") == DnsAnswer((b"a",), False)
    assert loop.call(resolving.look_up, "nowhere.example", "TXT") == DnsAnswer()


def test_attack_a_resolver_of_the_network_says_that_it_validated(loop, resolving, dns_server):
    dns_server.table = {("b.example.", "TXT"): ['"a"']}
    resolving._resolver._configured = ""
    here = f"127.0.0.1:{dns_server.port}"
    ask_udp = resolving._resolver._ask_udp

    async def as_if_elsewhere(query, server, port, seconds):
        return await ask_udp(query, "127.0.0.1", dns_server.port, seconds)

    resolving._resolver._ask_udp = as_if_elsewhere
    resolving._resolver._servers = lambda named: [("192.0.2.53", 53)]
    assert loop.call(resolving.look_up, "b.example", "TXT") == DnsAnswer((b"a",), False)
    assert loop.call(lambda: resolving.look_up("b.example", "TXT", resolver=here)) == DnsAnswer((b"a",), True), "unless it was chosen"


def test_addresses_for_a_strangers_url_are_public_ones(loop, resolving, dns_server):
    dns_server.table = {("ca.example.", "A"): ["10.0.0.1", "8.8.8.8"], ("in.example.", "A"): ["169.254.169.254"]}
    assert loop.call(resolving.public_addresses, "ca.example") == ["8.8.8.8"]
    with pytest.raises(Unavailable, match="no public address"):
        loop.call(resolving.public_addresses, "in.example")


def test_truncated_answer_is_asked_again_over_tcp(loop, resolving, dns_server):
    dns_server.truncate = True
    dns_server.table = {("b.example.", "A"): ["192.0.2.1"]}
    assert loop.call(resolving.resolve, "b.example", "A") == ("192.0.2.1",)


def test_answer_to_another_question_is_ignored(loop, resolving, dns_server):
    dns_server.liar = True
    dns_server.table = {("b.example.", "A"): ["192.0.2.1"]}
    assert loop.call(resolving.resolve, "b.example", "A") == ("192.0.2.1",)


def test_silent_dns_is_unavailable_in_time(loop, dns_server):
    dns_server.silent = True
    runtime = TwistedRuntime(loop.reactor, resolver=f"127.0.0.1:{dns_server.port}", limits=Limits(fetch_timeout=0.5))
    with pytest.raises(Unavailable) as info:
        loop.call(runtime.resolve, "b.example", "MX", timeout=2)
    loop.call(runtime.close)
    assert info.value.temporary and info.value.stage == "dns"


def test_localhost_is_never_asked(loop, resolving, dns_server):
    assert "127.0.0.1" in loop.call(resolving._resolver.addresses, "localhost")
    assert loop.call(resolving._resolver.addresses, "::1") == ["::1"]
    assert dns_server.questions == 0


# -- HTTP -------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def web():
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "http://127.0.0.1/")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"x" * (100_000 if self.path == "/big" else 10))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.headers["Content-Type"].encode() + b":" + body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_fetch(loop, web):
    runtime = TwistedRuntime(loop.reactor, local_networks=True)
    assert loop.call(lambda: runtime.fetch(web + "/")) == b"x" * 10
    assert loop.call(lambda: runtime.fetch(web + "/", body=b"ocsp", content_type="a/b")) == b"a/b:ocsp"
    with pytest.raises(LimitExceeded):
        loop.call(lambda: runtime.fetch(web + "/big", limit=1000))


def test_fetch_never_asks_our_own_networks(loop, runtime, web):
    for url in (web, "http://169.254.169.254/", "http://[::1]/", "file:///etc/passwd", "http://user:x@example.org/", "http://10.0.0.1/"):
        with pytest.raises(Unavailable):
            loop.call(lambda url=url: runtime.fetch(url))


def test_responder_that_hangs_is_given_up(loop):
    runtime = TwistedRuntime(loop.reactor, local_networks=True)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        loop.call(lambda: runtime.fetch(f"http://127.0.0.1:{silent.getsockname()[1]}/", timeout=0.1))
