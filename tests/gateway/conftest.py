"""A whole gateway in memory: real pipeline, plugins, rules and index; S/MIME, keys, clock and spool are stand-ins that tests look into."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from mailsec.builtin.rules import RulesPlugin
from mailsec.errors import KeyUnavailable
from mailsec.hookspecs import hookimpl
from mailsec.model.address import Address
from mailsec.model.limits import Limits
from mailsec.model.octets import Segments, octets_of
from mailsec.model.session import Origin, matches_pattern
from mailsec.model.verdict import Revocation, SmimeResult, SmimeWord, Verdict
from mailsec.rules.ruleset import RuleSet
from mailsec.testing import values
from mailsec.testing.gateway import MemoryGateway

UNSIGNED = SmimeResult(signed=False, encrypted=False)
NONE = Verdict(SmimeWord.NONE, False, False, None, None, Revocation.NOT_CHECKED, None, False)


class FakeKey:
    """A key that is only a name and the addresses that it belongs to."""

    key_type, bits, certificate, chain = "rsa", 2048, None, ()

    def __init__(self, name: str, *assigned: str) -> None:
        self.name = name
        self.assigned = assigned


class FakeKeys:
    """A key store and the plugin that brings it. `out` is raised by every look-up while it is set."""

    name = "fake"

    def __init__(self, *keys: FakeKey) -> None:
        self.keys = list(keys)
        self.out: KeyUnavailable | None = None

    @hookimpl
    def register_key_stores(self):
        return [self]

    async def key(self, reference: str):
        return next((key for key in self.keys if key.name == reference), None)

    async def keys_for(self, address: Address, usage: str):
        if self.out is not None:
            raise self.out
        return [key for key in self.keys if any(matches_pattern(one, address) for one in key.assigned)]


class FakeEngine:
    """Signs by writing who signed on top; shows what `shown` says about a message."""

    def __init__(self) -> None:
        self.signed: list[tuple[str, object]] = []
        self.fails: Exception | None = None
        self.shown = lambda message: (UNSIGNED, NONE)
        self.looked_at: list[object] = []

    async def protect(self, message, plan, signers, at, recipients=()):
        if self.fails is not None:
            raise self.fails
        assert [key.name for key in signers] == [plan.signer]
        self.signed.append((plan.signer, plan))
        return Segments((f"Signed: {plan.signer}\r\n".encode(), *Segments.of(message.octets).pieces))

    async def unprotect(self, message, keys):
        self.looked_at.append(keys)
        result = self.shown(message)
        if isinstance(result, Exception):
            raise result
        return result[0]

    def assess(self, result, message, anchors, distrusted, at, *, authorities=(), inquiry=None):
        return self.shown(message)[1]

    def results(self, authserv_id, verdict):
        return f"{authserv_id}; smime={verdict.word.value}"


class Gate(MemoryGateway):
    """The gateway of the testing kit, with stand-ins for keys and S/MIME."""

    def __init__(self, *plugins: object, rules: Sequence = (), keys: FakeKeys | None = None, **changes) -> None:
        self.keys = keys or FakeKeys(FakeKey("alice key", "alice@example.org"))
        changes = {"domains": ("example.org", ".sub.example.org")} | changes
        super().__init__(*plugins, self.keys, built_in=[RulesPlugin(RuleSet(rules))], engine=FakeEngine(), **changes)

    def transaction(self, text: str | bytes, origin: Origin, sender: str | None, *recipients: str, **session):
        octets = values.message(text).octets
        envelope = values.envelope(sender, *(recipients or ("bob@example.net",)))
        return self.pipeline.begin(values.session(origin, **session), envelope, octets)


@pytest.fixture
def kit() -> SimpleNamespace:
    """Makers for tests: `kit.Gate(...)`, `kit.FakeKeys(...)`, `kit.FakeKey(...)`."""
    return SimpleNamespace(Gate=Gate, FakeKeys=FakeKeys, FakeKey=FakeKey, UNSIGNED=UNSIGNED, NONE=NONE, Limits=Limits, octets_of=octets_of)


@pytest.fixture
def gate() -> Gate:
    """A gateway with alice's key, and no rules but the default one."""
    return Gate()
