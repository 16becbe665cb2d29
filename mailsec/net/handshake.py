"""One handshake on one connection: begun, completed, judged.

The one invariant: nobody above learns of a session before everything that was asked of it has been answered; a refusal is the other answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
from OpenSSL import SSL
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure

from mailsec.errors import MailsecError, Unavailable
from mailsec.model.requests import StartTls
from mailsec.model.session import TlsInfo
from mailsec.net.asked import deferred_of_any
from mailsec.net.tls_client import check_peer
from mailsec.net.tls_session import tls_info

__all__ = ["Handshake", "Judge", "why_ended"]

Judge = Callable[[TlsInfo], TlsInfo | Awaitable[TlsInfo]]
"""Is given what a handshake came to, and returns what may be believed of it, or raises MailsecError."""

_CLOSED = str(ConnectionDone()).rstrip(".")
"""How nearly all connections end: Twisted makes these words anew each time."""
_log = structlog.get_logger("mailsec.net")


class Handshake:
    """From `StartTls` to one call of `secured` or of `refused`; none after `cancel`."""

    def __init__(
        self, request: StartTls, judge: Judge | None, secured: Callable[[TlsInfo], None], refused: Callable[[MailsecError], None]
    ) -> None:
        self._request = request
        self._judge = judge
        self._secured = secured
        self._refused = refused
        self._judging: Deferred[TlsInfo] | None = None
        self._over = False

    def completed(self, connection: SSL.Connection) -> None:
        """The library is content; now see who is there."""
        try:
            info = tls_info(connection, verified=check_peer(connection, self._request))
        except MailsecError as error:
            _log.warning("tls-refused", error=error.message, hint=error.hint)
            self._refuse(error)
            return
        try:
            judged = info if self._judge is None else self._judge(info)
        except MailsecError as error:
            self._refuse(error)
            return
        if isinstance(judged, TlsInfo):
            self._end(judged)
        else:
            self._judging = deferred = deferred_of_any(judged)
            deferred.addCallbacks(self._end, self._failed)

    def cancel(self) -> None:
        """The connection is gone."""
        self._over = True
        judging, self._judging = self._judging, None
        if judging is not None:
            judging.cancel()

    def _end(self, info: TlsInfo) -> None:
        if not self._over:
            self._over = True
            self._secured(info)

    def _refuse(self, error: MailsecError) -> None:
        if not self._over:
            self._over = True
            self._refused(error)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, MailsecError):
            self._refuse(error)
        elif not isinstance(error, CancelledError):
            # Our own mistake: what was not judged is not believed.
            _log.error("question-failed", question="tls", exc_info=error)
            self._refuse(Unavailable("the handshake could not be judged", stage="tls"))


def why_ended(reason: Failure) -> str:
    """Why a connection ended, in words for a log."""
    value = reason.value
    if type(value) is ConnectionDone and not value.args:
        return _CLOSED
    if isinstance(value, SSL.Error):
        words = [str(part[-1]) for part in value.args[0] if part] if value.args and isinstance(value.args[0], (list, tuple)) else []
        return "TLS: " + ("; ".join(words) or "failed")
    return str(value).rstrip(".")[:200] or "connection closed"
