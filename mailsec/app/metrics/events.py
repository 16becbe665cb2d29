"""Events (`record_event`) as counts: a plugin object that every worker has."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from mailsec.app.metrics.measures import Measures
from mailsec.hookspecs import hookimpl
from mailsec.model.verdict import Event

__all__ = ["MetricsPlugin"]

_ACTIONS: Final = frozenset({"deliver", "hold", "defer", "refuse"})


class MetricsPlugin:
    """Counts what is recorded. Fields are read by name; what is missing is not counted."""

    def __init__(self, measures: Measures, now: Callable[[], datetime]) -> None:
        self.measures = measures
        self._now = now

    @hookimpl
    def record_event(self, event: Event) -> None:
        """One event."""
        measures, fields = self.measures, event.fields
        match event.name:
            case "received":
                origin = str(fields.get("origin", ""))
                measures.count("mailsec_messages_total", origin, _action(fields.get("action")))
                size = fields.get("size")
                if isinstance(size, int):
                    measures.count("mailsec_message_octets_total", origin, by=size)
                measures.observe("mailsec_processing_seconds", max(0.0, (self._now() - event.at).total_seconds()), origin)
                self._smime(event)
            case "resumed":
                measures.count("mailsec_resumed_total", _action(fields.get("action")))
                self._smime(event)
            case "retrieved":
                measures.count("mailsec_mailbox_messages_total")
                self._smime(event)
            case "tls session":
                resumed = "yes" if fields.get("tls_resumed") else "no"
                measures.count("mailsec_tls_sessions_total", str(fields.get("tls_version", "")), str(fields.get("tls_cipher", "")), resumed)
            case "tls refused" | "tls failed":
                measures.count("mailsec_tls_failures_total", str(fields.get("listener", "")))
            case "login refused":
                measures.count("mailsec_logins_refused_total")
            case "key used" | "key not used":
                usage, store = str(fields.get("usage", "")), str(fields.get("store", ""))
                measures.count("mailsec_key_uses_total", usage, store, "good" if event.name == "key used" else "failed")
                seconds = fields.get("seconds")
                if isinstance(seconds, float):
                    measures.observe("mailsec_key_use_seconds", seconds, usage, store)
            case "plugin failed":
                measures.count("mailsec_plugin_failures_total", str(fields.get("plugin", "")), str(fields.get("hook", "")))

    def _smime(self, event: Event) -> None:
        verdict, protection = event.fields.get("verdict"), event.fields.get("protection")
        if verdict:
            self.measures.count("mailsec_verdicts_total", str(verdict))
        if protection:
            self.measures.count("mailsec_protected_total", str(protection))


def _action(value: object) -> str:
    """One word: what a message waits for ("token:HSM 1") is "wait", and different ends of different recipients are "several"."""
    words = {word if word in _ACTIONS else "wait" for word in str(value or "").split(", ")}
    return words.pop() if len(words) == 1 else "several"
