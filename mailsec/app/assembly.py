"""The parts of one worker, put together: runtime, database, spool, plugins, pipeline, relay. Nothing listens yet.

What is made here is closed by `Parts.close`, in the reverse order.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from mailsec.app.alerts import Alerts
from mailsec.app.authenticators import AuthenticatorsPlugin
from mailsec.app.config import Configuration, gateway_settings
from mailsec.app.database_plugin import DatabasePlugin
from mailsec.app.descriptors import DescriptorWatch
from mailsec.app.evidence_cache import DatabaseEvidence
from mailsec.app.evidence_refresh import EvidenceRefresh
from mailsec.app.expiry import ExpiryWatch
from mailsec.app.hardening import fitting, raise_descriptors
from mailsec.app.letters import Letters, Told
from mailsec.app.metrics.events import MetricsPlugin
from mailsec.app.metrics.measures import Measures
from mailsec.app.own_certificates import OwnCertificates
from mailsec.app.plugin_marks import PluginMarks
from mailsec.app.recipients import RecipientsPlugin
from mailsec.app.seal_keys import DatabaseSealKeys
from mailsec.app.shared_counts import SharedCounts
from mailsec.app.token_keys import TokenKeysPlugin, module_of, token_clients
from mailsec.app.truststore import ConfiguredTrust
from mailsec.app.watchdog import Watchdog
from mailsec.app.wiring import compile_rules, load_plugins, plugin_settings
from mailsec.builtin.log import LogPlugin
from mailsec.builtin.mailbox import MailboxPlugin
from mailsec.builtin.revocation import RevocationPlugin
from mailsec.builtin.rules import RulesPlugin
from mailsec.builtin.software import SoftwarePlugin
from mailsec.gateway.login_guard import LoginGuard, Recent
from mailsec.gateway.pipeline import Pipeline
from mailsec.gateway.services import Surroundings
from mailsec.interfaces import Runtime, Spool
from mailsec.model.networks import read_network
from mailsec.model.settings import GatewaySettings, RevocationSettings
from mailsec.net.fetcher import FetchRules
from mailsec.net.relay import Relay
from mailsec.net.runtime import TwistedRuntime
from mailsec.net.tls import ServerTls
from mailsec.net.token_client import TokenClient
from mailsec.plugins import PluginManager
from mailsec.store.certdb import CertDb
from mailsec.store.evidence import EvidenceStore
from mailsec.store.seal_keys import SealKeyStore
from mailsec.store.spool import SqliteSpool

_log = structlog.get_logger("mailsec.plugins")

__all__ = ["BUILT_IN", "Parts", "assemble", "fetch_rules", "make_pipeline"]

BUILT_IN: dict[str, type] = {
    "database": DatabasePlugin,
    "authenticators": AuthenticatorsPlugin,
    "recipients": RecipientsPlugin,
    "tokens": TokenKeysPlugin,
    "rules": RulesPlugin,
    "revocation": RevocationPlugin,
    "refresh": EvidenceRefresh,
    "mailbox": MailboxPlugin,
    "log": LogPlugin,
    "metrics": MetricsPlugin,
    "software": SoftwarePlugin,
}
"""The built-in plugins by name, in the order in which they are asked, after all others."""


@dataclass(slots=True)
class Parts:
    """What a worker is made of."""

    settings: GatewaySettings
    runtime: TwistedRuntime
    database: CertDb
    spool: SqliteSpool
    plugins: PluginManager
    pipeline: Pipeline
    relay: Relay
    certificates: OwnCertificates
    expiry: ExpiryWatch
    alerts: Alerts
    measures: Measures
    tokens: tuple[TokenClient, ...]
    tls: dict[str, ServerTls]
    """What each listener with TLS shows, by its name."""

    marks: PluginMarks
    counts: SharedCounts

    def watch_plugins(self, reactor: Any) -> None:
        """Have a thread see who blocks the reactor, and look after who leaks descriptors. Called once, when the reactor runs."""
        origins = self.plugins.origins()
        for plugin, why in self.plugins.standing().items():
            _log.error("plugin is off", plugin=plugin, error=why, hint=f"mend it; `mailsec plugins --on {plugin}` switches it on again")
        # It has been busy from the start on, and has not waited for anything yet.
        reactor.busy_since = self.runtime.monotonic() or 1.0
        Watchdog(lambda: getattr(reactor, "busy_since", 0.0), origins, self.marks, self.settings.limits.reactor_blocked).start()
        self.runtime.start(DescriptorWatch(self.runtime, origins, self.plugins.record).watch(), "watch descriptors")

    def close(self) -> None:
        """Give back what is held; call it when nothing runs any more."""
        self.spool.close()
        self.database.close()
        self.runtime.close()


def assemble(reactor: Any, configuration: Configuration, data_key: bytes, index: int, workers: int = 1) -> Parts:
    """Make the parts of the worker with spool `index`, one of `workers` of its generation. Raise MailsecError for what cannot be opened."""
    settings = gateway_settings(configuration)
    settings = replace(settings, limits=fitting(settings.limits, raise_descriptors()))
    roots = Path(configuration.relay.ca_file).read_bytes() if configuration.relay.ca_file else None
    database = CertDb.open(configuration.database.location, data_key=data_key)
    spool: SqliteSpool | None = None
    certificates = OwnCertificates(database, settings, configuration.tls.client_anchor_files)
    runtime = TwistedRuntime(
        reactor,
        scratch=lambda: _made(spool).scratch(),
        roots=roots,
        limits=settings.limits,
        fetch_rules=fetch_rules(settings.revocation),
        wallet=certificates,
    )
    spool = SqliteSpool(configuration.spool.directory, index, data_key, runtime, settings.limits)
    spool.open()
    counts = SharedCounts(configuration.gateway.run_directory, index, workers, data_key)
    guard = LoginGuard(counts.failures, settings.limits, counts.known, counts.looked_at)
    measures = Measures()
    clients = token_clients(configuration, database, reactor)
    events = MetricsPlugin(measures, runtime.now)
    plugins, pipeline = make_pipeline(configuration, settings, database, runtime, spool, clients, spool.wake, guard, counts.sent, events)
    relay = pipeline.forwarder = Relay(spool, runtime, settings)
    shown = certificates.load(runtime)
    letters = Letters(spool, runtime, settings)
    told = Told(str(Path(configuration.gateway.state_directory) / "told-certificates.json"))
    told_alerts = Told(str(Path(configuration.gateway.state_directory) / "told-alerts.json"))
    alerts = Alerts(letters.send, clients, configuration.spool.directory, runtime, told_alerts)
    expiry = ExpiryWatch(certificates, database, runtime, plugins.record, letters.send, told)
    marks = PluginMarks(configuration.gateway.state_directory)
    return Parts(
        settings, runtime, database, spool, plugins, pipeline, relay, certificates, expiry, alerts, measures, clients, shown, marks, counts
    )


def make_pipeline(
    configuration: Configuration,
    settings: GatewaySettings,
    database: CertDb,
    runtime: Runtime,
    spool: Spool,
    clients: Sequence[TokenClient] | None = None,
    wake: Callable[[str], Awaitable[None]] | None = None,
    guard: LoginGuard | None = None,
    sent: Recent | None = None,
    events: MetricsPlugin | None = None,
) -> tuple[PluginManager, Pipeline]:
    """The plugins in their order, the built-in ones last, and the pipeline that asks them.

    `wake(need)` has mail tried again that waits for a token. Without `clients` token hosts are not asked: what they listed last counts.
    `events` counts what is recorded.
    """
    database_plugin = DatabasePlugin(database, runtime)
    if clients is None:
        clients = token_clients(configuration, database, None)
    store = EvidenceStore(database)
    objects = (
        database_plugin,
        AuthenticatorsPlugin(configuration.authenticators, database_plugin.authenticator),
        RecipientsPlugin(configuration.recipients),
        TokenKeysPlugin(clients, runtime, wake, (rule.signer for rule in configuration.rules if rule.signer != "from")),
        RulesPlugin(compile_rules(configuration)),
        RevocationPlugin(),
        EvidenceRefresh(store, runtime, settings.revocation),
        MailboxPlugin(),
        LogPlugin(),
        events or MetricsPlugin(Measures(), runtime.now),
        SoftwarePlugin(),
    )
    off = PluginMarks(configuration.gateway.state_directory).off(runtime.now())
    plugins = load_plugins(configuration, list(zip(BUILT_IN, objects, strict=True)), runtime, off)
    settings = replace(settings, plugins=plugin_settings(configuration, plugins))
    trust = ConfiguredTrust(database_plugin, configuration.trust.anchor_files, configuration.tls.client_anchor_files)
    evidence = DatabaseEvidence(store, runtime, grace=timedelta(days=settings.revocation.grace_days))
    seals = DatabaseSealKeys(SealKeyStore(database), runtime)
    return plugins, Pipeline(
        settings,
        runtime=runtime,
        plugins=plugins,
        spool=spool,
        trust=trust,
        evidence=evidence,
        partners=database_plugin,
        learner=database_plugin if configuration.trust.learn_certificates else None,
        seals=seals,
        guard=guard,
        sent=sent,
        surroundings=Surroundings(database_plugin.register, module_of(configuration, database)),
    )


def fetch_rules(revocation: RevocationSettings) -> FetchRules:
    """Where evidence may be fetched from."""
    networks = tuple(map(read_network, revocation.allow_networks))
    return FetchRules(networks, frozenset(revocation.allow_ports), revocation.proxy)


def _made(spool: SqliteSpool | None) -> SqliteSpool:
    assert spool is not None
    return spool
