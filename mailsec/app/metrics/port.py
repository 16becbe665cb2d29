"""`[metrics] listen`: /metrics for Prometheus, /healthz and /readyz for who looks after processes. The supervisor reads from no other port.

So what it reads is tiny: a request line and header lines up to 4 KiB within 5 seconds, of which only the method, the path and the host count;
then one answer, and the end. `check` refuses an address that is neither loopback nor a unix socket.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from mailsec.app.config.addresses import parse_endpoint
from mailsec.app.metrics.merged import CONTENT_TYPE

__all__ = ["MetricsPort"]

_log = structlog.get_logger("mailsec.metrics")

_OCTETS: Final = 4096
_SECONDS: Final = 5.0
_MOST: Final = 32
_PHRASES: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    421: "Misdirected Request",
    503: "Service Unavailable",
}
# An address, or localhost, and a port; nothing at all is HTTP/1.0.
_HERE: Final = re.compile(rb"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[[0-9A-Fa-f:.]+\])?(?::[0-9]{1,5})?\Z", re.IGNORECASE)
_HOST: Final = re.compile(rb"^host:[ \t]*([^\r\n]*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)

Page = Callable[[], tuple[int, str, bytes]]
"""(status, content type, body)."""


class MetricsPort:
    """Listens while there is an address; `listen` again after a reload."""

    def __init__(self, reactor: Any, metrics: Callable[[], bytes], health: Callable[[], Mapping[str, Any]]) -> None:
        """`health` gives {"healthy": …, "ready": …, …}."""
        self.reactor = reactor
        self.open: list[_Request] = []
        """The oldest first."""
        self.local = False
        """True for a unix socket, which no browser reaches."""
        self._address = ""
        self._port: Any = None
        self._health = health
        self.pages: Mapping[bytes, Page] = {
            b"/metrics": lambda: (200, CONTENT_TYPE, metrics()),
            b"/healthz": lambda: self._answer("healthy"),
            b"/readyz": lambda: self._answer("ready"),
        }

    def _answer(self, word: str) -> tuple[int, str, bytes]:
        found = self._health()
        return (200 if found[word] else 503), "application/json", json.dumps(found).encode("ascii") + b"\n"

    def listen(self, address: str) -> None:
        """Listen at `address` and nowhere else; "": nowhere. What cannot be had is told in the log: mail goes on without it."""
        if address == self._address and self._port is not None:
            return
        self.close()
        self._address = address
        if not address:
            return
        endpoint = parse_endpoint(address)
        self.local = bool(endpoint.path)
        try:
            if endpoint.path:
                if Path(endpoint.path).is_socket():  # of one that was killed
                    Path(endpoint.path).unlink()
                self._port = self.reactor.listenUNIX(endpoint.path, _Requests(self), mode=0o660)
            else:
                self._port = self.reactor.listenTCP(endpoint.port, _Requests(self), interface=endpoint.host)
        except Exception as error:  # Twisted's CannotListenError, and what a path can cause
            _log.error("no metrics: their port cannot be opened", address=address, error=str(error))

    def close(self) -> None:
        """Listen no more."""
        if self._port is not None:
            self._port.stopListening()
            self._port = None


class _Requests(Factory):
    noisy = False

    def __init__(self, owner: MetricsPort) -> None:
        self.owner = owner

    def buildProtocol(self, addr: Any) -> Protocol | None:
        return _Request(self.owner)


class _Request(Protocol):
    """One request, one answer."""

    transport: Any

    def __init__(self, owner: MetricsPort) -> None:
        self._owner = owner
        self._octets = b""
        self._timer: Any = None

    def connectionMade(self) -> None:
        waiting = self._owner.open
        waiting.append(self)
        if len(waiting) > _MOST:
            # Attack: connections that say nothing until nobody hears that we are well. Who asks, asks at once.
            waiting[0].transport.abortConnection()
        self._timer = self._owner.reactor.callLater(_SECONDS, self._too_long)

    def dataReceived(self, data: bytes) -> None:
        if len(self._octets) > _OCTETS:
            return
        self._octets += data
        if b"\r\n\r\n" in self._octets:
            self._say(*self._page(*self._octets.partition(b"\r\n")[::2]))
        elif len(self._octets) > _OCTETS:
            self._say(400, "text/plain", b"too long\n")

    def _page(self, line: bytes, rest: bytes) -> tuple[int, str, bytes]:
        words = line.split(b" ")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return 400, "text/plain", b"not HTTP/1.1\n"
        if words[0] not in (b"GET", b"HEAD"):
            return 405, "text/plain", b"GET only\n"
        if not self._owner.local and not all(map(_HERE.match, _HOST.findall(rest))):
            # Attack: a page in a browser of this machine whose name leads to 127.0.0.1 from the second time on reads what we show (DNS rebinding).
            return 421, "text/plain", b"ask by address, or as localhost\n"
        page = self._owner.pages.get(words[1].partition(b"?")[0])
        status, kind, body = page() if page is not None else (404, "text/plain", b"/metrics, /healthz, /readyz\n")
        return status, kind, b"" if words[0] == b"HEAD" else body

    def _say(self, status: int, kind: str, body: bytes) -> None:
        self._octets = b" " * (_OCTETS + 1)  # whatever comes now is not read
        head = f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.transport.write(head.encode("ascii") + body)
        self.transport.loseConnection()

    def _too_long(self) -> None:
        self._timer = None
        self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._owner.open.remove(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
