"""HTTP for evidence (OCSP, CRLs, certificates of issuers): Twisted's Agent, to the very address that was checked.

URLs come from certificates, and certificates from strangers. The one invariant: nothing is connected to but a public address that is not
our own, on the ports for HTTP, each redirect checked anew, unless the configuration allows more; size, time and redirects are bounded.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import optionsForClientTLS
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from twisted.web.client import Agent, ProxyAgent, ResponseDone, ResponseFailed
from twisted.web.error import SchemeNotSupported
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IBodyProducer
from zope.interface import implementer

from mailsec.errors import LimitExceeded, Unavailable
from mailsec.model.networks import Network, is_public, lies_in
from mailsec.net.lookups import Resolver
from mailsec.net.tunnel import Tunnel

__all__ = ["FetchRules", "Fetcher"]

_REDIRECTS = 3
_ADDRESSES = 2
"""Addresses of one name that are tried."""
_HEAD_OCTETS = 64 * 1024
"""Octets of a response besides its body: headers, chunk sizes, TLS records."""
_CONNECT_SECONDS = 5
_HEXADECIMAL = re.compile("0x[0-9a-f]*")
_KEEPS_METHOD = frozenset({307, 308})
_MOVED = frozenset({301, 302, 303}) | _KEEPS_METHOD


@dataclass(frozen=True, slots=True)
class FetchRules:
    """Where `fetch` may go."""

    networks: tuple[Network, ...] = ()
    """Networks that may be asked though they are not public, or our own."""
    ports: frozenset[int] = frozenset({80, 443})
    """Ports that may be asked; empty: any."""
    proxy: str = ""
    """ "http://HOST:PORT": everything goes there, and the filter of addresses is the proxy's."""
    anywhere: bool = False
    """True: no address and no port is refused."""


@dataclass(frozen=True, slots=True)
class _Target:
    url: str
    scheme: str
    host: str
    port: int


@implementer(IBodyProducer)
class _Octets:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.length = len(data)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self._data)
        done: Deferred[None] = Deferred()
        done.callback(None)
        return done

    def pauseProducing(self) -> None:
        """It has been written at once."""

    def resumeProducing(self) -> None:
        """It has been written at once."""

    def stopProducing(self) -> None:
        """It has been written at once."""


class _Collector(Protocol):
    transport: Any

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._parts: list[bytes] = []
        self.done: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limit:
            if not self.done.called:
                self.done.errback(_too_long(self._limit))
            return
        self._parts.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.done.called:
            return
        if isinstance(reason.value, (ResponseDone, PotentialDataLoss)):
            self.done.callback(b"".join(self._parts))
        else:
            self.done.errback(Unavailable("the answer was cut off", stage="fetch"))


def _too_long(limit: int) -> LimitExceeded:
    return LimitExceeded("fetch_octets", f"the answer is longer than {limit} octets", stage="fetch")


class _BoundedProtocol(ProtocolWrapper):
    """Counts what comes in below HTTP: attack: header lines, interim responses and chunk extensions without end."""

    transport: Any
    wrappedProtocol: Any

    def dataReceived(self, data: bytes) -> None:
        bounded: _Bounded = self.factory.bounded
        bounded.left -= len(data)
        if bounded.left < 0:
            self.transport.abortConnection()
            return
        self.wrappedProtocol.dataReceived(data)


@implementer(IStreamClientEndpoint)
class _Bounded:
    """An endpoint whose connection ends after `left` octets, and can be ended from outside."""

    def __init__(self, endpoint: Any, left: int) -> None:
        self.left = left
        self._endpoint = endpoint
        self._transport: Any = None

    def connect(self, factory: Factory) -> Any:
        """The protocol that `factory` makes, once it is connected."""
        make: Any = WrappingFactory
        wrapping = make(factory)
        wrapping.protocol = _BoundedProtocol
        wrapping.noisy = False
        wrapping.bounded = self

        def connected(wrapper: Any) -> Any:
            self._transport = wrapper.transport
            return wrapper.wrappedProtocol

        return self._endpoint.connect(wrapping).addCallback(connected)

    @property
    def exhausted(self) -> bool:
        """True where more came than may."""
        return self.left < 0

    def abort(self) -> None:
        """Drop the connection, whatever state it is in."""
        if self._transport is not None:
            self._transport.abortConnection()


@implementer(IAgentEndpointFactory)
class _Pinned:
    """Connects to one address and port, whatever the name says by now, and however Twisted reads the URL."""

    def __init__(self, reactor: Any, address: str, port: int, limit: int) -> None:
        self._reactor = reactor
        self._address = address
        self._port = port
        self._limit = limit
        self.bounded: _Bounded | None = None

    @property
    def exhausted(self) -> bool:
        """True where more came than may."""
        return self.bounded is not None and self.bounded.exhausted

    def endpointForURI(self, uri: Any) -> Any:
        self.bounded = bounded_endpoint(self._reactor, self._address, self._port, self._limit)
        wrap: Any = wrapClientTLS
        if uri.scheme == b"https":
            return wrap(optionsForClientTLS(uri.host.decode("ascii")), self.bounded)
        return self.bounded


@implementer(IAgentEndpointFactory)
class _Tunnelled:
    """Connects through a proxy that sees nothing but the name: TLS begins behind it."""

    def __init__(self, proxy: _Bounded, port: int) -> None:
        self._proxy = proxy
        self._port = port

    def endpointForURI(self, uri: Any) -> Any:
        wrap: Any = wrapClientTLS
        host = uri.host.decode("ascii")
        return wrap(optionsForClientTLS(host), Tunnel(self._proxy, host, self._port))


def bounded_endpoint(reactor: Any, address: str, port: int, limit: int) -> _Bounded:
    """TCP to one address, for an answer of at most `limit` octets."""
    kind: Any = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
    return _Bounded(kind(reactor, address, port, timeout=_CONNECT_SECONDS), limit + _HEAD_OCTETS)


class Fetcher:
    """GET and POST, with a few redirects."""

    def __init__(self, reactor: Any, resolver: Resolver, rules: FetchRules) -> None:
        self._reactor = reactor
        self._resolver = resolver
        self._rules = rules

    async def fetch(self, url: str, *, body: bytes | None, content_type: str, limit: int) -> bytes:
        """The body of a 200; raise Unavailable for anything else, LimitExceeded for more than `limit` octets."""
        target = self._read(url)
        for hop in range(_REDIRECTS + 1):
            try:
                answer = await self._ask(target, body, content_type, limit)
            except Unavailable as error:
                if hop:
                    # The host that was asked is there; where it leads to is not its fault.
                    raise Unavailable(error.message, hint=error.hint, stage="http") from None
                raise
            if isinstance(answer, bytes):
                return answer
            try:
                following = self._read(urljoin(target.url, answer))
            except ValueError:
                raise Unavailable(f"{target.host} leads to no URL", stage="http") from None
            except Unavailable as error:
                raise Unavailable(f"{target.host} leads elsewhere: {error.message}", hint=error.hint, stage="http") from None
            if target.scheme == "https" and following.scheme != "https":
                raise Unavailable(f"{target.host} leads from https to http", stage="http")
            target = following
        raise Unavailable(f"{target.host}: more than {_REDIRECTS} redirects", stage="http")

    def _read(self, url: str) -> _Target:
        """A URL that we may ask; raise Unavailable for any other."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
            url.encode("ascii")
        except ValueError:
            raise Unavailable(f"not a URL: {url[:80]!r}", stage="fetch") from None
        if parts.scheme not in ("http", "https") or not host or parts.username is not None or any(c <= " " or c == "\x7f" for c in url):
            raise Unavailable(f"not an http or https URL: {url[:80]!r}", stage="fetch")
        rules = self._rules
        number = port if port is not None else 443 if parts.scheme == "https" else 80
        if not rules.anywhere and rules.ports and number not in rules.ports:
            # A certificate that names http://mail.example.org:25/ makes us talk to other services otherwise.
            raise Unavailable(f"port {number} of {host} is not for HTTP", hint="`allow_ports` of [revocation] names more", stage="fetch")
        return _Target(url.partition("#")[0], parts.scheme, host, number)

    async def _ask(self, target: _Target, body: bytes | None, content_type: str, limit: int) -> bytes | str:
        """The body, or where it has moved to."""
        if self._rules.proxy:
            return await self._ask_proxy(target, body, content_type, limit)
        addresses = await self.addresses(target.host)
        for address in addresses[:-1]:
            try:
                return await self._ask_at(target, address, body, content_type, limit)
            except ConnectError:
                continue
        try:
            return await self._ask_at(target, addresses[-1], body, content_type, limit)
        except ConnectError as error:
            raise Unavailable(f"{target.host}: {error}".rstrip("."), stage="fetch") from None

    async def addresses(self, host: str) -> Sequence[str]:
        """Addresses of `host` that may be asked, the first few; raise Unavailable where there is none."""
        found = await self._resolver.addresses(host)
        addresses = [address for address in found if self._may_ask(address)][:_ADDRESSES]
        if not addresses:
            # A certificate that names http://169.254.169.254/ makes us ask our own machines otherwise.
            why = "has no public address" if found else "has no address"
            raise Unavailable(f"{host} {why}", hint="`allow_networks` of [revocation] names more", stage="fetch")
        return addresses

    def _may_ask(self, address: str) -> bool:
        rules = self._rules
        if rules.anywhere or lies_in(address, rules.networks):
            return True
        return is_public(address) and not _is_own(address)

    async def _ask_at(self, target: _Target, address: str, body: bytes | None, content_type: str, limit: int) -> bytes | str:
        pinned = _Pinned(self._reactor, address, target.port, limit)
        agent_class: Any = Agent
        agent = agent_class.usingEndpointFactory(self._reactor, pinned)
        try:
            return await self._within(pinned, self._request(agent, target, body, content_type, limit), limit)
        finally:
            # Also where we were cancelled: a peer that never says goodbye under TLS would keep the connection.
            if pinned.bounded is not None:
                pinned.bounded.abort()

    async def _within(self, way: _Pinned | _Bounded, request: Awaitable[bytes | str], limit: int) -> bytes | str:
        """The answer, unless more came than may; where we cut the connection ourselves, what was read so far is no answer."""
        try:
            answer = await request
        except Unavailable:
            if way.exhausted:
                raise _too_long(limit) from None
            raise
        if way.exhausted:
            raise _too_long(limit)
        return answer

    async def _ask_proxy(self, target: _Target, body: bytes | None, content_type: str, limit: int) -> bytes | str:
        # The proxy may reach what we may not show it the way to: attack: http://2130706433/, http://localhost/
        if _is_address(target.host) and not self._may_ask(target.host):
            raise Unavailable(f"{target.host} is no public address", stage="fetch")
        parts = urlsplit(self._rules.proxy)
        try:
            addresses = await self._resolver.addresses(parts.hostname or "")
        except Unavailable as error:
            raise Unavailable(f"the proxy: {error.message}", stage="fetch") from None
        if not addresses:
            raise Unavailable(f"the proxy {parts.hostname} has no address", hint="see [revocation] proxy", stage="fetch")
        bounded = bounded_endpoint(self._reactor, addresses[0], parts.port or 80, limit)
        agent_class: Any = ProxyAgent
        if target.scheme == "https":
            agent_class = Agent
            agent = agent_class.usingEndpointFactory(self._reactor, _Tunnelled(bounded, target.port))
        else:
            agent = agent_class(bounded, self._reactor)
        try:
            return await self._within(bounded, self._request(agent, target, body, content_type, limit), limit)
        except ConnectError as error:
            raise Unavailable(f"the proxy: {error}".rstrip("."), hint="see [revocation] proxy", stage="fetch") from None
        finally:
            bounded.abort()

    async def _request(self, agent: Any, target: _Target, body: bytes | None, content_type: str, limit: int) -> bytes | str:
        headers = Headers({b"User-Agent": [b"mailsec"]})
        if content_type:
            headers.addRawHeader(b"Content-Type", content_type.encode("ascii"))
        method = b"GET" if body is None else b"POST"
        try:
            response = await agent.request(method, target.url.encode("ascii"), headers, _Octets(body) if body is not None else None)
        except (ConnectionClosed, ResponseFailed, SchemeNotSupported) as error:
            reasons = getattr(error, "reasons", None)
            shown = reasons[0].value if reasons else error
            raise Unavailable(f"{target.host}: {shown}".rstrip("."), stage="fetch") from None
        except ValueError as error:
            # Twisted's complaints about a URL or a host name that it cannot write.
            raise Unavailable(f"{target.host}: {error}".rstrip("."), stage="fetch") from None
        if response.code in _MOVED and (body is None or response.code in _KEEPS_METHOD):
            location = response.headers.getRawHeaders(b"location") or [b""]
            return str(location[0].decode("latin-1"))
        if response.code != 200:
            raise Unavailable(f"{target.host} answers {response.code}", stage="http")
        collector = _Collector(limit)
        response.deliverBody(collector)
        return await collector.done


def _is_address(host: str) -> bool:
    """True for what some software takes for an address: "127.0.0.1", "127.1", "0x7f.1", "2130706433", "localhost"."""
    last = host.rstrip(".").rpartition(".")[2].lower()
    return ":" in host or last == "localhost" or last.isdigit() or _HEXADECIMAL.fullmatch(last) is not None


def _is_own(address: str) -> bool:
    """True for an address of this machine: the kernel would send from it to itself. Nothing is sent."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            return bool(probe.getsockname()[0] == address)
    except OSError:
        # No way there at all: connecting will say so.
        return False
