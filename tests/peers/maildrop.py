"""A small POP3 server of our own for tests: real sockets and Python's TLS, and UTF8 (RFC 6856), which no POP3 server of Debian offers.

It remembers what was said to it and under which session. One mailbox, in memory; any login with the password "secret" reads it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from typing import Any

__all__ = ["Maildrop"]


class Maildrop:
    """Use it as a context manager. `context`: TLS at once."""

    def __init__(self, context: ssl.SSLContext, *messages: bytes, capabilities: tuple[str, ...] = ("UTF8",)) -> None:
        self.context = context
        self.messages = list(messages)
        self.capabilities = capabilities
        self.said: list[bytes] = []
        self.sessions: list[bool] = []
        """For each handshake whether it took up an earlier session."""
        self.clients: list[dict[str, Any]] = []
        """The certificates that clients showed."""
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Maildrop:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                raw, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(raw,), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        raw.settimeout(30)
        with raw, contextlib.suppress(OSError), self.context.wrap_socket(raw, server_side=True) as sock:
            self.sessions.append(bool(sock.session_reused))
            self.clients.append(sock.getpeercert() or {})
            file = sock.makefile("rb")
            sock.sendall(b"+OK ready\r\n")
            while line := file.readline():
                self.said.append(line.rstrip(b"\r\n"))
                sock.sendall(self._answer(*line.split()))
                if line.upper().startswith(b"QUIT"):
                    sock.unwrap()
                    return

    def _answer(self, verb: bytes, *arguments: bytes) -> bytes:
        match verb.upper():
            case b"CAPA":
                return b"+OK\r\n" + b"".join(f"{one}\r\n".encode() for one in self.capabilities) + b".\r\n"
            case b"STAT":
                return b"+OK %d %d\r\n" % (len(self.messages), sum(map(len, self.messages)))
            case b"RETR" | b"TOP" if 0 < int(arguments[0]) <= len(self.messages):
                return b"+OK\r\n" + (b"\r\n" + self.messages[int(arguments[0]) - 1]).replace(b"\r\n.", b"\r\n..")[2:] + b".\r\n"
            case b"PASS" if arguments != (b"secret",):
                return b"-ERR [AUTH] no\r\n"
            case b"RETR" | b"TOP" | b"APOP":
                return b"-ERR\r\n"
        return b"+OK\r\n"
