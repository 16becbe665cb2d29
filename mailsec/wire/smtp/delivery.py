"""One message on its way to one next hop: its envelope as commands (RFC 5321, RFC 3461), and who said what about each recipient.

The one invariant: a recipient counts as delivered only by a 2yz reply that came after the whole message was sent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from mailsec.errors import LocalProtocolError, MailsecError, RemoteProtocolError, Reply
from mailsec.model.session import Recipient
from mailsec.wire.smtp.questions import DeliveryResult, OutgoingMessage

__all__ = ["Delivery", "check_capabilities"]

Command = tuple[bytes, Callable[[Reply], None]]


def check_capabilities(message: OutgoingMessage, capabilities: Mapping[str, str]) -> Reply | None:
    """What the next hop cannot carry is refused here, with the status that says why; None where nothing stands against it."""
    limit = capabilities.get("SIZE", "")
    # RFC 1870 §6.1: a message over the announced size is not tried; 0 says that there is no limit. (A "²" is a digit to isdigit().)
    if limit.isascii() and limit.isdigit() and 0 < int(limit[:20]) < len(message.segments):
        return Reply(552, "5.3.4", f"message is too large for the next hop, which takes {limit[:20]} octets")
    # RFC 6152 §3, RFC 3463 X.6.3: without 8BITMIME it would have to be converted, which breaks signatures: never.
    if message.eight_bit and "8BITMIME" not in capabilities:
        return Reply(554, "5.6.3", "message holds 8-bit octets, and the next hop takes 7-bit mail only")
    # RFC 6531 §3.2
    if "SMTPUTF8" not in capabilities and (message.smtputf8 or not _all_ascii(message)):
        return Reply(553, "5.6.7", "message needs SMTPUTF8, which the next hop does not offer")
    return None


def _all_ascii(message: OutgoingMessage) -> bool:
    return (message.reverse_path is None or message.reverse_path.is_ascii) and all(one.address.is_ascii for one in message.recipients)


class Delivery:
    """The state of one message in one session."""

    __slots__ = ("_awaiting", "_dsn", "_lmtp", "_local", "_replies", "accepted", "closing", "handed_over", "mail_refused", "message")

    def __init__(self, message: OutgoingMessage, *, lmtp: bool) -> None:
        self.message = message
        self._lmtp = lmtp
        self._replies: list[Reply | None] = [None] * len(message.recipients)
        self._local = False
        self._dsn = False
        self._awaiting: list[int] = []
        self.accepted: list[int] = []
        """Indices of the recipients that RCPT was answered with 2yz for."""
        self.mail_refused = False
        self.closing = False
        """True where one of the replies was 421."""
        self.handed_over = False

    def commands(self, capabilities: Mapping[str, str]) -> list[Command]:
        """MAIL and RCPT, each with who takes its reply."""
        message = self.message
        path = str(message.reverse_path) if message.reverse_path is not None else ""
        # Attack: what was encrypted is sent again by whoever recorded it, and a full mailbox behind the next hop returns it to them, opened.
        dsn = self._dsn = "DSN" in capabilities
        asks = message.quiet and dsn
        if message.quiet and not asks and not self._lmtp:
            path = ""  # RFC 5321 §4.5.5: nobody is told. (Who speaks LMTP tells us at once, RFC 2033 §4.2.)
        mail = f"MAIL FROM:<{path}>"
        if "SIZE" in capabilities:
            mail += f" SIZE={len(message.segments)}"
        if message.eight_bit:
            mail += " BODY=8BITMIME"
        utf8 = message.smtputf8 or not _all_ascii(message)
        if utf8:
            mail += " SMTPUTF8"
        if asks:
            mail += " RET=HDRS"
        elif dsn:
            # RFC 3461 §5.2.1: what the sender asked for is passed on as it was given.
            mail += (f" RET={message.ret}" if message.ret else "") + (f" ENVID={message.envid}" if message.envid else "")
        commands: list[Command] = [(_line(mail), self._mail_answered)]
        for index, recipient in enumerate(message.recipients):
            to = f"RCPT TO:<{recipient.address}>"
            if asks:
                to += " NOTIFY=NEVER"
            elif dsn:
                to += _wishes(recipient, utf8)
            commands.append((_line(to), partial(self._rcpt_answered, index)))
        return commands

    def _mail_answered(self, reply: Reply) -> None:
        _no_intermediate(reply, "MAIL")
        if not reply.positive:
            self.mail_refused = True
            self._note(reply)
            if self.message.only_asks:
                # That it takes nothing from us (550 5.1.8, or a bare 550) says nothing about anybody there.
                reply = Reply(451, "4.3.0", f"the next hop will not be asked: {reply.code} {reply.enhanced} {reply.text}")
            self._replies = [reply] * len(self._replies)

    def _rcpt_answered(self, index: int, reply: Reply) -> None:
        _no_intermediate(reply, "RCPT")
        if self.mail_refused:
            return
        if reply.positive:
            self.accepted.append(index)
            if self.message.only_asks:
                self._replies[index] = reply
        else:
            self._note(reply)
            self._replies[index] = reply

    def _note(self, reply: Reply) -> None:
        if reply.code == 421:
            self.closing = True

    def decide(self, reply: Reply) -> None:
        """A negative reply (to DATA, or in mid-message) for all who were accepted."""
        self._note(reply)
        for index in self.accepted:
            if self._replies[index] is None:
                self._replies[index] = reply

    def refuse_here(self, reply: Reply) -> None:
        """We refuse it ourselves: for all who are undecided."""
        self._local = True
        self._replies = [known if known is not None else reply for known in self._replies]

    @property
    def expected_results(self) -> int:
        """How many replies the end of data brings."""
        self._awaiting = list(self.accepted)
        return len(self.accepted) if self._lmtp else 1

    def result_answered(self, reply: Reply) -> bool:
        """A reply to the end of data; True where it was the last one."""
        self._note(reply)
        if not self._lmtp:
            self.decide(reply)
            return True
        self._replies[self._awaiting.pop(0)] = reply
        return not self._awaiting

    def interrupted(self, error: MailsecError | None) -> DeliveryResult:
        """The session ended before all was decided: the rest is tried again."""
        if any(known is None for known in self._replies):
            why = error.message if error is not None else "the session ended"
            self.refuse_here(Reply(451, "4.4.2", why))
        return self.result()

    def result(self) -> DeliveryResult:
        """What became of it."""
        undecided = Reply(451, "4.3.0", "nothing was said about this recipient")
        replies = tuple(known if known is not None else undecided for known in self._replies)
        return DeliveryResult(self.message, replies, self._local, self._dsn, self.handed_over and self._local)


def _wishes(recipient: Recipient, utf8: bool) -> str:
    """NOTIFY and ORCPT as they came (RFC 3461 §5.2.1)."""
    notify = f" NOTIFY={recipient.notify}" if recipient.notify else ""
    # RFC 6533 §3: an ORCPT that is not ASCII travels under SMTPUTF8 only; it is left out where nothing else needs that.
    original = f" ORCPT={recipient.original}" if recipient.original and (utf8 or recipient.original.isascii()) else ""
    return notify + original


def _line(text: str) -> bytes:
    line = text.encode("utf-8")
    # An address that could end the command and begin another one never leaves (it cannot be made by `Address.parse`).
    if b"\r" in line or b"\n" in line or b"\0" in line:
        raise LocalProtocolError("an address with a line end was about to be sent", stage="envelope")
    return line + b"\r\n"


def _no_intermediate(reply: Reply, verb: str) -> None:
    if 300 <= reply.code < 400:
        raise RemoteProtocolError(f"reply to {verb} with {reply.code}", stage="envelope")
