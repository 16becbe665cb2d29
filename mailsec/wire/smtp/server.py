"""An SMTP and LMTP server without a socket (RFC 5321, RFC 2033, RFC 2034, RFC 2920, RFC 3207, RFC 4954, RFC 6152, RFC 6531).

What each command may do stands in one table, `_COMMANDS`. The one invariant: octets are looked at only in the state in which they were
sent to be looked at: nothing behind STARTTLS, nothing while a question is open, nothing of a session before TLS is known after it.
"""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from mailsec.errors import Reply
from mailsec.model.requests import Request, Send
from mailsec.model.session import Identity, TlsInfo
from mailsec.wire.conversation import FOREIGN
from mailsec.wire.smtp import questions, words
from mailsec.wire.smtp.announced import read_forwarded, read_xclient
from mailsec.wire.smtp.commands import CommandError, client_name
from mailsec.wire.smtp.login import Login, Step
from mailsec.wire.smtp.offers import ServerSettings, ehlo_reply
from mailsec.wire.smtp.states import State
from mailsec.wire.smtp.transactions import Transactions

__all__ = ["ServerSettings", "SmtpServer"]


class _Command(NamedTuple):
    """One row of the table: who handles a command, and in which states; elsewhere it is answered with 503."""

    handle: Callable[[SmtpServer, bytes], None]
    states: tuple[State, ...]
    before_tls: bool = False
    """True where it is answered although TLS is required and has not begun (RFC 3207 §4)."""


class SmtpServer(Transactions):
    """The server's side of one connection: a `ProtocolCore`."""

    def __init__(self, settings: ServerSettings) -> None:
        super().__init__(settings)
        self._commands = _LMTP_COMMANDS if settings.lmtp else _COMMANDS
        self._after_auth = State.READY
        self._login = Login(settings)
        self._trusted = False
        self._certified_front = False
        """A server in front has shown an accepted certificate, before it said who its client is."""

    def trust_peer(self) -> None:
        """Who has connected is a server in front of us: it may say who its clients are (called before anything is said)."""
        self._trusted = True

    # -- what the driver calls ------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes) -> list[Request]:
        state = self.state
        if state is State.DATA:
            if self._answered is None:
                self._receive_message(data, 0)
                if self.state is not State.DATA:
                    self._work()
                return self._take()
        elif state is State.CHUNK:
            if self._answered is None:
                self._receive_chunk(data, 0)
                if self.state is not State.CHUNK:
                    self._work()
                return self._take()
        elif state is State.CLOSED:
            return []
        elif state is State.TLS:
            # An attacker's octets in clear between our 220 and the handshake.
            self._close(abort=True)
            return self._take()
        self._keep(data)
        self._work()
        return self._take()

    def streamed(self) -> list[Request]:
        return []

    def tls_started(self, info: TlsInfo) -> list[Request]:
        if self.state is not State.TLS:
            return []
        # RFC 3207 §4.2: everything that was learnt before the handshake is discarded.
        greeted = self.client.helo != "" or self.settings.tls != "implicit"
        # Who showed a certificate that the listener knows need not log in as well.
        self.client = questions.ClientState(tls=info, identity=info.peer_identity if self.settings.authenticate else None)
        self._incoming = None
        self._buffer, self._at = b"", 0
        if greeted:
            self.state = State.NEW
            self._requests.append(self._command_deadline)
        else:
            self._greet()
        return self._take()

    def tls_refused(self, reply: Reply) -> list[Request]:
        """The handshake stands, and the client is not welcome: the last words are under TLS."""
        if self.state is State.TLS:
            self._leave(reply)
        return self._take()

    def deadline_passed(self) -> list[Request]:
        if self.state is State.TLS:
            self._close(abort=True)
        elif self.state is not State.CLOSED and self._answered is None:
            # RFC 5321 §4.5.3.2.7, §3.8: a server that gives up says so.
            self._leave(words.TIMEOUT)
        return self._take()

    def drain(self) -> list[Request]:
        """We are about to stop: say so now, or behind the message that is being received."""
        self._draining = True
        if self._answered is None:
            self._stop_if_draining()
        return self._take()

    # -- small steps ----------------------------------------------------------------------------------------------------------

    def _greet(self) -> None:
        self._ask(questions.Connected(self.client.tls), self._connected)
        self.state = State.NEW

    def _connected(self, refusal: Reply | None) -> None:
        if refusal is not None:
            self._leave(refusal)
            return
        # RFC 5321 §4.2: the greeting begins with the host's name.
        self._requests.append(
            Send(f"220 {self.settings.hostname} {'LMTP' if self.settings.lmtp else 'ESMTP'}\r\n".encode("ascii", "replace"))
        )

    # -- commands -------------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while self._answered is None:
            state = self.state
            if state is State.CLOSED or state is State.TLS:
                return
            if state is State.DATA or state is State.CHUNK:
                if self._at < len(self._buffer):
                    data, at = self._buffer, self._at
                    self._buffer, self._at = b"", 0
                    if state is State.DATA:
                        self._receive_message(data, at)
                    else:
                        self._receive_chunk(data, at)
                    continue
                self._requests.append(self._data_deadline)
                return
            line = self._next_line()
            if line is None:
                return
            if state is State.AUTH:
                self._auth_response(line)
            else:
                self._command(line)

    def _command(self, line: bytes) -> None:
        if b"\r" in line or b"\0" in line:
            self._refuse(words.BAD_LINE)
            return
        # RFC 5321 §4.1.1: trailing blanks are tolerated, verbs are compared without case.
        verb, _, argument = line.rstrip(b" \t").partition(b" ")
        verb = verb.upper()
        if verb == b"BDAT" and self.settings.chunking:
            self._bdat(argument, words.TLS_FIRST if self._wants_tls else None)
            return
        command = self._commands.get(verb)
        if command is None:
            self._refuse(words.UNKNOWN)
            if verb in FOREIGN and self.state is not State.CLOSED:
                self._close()
            return
        if not command.before_tls and self._wants_tls:
            # RFC 3207 §4: 530 to everything but NOOP, EHLO, STARTTLS and QUIT.
            self._refuse(words.TLS_FIRST)
            return
        if self.state not in command.states:
            # RFC 2920 §3.1: DATA that was sent together with recipients that were all refused.
            self._refuse(words.NO_RECIPIENTS if verb == b"DATA" and self.state is State.MAIL else words.BAD_SEQUENCE)
            return
        try:
            command.handle(self, argument)
        except CommandError as error:
            self._refuse(error.reply)

    def _protocol(self, tls: TlsInfo | None, identity: Identity | None) -> str:
        # RFC 3848: ESMTP or LMTP with S for TLS and A for AUTH (a certificate alone is none); plain SMTP has no such words.
        authenticated = identity is not None and identity.mechanism != "certificate"
        return self.settings.name + ("S" if tls is not None else "") + ("A" if authenticated else "")

    @property
    def _wants_tls(self) -> bool:
        return self.client.tls is None and self.settings.tls == "starttls-required"

    def _hello(self, argument: bytes, *, extended: bool) -> None:
        name = argument.strip()
        if not name:
            raise CommandError(words.NAME_NEEDED)
        # RFC 5321 §4.1.4: EHLO in mid-session is a RSET too.
        self._forget_message(lambda: self._greeted(client_name(name), extended))

    def _greeted(self, helo: str, extended: bool) -> None:
        self.state = State.READY
        tls, identity = self.client.tls, self.client.identity
        self.client = questions.ClientState(helo, self._protocol(tls, identity) if extended else "SMTP", tls, identity)
        if not extended:
            self._requests.append(Send(f"250 {self.settings.hostname}\r\n".encode("ascii", "replace")))
            return
        self._requests.append(Send(ehlo_reply(self.settings, self.client.tls, in_front=self._in_front)))

    # -- a server in front of us ----------------------------------------------------------------------------------------------

    @property
    def _in_front(self) -> bool:
        settings, tls = self.settings, self.client.tls
        certified = self._certified_front or (tls is not None and tls.peer_verified)
        return settings.xclient and (self._trusted or (settings.xclient_certificates and certified))

    def _xclient(self, argument: bytes) -> None:
        if not self._in_front:
            raise CommandError(words.NOT_IN_FRONT if self.settings.xclient else words.UNKNOWN)
        tls = self.client.tls
        certified = self._certified_front or (tls is not None and tls.peer_verified)
        self._ask(replace(read_xclient(argument, login=self.settings.xclient_login), certified=certified), self._announced)

    def _announced(self, value: Identity | Reply | None) -> None:
        if isinstance(value, Reply):
            self._leave(value)
            return
        # XCLIENT_README: the session begins anew. Whose certificate it was that was shown, it is not the client's.
        # Attack: who comes by way of it says AUTH EXTERNAL, and is whoever the certificate of the server in front names; or is let through by
        # a condition over that certificate.
        tls = self.client.tls
        if tls is not None:
            self._certified_front = self._certified_front or tls.peer_verified
            tls = replace(tls, peer_certificate=None, peer_chain=(), peer_verified=False, peer_reasons=(), peer_identity=None)
        self.client = questions.ClientState(tls=tls, identity=value)
        self._greet()

    def _xforward(self, argument: bytes) -> None:
        if not self._in_front:
            raise CommandError(words.NOT_IN_FRONT if self.settings.xclient else words.UNKNOWN)
        self._ask(read_forwarded(argument), lambda _: self._say(words.OK))

    # -- STARTTLS and AUTH ----------------------------------------------------------------------------------------------------

    def _starttls(self, argument: bytes) -> None:
        if self.settings.tls not in ("starttls", "starttls-required"):
            raise CommandError(words.NOT_OFFERED)
        if self.client.tls is not None:
            raise CommandError(words.BAD_SEQUENCE)
        if argument:
            raise CommandError(words.NO_ARGUMENT)
        # RFC 3207 §4: the client waits for our 220. What stands behind the command already was put there by somebody else, to be
        # taken for something said under TLS.
        if self._at < len(self._buffer):
            self._leave(words.INJECTION)
            return
        self._say(words.GO_TLS)
        self._handshake()

    def _auth(self, argument: bytes) -> None:
        step = self._login.begin(argument, self.client)
        self._after_auth = self.state
        self._go_on_with_auth(step)

    def _auth_response(self, line: bytes) -> None:
        self.state = self._after_auth
        try:
            step = self._login.answer(line)
        except CommandError as error:
            self._refuse(error.reply)
            return
        self._go_on_with_auth(step)

    def _go_on_with_auth(self, step: Step) -> None:
        if isinstance(step, bytes):
            # RFC 4954 §4: a challenge in base64
            self.state = State.AUTH
            self._requests.append(Send(b"334 " + binascii.b2a_base64(step, newline=False) + b"\r\n"))
        elif isinstance(step, questions.FindVerifier):
            self._ask(step, self._verifier_found)
        elif isinstance(step, Identity):
            self._logged_in(step)
        else:
            self._ask(step, self._authenticated)

    def _verifier_found(self, value: questions.Verifying | Reply | None) -> None:
        if isinstance(value, questions.Verifying):
            self._go_on_with_auth(self._login.verifier(value))
        else:
            self._say_answer(value if isinstance(value, Reply) else words.AUTH_UNAVAILABLE)

    def _authenticated(self, value: Identity | Reply | None) -> None:
        if isinstance(value, Identity):
            self._go_on_with_auth(self._login.accepted(value))
            return
        too_often = self._login.fail()
        self._say_answer(value if isinstance(value, Reply) else words.AUTH_FAILED)
        if too_often and self.state is not State.CLOSED:
            self._leave(words.TOO_MANY_ERRORS)

    def _logged_in(self, identity: Identity) -> None:
        self.client = replace(self.client, identity=identity)
        if self.client.protocol != "SMTP":
            self.client = replace(self.client, protocol=self._protocol(self.client.tls, identity))
        self._say(words.AUTH_OK)

    # -- the rest -------------------------------------------------------------------------------------------------------------

    def _rset(self, argument: bytes) -> None:
        if argument:
            raise CommandError(words.NO_ARGUMENT)
        self._forget_message(self._reset)

    def _reset(self) -> None:
        if self.state is not State.NEW:
            self.state = State.READY
        self._say(words.OK)

    def _always(self, argument: bytes, *, reply: Reply) -> None:
        if reply.positive:
            self._say(reply)
        else:
            self._refuse(reply)

    def _quit(self, argument: bytes) -> None:
        if argument:
            raise CommandError(words.NO_ARGUMENT)
        self._requests.append(Send(f"221 2.0.0 {self.settings.hostname} closing connection\r\n".encode("ascii", "replace")))
        self._close()


_ANY = (State.NEW, State.READY, State.MAIL, State.RCPT, State.BDAT)

# RFC 5321 §4.1.4: the order of commands. What is not listed for a state is answered with 503.
_COMMANDS: Mapping[bytes, _Command] = {
    b"EHLO": _Command(partial(SmtpServer._hello, extended=True), _ANY, before_tls=True),
    b"HELO": _Command(partial(SmtpServer._hello, extended=False), _ANY),
    b"MAIL": _Command(SmtpServer._mail, (State.READY,)),
    b"RCPT": _Command(SmtpServer._rcpt, (State.MAIL, State.RCPT)),
    b"DATA": _Command(SmtpServer._data, (State.RCPT,)),
    b"RSET": _Command(SmtpServer._rset, _ANY),
    b"NOOP": _Command(partial(SmtpServer._always, reply=words.OK), _ANY, before_tls=True),
    # RFC 5321 §3.5.3, §7.3: 252, so that nobody learns which addresses exist.
    b"VRFY": _Command(partial(SmtpServer._always, reply=words.CANNOT_VRFY), _ANY),
    b"EXPN": _Command(partial(SmtpServer._always, reply=words.NOT_OFFERED), _ANY),
    b"HELP": _Command(partial(SmtpServer._always, reply=words.HELP), _ANY),
    b"QUIT": _Command(SmtpServer._quit, _ANY, before_tls=True),
    b"STARTTLS": _Command(SmtpServer._starttls, (State.NEW, State.READY), before_tls=True),
    b"AUTH": _Command(SmtpServer._auth, (State.READY,)),
    b"XCLIENT": _Command(SmtpServer._xclient, (State.READY,)),
    b"XFORWARD": _Command(SmtpServer._xforward, (State.READY,)),
}

# RFC 2033 §4.1: LHLO instead of HELO and EHLO, which an LMTP server does not know.
_LMTP_COMMANDS: Mapping[bytes, _Command] = {
    b"LHLO": _COMMANDS[b"EHLO"],
    **{verb: command for verb, command in _COMMANDS.items() if verb not in (b"EHLO", b"HELO")},
}
