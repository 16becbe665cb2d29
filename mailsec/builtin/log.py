"""The log lines about messages, as a plugin: one on receipt, one for each time that a waiting row is processed again.

The one invariant (promise 6): fields are those of the event, which never hold a subject, a secret, or anything from inside encryption.
"""

from __future__ import annotations

from typing import Any

import structlog

from mailsec.hookspecs import hookimpl
from mailsec.model.verdict import Event

__all__ = ["LogPlugin"]


_ALARMS = frozenset({"key revoked", "certificate expired"})
"""Events that somebody must look at."""
_WARNINGS = frozenset({"certificate expires"})
"""Events that somebody should look at soon."""
_DETAILS = frozenset({"tls session"})
"""Events that come with every connection: lines of the level "debug", unless the client showed a certificate."""


_HOSTED = "tokens"
"""A token's host writes a line for each use itself: it is the one that is believed. That a key could not be used is known here, too: the host
may have hung, or have made a signature that does not verify."""


class LogPlugin:
    """Writes every event to structlog; empty fields are left out."""

    def __init__(self, logger: Any = None) -> None:
        self._given = logger
        self._log: Any = None

    @hookimpl
    def record_event(self, event: Event) -> None:
        """One line, named for the event."""
        if self._log is None:
            # bound once, since structlog's lazy proxy costs several microseconds a call; and not before the log is configured
            self._log = (structlog.get_logger("mailsec.gateway") if self._given is None else self._given).bind()
        if event.fields.get("store") == _HOSTED and event.name == "key used":
            return
        fields = {name: value for name, value in event.fields.items() if value not in ("", 0, None)}
        if event.name in _ALARMS:
            self._log.error(event.name, **fields)
        elif event.name in _WARNINGS or _is_refusal(event):
            self._log.warning(event.name, **fields)
        elif event.name in _DETAILS and "client_subject" not in fields:
            self._log.debug(event.name, **fields)
        else:
            self._log.info(event.name, **fields)


def _is_refusal(event: Event) -> bool:
    reply = event.fields.get("reply", 0)
    return isinstance(reply, int) and reply >= 500
