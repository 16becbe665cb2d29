"""Who logs in, and how: the mechanisms that can be verified here, and the authenticators that are asked (RFC 4954, RFC 5802).

The one invariant: an identity comes of an authenticator, or of a certificate that was accepted; a mechanism is offered only where whoever
checks passwords here can verify it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from mailsec.errors import MailsecError, Unavailable
from mailsec.gateway.admission import Admission
from mailsec.gateway.identity import certified
from mailsec.gateway.login_guard import LoginGuard
from mailsec.gateway.login_turns import LoginTurns, Password
from mailsec.interfaces import PEER, Authenticator, Credentials, Runtime, ScramAuthenticator, ScramVerifier
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
        if guard is not None:
            guard.accounts = self._accounts
        self.turns = LoginTurns(guard, runtime)
        """Whose password is looked at when; for every protocol that passwords come by."""
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
        try:
            identity, doubt = await self.turns.look(session.peer, credentials.login, partial(self._judged, credentials, session, proven))
        except Unavailable as error:
            self._record(session, credentials.mechanism, error.message)
            raise
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

    async def _judged(
        self, credentials: Credentials, session: Session, proven: Identity | None
    ) -> tuple[tuple[Identity | None, MailsecError | None], Password]:
        identity, doubt = await self._asked(credentials, session, proven)
        right = True if identity is not None else False if doubt is None else None
        return (identity, doubt), Password(right, identity.account if identity is not None else "")

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
        try:
            self.turns.demand(session.peer, login)
        except Unavailable as error:
            self._record(session, SCRAM, error.message)
            raise
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
