"""Large messages on file-backed scratch: signed, sent and verified like small ones, with a field taken out of the header on the way."""

from __future__ import annotations

import pytest

from mailsec.builtin.rules import RulesPlugin
from mailsec.model.session import Origin
from mailsec.rules.ruleset import RuleSet, compile_rule
from mailsec.store.scratch import FileScratch
from mailsec.testing import values
from mailsec.testing.authority import Authority, MemoryKeys, MemoryTrust
from mailsec.testing.gateway import MemoryGateway

LINE = b"0123456789" * 7 + b"\r\n"
BODY = LINE * 15_000
HEADER = b"From: alice@example.org\r\nBcc: hidden@example.net\r\nTo: bob@example.net\r\nSubject: large\r\n\r\n"


def in_file(octets: bytes, folder) -> object:
    scratch = FileScratch(str(folder))
    for start in range(0, len(octets), 65536):
        scratch.append(octets[start : start + 65536])
    return scratch.seal()


@pytest.mark.parametrize("form", ["detached", "opaque"])
def test_large_message_is_signed_and_verified_over_files(tmp_path, form):
    authority = Authority()
    rules = RulesPlugin(RuleSet([compile_rule("all", sign="required", form=form)]))
    gate = MemoryGateway(MemoryKeys(authority.issue("alice@example.org")), built_in=[rules], trust=MemoryTrust(authority.anchor))
    envelope = values.envelope("alice@example.org", "bob@example.net")
    octets = in_file(HEADER + BODY, tmp_path)
    assert gate.runtime.run(gate.pipeline.receive(values.session(Origin.SUBMISSION), envelope, octets)).code == 250
    sent = gate.ready[0]
    assert b"hidden" not in sent
    if form == "detached":
        assert BODY in sent
    back = in_file(sent, tmp_path)
    envelope = values.envelope("alice@example.org", "bob@example.org")
    assert gate.runtime.run(gate.pipeline.receive(values.session(), envelope, back)).code == 250
    assert gate.rows[1].verdict == "pass" and gate.ready[1].endswith(sent)
