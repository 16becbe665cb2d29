"""The gateway's half of an SMTP session: answers `wire.smtp.questions` from the pipeline, and collects the octets of a message.

The one invariant: every message's scratch is given back, whether it was accepted, refused, abandoned, or cut off with the connection; and
never while somebody may still read it.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace

from mailsec.errors import LocalProtocolError, MailsecError, Reply
from mailsec.gateway.pipeline import Pipeline
from mailsec.interfaces import Scratch
from mailsec.model.octets import Octets
from mailsec.model.session import Envelope, Identity, Session
from mailsec.wire.smtp.questions import (
    Announced,
    Authenticate,
    ClientState,
    Connected,
    FindVerifier,
    Forwarded,
    MailFrom,
    MessageAbandoned,
    MessageComplete,
    RcptTo,
    Verifying,
)
from mailsec.wire.smtp.words import AUTH_UNAVAILABLE

__all__ = ["SmtpConversation"]

_NO_SUCH_LOGIN = Reply(550, "5.7.1", "this login is nobody's here")


class SmtpConversation:
    """One for each connection; an `interfaces.Conversation`."""

    def __init__(self, pipeline: Pipeline, session: Session) -> None:
        self.session = session
        """As it is known at this moment."""
        self._pipeline = pipeline
        self._client: ClientState | None = None
        self._envelope: Envelope | None = None
        self._scratch: Scratch | None = None

    def ask(self, question: object) -> object | Awaitable[object]:
        """Answer at once where nothing must be waited for."""
        if isinstance(question, RcptTo):
            reverse_path = self._envelope.reverse_path if self._envelope is not None else None
            return self._pipeline.admit_recipient(self.session, reverse_path, question.recipient.address)
        if isinstance(question, MessageComplete):
            self._know(question.client)
            return self._complete(question.envelope, question.each)
        if isinstance(question, MailFrom):
            self._discard()
            self._know(question.client)
            self._envelope = question.envelope
            return self._pipeline.admit_sender(self.session, question.envelope.reverse_path, question.envelope.size)
        if isinstance(question, Authenticate):
            self._know(question.client)
            return self._authenticate(question)
        if isinstance(question, FindVerifier):
            self._know(question.client)
            return self._find_verifier(question)
        if isinstance(question, Announced):
            return self._announced(question)
        if isinstance(question, Forwarded):
            if question.address is not None:
                self.session = replace(self.session, client=question.address)
            return None
        if isinstance(question, Connected):
            if question.tls is not None:
                self.session = replace(self.session, tls=question.tls)
            return self._pipeline.admit_connection(self.session)
        if isinstance(question, MessageAbandoned):
            self._discard()
            return None
        raise LocalProtocolError(f"an unknown question: {type(question).__name__}")

    def body(self, chunk: bytes | memoryview) -> None:
        """A piece of a message; raise StorageFull or StoreError, which becomes the reply when the message ends."""
        if self._scratch is None:
            self._scratch = self._pipeline.spool.scratch()
        self._scratch.append(chunk)

    def end_of_body(self) -> None:
        """`MessageComplete` follows."""

    def closed(self) -> None:
        """The connection is gone. A message that is being committed goes on; what was not yet complete is given back."""
        self._discard()

    # -- answers --------------------------------------------------------------------------------------------------------------

    async def _complete(self, envelope: Envelope, each: bool) -> Reply | tuple[Reply, ...]:
        # taken out of self first: a connection that closes meanwhile must not pull the octets from under the commit
        scratch, self._scratch = self._scratch, None
        if scratch is None:
            scratch = self._pipeline.spool.scratch()
        try:
            octets: Octets = scratch.seal()
            receive = self._pipeline.receive_each if each else self._pipeline.receive
            reply: Reply | tuple[Reply, ...] = await receive(self.session, envelope, octets)
        except MailsecError as error:
            reply = error.reply
        # Not in a `finally`: where the await was cancelled a thread may still read, and a closed descriptor may be another file a moment
        # later. Then whoever holds the octets last closes them.
        scratch.discard()
        return reply

    async def _authenticate(self, question: Authenticate) -> Identity | Reply | None:
        try:
            return await self._pipeline.logins.authenticate(question.credentials, self.session, question.proven)
        except MailsecError as error:
            # RFC 4954 §6: 454 4.7.0, temporary authentication failure
            return AUTH_UNAVAILABLE if error.temporary else None

    async def _announced(self, question: Announced) -> Identity | Reply | None:
        """A server in front says who its client is: from now on that is whom we speak with."""
        session = self.session
        if question.address:
            session = replace(session, peer=question.address, peer_port=question.port)
        identity = None
        if question.login:
            try:
                identity = await self._pipeline.identity(question.login)
            except MailsecError:
                return AUTH_UNAVAILABLE
            if identity is None or not identity.addresses:
                return _NO_SUCH_LOGIN
        self.session = replace(session, helo=question.helo, identity=identity, front_certified=question.certified)
        return identity

    async def _find_verifier(self, question: FindVerifier) -> Verifying | Reply:
        try:
            return await self._pipeline.logins.verifying(question.login, self.session)
        except MailsecError:
            return AUTH_UNAVAILABLE

    def _know(self, client: ClientState) -> None:
        """Take over what the core has learnt; the same object means that nothing has changed."""
        if client is not self._client:
            self._client = client
            self.session = replace(self.session, helo=client.helo, protocol=client.protocol, tls=client.tls, identity=client.identity)

    def _discard(self) -> None:
        scratch, self._scratch = self._scratch, None
        if scratch is not None:
            scratch.discard()
