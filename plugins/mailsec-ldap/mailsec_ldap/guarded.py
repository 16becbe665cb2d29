"""A socket with an end: so many octets, and until then. ldap3 has neither: it waits for each piece anew, and keeps whatever comes.

The one invariant: whatever a server sends, a question is over at its deadline, and holds no more memory than its limit.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

import ldap3

__all__ = ["Allowance", "GuardedSocket", "GuardedTls"]

_PIECE = 256 * 1024


class Allowance:
    """What one question may still take. Renewed for each question of a connection."""

    def __init__(self) -> None:
        self.octets = 0
        self._until = 0.0

    def renew(self, octets: int, seconds: float) -> None:
        """Begin a question: at most `octets` come, for at most `seconds`."""
        self.octets = octets
        self._until = time.monotonic() + seconds

    @property
    def seconds(self) -> float:
        """How long it still is; raise TimeoutError where the time is over."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("no answer in time")
        return left


class GuardedSocket:
    """What of a socket ldap3 uses."""

    def __init__(self, inner: socket.socket, allowance: Allowance) -> None:
        self.inner = inner
        self._allowance = allowance

    def recv(self, size: int) -> bytes:
        """The next piece, larger than asked for: ldap3 joins pieces in quadratic time. Raise OSError at the end of the allowance."""
        self.inner.settimeout(self._allowance.seconds)
        data = self.inner.recv(max(size, min(_PIECE, self._allowance.octets + 1)))
        self._allowance.octets -= len(data)
        if self._allowance.octets < 0:
            raise OSError("the answer is too long")
        return data

    def sendall(self, data: bytes) -> None:
        """Write all of it, in time."""
        self.inner.settimeout(self._allowance.seconds)
        self.inner.sendall(data)

    def shutdown(self, how: int) -> None:
        """End the connection."""
        self.inner.shutdown(how)

    def close(self) -> None:
        """Give the descriptor back."""
        self.inner.close()


class GuardedTls(ldap3.Tls):  # type: ignore[misc]  # ldap3 has no types
    """TLS as the `ssl` module has it, its check of the host name too, in place of ldap3's own."""

    def __init__(self, context: ssl.SSLContext, name: str, allowance: Allowance) -> None:
        super().__init__(validate=ssl.CERT_REQUIRED)
        self._context = context
        self._name = name
        self._allowance = allowance

    def wrap_socket(self, connection: Any, do_handshake: bool = False) -> None:
        """Handshake on the socket of `connection`; raise OSError (ssl.SSLError) where it is not the server that it should be."""
        plain = connection.socket
        inner: socket.socket = plain.inner if isinstance(plain, GuardedSocket) else plain
        inner.settimeout(self._allowance.seconds)
        connection.socket = GuardedSocket(self._context.wrap_socket(inner, server_hostname=self._name), self._allowance)
