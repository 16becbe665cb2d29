"""A whole gateway in memory, with real S/MIME, for tests of plugins: what a client sends in, what leaves, what is told.

The one invariant: only the clock, the spool and the connection are stand-ins; everything else is what `mailsec serve` runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mailsec.errors import Reply
from mailsec.gateway.mailbox import Copy
from mailsec.gateway.pipeline import Pipeline
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import CryptoBackend
from mailsec.keys.software import SoftwareBackend
from mailsec.model.octets import octets_of
from mailsec.model.queue import NewEntry, State
from mailsec.model.session import Identity, Origin
from mailsec.model.settings import GatewaySettings, ListenerSettings, NextHop, RelaySettings
from mailsec.model.verdict import Event
from mailsec.plugins import PluginManager
from mailsec.testing import values
from mailsec.testing.authority import MemoryPartners, MemoryTrust
from mailsec.testing.memory import MemorySealKeys, MemorySpool
from mailsec.testing.runtime import FakeRuntime

__all__ = ["MemoryGateway", "settings"]


def settings(**changes: Any) -> GatewaySettings:
    """Settings of gw.example.org for example.org, with a listener for each origin."""
    values: dict[str, Any] = {
        "hostname": "gw.example.org",
        "domains": ("example.org",),
        "authserv_id": "gw.example.org",
        "postmaster": "postmaster@example.org",
        "listeners": (
            ListenerSettings("submission", "127.0.0.1:587", "smtp", Origin.SUBMISSION, tls="starttls-required"),
            ListenerSettings("trusted", "127.0.0.1:10025", "smtp", Origin.TRUSTED, senders=("@example.org",), peers=("127.0.0.0/8", "::1")),
            ListenerSettings("internet", "0.0.0.0:25", "smtp", Origin.INTERNET),
        ),
        "relay": RelaySettings(NextHop("smtp", "127.0.0.1", 25)),
    }
    return GatewaySettings(**values | changes)


class MemoryGateway:
    """`submit`, `trust` and `arrive` send a message by one of the three ways in; `ready` is what leaves.

    `built_in` are plugins that come after `plugins`: give `builtin.rules.RulesPlugin` here, or nothing is signed.
    """

    def __init__(
        self,
        *plugins: object,
        built_in: Sequence[object] = (),
        trust: MemoryTrust | None = None,
        engine: Any = None,
        runtime: FakeRuntime | None = None,
        partners: MemoryPartners | None = None,
        seals: MemorySealKeys | None = None,
        learner: Any = None,
        **changes: Any,
    ) -> None:
        self.settings = settings(**changes)
        self.runtime = runtime or FakeRuntime()
        self.spool = MemorySpool()
        self.events: list[Event] = []
        self.plugins = PluginManager(self.runtime)
        for number, plugin in enumerate(plugins):
            self.plugins.add(plugin, f"p{number}", built_in=False)
        for number, plugin in enumerate(built_in):
            self.plugins.add(plugin, f"built-in {number}")
        self.plugins.add(_Software(), "software")
        self.plugins.add(_Recorder(self.events), "recorder")
        self.plugins.load()
        self.engine = engine
        self.pipeline = Pipeline(
            self.settings,
            runtime=self.runtime,
            plugins=self.plugins,
            spool=self.spool,
            engine=self.engine,
            trust=trust,
            partners=partners,
            seals=seals,
            learner=learner,
        )

    def send(self, text: str | bytes, origin: Origin, sender: str | None, *recipients: str, **session: Any) -> Reply:
        """One message; `session` are changes of `testing.values.session`."""
        octets = values.message(text).octets
        envelope = values.envelope(sender, *(recipients or ("bob@example.net",)))
        return self.runtime.run(self.pipeline.receive(values.session(origin, **session), envelope, octets))

    def submit(self, text: str | bytes, *recipients: str, sender: str | None = "alice@example.org", **session: Any) -> Reply:
        """A message from alice, who has logged in."""
        return self.send(text, Origin.SUBMISSION, sender, *recipients, **session)

    def trust(self, text: str | bytes, *recipients: str, sender: str | None = "alice@example.org", **session: Any) -> Reply:
        """A message from our own MTA."""
        return self.send(text, Origin.TRUSTED, sender, *recipients, **session)

    def arrive(self, text: str | bytes, *recipients: str, sender: str | None = "carol@example.net", **session: Any) -> Reply:
        """A message from the Internet for alice."""
        return self.send(text, Origin.INTERNET, sender, *(recipients or ("alice@example.org",)), **session)

    def retrieve(self, octets: bytes, *, who: Identity | None = None, loose: bool = False, **session: Any) -> Copy:
        """The copy of a message of the mailbox of `who`; `session` are changes of `testing.values.session`."""
        reading = values.session(Origin.MAILBOX, who=who, protocol="POP3", **session)
        return self.runtime.run(self.pipeline.retrieve(reading, octets_of(octets), loose=loose))

    def resume(self, row_id: str, attempts: int = 0) -> None:
        """Process a row that waits."""
        self.runtime.run(self.pipeline.resume(self.spool.spooled(row_id, attempts)))

    @property
    def ready(self) -> list[bytes]:
        """The octets of all rows that leave."""
        return [row.octets for row in self.spool.in_state(State.READY)]

    @property
    def rows(self) -> list[NewEntry]:
        """All rows of the spool."""
        return [row.entry for row in self.spool.rows]


class _Software:
    @hookimpl
    def register_crypto_backends(self) -> Sequence[CryptoBackend]:
        return [SoftwareBackend()]


class _Recorder:
    def __init__(self, events: list[Event]) -> None:
        self._events = events

    @hookimpl
    def record_event(self, event: Event) -> None:
        self._events.append(event)
