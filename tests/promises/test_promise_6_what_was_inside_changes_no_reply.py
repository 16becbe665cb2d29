"""Promise 6: the reply to an encrypted message from outside is given before anything inside is looked at, and nothing later reaches its sender."""

from __future__ import annotations

import pytest

from mailsec.errors import Reply
from mailsec.hookspecs import hookimpl
from mailsec.model.verdict import Decision
from mailsec.testing.gateway import MemoryGateway

ENCRYPTED = (
    "From: carol@example.net\nTo: alice@example.org\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\n"
    "Content-Transfer-Encoding: base64\n\nMIAGCSqGSIb3DQEHA6CAMIACAQAxADCABgkqhkiG9w0BBwEwHQYJYIZIAWUDBAEqBBAAAAAAAAAA\nAAAAAAAAAAAAAAAAAAAAAAAA\n"
)


@pytest.mark.parametrize("action", ["deliver", "hold", "refuse", "defer"])
def test_decision_about_what_is_inside_is_never_told(action):
    asked = []

    class Decides:
        @hookimpl
        def decide_message(self, verdict):
            asked.append(verdict)
            return Decision(action, Reply(550, "5.7.1", "a word from inside") if action == "refuse" else None, reason="a word from inside")

    gate = MemoryGateway(Decides())
    reply = gate.arrive(ENCRYPTED)
    assert reply.code == 250 and "inside" not in reply.text
    assert asked == []
    row_id = gate.rows[0].id
    assert gate.rows[0].secret and gate.rows[0].sensitive
    gate.resume(row_id)
    assert len(asked) == 1
    for row in gate.spool.rows:
        assert "carol@example.net" not in [str(one.address) for one in row.entry.envelope.recipients]


def test_secrets_are_in_no_repr():
    from mailsec.interfaces import Credentials
    from mailsec.testing.authority import Authority

    assert "hunter2" not in repr(Credentials("PLAIN", "alice", b"hunter2"))
    authority = Authority()
    key = authority.issue("alice@example.org")
    for value in (authority.issuer, key):
        assert "PRIVATE" not in repr(value) and "bytes" not in repr(value)
