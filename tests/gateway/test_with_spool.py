"""The pipeline over the real spool: a row that waits is taken, processed and replaced; states are what the relay may see."""

from __future__ import annotations

import pytest

from mailsec.builtin.rules import RulesPlugin
from mailsec.errors import KeyUnavailable
from mailsec.hookspecs import hookimpl
from mailsec.model.verdict import Decision
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.store.spool import SqliteSpool
from mailsec.testing.authority import Authority, MemoryKeys
from mailsec.testing.gateway import MemoryGateway

OWN = "From: alice@example.org\nTo: bob@example.net\nBcc: hidden@example.net\n\nbody\n"
ENCRYPTED = (
    "From: carol@example.net\nTo: alice@example.org\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\n"
    "Content-Transfer-Encoding: base64\n\nMIAGCSqGSIb3DQEHA6CAMIACAQAxADCABgkqhkiG9w0BBwEwHQYJYIZIAWUDBAEqBBAAAAAAAAAA\nAAAAAAAAAAAAAAAAAAAAAAAA\n"
)


class Keys(MemoryKeys):
    out = True

    async def keys_for(self, address, usage):
        if self.out:
            raise KeyUnavailable("the card is out", stage="token:HSM 1")
        return await super().keys_for(address, usage)


@pytest.fixture
def keys() -> Keys:
    return Keys(Authority().issue("alice@example.org"))


@pytest.fixture
def gate(keys, tmp_path):
    gate = MemoryGateway(keys, built_in=[RulesPlugin(RuleSet([compile_rule("all", {"origin": ["submission"]}, sign="required")]))])
    gate.pipeline.spool = SqliteSpool(str(tmp_path), 0, bytes(32), gate.runtime)
    gate.pipeline.spool.open()
    yield gate
    gate.pipeline.spool.close()


def resume(gate) -> int:
    """Process what is due; how many rows that was."""
    rows = gate.runtime.run(gate.pipeline.spool.take_raw())
    for row in rows:
        gate.runtime.run(gate.pipeline.resume(row))
    return len(rows)


def ready(gate) -> list:
    return gate.runtime.run(gate.pipeline.spool.take_ready())


def test_message_waits_for_its_token_and_is_signed_when_it_is_back(gate, keys):
    keys.out = True
    assert gate.submit(OWN).code == 250
    assert ready(gate) == []
    assert resume(gate) == 1
    assert resume(gate) == 0, "it is tried again later, not at once"
    keys.out = False
    gate.runtime.advance(3600)
    assert resume(gate) == 1
    (row,) = ready(gate)
    octets = b"".join(row.octets.blocks())
    assert b"application/pkcs7-signature" in octets and b"hidden" not in octets
    assert resume(gate) == 0


def test_waiting_row_is_woken_by_what_it_waits_for(gate, keys):
    keys.out = True
    gate.submit(OWN)
    resume(gate)
    keys.out = False
    gate.runtime.run(gate.pipeline.spool.wake("token:HSM 1"))
    assert resume(gate) == 1 and len(ready(gate)) == 1


def test_encrypted_message_goes_on_as_it_came(gate, keys):
    keys.out = False
    assert gate.arrive(ENCRYPTED).code == 250
    assert ready(gate) == []
    assert resume(gate) == 1
    (row,) = ready(gate)
    assert b"".join(row.octets.blocks()).endswith(ENCRYPTED.replace("\n", "\r\n").encode()) and row.entry.sensitive


def test_row_that_is_held_is_not_taken_again(gate):
    class Holds:
        @hookimpl
        def decide_message(self):
            return Decision("hold", reason="look")

    holding = MemoryGateway(Holds())
    gate.arrive(ENCRYPTED)
    holding.pipeline.spool = gate.pipeline.spool
    (row,) = gate.runtime.run(gate.pipeline.spool.take_raw())
    gate.runtime.run(holding.pipeline.resume(row))
    gate.runtime.advance(1_000_000)
    assert resume(gate) == 0
    (report,) = ready(gate)
    assert str(report.entry.envelope.recipients[0].address) == "postmaster@example.org"
