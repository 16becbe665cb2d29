"""One TLS session in memory: octets of the socket in and out, octets of whoever speaks in and out. Beneath pyOpenSSL's `Connection`.

pyOpenSSL answers "nothing yet" with an exception, clears a new buffer for each read, and asks five questions before each of its calls. The
one invariant: what the library calls an error is raised as pyOpenSSL would, and the library's queue of errors is empty before each call,
so that no session is told of another's.
"""

from __future__ import annotations

from typing import Any, Final

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

__all__ = ["AT_ONCE", "REACHES", "MemorySession"]

REACHES: Final = all(
    hasattr(lib, name)
    for name in ("SSL_do_handshake", "SSL_read", "SSL_write", "SSL_shutdown", "SSL_get_error", "SSL_pending", "BIO_read", "BIO_write")
) and hasattr(lib, "BIO_get_mem_data")
"""False where a newer pyOpenSSL has no such names: then Twisted's own layer does it."""

_RECORD: Final = 2**14
"""The most that one record holds (RFC 8446 §5.1)."""
AT_ONCE: Final = 2**16
"""Octets that are encrypted before they go to the socket."""
# One thread, and what is read is copied before anything else happens: one buffer serves all sessions.
_BUFFER: Final = ffi.new("char[]", AT_ONCE + 2**12) if REACHES else None
_WHERE: Final = ffi.new("char **")
_SIZE: Final = AT_ONCE + 2**12


class MemorySession:
    """What a `SSL.Connection` without a socket does, for one side of it."""

    __slots__ = ("_from", "_into", "_ssl", "connection")

    def __init__(self, connection: SSL.Connection) -> None:
        self.connection = connection
        below: Any = connection
        self._ssl, self._into, self._from = below._ssl, below._into_ssl, below._from_ssl

    @property
    def is_newest(self) -> bool:
        """True under TLS 1.3."""
        return self.connection.get_protocol_version() == SSL.TLS1_3_VERSION

    def take(self, data: bytes) -> None:
        """Octets from the socket."""
        lib.BIO_write(self._into, data, len(data))

    def shake(self) -> bool:
        """Go on with the handshake; True where it is complete. Raise SSL.Error."""
        lib.ERR_clear_error()
        result = lib.SSL_do_handshake(self._ssl)
        if result == 1:
            return True
        self._check(result)
        return False

    def read(self) -> bytes | None:
        """The content of the next record; None where no whole one is here. Raise SSL.ZeroReturnError behind the peer's last, and SSL.Error."""
        if not (lib.BIO_get_mem_data(self._into, _WHERE) or lib.SSL_pending(self._ssl)):
            return None
        lib.ERR_clear_error()
        result = lib.SSL_read(self._ssl, _BUFFER, _RECORD)
        if result > 0:
            return bytes(ffi.buffer(_BUFFER, result))
        self._check(result)
        return None

    def write(self, data: bytes | memoryview) -> None:
        """Encrypt. Raise SSL.Error."""
        size = len(data)
        lib.ERR_clear_error()
        result = lib.SSL_write(self._ssl, data if type(data) is bytes else ffi.from_buffer(data), size)
        if 0 < result < size:
            # pyOpenSSL's contexts take one record for each call.
            whole, done = ffi.from_buffer(data), result
            while done < size:
                result = lib.SSL_write(self._ssl, whole + done, size - done)
                if result <= 0:
                    break
                done += result
        # Into memory all is written, or the session is at its end.
        if result <= 0:
            self._check(result)

    def goodbye(self) -> bool:
        """Say that no more comes; True where the peer has said so, too."""
        lib.ERR_clear_error()
        return bool(lib.SSL_shutdown(self._ssl) == 1)

    def give(self) -> bytes:
        """Octets for the socket; empty where there are none."""
        if not lib.BIO_get_mem_data(self._from, _WHERE):
            return b""
        count = lib.BIO_read(self._from, _BUFFER, _SIZE)
        return bytes(ffi.buffer(_BUFFER, count)) if count > 0 else b""

    def _check(self, result: int) -> None:
        if lib.SSL_get_error(self._ssl, result) != lib.SSL_ERROR_WANT_READ:
            below: Any = self.connection
            below._raise_ssl_error(self._ssl, result)
