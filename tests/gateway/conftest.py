"""A whole gateway in memory: real pipeline, plugins, rules and index; S/MIME, keys, clock and spool are stand-ins that tests look into."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from mailsec.builtin.rules import RulesPlugin
from mailsec.errors import KeyUnavailable, Reply
from mailsec.gateway.pipeline import Pipeline
from mailsec.hookspecs import hookimpl
from mailsec.model.address import Address
from mailsec.model.limits import Limits
from mailsec.model.octets import Segments, octets_of
from mailsec.model.queue import NewEntry, State
from mailsec.model.session import Origin, matches_pattern
from mailsec.model.settings import GatewaySettings, ListenerSettings, NextHop, RelaySettings
from mailsec.model.verdict import Revocation, SmimeResult, SmimeWord, Verdict
from mailsec.plugins import PluginManager
from mailsec.rules.ruleset import RuleSet
from mailsec.testing import values
from mailsec.testing.memory import MemorySpool
from mailsec.testing.runtime import FakeRuntime

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

    async def protect(self, message, plan, signers, at):
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

    def assess(self, result, message, anchors, distrusted, at):
        return self.shown(message)[1]

    def results(self, authserv_id, verdict):
        return f"{authserv_id}; smime={verdict.word.value}"


def settings(**changes) -> GatewaySettings:
    listeners = (
        ListenerSettings("submission", "127.0.0.1:587", "smtp", Origin.SUBMISSION),
        ListenerSettings("trusted", "127.0.0.1:10025", "smtp", Origin.TRUSTED, senders=("@example.org",), peers=("127.0.0.0/8", "::1")),
        ListenerSettings("internet", "0.0.0.0:25", "smtp", Origin.INTERNET),
    )
    values = {
        "hostname": "gw.example.org",
        "domains": ("example.org", ".sub.example.org"),
        "authserv_id": "gw.example.org",
        "postmaster": "postmaster@example.org",
        "listeners": listeners,
        "relay": RelaySettings(NextHop("smtp", "127.0.0.1", 25)),
    }
    return GatewaySettings(**values | changes)


class Gate:
    """One gateway. `send` is a whole message by one of the three ways in."""

    def __init__(self, *plugins: object, rules: Sequence = (), keys: FakeKeys | None = None, limits=None, **changes) -> None:
        self.keys = keys or FakeKeys(FakeKey("alice key", "alice@example.org"))
        self.engine = FakeEngine()
        self.spool = MemorySpool()
        self.runtime = FakeRuntime()
        self.events: list = []
        self.settings = settings(**({"limits": limits} if limits else {}), **changes)
        manager = PluginManager()
        for number, plugin in enumerate(plugins):
            manager.add(plugin, f"p{number}", built_in=False)
        manager.add(RulesPlugin(RuleSet(rules)), "rules")
        manager.add(self.keys, "keys")
        manager.add(_Recorder(self.events), "recorder")
        manager.load()
        self.plugins = manager
        self.pipeline = Pipeline(self.settings, runtime=self.runtime, plugins=manager, spool=self.spool, engine=self.engine, trust=None)

    def transaction(self, text: str | bytes, origin: Origin, sender: str | None, *recipients: str, **session):
        octets = values.message(text).octets
        return self.pipeline.begin(
            values.session(origin, **session), values.envelope(sender, *(recipients or ("bob@example.net",))), octets
        )

    def send(self, text: str | bytes, origin: Origin, sender: str | None, *recipients: str, **session) -> Reply:
        octets = values.message(text).octets
        return self.runtime.run(
            self.pipeline.receive(values.session(origin, **session), values.envelope(sender, *(recipients or ("bob@example.net",))), octets)
        )

    def submit(self, text: str | bytes, *recipients: str, sender: str | None = "alice@example.org", **session) -> Reply:
        return self.send(text, Origin.SUBMISSION, sender, *recipients, **session)

    def trust(self, text: str | bytes, *recipients: str, sender: str | None = "alice@example.org") -> Reply:
        return self.send(text, Origin.TRUSTED, sender, *recipients)

    def arrive(self, text: str | bytes, *recipients: str, sender: str | None = "carol@example.net", **session) -> Reply:
        return self.send(text, Origin.INTERNET, sender, *(recipients or ("alice@example.org",)), **session)

    def resume(self, row_id: str, attempts: int = 0) -> None:
        self.runtime.run(self.pipeline.resume(self.spool.spooled(row_id, attempts)))

    @property
    def ready(self) -> list[bytes]:
        return [row.octets for row in self.spool.in_state(State.READY)]

    @property
    def rows(self) -> list[NewEntry]:
        return [row.entry for row in self.spool.rows]


class _Recorder:
    def __init__(self, events: list) -> None:
        self.events = events

    @hookimpl
    def record_event(self, event):
        self.events.append(event)


@pytest.fixture
def kit() -> SimpleNamespace:
    """Makers for tests: `kit.Gate(...)`, `kit.FakeKeys(...)`, `kit.FakeKey(...)`."""
    return SimpleNamespace(
        Gate=Gate, FakeKeys=FakeKeys, FakeKey=FakeKey, settings=settings, UNSIGNED=UNSIGNED, NONE=NONE, Limits=Limits, octets_of=octets_of
    )


@pytest.fixture
def gate() -> Gate:
    """A gateway with alice's key, and no rules but the default one."""
    return Gate()
