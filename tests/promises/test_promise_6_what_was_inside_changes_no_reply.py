"""Promise 6: the reply to an encrypted message from outside is given before anything inside is looked at, and nothing later reaches its sender."""

from __future__ import annotations

import pytest

from mailsec.builtin.rules import RulesPlugin
from mailsec.errors import Reply
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import FoundCertificate
from mailsec.model.verdict import Decision
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryDirectory, MemoryKeys, MemoryTrust
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


# -- with keys ------------------------------------------------------------------------------------------------------------------------


AUTHORITY = Authority()
ALICE, OTHER, CAROL = (AUTHORITY.issue(one) for one in ("alice@example.org", "other@example.org", "carol@example.net"))


def _inside() -> dict[str, bytes]:
    """Mail for alice that differs inside only, or in whether it can be opened at all."""
    texts = {
        "signed and trusted": ("hello", {"sign": "required"}),
        "not signed": ("hello", {"sign": "never"}),
        "a header that begins with a blank": ("hello", {"sign": "never"}),
        "a virus": ("X5O!P%@AP", {"sign": "never"}),
        "for somebody else": ("hello", {"sign": "never"}),
    }
    found = {}
    for name, (text, words) in texts.items():
        rules = RulesPlugin(RuleSet([compile_rule("all", encrypt="required", **words)]))
        reader = OTHER if name == "for somebody else" else ALICE
        certificate = FoundCertificate(reader.certificate, "memory", bound=True)
        gate = MemoryGateway(MemoryKeys(CAROL), MemoryDirectory(certificate), built_in=[rules], trust=MemoryTrust(AUTHORITY.anchor))
        who = values.identity("carol", "carol@example.net")
        letter = f"From: carol@example.net\nTo: alice@example.org\nMessage-ID: <1@x>\n\n{text}\n"
        assert gate.submit(letter, "alice@example.org", sender="carol@example.net", who=who).code == 250
        found[name] = gate.ready[0]
    broken = bytearray(found["not signed"])
    broken[-40] ^= 1
    found["altered on the way"] = bytes(broken)
    return found


INSIDE = _inside()


class Refuses:
    @hookimpl
    def decide_message(self, verdict):
        if verdict is not None and verdict.text is not None and "X5O" in verdict.text:
            return Decision("refuse", Reply(554, "5.7.1", "a virus was inside"), reason="a virus was inside")
        return None


class Watched(MemoryKeys):
    """Says when a key is asked for."""

    asked = 0

    async def keys_for(self, address, usage):
        self.asked += usage == "decrypt"
        return await super().keys_for(address, usage)


@pytest.mark.parametrize("name", INSIDE)
def test_nothing_that_the_sender_sees_depends_on_what_is_inside(name):
    keys = Watched(ALICE)
    gate = MemoryGateway(keys, Refuses(), trust=MemoryTrust(AUTHORITY.anchor))
    reply = gate.arrive(INSIDE[name])
    # The same words for all of them, and no key was touched before they were said: neither words nor time tell anything.
    assert (reply.code, reply.enhanced, reply.text.split()[:2]) == (250, "2.0.0", ["accepted", "as"]) and keys.asked == 0
    before = list(gate.rows)
    gate.resume(before[0].id)
    assert keys.asked == 1
    told = {str(one.address) for row in gate.rows for one in row.envelope.recipients}
    assert "carol@example.net" not in told and told <= {"alice@example.org", "postmaster@example.org"}
    for row in gate.rows:
        assert row.sensitive or str(row.envelope.recipients[0].address) == "postmaster@example.org"


def test_what_was_inside_stands_in_no_event():
    gate = MemoryGateway(MemoryKeys(ALICE), Refuses(), trust=MemoryTrust(AUTHORITY.anchor))
    for octets in INSIDE.values():
        gate.arrive(octets)
    for row in [row for row in gate.rows if row.need == ""]:
        gate.resume(row.id)
    assert not any("X5O" in repr(event) or "hello" in repr(event) for event in gate.events)
