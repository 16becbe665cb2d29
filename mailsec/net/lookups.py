"""DNS: dnspython's messages (RFC 1035, RFC 6891) over Twisted's sockets, to the resolvers of this machine.

The system's stub never blocks us. The one invariant: an answer counts only if it answers the very question that was asked.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ClientFactory, DatagramProtocol, Protocol, connectionDone
from twisted.python.failure import Failure

from mailsec.errors import Unavailable
from mailsec.interfaces import DnsAnswer

__all__ = ["Resolver"]

_RESOLV_CONF = Path("/etc/resolv.conf")
_HOSTS = Path("/etc/hosts")
_TRY = 2.0
"""Seconds for one question to one resolver."""
_ROUNDS = 2
# DNS Flag Day 2020: 1232 octets pass everywhere without fragments.
_PAYLOAD = 1232
_CACHED = 2048
_LONGEST_TTL = 300.0


class _Question(DatagramProtocol):
    """One question over UDP, from a port that the kernel chose by chance, to a connected address: others' datagrams never get here."""

    transport: Any

    def __init__(self, query: dns.message.Message, server: str, port: int) -> None:
        self._query = query
        self._server = server
        self._port = port
        self.answer: Deferred[dns.message.Message] = Deferred()

    def startProtocol(self) -> None:
        self.transport.connect(self._server, self._port)
        self.transport.write(self._query.to_wire())

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        response = _read(datagram, self._query)
        # RFC 5452 §9.1: what is not the answer to this very question is ignored, and the real one waited for.
        if response is not None and not self.answer.called:
            self.answer.callback(response)

    def connectionRefused(self) -> None:
        if not self.answer.called:
            self.answer.errback(Unavailable(f"resolver {self._server} refuses", stage="dns"))


class _QuestionTcp(Protocol):
    """The same over TCP (RFC 7766), for answers that are too long."""

    transport: Any

    def __init__(self, query: dns.message.Message) -> None:
        self._query = query
        self._buffer = b""
        self.answer: Deferred[dns.message.Message] = Deferred()

    def connectionMade(self) -> None:
        wire = self._query.to_wire()
        self.transport.write(struct.pack("!H", len(wire)) + wire)

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) < 2 or len(self._buffer) < 2 + int.from_bytes(self._buffer[:2], "big"):
            return
        response = _read(self._buffer[2 : 2 + int.from_bytes(self._buffer[:2], "big")], self._query)
        self.transport.abortConnection()
        if not self.answer.called:
            if response is None:
                self.answer.errback(Unavailable("the resolver answers something else", stage="dns"))
            else:
                self.answer.callback(response)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.answer.called:
            self.answer.errback(Unavailable("the resolver closed the connection", stage="dns"))


class _TcpFactory(ClientFactory):
    noisy = False

    def __init__(self, protocol: _QuestionTcp) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Protocol:
        return self._protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if not self._protocol.answer.called:
            self._protocol.answer.errback(Unavailable("the resolver cannot be reached", stage="dns"))


def _read(wire: bytes, query: dns.message.Message) -> dns.message.Message | None:
    try:
        response = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, struct.error, IndexError):
        return None
    return response if query.is_response(response) else None


class Resolver:
    """Asks the configured resolvers; keeps answers for at most five minutes."""

    def __init__(self, reactor: Any, server: str = "", *, timeout: float = 10.0) -> None:
        self._reactor = reactor
        self._configured = server
        self._timeout = timeout
        self._cache: dict[tuple[str, str, str], tuple[float, DnsAnswer]] = {}
        self.observe: Callable[[str, float], object] = lambda result, seconds: None
        """Told of each question to a resolver: "answered" or "failed", and how long that took."""

    def _servers(self, named: str) -> list[tuple[str, int]]:
        configured = named or self._configured
        if configured:
            host, colon, port = configured.rpartition(":")
            if not colon or (":" in host and not host.startswith("[")):
                return [(configured, 53)]
            return [(host.strip("[]"), int(port))]
        try:
            lines = _RESOLV_CONF.read_text("ascii", "replace").splitlines()
        except OSError:
            lines = []
        servers = [line.split()[1] for line in lines if line.startswith("nameserver") and len(line.split()) > 1]
        return [(server, 53) for server in servers[:3]] or [("127.0.0.1", 53)]

    async def resolve(self, name: str, kind: str) -> Sequence[Any]:
        """Records of `kind`: "A" and "AAAA" as addresses, "MX" as (preference, host), "TXT" as bytes, others as dnspython's rdata.

        Names come without their last dot; the null MX (RFC 7505) is (0, ""). No record: empty. Raise Unavailable where nobody answers.
        """
        return (await self.look_up(name, kind)).records

    async def look_up(self, name: str, kind: str, *, server: str = "") -> DnsAnswer:
        """The same with what DNSSEC says. `server`: "ADDRESS" or "ADDRESS:PORT" that is asked in place of the others, and whose word is believed."""
        key = (name.lower(), kind, server)
        now = self._reactor.seconds()
        cached = self._cache.get(key)
        if cached is not None and cached[0] > now:
            return cached[1]
        try:
            query = dns.message.make_query(name, kind, use_edns=0, payload=_PAYLOAD)
        except (dns.exception.DNSException, UnicodeError, ValueError) as error:
            # A name that cannot be asked for does not exist.
            if isinstance(error, dns.rdatatype.UnknownRdatatype):
                raise
            return DnsAnswer()
        # RFC 6840 §5.7: this asks for the AD bit without asking for signatures.
        query.flags |= dns.flags.AD
        try:
            response, believed = await self._ask(query, server)
        except Unavailable:
            self.observe("failed", self._reactor.seconds() - now)
            raise
        self.observe("answered", self._reactor.seconds() - now)
        ttl, records = _records(response, kind)
        answer = DnsAnswer(records, believed and bool(response.flags & dns.flags.AD))
        if len(self._cache) >= _CACHED:
            self._cache.clear()
        self._cache[key] = (now + min(max(ttl, 1.0), _LONGEST_TTL), answer)
        return answer

    async def addresses(self, host: str) -> list[str]:
        """Addresses of `host` to connect to: itself if it is one, from the hosts file, else A and AAAA."""
        try:
            return [str(ipaddress.ip_address(host))]
        except ValueError:
            pass
        local = _from_hosts(host)
        if local:
            return local
        found = list(await self.resolve(host, "A"))
        try:
            return [*found, *await self.resolve(host, "AAAA")]
        except Unavailable:
            # Servers that fail for AAAA, and answer for A.
            if not found:
                raise
            return found

    async def _ask(self, query: dns.message.Message, named: str) -> tuple[dns.message.Message, bool]:
        """The response, and whether its AD bit is believed.

        RFC 6840 §5.8, RFC 4035 §4.9.3: the bit is worth what the way to the resolver is: this machine's own, or one that was chosen. Attack: a
        resolver of the network (DHCP), or whoever writes datagrams between it and us.
        """
        why = "no answer"
        deadline = self._reactor.seconds() + self._timeout
        for _ in range(_ROUNDS):
            for server, port in self._servers(named):
                left = deadline - self._reactor.seconds()
                if left <= 0:
                    break
                try:
                    response = await self._ask_udp(query, server, port, min(_TRY, left))
                    if response.flags & dns.flags.TC:
                        response = await self._ask_tcp(query, server, port, min(_TRY, left))
                except Unavailable as error:
                    why = error.message
                    continue
                if response.rcode() in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
                    return response, bool(named) or _is_loopback(server)
                why = f"the resolver answers {dns.rcode.to_text(response.rcode())}"
        raise Unavailable(f"DNS: {why} for {query.question[0].name}", hint="is the resolver running?", stage="dns")

    async def _ask_udp(self, query: dns.message.Message, server: str, port: int, seconds: float) -> dns.message.Message:
        question = _Question(query, server, port)
        listening = self._reactor.listenUDP(0, question, interface="::" if ":" in server else "")
        try:
            return await self._in_time(question.answer, seconds)
        finally:
            listening.stopListening()

    async def _ask_tcp(self, query: dns.message.Message, server: str, port: int, seconds: float) -> dns.message.Message:
        question = _QuestionTcp(query)
        connector = self._reactor.connectTCP(server, port, _TcpFactory(question), timeout=seconds)
        try:
            return await self._in_time(question.answer, seconds)
        finally:
            connector.disconnect()

    async def _in_time(self, answer: Deferred[dns.message.Message], seconds: float) -> dns.message.Message:
        def ring() -> None:
            if not answer.called:
                answer.errback(Unavailable("no answer", stage="dns"))

        call = self._reactor.callLater(seconds, ring)
        try:
            return await answer
        finally:
            if call.active():
                call.cancel()


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server).is_loopback
    except ValueError:
        return False


def _records(response: dns.message.Message, kind: str) -> tuple[float, tuple[Any, ...]]:
    if not isinstance(response, dns.message.QueryMessage):
        return 5.0, ()
    try:
        # Follows CNAMEs within the answer.
        chain = response.resolve_chaining()
    except dns.exception.DNSException as error:
        # A circle of CNAMEs, or one without end, is a mistake that its owner may mend: nobody is told that the name does not exist.
        raise Unavailable(f"DNS: the aliases of {response.question[0].name} lead nowhere", stage="dns") from error
    answer = chain.answer
    if answer is None:
        return min(float(chain.minimum_ttl), 60.0), ()
    records: list[Any] = []
    for rdata in answer:
        record: Any = rdata
        if kind in ("A", "AAAA"):
            records.append(record.address)
        elif kind == "MX":
            exchange = record.exchange
            records.append((record.preference, "" if exchange == dns.name.root else exchange.to_text(omit_final_dot=True)))
        elif kind == "TXT":
            records.append(b"".join(record.strings))
        else:
            records.append(record)
    return float(chain.minimum_ttl), tuple(sorted(records) if kind == "MX" else records)


def _from_hosts(host: str) -> list[str]:
    name = host.rstrip(".").lower()
    found: list[str] = []
    try:
        text = _HOSTS.read_text("utf-8", "replace")
    except OSError:
        text = ""
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if name in (one.lower() for one in names):
            try:
                found.append(str(ipaddress.ip_address(address)))
            except ValueError:
                continue
    # RFC 6761 §6.3: localhost is never asked of the network.
    if not found and (name == "localhost" or name.endswith(".localhost")):
        return ["127.0.0.1", "::1"]
    return sorted(set(found), key=lambda address: (":" in address, found.index(address)))
