"""How many recipients one identity may send to in an hour, where a listener says so: an account that was taken over, a program that runs wild.

The one invariant: only mail that was taken counts; a message that has begun is taken whole.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from mailsec.errors import Reply
from mailsec.gateway.login_guard import Recent
from mailsec.model.address import Address
from mailsec.model.session import Origin, Session
from mailsec.model.settings import GatewaySettings

__all__ = ["Rates"]

# RFC 3463 §3.8: X.7.1, delivery not authorised; 450: not now
_TOO_MANY = Reply(450, "4.7.1", "too many recipients in an hour, try again later")


class Rates:
    """One for each worker; `sent` is shared by all."""

    def __init__(self, settings: GatewaySettings, sent: Recent | None, now: Callable[[], datetime]) -> None:
        self._now = now
        self._most = {one.name: one.recipients_per_hour for one in settings.listeners if one.recipients_per_hour}
        self._sent = sent

    def admit(self, session: Session, reverse_path: Address | None) -> Reply | None:
        """At MAIL. None: welcome."""
        most = self._most.get(session.listener)
        if most is None or self._sent is None or not (name := _name(session, reverse_path)):
            return None
        return _TOO_MANY if self._sent.recent(name, self._now().timestamp())[0] >= most else None

    def count(self, session: Session, reverse_path: Address | None, recipients: int) -> None:
        """A message was taken for so many recipients."""
        if session.listener in self._most and self._sent is not None and (name := _name(session, reverse_path)):
            self._sent.add(name, self._now().timestamp(), recipients)


def _name(session: Session, reverse_path: Address | None) -> str:
    """Who answers for it; nobody for a null path on `trusted`, and for what comes from outside."""
    if session.origin is Origin.SUBMISSION:
        # Attack: twice the rate for who logs in as "alice" in one session, and as "alice@example.org" in the next.
        identity = session.identity
        return "" if identity is None else (identity.account or identity.name).lower()
    return reverse_path.key if session.origin is Origin.TRUSTED and reverse_path is not None else ""
