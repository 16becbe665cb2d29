"""Who logs in, and how: the mechanisms that can be verified here, and the authenticators that are asked (RFC 4954, RFC 5802).

The one invariant: an identity comes of an authenticator, or of a certificate that was accepted; a mechanism is offered only where whoever
checks passwords here can verify it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mailsec.errors import MailsecError, Unavailable
from mailsec.gateway.admission import Admission
from mailsec.gateway.identity import certified
from mailsec.gateway.login_guard import LoginGuard
from mailsec.interfaces import PEER, Authenticator, Credentials, Runtime, ScramAuthenticator, ScramVerifier, Signal
from mailsec.model.session import Identity, Session
from mailsec.model.verdict import Event
from mailsec.plugins import PluginManager
from mailsec.wire.scram import MECHANISM as SCRAM
from mailsec.wire.smtp.questions import Verifying

__all__ = ["Logins"]

_NONCE_OCTETS = 24
_NOT_FOR_CLIENTS = frozenset({PEER, "UPSTREAM"})
"""Attack: AUTH with the name of a mechanism by which we ask ourselves, and which looks at no password."""


class Logins:
    """One for each worker."""

    def __init__(
        self,
        authenticators: Sequence[Authenticator],
        admission: Admission,
        runtime: Runtime,
        plugins: PluginManager,
        guard: LoginGuard | None = None,
    ) -> None:
        self._authenticators = tuple(authenticators)
        self._scram: tuple[ScramAuthenticator, ...] = tuple(one for one in authenticators if SCRAM in one.mechanisms)  # type: ignore[misc]
        self._admission = admission
        self._runtime = runtime
        self._plugins = plugins
        self._guard = guard
        if guard is not None:
            guard.accounts = self._accounts
        self._turns: dict[str, list[Signal]] = {}
        """Logins that wait for the end of others, by the name that they share."""
        self._records = bool(plugins.implementations("record_event"))

    @property
    def offered(self) -> tuple[str, ...]:
        """The mechanisms that clients are offered, besides EXTERNAL."""
        passwords = [one for one in self._authenticators if "PLAIN" in one.mechanisms]
        if not passwords:
            return ()
        # A client takes the best that it is offered: with people whose password only somebody else can check, it would fail for them.
        scram = all(SCRAM in one.mechanisms for one in passwords)
        return (SCRAM, "PLAIN", "LOGIN") if scram else ("PLAIN", "LOGIN")

    async def authenticate(self, credentials: Credentials, session: Session, proven: Identity | None = None) -> Identity | None:
        """The identity that the first authenticator gives; None where none does. Raise MailsecError where one cannot say and none did.

        `proven`: with SCRAM the proof was checked already; this is whose it was.
        """
        if self._admission.lacks_certificate(session) or credentials.mechanism in _NOT_FOR_CLIENTS:
            return None
        if credentials.mechanism == "EXTERNAL":
            return certified(session, credentials)
        looked_at = await self._take_turn(credentials, session)
        try:
            identity, doubt = await self._asked(credentials, session, proven)
            if self._guard is not None:
                at = self._runtime.now().timestamp()
                if identity is not None:
                    self._guard.succeeded(session.peer, credentials.login, at, identity.account)
                elif doubt is None:
                    self._guard.failed(session.peer, credentials.login, at)
        finally:
            self._give_way(looked_at)
        if identity is not None:
            return identity
        self._record(session, credentials.mechanism, doubt.message if doubt is not None else "")
        if doubt is not None:
            raise doubt
        return None

    def _accounts(self, login: str) -> Sequence[str]:
        """Whose accounts `login` may be.

        Attack: twice the guesses for who asks for "alice" and "alice@example.org", which a server takes for the same person.
        """
        said = (one.account(login) for one in self._authenticators if hasattr(one, "account"))
        return tuple(dict.fromkeys(account for account in said if account)) or (login,)

    async def _take_turn(self, credentials: Credentials, session: Session) -> Sequence[str]:
        """Until so few others are being looked at that each counts before the next; raise Unavailable for who has to wait longer."""
        guard = self._guard
        if guard is None:
            return ()
        while True:
            self._wait_for_turn(credentials.login, credentials.mechanism, session)
            at = self._runtime.now().timestamp()
            crowd = guard.crowd(session.peer, credentials.login, at)
            if not crowd:
                return guard.begin(session.peer, credentials.login, at)
            turn = self._runtime.signal()
            self._turns.setdefault(crowd, []).append(turn)
            await turn.wait()

    def _give_way(self, looked_at: Sequence[str]) -> None:
        if self._guard is not None:
            self._guard.end(looked_at)
        for name in looked_at:
            for turn in self._turns.pop(name, ()):
                turn.fire(None)

    def _wait_for_turn(self, login: str, mechanism: str, session: Session) -> None:
        """Raise Unavailable for who has to wait: no password is looked at before."""
        wait = self._guard.wait(session.peer, login, self._runtime.now().timestamp()) if self._guard is not None else 0.0
        if wait:
            why = f"too many wrong passwords: {wait:.0f} s to wait"
            self._record(session, mechanism, why)
            raise Unavailable(why, stage="login")

    def _record(self, session: Session, mechanism: str, reason: str) -> None:
        if self._records:
            # the login is left out: people type their password there
            fields = {"listener": session.listener, "peer": session.peer, "mechanism": mechanism}
            self._plugins.record(Event("login refused", self._runtime.now(), fields | {"reason": reason} if reason else fields))

    async def _asked(
        self, credentials: Credentials, session: Session, proven: Identity | None
    ) -> tuple[Identity | None, MailsecError | None]:
        """Who that is, or why it cannot be said."""
        doubt: MailsecError | None = None
        if credentials.mechanism == SCRAM:
            # RFC 5802 §5.1: an authorisation identity says as whom to act; nobody acts as somebody else here.
            if proven is not None and credentials.authorisation in ("", credentials.login):
                return replace(proven, mechanism=SCRAM), None
        else:
            # The same question, asked in two steps.
            asked = replace(credentials, mechanism="PLAIN") if credentials.mechanism == "LOGIN" else credentials
            for authenticator in self._authenticators:
                if asked.mechanism not in authenticator.mechanisms:
                    continue
                try:
                    identity = await authenticator.authenticate(asked, session)
                except MailsecError as error:
                    doubt = doubt or error
                    continue
                if identity is not None:
                    return identity, None
        return None, doubt

    async def verifying(self, login: str, session: Session) -> Verifying:
        """What a SCRAM login is checked against. Raise MailsecError where it cannot be said."""
        self._wait_for_turn(login, SCRAM, session)
        nobody: ScramVerifier | None = None
        doubt: MailsecError | None = None
        for authenticator in self._scram:
            try:
                verifier = await authenticator.verifier(login, session)
            except MailsecError as error:
                doubt = doubt or error
                continue
            if verifier.identity is not None:
                return Verifying(verifier, self._runtime.random(_NONCE_OCTETS).hex())
            nobody = nobody or verifier
        if doubt is not None or nobody is None:
            raise doubt or Unavailable("nobody here checks SCRAM", stage="login")
        return Verifying(nobody, self._runtime.random(_NONCE_OCTETS).hex())
