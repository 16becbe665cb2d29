"""The log lines about messages, as a plugin: one on receipt, one for each time that a waiting row is processed again.

The one invariant (promise 6): fields are those of the event, which never hold a subject, a secret, or anything from inside encryption.
"""

from __future__ import annotations

from typing import Any

import structlog

from mailsec.hookspecs import hookimpl
from mailsec.model.verdict import Event

__all__ = ["LogPlugin"]


class LogPlugin:
    """Writes every event to structlog; empty fields are left out."""

    def __init__(self, logger: Any = None) -> None:
        # bound once: structlog's lazy proxy costs several microseconds for each call
        self._log = (structlog.get_logger("mailsec.gateway") if logger is None else logger).bind()

    @hookimpl
    def record_event(self, event: Event) -> None:
        """One line, named for the event."""
        fields = {name: value for name, value in event.fields.items() if value not in ("", 0, None)}
        reply = fields.get("reply", 250)
        if isinstance(reply, int) and reply >= 500:
            self._log.warning(event.name, **fields)
        else:
            self._log.info(event.name, **fields)
