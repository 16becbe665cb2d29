"""The log plugin: one line for each event, without empty fields; refusals are warnings."""

from __future__ import annotations

from datetime import UTC, datetime

from structlog.testing import capture_logs

from mailsec.builtin.log import LogPlugin
from mailsec.model.verdict import Event
from mailsec.testing.gateway import MemoryGateway

AT = datetime(2026, 1, 1, tzinfo=UTC)


def lines(*events: Event) -> list[dict]:
    with capture_logs() as captured:
        plugin = LogPlugin()
        for event in events:
            plugin.record_event(event)
    return captured


def test_event_is_one_line_and_empty_fields_are_left_out():
    assert lines(Event("received", AT, {"id": "t1", "user": "", "reply": 250, "recipients": ["a@example.org"]})) == [
        {"event": "received", "log_level": "info", "id": "t1", "reply": 250, "recipients": ["a@example.org"]}
    ]


def test_refusal_is_a_warning_and_a_deferral_is_not():
    assert [line["log_level"] for line in lines(*(Event("received", AT, {"reply": code}) for code in (250, 451, 550)))] == [
        "info",
        "info",
        "warning",
    ]


def test_line_about_a_message_holds_what_an_administrator_needs_and_no_subject():
    with capture_logs() as captured:
        gate = MemoryGateway(built_in=[LogPlugin()])
        gate.arrive("From: carol@example.net\nSubject: the very secret plan\nMessage-ID: <1@example.net>\n\nbody\n")
    (line,) = captured
    assert {"id", "message_id", "reverse_path", "recipients", "size", "verdict", "action", "reply", "peer", "listener"} <= set(line)
    assert "secret plan" not in str(line)
