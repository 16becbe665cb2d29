"""Servers as one: the next one is asked where one is out, a few questions at a time, over connections that are kept.

The one invariant: what is out is not waited for twice (`model.breaker`), and no more threads are ever held by servers that hang than
`connections`.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable, Sequence

from mailsec.errors import LimitExceeded, MailsecError, Unavailable
from mailsec.interfaces import Runtime, Signal
from mailsec.model.breaker import Breakers
from mailsec_ldap.client import Entry, Login, Query, ServerConnection
from mailsec_ldap.places import ServerAddress

__all__ = ["Servers", "trusting"]

_IDLE_SECONDS = 60.0
_WHOLE_SECONDS = 9.5
"""Of all servers together: whoever asks waits ten seconds."""
_LEAST_SECONDS = 0.5


class Servers:
    """Whom to ask, and how."""

    def __init__(self, runtime: Runtime, *, seconds: float, connections: int, ca_file: str = "") -> None:
        self._runtime = runtime
        self._seconds = seconds
        self._most = connections
        self._ca_file = ca_file
        self._breakers = Breakers()
        self._out = 0
        self._waiting: deque[Signal] = deque()
        self._idle: dict[tuple[ServerAddress, str, bool, Login], list[tuple[float, ServerConnection]]] = {}
        self._context: ssl.SSLContext | None = None

    async def ask(self, servers: Sequence[tuple[ServerAddress, str]], query: Query, *, tls: bool, login: Login) -> list[Entry]:
        """What the first server that answers says; each is a server and the address that is connected to. Raise Unavailable, LimitExceeded."""
        why = "no server is named"
        deadline = self._runtime.monotonic() + _WHOLE_SECONDS
        for server, address in servers:
            name = str(server)
            seconds = min(self._seconds, deadline - self._runtime.monotonic() - 1.0)
            if seconds < _LEAST_SECONDS:
                break
            if not self._breakers.admit(self._runtime.monotonic(), name):
                why = f"{name} did not answer a moment ago"
                continue
            try:
                entries = await self._one(server, address, query, tls or server.implicit_tls, login, seconds)
            except Unavailable as error:
                if error.stage != "server":
                    # It is there, and says no to this question.
                    self._breakers.succeeded(name)
                    raise
                self._breakers.failed(name, self._runtime.monotonic())
                why = error.message
                continue
            except LimitExceeded:
                # It is there. Attack: the address of something large, on a server that others need.
                self._breakers.succeeded(name)
                raise
            self._breakers.succeeded(name)
            return entries
        raise Unavailable(f"LDAP: {why}", hint="is the server running, and reachable from here?", stage="ldap")

    async def _one(self, server: ServerAddress, address: str, query: Query, tls: bool, login: Login, seconds: float) -> list[Entry]:
        # A task of its own: who gives up leaves a thread behind, and it counts until it has ended.
        task = self._runtime.start(self._held(self._search, server, address, query, tls, login, seconds), f"LDAP {server}")
        try:
            answer: list[Entry] | MailsecError = await self._runtime.within(seconds + 1.0, task)
        except TimeoutError:
            raise Unavailable(f"{server} does not answer in time", stage="server") from None
        if isinstance(answer, MailsecError):
            raise answer
        return answer

    async def _held(self, search: Callable[..., list[Entry]], *arguments: object) -> list[Entry] | MailsecError:
        while self._out >= self._most:
            signal = self._runtime.signal()
            self._waiting.append(signal)
            await signal.wait()
        self._out += 1
        try:
            return await self._runtime.in_thread(search, *arguments)
        except MailsecError as error:
            return error
        finally:
            self._out -= 1
            if self._waiting:
                self._waiting.popleft().fire()

    def _search(self, server: ServerAddress, address: str, query: Query, tls: bool, login: Login, seconds: float) -> list[Entry]:
        """In a thread."""
        idle = self._idle.setdefault((server, address, tls, login), [])
        connection = self._kept(idle) or ServerConnection(server, address, self._trusted() if tls else None)
        try:
            entries = connection.search(query, login, seconds)
        except MailsecError:
            connection.close()
            raise
        idle.append((self._runtime.monotonic(), connection))
        return entries

    def _kept(self, idle: list[tuple[float, ServerConnection]]) -> ServerConnection | None:
        while True:
            try:
                since, connection = idle.pop()
            except IndexError:
                return None
            if self._runtime.monotonic() - since < _IDLE_SECONDS:
                return connection
            connection.close()

    def _trusted(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = trusting(self._ca_file)
        return self._context

    def close(self) -> None:
        """End the connections that are kept."""
        for several in self._idle.values():
            while several:
                several.pop()[1].close()


def trusting(ca_file: str) -> ssl.SSLContext:
    """TLS with servers whose certificates the anchors in `ca_file` vouch for ("": those of the system). Raise Unavailable where it holds none."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        why = "it holds no certificate (PEM)" if isinstance(error, ssl.SSLError) else str(error.strerror).lower()
        raise Unavailable(f"cannot read the anchors in {ca_file}: {why}", hint="see [plugin.ldap] ca_file", stage="ldap") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
