"""Logins that another server checks: Dovecot by its auth socket, or the mail server that people have their accounts at.

The one invariant (promise 8): a login is an address within the `domains` that the configuration names for that very server, and nobody
where it is none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

from mailsec.builtin.login_names import address_of
from mailsec.errors import Unavailable
from mailsec.interfaces import PEER, Credentials, Runtime
from mailsec.model.session import Identity, Session
from mailsec.wire.dovecot import Answered, AuthClient, Question
from mailsec.wire.smtp.client import ClientSettings, SmtpClient
from mailsec.wire.smtp.questions import Ended, NextMessage, Quit

__all__ = ["DovecotLogins", "UpstreamLogins"]

_TIMEOUT = 20.0
# RFC 4954 §6: 535, the credentials are wrong. (534 and 538 are about how they were given.)
_WRONG = 535


class _Logins(ABC):
    """An `Authenticator` that asks somebody else."""

    name = "logins"
    mechanisms = frozenset({"PLAIN", PEER})

    def __init__(self, domains: tuple[str, ...], runtime: Runtime) -> None:
        self._domains = domains
        self._runtime = runtime

    async def authenticate(self, credentials: Credentials, session: Session) -> Identity | None:
        """The identity; None where login and password do not fit, or the login is no address in our domains. Raise Unavailable."""
        if credentials.mechanism == PEER:
            return self._identity(credentials.login, PEER)
        # RFC 4616 §2: the authorisation identity says as whom to act; nobody acts as somebody else here.
        if credentials.mechanism != "PLAIN" or credentials.authorisation not in ("", credentials.login):
            return None
        user = await self._ask(credentials, session)
        return None if user is None else self._identity(user, credentials.mechanism)

    def _identity(self, login: str, mechanism: str) -> Identity | None:
        address = address_of(login, self._domains)
        return None if address is None else Identity(login, (str(address),), mechanism, address.key)

    def account(self, login: str) -> str:
        """What `login` is counted as: "alice" and "alice@example.org" are one account."""
        address = address_of(login, self._domains)
        return "" if address is None else address.key

    @abstractmethod
    async def _ask(self, credentials: Credentials, session: Session) -> str | None:
        """The login as the server knows it; None where it does not fit."""


class DovecotLogins(_Logins):
    """Users of Dovecot, by its auth socket ("unix:PATH" or "HOST:PORT")."""

    def __init__(self, address: str, domains: tuple[str, ...], runtime: Runtime) -> None:
        super().__init__(domains, runtime)
        self.name = f"dovecot {address}"
        self._address = address

    async def _ask(self, credentials: Credentials, session: Session) -> str | None:
        answered = self._runtime.signal()

        def told(question: object) -> None:
            if isinstance(question, Answered) and not answered.fired:
                answered.fire(question)

        remote = "" if session.peer.startswith("unix:") else session.peer
        # Dovecot's numbers of clients have 31 bits.
        number = int.from_bytes(self._runtime.random(4), "big") >> 1 or 1
        core = AuthClient(Question(credentials.login, credentials.secret, remote), number, timeout=_TIMEOUT)
        await self._runtime.connect(self._address, core, told, timeout=_TIMEOUT)
        answer: Answered = await answered.wait()
        if answer.error is not None:
            raise answer.error
        return answer.user


class UpstreamLogins(_Logins):
    """Accounts at a mail server, which is asked with the very password that the client gave, over verified TLS."""

    def __init__(self, host: str, port: int, domains: tuple[str, ...], runtime: Runtime, *, hostname: str, implicit_tls: bool) -> None:
        super().__init__(domains, runtime)
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.name = f"upstream {self._address}"
        self._settings = ClientSettings(
            hostname,
            tls="verified",
            implicit_tls=implicit_tls,
            server_name=host,
            greeting_timeout=_TIMEOUT,
            command_timeout=_TIMEOUT,
            quit_timeout=1.0,
        )

    async def _ask(self, credentials: Credentials, session: Session) -> str | None:
        told = _Told(self._runtime)
        core = SmtpClient(replace(self._settings, username=credentials.login, password=credentials.secret))
        await self._runtime.connect(self._address, core, told.ask, timeout=_TIMEOUT, verify="verified")
        await told.known.wait()
        ended = told.ended
        if told.accepted:
            return credentials.login
        if ended is not None and ended.reply is not None and ended.reply.code == _WRONG:
            return None
        why = ended.error.message if ended is not None and ended.error is not None else "it went away"
        raise Unavailable(f"{self._address} cannot check logins: {why}", stage="login")


class _Told:
    """What becomes of one login at an upstream."""

    def __init__(self, runtime: Runtime) -> None:
        self.accepted = False
        self.ended: Ended | None = None
        self.known = runtime.signal()

    def ask(self, question: object) -> object:
        """The client's questions."""
        if isinstance(question, NextMessage):
            # The login stands: nobody waits for our goodbye.
            self.accepted = True
        elif isinstance(question, Ended):
            self.ended = question
        if not self.known.fired:
            self.known.fire(None)
        return Quit() if isinstance(question, NextMessage) else None
