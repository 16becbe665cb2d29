"""A POP3 server without a socket (RFC 1939, RFC 2449, RFC 2595, RFC 3206, RFC 5034, RFC 6856).

What each command may do stands in one table, `_COMMANDS`. The one invariant: octets are looked at only in the state in which they were
sent to be looked at: nothing behind STLS, nothing while a question is open or a message is sent, no password before TLS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

from mailsec.errors import LocalProtocolError, ProtocolError, Reply
from mailsec.interfaces import Credentials
from mailsec.model.octets import Segments
from mailsec.model.requests import Deadline, Request, Send, Stream
from mailsec.model.session import TlsInfo
from mailsec.wire.conversation import FOREIGN, Conversation, LastWords
from mailsec.wire.pop3 import questions, words
from mailsec.wire.pop3.commands import CommandError, parse_request
from mailsec.wire.pop3.offers import PopSettings, capabilities
from mailsec.wire.pop3.questions import Response
from mailsec.wire.pop3.replies import encode_response
from mailsec.wire.pop3.states import State
from mailsec.wire.smtp.commands import parse_plain
from mailsec.wire.smtp.data import stuffed, stuffed_whole

__all__ = ["PopServer", "PopSettings"]

_SMALL = 64 * 1024
"""Octets of a message up to which it is written in one piece."""


class _Command(NamedTuple):
    """One row of the table: who handles a command, and in which states; elsewhere it is refused."""

    handle: Callable[[PopServer, bytes], None]
    states: tuple[State, ...]
    tls: bool = False
    """True where it is refused before TLS: it shows a password."""
    verbatim: bool = False
    """True where blanks at the end belong to the argument."""


@lru_cache(maxsize=256)
def _send(response: Response) -> Send:
    return Send(encode_response(response))


class PopServer(Conversation[State, Response]):
    """The server's side of one connection: a `ProtocolCore`."""

    def __init__(self, settings: PopSettings) -> None:
        last = LastWords(words.LONG_LINE, words.BARE_LF, None)
        super().__init__(settings.limits, last, closed=State.CLOSED, handshake=State.TLS, tls=settings.tls)
        self.settings = settings
        self.tls: TlsInfo | None = None
        self._streaming = False
        self._unpaced = 0
        """Octets of messages that were said since somebody waited for the client to take them."""
        self._armed = False
        """True while the deadline of the next command runs."""
        self._name: bytes | None = None
        """What USER said, where nothing came since."""
        self._utf8 = False
        self._early = 0
        self._auth_failures = 0

    # -- what the driver calls ------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[Request]:
        if self.state is State.CLOSED:
            return []
        if self.state is State.TLS:
            # An attacker's octets in clear between our +OK and the handshake.
            self._close(abort=True)
            return self._take()
        self._keep(data)
        self._work()
        return self._take()

    def streamed(self) -> list[Request]:
        self._streaming = False
        self._work()
        return self._take()

    def tls_started(self, info: TlsInfo) -> list[Request]:
        if self.state is not State.TLS:
            return []
        # RFC 2595 §4: what was said before the handshake is discarded.
        self.tls = info
        self._name, self._utf8, self._armed = None, False, False
        self._buffer, self._at = b"", 0
        if self.settings.tls == "implicit":
            self._greet()
        else:
            # RFC 2595 §4: no second greeting.
            self.state = State.AUTHORIZATION
            self._wait()
        return self._take()

    def tls_refused(self, reply: Reply) -> list[Request]:
        """The handshake stands, and the client is not welcome: the last words are under TLS."""
        if self.state is State.TLS:
            self._leave(_response_of(reply))
        return self._take()

    def deadline_passed(self) -> list[Request]:
        if self.state is not State.CLOSED and self._answered is None:
            # RFC 1939 §3: closed without a response, and without removing a message.
            self._close(abort=self.state is State.TLS)
        return self._take()

    def drain(self) -> list[Request]:
        """We are about to stop: say so now, or behind what is being answered."""
        self._draining = True
        self._work()
        return self._take()

    # -- how it says things ---------------------------------------------------------------------------------------------------

    def _say(self, response: Response) -> None:
        self._requests.append(_send(response))

    def _greet(self) -> None:
        self.state = State.AUTHORIZATION
        self._ask(questions.Connected(self.tls), self._connected)

    def _connected(self, refusal: Reply | None) -> None:
        if refusal is not None:
            self._leave(_response_of(refusal))
            return
        self._say(Response(True, f"{self.settings.hostname} POP3 ready"))

    def _wait(self) -> None:
        if self._armed:
            # Attack: an octet a minute. The time is that of a whole command.
            return
        self._armed = True
        # RFC 1939 §3: at least ten minutes for whoever has logged in.
        limits = self._limits
        self._requests.append(Deadline(limits.mailbox_timeout if self.state is State.TRANSACTION else limits.command_timeout))

    # -- commands -------------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        """Go on with what waits in the buffer until a question or a message is open, the state forbids it, or nothing whole is left."""
        while self._answered is None and not self._streaming:
            state = self.state
            if state is State.CLOSED or state is State.TLS:
                return
            if self._draining:
                self._leave(words.STOPPING)
                return
            line = self._next_line()
            if line is None:
                return
            self._armed = False
            if state is State.SASL:
                self._sasl_response(line)
            else:
                self._command(line)

    def _command(self, line: bytes) -> None:
        if self.state is State.AUTHORIZATION:
            # a stranger who asks for our capabilities once a minute, for ever
            self._early += 1
            if self._early > self._limits.commands_before_login:
                self._leave(words.TOO_MANY_ERRORS)
                return
        if b"\r" in line or b"\0" in line:
            self._refuse(words.BAD_LINE)
            return
        # RFC 1939 §3: keywords are compared without case.
        verb, _, argument = line.partition(b" ")
        verb = verb.strip(b"\t").upper()
        command = _COMMANDS.get(verb)
        if command is None:
            self._refuse(words.UNKNOWN)
            if verb in FOREIGN and self.state is not State.CLOSED:
                self._close()
            return
        if command.tls and self.tls is None:
            # RFC 2595 §2.1: no password in clear, and none is looked at.
            self._refuse(words.TLS_FIRST)
            return
        if self.state not in command.states:
            self._refuse(words.BAD_SEQUENCE)
            return
        try:
            command.handle(self, argument if command.verbatim else argument.strip(b" \t"))
        except CommandError as error:
            self._refuse(error.response)
        except ProtocolError:  # a PLAIN response that cannot be read
            self._refuse(words.BAD_ARGUMENT)

    def _capa(self, argument: bytes) -> None:
        _no_argument(argument)
        self._say(words.CAPABILITIES)
        listed = capabilities(self.settings, under_tls=self.tls is not None, logged_in=self.state is State.TRANSACTION)
        self._requests.append(Send(stuffed_whole(listed)))

    def _stls(self, argument: bytes) -> None:
        if self.settings.tls == "implicit":
            raise CommandError(words.NOT_OFFERED)
        if self.tls is not None:
            raise CommandError(words.BAD_SEQUENCE)
        _no_argument(argument)
        # RFC 2595 §4: the client waits for our +OK. What stands behind the command already was put there by somebody else, to be
        # taken for something said under TLS.
        if self._at < len(self._buffer):
            self._leave(words.INJECTION)
            return
        self._say(words.GO_TLS)
        self._handshake()

    def _utf8_mode(self, argument: bytes) -> None:
        # RFC 6856 §2.1: it is said before the login.
        _no_argument(argument)
        self._utf8 = True
        self._say(words.UTF8_OK)

    def _user(self, argument: bytes) -> None:
        if not argument:
            raise CommandError(words.BAD_ARGUMENT)
        # RFC 1939 §7: it is not said whether there is such a mailbox.
        self._name = argument
        self._say(words.NAME_OK)

    def _pass(self, argument: bytes) -> None:
        # RFC 1939 §7: PASS follows USER.
        name, self._name = self._name, None
        if name is None:
            raise CommandError(words.BAD_SEQUENCE)
        try:
            login = name.decode("utf-8")
        except UnicodeDecodeError:
            raise CommandError(words.BAD_ARGUMENT) from None
        self._log_in(Credentials("USER", login, argument))

    def _auth(self, argument: bytes) -> None:
        self._name = None
        mechanism, _, response = argument.partition(b" ")
        if mechanism.upper() != b"PLAIN":
            raise CommandError(words.AUTH_UNKNOWN)
        if response:
            self._log_in(parse_plain(response.strip(b" \t")))
            return
        # RFC 5034 §4: an empty challenge.
        self.state = State.SASL
        self._requests.append(Send(b"+ \r\n"))

    def _sasl_response(self, line: bytes) -> None:
        self.state = State.AUTHORIZATION
        if line == b"*":
            self._refuse(words.AUTH_CANCELLED)
            return
        try:
            self._log_in(parse_plain(line))
        except ProtocolError:
            self._refuse(words.BAD_ARGUMENT)

    def _log_in(self, credentials: Credentials) -> None:
        self._ask(questions.Login(credentials, self.tls, self._utf8), self._login_answered)

    def _login_answered(self, value: Any) -> None:
        response = words.AUTH_FAILED if value is None else _response_of(value)
        if response.ok:
            self.state = State.TRANSACTION
            self._bad = 0
            self._say(response)
            return
        self._auth_failures += 1
        self._say(response)
        if response.closing or self._auth_failures >= self._limits.auth_failures:
            self._close()

    # -- the maildrop ---------------------------------------------------------------------------------------------------------

    def _maildrop(self, argument: bytes, *, verb: bytes) -> None:
        request = parse_request(verb, argument)
        self._ask(request, partial(self._maildrop_answered, request))

    def _maildrop_answered(self, request: questions.Request, value: Any) -> None:
        response = _response_of(value)
        if response.ok and request.is_multiline:
            self._send_lines(response)
        else:
            self._say(response)
            if response.closing:
                self._close()

    def _send_lines(self, response: Response) -> None:
        lines = response.body or Segments(())
        if len(lines) > _SMALL:
            self._say(response)
            self._streaming, self._unpaced = True, 0
            self._requests.append(Deadline(self._limits.data_timeout))
            # RFC 1939 §3: byte-stuffing is that of SMTP. Where it cannot be done the connection is reset, without an end of the message.
            self._requests.append(Stream(stuffed(lines)))
            return
        try:
            whole = stuffed_whole(lines.join())
        except LocalProtocolError:
            self._say(words.UNSENDABLE)
            return
        whole = encode_response(response) + whole
        self._unpaced += len(whole)
        if self._unpaced > _SMALL:
            # Attack: a client that asks for all messages at once and takes none. A stream waits until it has taken them.
            self._unpaced = 0
            self._streaming = True
            self._requests += [Deadline(self._limits.data_timeout), Stream((whole,))]
        else:
            self._requests.append(Send(whole))

    def _quit(self, argument: bytes) -> None:
        _no_argument(argument)
        if self.state is State.TRANSACTION:
            # RFC 1939 §6: the UPDATE state, whose result the client is told; then the connection is closed either way.
            self._ask(questions.Request("QUIT"), self._quit_answered)
            return
        self._leave(words.GOODBYE)

    def _quit_answered(self, value: Any) -> None:
        self._leave(_response_of(value))


def _no_argument(argument: bytes) -> None:
    if argument:
        raise CommandError(words.NO_ARGUMENT)


def _response_of(value: Any) -> Response:
    """The answer of the layer above. A `Reply` is a "no"; silence promises nothing."""
    if isinstance(value, Response):
        return value
    if isinstance(value, Reply) and not value.positive:
        # RFC 3206 §3: whether trying again helps.
        code = "AUTH" if value.code == 535 else "SYS/TEMP" if value.temporary else "SYS/PERM"
        return Response(False, value.text, code, closing=value.code == 421)
    return words.NO_ANSWER


_EARLY = (State.AUTHORIZATION,)
_LATE = (State.TRANSACTION,)

# RFC 1939 §4, §5: the commands of each state. What is not listed for a state is refused.
_COMMANDS: Mapping[bytes, _Command] = {
    b"CAPA": _Command(PopServer._capa, _EARLY + _LATE),
    b"STLS": _Command(PopServer._stls, _EARLY),
    b"UTF8": _Command(PopServer._utf8_mode, _EARLY, tls=True),
    b"USER": _Command(PopServer._user, _EARLY, tls=True),
    # RFC 1939 §7: blanks may be part of a password.
    b"PASS": _Command(PopServer._pass, _EARLY, tls=True, verbatim=True),
    b"AUTH": _Command(PopServer._auth, _EARLY, tls=True),
    **{
        verb: _Command(partial(PopServer._maildrop, verb=verb), _LATE)
        for verb in (b"STAT", b"LIST", b"UIDL", b"RETR", b"TOP", b"DELE", b"NOOP", b"RSET")
    },
    b"QUIT": _Command(PopServer._quit, _EARLY + _LATE),
}
