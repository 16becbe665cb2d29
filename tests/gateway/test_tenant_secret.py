"""Mail of a server that many tenants share: only what bears our secret is taken, and nobody behind us ever sees it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailsec.model.session import Origin
from mailsec.model.settings import ListenerSettings
from mailsec.testing.gateway import MemoryGateway

SECRET = "b7e0c5b1d5e94a55a0c9f2f0"
NEW = "0123456789abcdef01234567"
LISTENER = ListenerSettings(
    "trusted",
    "0.0.0.0:25",
    "smtp",
    Origin.TRUSTED,
    senders=("@example.org",),
    secret_header="X-Ours",
    secrets=(SECRET.encode(), NEW.encode()),
)
LETTER = "From: alice@example.org\nTo: bob@example.net\nSubject: hello\n\nhello\n"


@pytest.fixture
def gate() -> MemoryGateway:
    return MemoryGateway(listeners=(LISTENER,))


@pytest.mark.parametrize("secret", [SECRET, NEW, f"  {SECRET} "])
def test_mail_with_the_secret_goes_on_without_it(gate, secret):
    assert gate.trust(f"X-Ours: {secret}\n{LETTER}").code == 250
    (left,) = gate.ready
    assert b"X-Ours" not in left and SECRET.encode() not in left and left.endswith(b"Subject: hello\r\n\r\nhello\r\n")


@pytest.mark.parametrize(
    "top",
    [
        pytest.param("", id="no secret"),
        pytest.param("X-Ours:\n", id="an empty one"),
        pytest.param("X-Ours: b7e0c5b1d5e94a55a0c9f2f1\n", id="another tenant's"),
        pytest.param(f"X-Ours: {SECRET[:-1]}\n", id="the beginning of it"),
        pytest.param(f"X-Ours: {SECRET}\nX-Ours: {NEW}\n", id="many guesses in one message"),
        pytest.param(f"X-Other: {SECRET}\n", id="in another field"),
        pytest.param("X-Ours: \u00e9\n", id="not ASCII"),
    ],
)
def test_another_tenant_of_the_same_server_is_refused(gate, top):
    reply = gate.trust(top + LETTER)
    assert (reply.code, reply.enhanced, reply.text) == (550, "5.7.1", "not accepted from this tenant")
    assert not gate.spool.rows and SECRET not in repr(gate.events)


def test_the_secret_in_the_body_is_none(gate):
    assert gate.trust(f"{LETTER}X-Ours: {SECRET}\n").code == 550


def test_a_listener_without_secrets_to_compare_takes_nothing():
    gate = MemoryGateway(listeners=(replace(LISTENER, secrets=()),))
    assert gate.trust(f"X-Ours: {SECRET}\n{LETTER}").code == 550


def test_reports_about_such_mail_do_not_show_the_secret(gate):
    """The sender's own MTA, or whoever MAIL FROM names, gets the header back in a DSN."""
    assert gate.trust(f"X-Ours: {SECRET}\n{LETTER}").code == 250
    assert not any(SECRET.encode() in row.entry.header for row in gate.spool.rows)


def test_settings_do_not_show_the_secret():
    assert SECRET not in repr(LISTENER)
