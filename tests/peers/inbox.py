"""An independent mail server (aiosmtpd) as the next hop of a test: it takes everything and remembers it."""

from __future__ import annotations

import re
import socket
import threading
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP

from tests.peers.postfix import free_port

__all__ = ["Delivered", "Inbox"]

_MESSAGE_ID = re.compile(rb"^message-id:\s*(<[^>\r\n]*>)", re.IGNORECASE | re.MULTILINE)
_REPORTED = re.compile(rb"^Final-Recipient:\s*rfc822;\s*(\S+)", re.IGNORECASE | re.MULTILINE)


class Delivered(NamedTuple):
    """One message as it arrived."""

    reverse_path: str
    recipients: tuple[str, ...]
    octets: bytes

    @property
    def message_id(self) -> str:
        """The first Message-ID of its header."""
        found = _MESSAGE_ID.search(self.octets.partition(b"\r\n\r\n")[0] + b"\r\n")
        return found[1].decode("latin-1") if found else ""

    @property
    def reported(self) -> tuple[str, ...]:
        """The recipients that it reports about, if it is a DSN (RFC 3464 §2.3.2)."""
        return tuple(one.decode("latin-1") for one in _REPORTED.findall(self.octets)) if self.reverse_path == "" else ()


class _Elsewhere(Controller):
    """It listens on a socket that was made in another network; there is nobody here who could try it."""

    def __init__(self, handler: Any, listener: socket.socket, **options: Any) -> None:
        super().__init__(handler, **options)
        self._listener = listener
        self._sessions: list[SMTP] = []

    def factory(self) -> SMTP:
        self._sessions.append(super().factory())
        return self._sessions[-1]

    def stop(self, no_assert: bool = False) -> None:
        """Sessions end, too, as those of a server that is stopped: nobody waits for it."""
        for session in self._sessions:
            if session.transport is not None:
                self.loop.call_soon_threadsafe(session.transport.abort)
        super().stop(no_assert)

    def _create_server(self) -> Any:
        return self.loop.create_server(self._factory_invoker, sock=self._listener)

    def _trigger_server(self) -> None:
        self._factory_invoker()


class Inbox:
    """Use it as a context manager. `refuse` maps a recipient to the reply that it gets at RCPT. `options` are those of aiosmtpd.

    `listener` is a socket that listens already, as on a machine of tests/peers/machine.py.
    """

    def __init__(self, port: int = 0, host: str = "127.0.0.1", *, listener: socket.socket | None = None, **options: Any) -> None:
        self.host = host
        self._listener = listener
        self._options = {"enable_SMTPUTF8": True, "data_size_limit": 0, **options}
        self.port = port or free_port()
        self.messages: list[Delivered] = []
        self.refuse: dict[str, str] = {}
        self._lock = threading.Lock()
        self._controller: Controller | None = None

    async def handle_RCPT(self, _server, _session, envelope, address, _options) -> str:
        if address in self.refuse:
            return self.refuse[address]
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 ok"

    async def handle_DATA(self, _server, _session, envelope) -> str:
        with self._lock:
            self.messages.append(
                Delivered((envelope.mail_from or "").strip("<>"), tuple(envelope.rcpt_tos), bytes(envelope.original_content))
            )
        return "250 2.0.0 taken"

    def start(self) -> Inbox:
        if self._listener is not None:
            self._controller = _Elsewhere(self, self._listener, **self._options)
        else:
            self._controller = Controller(self, hostname=self.host, port=self.port, **self._options)
        self._controller.start()
        return self

    def stop(self) -> None:
        controller, self._controller = self._controller, None
        if controller is not None:
            controller.stop()

    def __enter__(self) -> Inbox:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def ids(self) -> set[str]:
        """Message-IDs of all that arrived."""
        with self._lock:
            return {one.message_id for one in self.messages}

    def of(self, message_id: str) -> list[Delivered]:
        """What arrived with that Message-ID."""
        with self._lock:
            return [one for one in self.messages if one.message_id == message_id]

    def reported(self) -> set[str]:
        """Recipients that a DSN has reported about."""
        with self._lock:
            return {address for one in self.messages for address in one.reported}
