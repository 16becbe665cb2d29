"""One message as an MTA shows it: envelope, header fields one by one, chunks of the body; and the octets that they make.

The one invariant: a field that the MTA has counts as one field here, too. What could be read as two, or ends a line in another way than
CRLF, is refused at the end of the message, and so is everything that is over a limit; nothing of it is kept.
"""

from __future__ import annotations

import re

from mailsec.errors import AddressError, MailsecError, ProtocolError, RemoteProtocolError, Reply
from mailsec.model.limits import Limits
from mailsec.model.session import Envelope, Recipient
from mailsec.wire.smtp.commands import parse_mail, parse_rcpt
from mailsec_milter.packets import strings

__all__ = ["Incoming"]

_NAME = re.compile(rb"[!-9;-~]+\Z")
# RFC 5322 §2.2.3: within a value a line end is folding, and a blank follows it.
_NO_FOLDING = re.compile(rb"\n(?![ \t])|[\r\0]")
_BARE = re.compile(rb"\r(?!\n)|\n(?<!\r\n)|\0")
_MAIL = frozenset({"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"})
_RCPT = frozenset({"NOTIFY", "ORCPT"})

_BAD_FIELD = Reply(554, "5.6.0", "a header field that cannot be read in one way only")
_BAD_LINE = Reply(554, "5.6.0", "bare CR, bare LF or NUL in the message")
_TOO_LARGE = Reply(552, "5.3.4", "the message is over a limit")
_TOO_MANY = Reply(552, "5.5.3", "too many recipients")
_NOBODY = Reply(554, "5.5.1", "no valid recipients")


class Incoming:
    """From MAIL to the end of the message."""

    def __init__(self, hostname: str, limits: Limits, *, leading_space: bool) -> None:
        self.fault: Reply | None = None
        """Why the MTA is told no at the end, whatever else comes."""
        self._hostname = hostname
        self._limits = limits
        self._blank = b"" if leading_space else b" "
        self._envelope = Envelope(None, ())
        self._recipients: list[Recipient] = []
        self.size = 0
        """Octets that it has so far."""
        self._fields = 0
        self._header = 0
        self._held = b""

    # -- envelope ---------------------------------------------------------------------------------------------------------------

    def mail(self, data: bytes) -> None:
        """MAIL FROM: a path, then its parameters."""
        path, parameters = _arguments(data, _MAIL)
        try:
            self._envelope = parse_mail(b"FROM:" + self._whole(path) + parameters, smtputf8=True, dsn=True, auth=True)
        except (AddressError, ProtocolError) as error:
            self._refuse(error)

    def rcpt(self, data: bytes) -> None:
        """RCPT TO."""
        if len(self._recipients) >= self._limits.recipients:
            self.fault = self.fault or _TOO_MANY
            return
        path, parameters = _arguments(data, _RCPT)
        smtputf8 = self._envelope.smtputf8 or not path.isascii()
        try:
            found = parse_rcpt(b"TO:" + self._whole(path) + parameters, hostname=self._hostname, smtputf8=smtputf8, dsn=True)
        except (AddressError, ProtocolError) as error:
            self._refuse(error)
        else:
            self._recipients.append(found)

    def _whole(self, path: bytes) -> bytes:
        """A name without a domain is somebody of the MTA's own host (`sendmail root`)."""
        inside = path.strip()[1:-1] if path.strip().startswith(b"<") else path.strip()
        return b"<%s>" % (inside if b"@" in inside or not inside else inside + b"@" + self._hostname.encode())

    # -- octets -----------------------------------------------------------------------------------------------------------------

    def field(self, data: bytes) -> bytes:
        """The octets of a header field, with their CRLF; b"" where the message is refused already."""
        found = strings(data)
        if len(found) != 2:
            # Attack: a NUL in a value ("Subject: a<NUL>Bcc: …") makes a third string.
            self.fault = self.fault or _BAD_FIELD
            return b""
        name, value = found
        if not _NAME.match(name.rstrip(b" \t")) or _NO_FOLDING.search(value):
            # Attack: a line end in a value, behind which the MTA's one field is two to whoever reads the octets.
            self.fault = self.fault or _BAD_FIELD
            return b""
        limits = self._limits
        octets = b"%s:%s%s\r\n" % (name, self._blank, value.replace(b"\n", b"\r\n"))
        self._fields += 1
        self._header += len(octets)
        if self._fields > limits.header_fields or self._header > limits.header_octets or len(octets) > limits.header_field_octets:
            self.fault = self.fault or _TOO_LARGE
        return self._kept(octets)

    def end_of_header(self) -> bytes:
        """The empty line."""
        return self._kept(b"\r\n")

    def body(self, chunk: bytes) -> bytes:
        """A chunk of the body, as far as it can be told that its line ends are whole."""
        data = self._held + chunk if self._held else chunk
        # A CR may be the first half of a CRLF that goes on in the next chunk.
        self._held = b"\r" if data.endswith(b"\r") else b""
        if self._held:
            data = data[:-1]
        if _BARE.search(data):
            self.fault = self.fault or _BAD_LINE
        return self._kept(data)

    def _kept(self, octets: bytes) -> bytes:
        self.size += len(octets)
        if self.size > self._limits.message_size:
            self.fault = self.fault or _TOO_LARGE
        return b"" if self.fault is not None else octets

    # -- the end ----------------------------------------------------------------------------------------------------------------

    def complete(self) -> Envelope:
        """The envelope; `fault` is final."""
        if self._held:
            self.fault = self.fault or _BAD_LINE
        if not self._recipients:
            self.fault = self.fault or _NOBODY
        one = self._envelope
        return Envelope(
            one.reverse_path, tuple(self._recipients), one.size, one.body, one.smtputf8, one.ret, one.envid, one.auth
        )  # fmt: skip

    def _refuse(self, error: MailsecError) -> None:
        self.fault = self.fault or error.reply


def _arguments(data: bytes, known: frozenset[str]) -> tuple[bytes, bytes]:
    """The path, and those parameters that can be read here: the MTA has looked at all of them."""
    found = strings(data)
    if not found:
        raise RemoteProtocolError("an envelope command without an address")
    words = [one for one in found[1:] if one.partition(b"=")[0].upper().decode("latin-1") in known]
    return found[0], b"".join(b" " + one for one in words)
