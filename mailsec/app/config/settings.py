"""From a valid `Configuration` to the frozen values that the rooms below understand (`model.settings`)."""

from __future__ import annotations

from dataclasses import fields, replace

from mailsec.app.config.addresses import parse_hop
from mailsec.app.config.front import front_settings
from mailsec.app.config.load import Configuration
from mailsec.app.config.mailboxes import mailbox_settings
from mailsec.app.config.models import Gateway, Hop, Revocation
from mailsec.app.config.semantics import listener_name
from mailsec.app.config.surroundings import read_anchor_file
from mailsec.app.config.tenants import read_secrets
from mailsec.app.config.tls import listener_tls, peer_of
from mailsec.app.files import reason_of
from mailsec.errors import ConfigurationError
from mailsec.model.address import normalise_domain
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.session import Origin
from mailsec.model.settings import GatewaySettings, ListenerSettings, NextHop, RelaySettings, RevocationSettings

__all__ = ["gateway_settings"]


def gateway_settings(configuration: Configuration) -> GatewaySettings:
    """The settings of the gateway, its listeners and its relay."""
    gateway = configuration.gateway
    return GatewaySettings(
        hostname=gateway.hostname,
        domains=tuple(gateway.domains),
        authserv_id=gateway.authserv_id or gateway.hostname,
        postmaster=gateway.postmaster or f"postmaster@{_first_domain(gateway)}",
        listeners=_listeners(configuration),
        relay=_relay(configuration),
        limits=_limits(configuration),
        revocation=_revocation(configuration.revocation),
        reprocess_address=gateway.reprocess_address,
    )


def _first_domain(gateway: Gateway) -> str:
    """The first of our domains that is one (".example.org" is not), as it may stand in a report (RFC 5321 §2.3.5: A-labels)."""
    return normalise_domain(next((domain for domain in gateway.domains if not domain.startswith(".")), gateway.hostname))


def _listeners(configuration: Configuration) -> tuple[ListenerSettings, ...]:
    return tuple(
        ListenerSettings(
            name=listener_name(listener),
            address=listener.address,
            protocol="service" if listener.service else listener.protocol,
            origin=Origin(listener.origin),
            service=listener.service,
            senders=tuple(listener.senders),
            peers=tuple(listener.peers),
            behind_own_mta=listener.behind == "own-mta",
            authenticate=listener.origin == "submission",
            normalise=listener.normalise,
            front=front_settings(listener.front),
            recipients_per_hour=listener.recipients_per_hour,
            secret_header=listener.secret_header,
            secrets=read_secrets(listener.secret_file) if listener.secret_file else (),
            mailbox=mailbox_settings(configuration.tls, listener),
            proxy=listener.proxy,
            **listener_tls(configuration.tls, listener),
        )
        for listener in configuration.listeners
    )


def _relay(configuration: Configuration) -> RelaySettings:
    relay = configuration.relay
    return RelaySettings(
        next_hop=_hop(relay.next_hop, configuration),
        routes=tuple((domain, _hop(hop, configuration)) for domain, hop in relay.routes.items()),
        retry_first=relay.retry_first,
        retry_longest=relay.retry_longest,
        give_up_after=relay.give_up_after,
        warn_after=relay.warn_after,
        connections_per_hop=relay.connections_per_hop,
        idle_timeout=relay.idle_timeout,
        connect_timeout=relay.connect_timeout,
    )


def _hop(hop: Hop, configuration: Configuration) -> NextHop:
    parsed, peer = parse_hop(hop), peer_of(configuration.tls, hop)
    first, *others = [
        replace(one, server_name=hop.server_name, peer=peer, chunking=hop.chunking) for one in (replace(parsed, others=()), *parsed.others)
    ]
    return replace(first, others=tuple(others))


def _revocation(revocation: Revocation) -> RevocationSettings:
    certificate = b""
    path = revocation.default_responder_certificate
    if path:
        try:
            certificate = next(iter(read_anchor_file(path)), b"")
        except OSError as error:
            raise ConfigurationError(f"cannot read {path}: {reason_of(error)}", stage="configuration") from error
    return RevocationSettings(
        mode=revocation.mode,
        order=tuple(revocation.order),
        parallel=revocation.parallel,
        ocsp_nonce=revocation.ocsp_nonce,
        ocsp_hash=revocation.ocsp_hash,
        responders=tuple(revocation.responders.items()),
        default_responder=revocation.default_responder,
        default_responder_certificate=certificate,
        crl_files=tuple(revocation.crl_files),
        crl_urls=tuple(revocation.crl_urls),
        fetch_issuers=revocation.fetch_issuers,
        grace_days=revocation.grace_days,
        allow_networks=tuple(revocation.allow_networks),
        allow_ports=tuple(revocation.allow_ports),
        proxy=revocation.proxy,
    )


def _limits(configuration: Configuration) -> Limits:
    kinds = {field.name: type(getattr(DEFAULT_LIMITS, field.name)) for field in fields(Limits)}
    return replace(DEFAULT_LIMITS, **{name: kinds[name](value) for name, value in configuration.gateway.limits.items()})
