"""How a client of an SMTP server logs in (RFC 4954): the exchange, without its replies.

The one invariant: credentials are read under TLS only, by a mechanism that was offered, and once.
"""

from __future__ import annotations

from mailsec.interfaces import Credentials
from mailsec.wire.smtp import words
from mailsec.wire.smtp.commands import CommandError, parse_external, parse_plain
from mailsec.wire.smtp.offers import ServerSettings, mechanisms_of
from mailsec.wire.smtp.questions import ClientState

__all__ = ["Login"]


class Login:
    """AUTH on one connection."""

    __slots__ = ("_failures", "_mechanism", "_settings")

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._mechanism = ""
        self._failures = 0

    def begin(self, argument: bytes, client: ClientState) -> Credentials | None:
        """What stands behind AUTH. None: the client waits for a challenge. Raise CommandError where it may not, or cannot, log in so."""
        if not self._settings.authenticate:
            raise CommandError(words.NOT_OFFERED)
        if client.tls is None:
            raise CommandError(words.AUTH_NEEDS_TLS)
        if client.identity is not None and client.identity.mechanism != "certificate":
            # RFC 4954 §4: once authenticated, AUTH is refused.
            raise CommandError(words.BAD_SEQUENCE)
        mechanism, _, response = argument.partition(b" ")
        self._mechanism = mechanism.upper().decode("ascii", "replace")
        if self._mechanism not in ("PLAIN", "EXTERNAL") or self._mechanism not in mechanisms_of(self._settings, client.tls):
            raise CommandError(words.AUTH_UNKNOWN)
        return self._read(response) if response else None

    def answer(self, line: bytes) -> Credentials:
        """The line that followed the challenge. Raise CommandError for none that can be read."""
        if line == b"*":
            raise CommandError(words.AUTH_CANCELLED)
        return self._read(line)

    def fail(self) -> bool:
        """The credentials were wrong: True where that was once too often."""
        self._failures += 1
        return self._failures >= self._settings.limits.auth_failures

    def _read(self, response: bytes) -> Credentials:
        return parse_plain(response) if self._mechanism == "PLAIN" else parse_external(response)
