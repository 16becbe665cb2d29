"""Mail transactions of an SMTP or LMTP server: MAIL, RCPT, and the message by DATA or BDAT (RFC 5321 §3.3, RFC 1870, RFC 2033, RFC 3030).

The one invariant: octets that a client has announced as a chunk are never read as commands, whatever was wrong with the announcement.
"""

from __future__ import annotations

from collections.abc import Callable

from mailsec.errors import Reply
from mailsec.model.requests import Body, EndOfBody
from mailsec.wire.smtp import questions, words
from mailsec.wire.smtp.chunks import parse_bdat
from mailsec.wire.smtp.commands import CommandError, parse_mail, parse_rcpt
from mailsec.wire.smtp.incoming import Incoming
from mailsec.wire.smtp.offers import ServerSettings
from mailsec.wire.smtp.speaking import Speaking
from mailsec.wire.smtp.states import State

__all__ = ["Transactions"]

_END_OF_BODY = EndOfBody()
_FOR_CHUNKS = (State.RCPT, State.BDAT)


class Transactions(Speaking):
    """From MAIL to the reply to a message."""

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(settings)
        self._incoming: Incoming | None = None
        self._messages = 0
        self._unknown = 0
        self._chunk = 0
        """Octets of the chunk that are still to come."""
        self._last = False
        self._unwanted: Reply | None = None
        """What the chunk is answered with, where it is thrown away."""
        self._behind = State.READY
        """The state behind a chunk that is thrown away."""

    def _mail(self, argument: bytes) -> None:
        settings = self.settings
        if settings.authenticate and self.client.identity is None:
            raise CommandError(words.AUTH_FIRST)
        if self._messages >= self._limits.transactions:
            self._leave(words.TOO_MANY_MESSAGES)
            return
        envelope = parse_mail(argument, smtputf8=settings.smtputf8, dsn=settings.dsn, auth=settings.authenticate)
        # RFC 1870 §6.1: a message that is declared too large is refused at once.
        if envelope.size > self._limits.message_size:
            raise CommandError(words.TOO_LARGE)
        self._incoming = Incoming(envelope)
        self._ask(questions.MailFrom(envelope, self.client), self._mail_answered)

    def _mail_answered(self, refusal: Reply | None) -> None:
        if refusal is None or refusal.positive:
            self.state = State.MAIL
            self._say(refusal or words.SENDER_OK)
        else:
            self._incoming = None
            self._say_answer(refusal)

    def _rcpt(self, argument: bytes) -> None:
        incoming, settings = self._incoming, self.settings
        assert incoming is not None
        recipient = parse_rcpt(argument, hostname=settings.hostname, smtputf8=incoming.envelope.smtputf8, dsn=settings.dsn)
        # RFC 5321 §4.5.3.1.10: 452 for one recipient too many; the client sends the rest in another transaction.
        if len(incoming.recipients) >= self._limits.recipients:
            # Each of them is told, however many are pipelined: a list of 5,000 goes in five transactions, and none of it ends in 421.
            self._say(words.TOO_MANY_RECIPIENTS)
            return
        if self._unknown >= self._limits.unknown_recipients:
            # Whoever guesses names learns no more here; a mailing list with that many dead addresses delivers to the others first.
            self._say_answer(words.TOO_MANY_RECIPIENTS if incoming.recipients else words.TOO_MANY_ERRORS)
            return
        incoming.recipient = recipient
        self._ask(questions.RcptTo(recipient), self._rcpt_answered)

    def _rcpt_answered(self, refusal: Reply | None) -> None:
        incoming = self._incoming
        assert incoming is not None and incoming.recipient is not None
        if refusal is None or refusal.positive:
            incoming.recipients.append(incoming.recipient)
            self.state = State.RCPT
            self._say(refusal or words.RECIPIENT_OK)
            return
        self._unknown += 1
        if refusal.code == 421 or incoming.recipients:
            self._say_answer(refusal)
        else:
            # Counted: a dictionary of guessed names ends as guessed commands do, unless some recipient was right.
            self._refuse(refusal)

    # -- by DATA --------------------------------------------------------------------------------------------------------------

    def _data(self, argument: bytes) -> None:
        if argument:
            raise CommandError(words.NO_ARGUMENT)
        assert self._incoming is not None
        self._incoming.begin_data(self._limits.message_size, normalise=self.settings.normalise)
        self.state = State.DATA
        self._say(words.START_MAIL)

    def _receive_message(self, data: bytes, start: int) -> None:
        incoming = self._incoming
        assert incoming is not None
        piece, behind = incoming.receive(data, start)
        if piece:
            self._requests.append(Body(piece))
        if behind < 0:
            if incoming.hopeless:
                self._leave(words.TOO_LARGE)
            else:
                self._requests.append(self._data_deadline)
            return
        self._buffer, self._at = data, behind
        self._end_of_message(incoming)

    # -- by BDAT --------------------------------------------------------------------------------------------------------------

    def _bdat(self, argument: bytes, refusal: Reply | None) -> None:
        """`refusal`: why no command is taken now. The octets of the chunk follow all the same."""
        try:
            size, self._last = parse_bdat(argument)
        except CommandError as error:
            # Attack: a size that two servers read differently; what one takes for text is a command to the other.
            self._leave(error.reply)
            return
        state, incoming = self.state, self._incoming
        if refusal is None and state not in _FOR_CHUNKS:
            refusal = words.NO_RECIPIENTS if state is State.MAIL else words.BAD_SEQUENCE
        most = self._limits.message_size
        if size > 2 * most + 1024 * 1024:
            self._leave(refusal or words.TOO_LARGE)
            return
        self._behind = state
        self._unwanted = refusal
        self._chunk = size
        if refusal is None and incoming is not None:
            incoming.begin_chunk(most, size, normalise=self.settings.normalise)
        self.state = State.CHUNK
        if not size:
            self._chunk_ended()

    def _receive_chunk(self, data: bytes, start: int) -> None:
        """Octets of a chunk, and perhaps what stands behind it."""
        taken = min(self._chunk, len(data) - start)
        self._chunk -= taken
        incoming = self._incoming
        if self._unwanted is None and incoming is not None:
            piece = incoming.receive_chunk(data[start : start + taken] if start or taken < len(data) else data)
            if piece:
                self._requests.append(Body(piece))
            if incoming.hopeless:
                self._leave(words.TOO_LARGE)
                return
        if self._chunk:
            self._requests.append(self._data_deadline)
            return
        self._buffer, self._at = data, start + taken
        self._chunk_ended()

    def _chunk_ended(self) -> None:
        unwanted, self._unwanted = self._unwanted, None
        incoming = self._incoming
        if unwanted is not None or incoming is None:
            self.state = self._behind
            self._refuse(unwanted or words.BAD_SEQUENCE)
            return
        if self._last:
            piece = incoming.end_chunks()
            if piece:
                self._requests.append(Body(piece))
        if self._last or incoming.refusal is not None:
            # RFC 3030 §2: a chunk that is refused ends the transaction; chunks that follow it are answered with 503.
            self._end_of_message(incoming, last=self._last)
        else:
            self.state = State.BDAT
            self._say(words.OK)

    # -- its end --------------------------------------------------------------------------------------------------------------

    def _end_of_message(self, incoming: Incoming, *, last: bool = True) -> None:
        self._messages += 1
        self._bad = 0
        self.state = State.READY
        refusal = incoming.refusal
        if refusal is not None:
            # Attack on LMTP: one reply for three recipients, and the client takes the next "250" for that of the second. Only a chunk that is
            # not the last has one reply for all.
            replies = len(incoming.recipients) if self.settings.lmtp and last else 1
            self._ask(questions.MessageAbandoned(refusal), lambda _: self._abandoned(refusal, replies))
        else:
            self._requests.append(_END_OF_BODY)
            complete = questions.MessageComplete(incoming.complete(), self.client, self.settings.lmtp)
            self._ask(complete, self._message_answered)

    def _abandoned(self, refusal: Reply, replies: int) -> None:
        self._incoming = None
        for _ in range(replies - 1):
            self._say(refusal)
        self._refuse(refusal)
        self._stop_if_draining()

    def _message_answered(self, reply: Reply | tuple[Reply, ...] | None) -> None:
        incoming, self._incoming = self._incoming, None
        # Silence of the layer above is no promise to keep the message.
        if reply is None:
            reply = words.NO_ANSWER
        if self.settings.lmtp and incoming is not None:
            self._say_each(reply, len(incoming.recipients))
        else:
            self._say_answer(reply if isinstance(reply, Reply) else reply[0])
        self._stop_if_draining()

    def _say_each(self, reply: Reply | tuple[Reply, ...], recipients: int) -> None:
        # RFC 2033 §4.2: one reply for each recipient that RCPT was answered with 250 for, in their order.
        replies = (reply,) * recipients if isinstance(reply, Reply) else reply
        if len(replies) != recipients:
            replies = (words.NO_ANSWER,) * recipients
        for one in replies:
            self._say(one)
        if any(one.code == 421 for one in replies):
            self._close()

    def _forget_message(self, go_on: Callable[[], None]) -> None:
        """RSET or EHLO: the layer above lets go of chunks that it has, before we go on."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None and incoming.begun:
            self.state = State.READY
            self._ask(questions.MessageAbandoned(words.OK), lambda _: go_on())
        else:
            go_on()
