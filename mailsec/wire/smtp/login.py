"""How a client of an SMTP server logs in (RFC 4954): the exchange of each mechanism, without its replies.

The one invariant: credentials are read under TLS only, by a mechanism that was offered, and once.
"""

from __future__ import annotations

import binascii
from typing import TypeAlias

from mailsec.errors import ProtocolError
from mailsec.interfaces import Credentials
from mailsec.model.session import Identity
from mailsec.wire.scram import MECHANISM as SCRAM
from mailsec.wire.scram import PLUS, ClientFirst, Exchange, read_first
from mailsec.wire.smtp import words
from mailsec.wire.smtp.commands import CommandError, parse_external, parse_plain
from mailsec.wire.smtp.offers import ServerSettings, mechanisms_of
from mailsec.wire.smtp.questions import Authenticate, ClientState, FindVerifier, Verifying

__all__ = ["Login", "Step"]

Step: TypeAlias = "bytes | FindVerifier | Authenticate | Identity"
"""What comes next: a challenge for the client, a question for the layer above, or who has logged in."""


class Login:
    """AUTH on one connection."""

    __slots__ = ("_accepted", "_client", "_exchange", "_failures", "_first", "_mechanism", "_name", "_proven", "_settings", "_signature")

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._client = ClientState()
        self._mechanism = ""
        self._failures = 0
        self._name: str | None = None
        self._first: ClientFirst | None = None
        self._exchange: Exchange | None = None
        self._proven: Authenticate | None = None
        self._signature: bytes | None = None
        self._accepted: Identity | None = None

    def begin(self, argument: bytes, client: ClientState) -> Step:
        """What stands behind AUTH. Raise CommandError where the client may not, or cannot, log in so."""
        if not self._settings.authenticate:
            raise CommandError(words.NOT_OFFERED)
        if client.tls is None:
            raise CommandError(words.AUTH_NEEDS_TLS)
        if client.identity is not None and client.identity.mechanism != "certificate":
            # RFC 4954 §4: once authenticated, AUTH is refused.
            raise CommandError(words.BAD_SEQUENCE)
        mechanism, _, response = argument.partition(b" ")
        self._mechanism = mechanism.upper().decode("ascii", "replace")
        self._client = client
        self._name = self._first = self._exchange = self._proven = self._signature = self._accepted = None
        if self._mechanism not in mechanisms_of(self._settings, client.tls):
            raise CommandError(words.AUTH_UNKNOWN)
        if response:
            return self._read(response)
        # RFC 4954 §4: an empty challenge. LOGIN has prompts, which clients of it read.
        return b"Username:" if self._mechanism == "LOGIN" else b""

    def answer(self, line: bytes) -> Step:
        """The line that followed a challenge. Raise CommandError for none that can be read."""
        if line == b"*":
            raise CommandError(words.AUTH_CANCELLED)
        return self._read(line)

    def verifier(self, found: Verifying) -> Step:
        """The layer above has found the verifier of whom the client says to be."""
        assert self._first is not None
        tls = self._client.tls
        binding = tls.exporter if tls is not None and self._mechanism == PLUS else b""
        self._exchange = Exchange(self._first, found.verifier, found.nonce, binding)
        credentials = Credentials(SCRAM, self._first.login, b"", self._first.authorisation)
        self._proven = Authenticate(credentials, self._client, found.verifier.identity)
        return self._exchange.challenge

    def accepted(self, identity: Identity) -> Step:
        """The layer above believes it."""
        signature, self._signature = self._signature, None
        if signature is None:
            return identity
        self._accepted = identity
        return signature

    def fail(self) -> bool:
        """The credentials were wrong: True where that was once too often."""
        self._failures += 1
        return self._failures >= self._settings.limits.auth_failures

    def _read(self, response: bytes) -> Step:
        if self._mechanism == "PLAIN":
            return Authenticate(parse_plain(response), self._client)
        if self._mechanism == "LOGIN":
            return self._read_login(_decoded(response))
        if self._mechanism in (SCRAM, PLUS):
            try:
                return self._read_scram(_decoded(response))
            except ProtocolError:
                raise CommandError(words.AUTH_UNREADABLE) from None
        return Authenticate(parse_external(response), self._client)

    def _read_login(self, text: bytes) -> Step:
        if self._name is None:
            try:
                self._name = text.decode("utf-8")
            except UnicodeDecodeError:
                raise CommandError(words.AUTH_UNREADABLE) from None
            return b"Password:"
        # RFC 4616 §2: a NUL parts the fields of PLAIN, in which this may be asked elsewhere.
        if not self._name or not text or "\0" in self._name or b"\0" in text:
            raise CommandError(words.AUTH_UNREADABLE)
        return Authenticate(Credentials("LOGIN", self._name, text), self._client)

    def _read_scram(self, message: bytes) -> Step:
        if self._first is None:
            offered = PLUS in mechanisms_of(self._settings, self._client.tls)
            self._first = read_first(message, plus=self._mechanism == PLUS, offered=offered)
            return FindVerifier(self._first.login, self._client)
        exchange, proven = self._exchange, self._proven
        if proven is None:
            raise ProtocolError("nothing was asked")
        if exchange is None:
            # RFC 5802 §5, RFC 4954 §4: the client has seen our proof, and answers it with nothing.
            if message or self._accepted is None:
                raise ProtocolError("octets behind the last message of SCRAM")
            return self._accepted
        self._exchange = None
        # Attack: exchanges begun in reserve, before guessing was noticed. Who counts guesses is asked before a right one gets its signature.
        self._signature = exchange.finish(message)
        return proven if self._signature is not None else Authenticate(proven.credentials, self._client)


def _decoded(response: bytes) -> bytes:
    try:
        return b"" if response == b"=" else binascii.a2b_base64(response, strict_mode=True)
    except ValueError:
        raise CommandError(words.AUTH_UNREADABLE) from None
