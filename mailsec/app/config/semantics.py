"""What cannot be right although every value is well-formed: open relays, listeners that contradict themselves, names of nothing.

Looks at nothing but the configuration. A section or entry that could not be read is None here, and whatever needs it is left out.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import PurePath
from typing import Any

from mailsec.algorithms.profiles import PROFILES
from mailsec.app.config import models
from mailsec.app.config.addresses import Endpoint, is_domain, parse_endpoint, parse_hop
from mailsec.app.config.evidence import find_revocation_problems
from mailsec.app.config.front import find_front_problems
from mailsec.app.config.lines import Path
from mailsec.app.config.mailboxes import find_mailbox_problems
from mailsec.app.config.metrics import find_metrics_problems
from mailsec.app.config.people import find_authenticator_problems, find_recipient_problems
from mailsec.app.config.problems import Problem, near
from mailsec.app.config.tenants import find_tenant_problems
from mailsec.app.config.tls import find_tls_problems
from mailsec.app.config.tokens import find_token_problems
from mailsec.app.config.unreached import covers, find_unreached_routes, find_unreached_rules
from mailsec.errors import AddressError
from mailsec.model.address import Address, normalise_domain
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.settings import NextHop

__all__ = ["find_problems", "listener_name"]

_FIELD_NAME = re.compile(r"[!-9;-~]+")
"""RFC 5322 §2.2: printable US-ASCII but the colon."""

_NOT_FOR_SERVICES = ("protocol", "senders", "behind", "normalise", "require", "client_fingerprints", "upstream", "allowed_upstreams")

_SMALLEST_NETWORK = {4: 8, 6: 16}
"""Prefix lengths below which `peers` means strangers."""


def find_problems(sections: Mapping[str, Any], plugin_tables: Mapping[str, Any]) -> list[Problem]:
    """All contradictions in the sections (each a model, a list of models, or None)."""
    problems: list[Problem] = []
    listeners: Sequence[models.Listener | None] = sections["listener"]
    if sections["gateway"] is not None:
        _gateway(sections["gateway"], listeners, problems)
    endpoints = [_listener(index, listener, problems) for index, listener in enumerate(listeners) if listener is not None]
    if not listeners:
        problems.append(Problem((), "there is no [[listener]]: nothing would be received"))
    known = [endpoint for endpoint in endpoints if endpoint]
    for index, listener in enumerate(listeners):
        if listener is not None and not listener.service:
            problems.extend(find_mailbox_problems(index, listener, lambda host, port: _is_ours(NextHop("", host, port), known)))
            problems.extend(find_tenant_problems(index, listener))
    _clashes(listeners, problems)
    if sections["metrics"] is not None:
        problems.extend(find_metrics_problems(sections["metrics"], known))
    if sections["gateway"] is not None and sections["spool"] is not None:
        _spool(sections["gateway"], sections["spool"], problems)
    _rules(sections["rule"], listeners, problems)
    problems.extend(find_unreached_rules(sections["rule"]))
    if sections["relay"] is not None:
        hostname = "" if sections["gateway"] is None else sections["gateway"].hostname
        _relay(sections["relay"], known, hostname, problems)
        if sections["gateway"] is not None:
            _postmaster(sections["gateway"], sections["relay"], problems)
            _mail_for_us(sections["gateway"], sections["relay"], listeners, problems)
    problems.extend(find_tls_problems(sections))
    if sections["revocation"] is not None:
        alone = sections["plugins"] is not None and not sections["plugins"].enabled
        problems.extend(find_revocation_problems(sections["revocation"], alone=alone))
    problems.extend(find_token_problems(sections))
    problems.extend(find_authenticator_problems(sections["authenticator"], known))
    if sections["recipients"] is not None:
        problems.extend(find_recipient_problems(sections["recipients"]))
    plugins = sections["plugins"]
    if plugins is not None:
        for index, name in enumerate(plugins.enabled):
            if name in plugins.enabled[:index]:
                problems.append(Problem(("plugins", "enabled", index), f'"{name}" stands twice', "take one of them out"))
        for name in plugin_tables:
            if name not in plugins.enabled:
                hint = near(name, plugins.enabled) or f'add "{name}" to enabled in [plugins]'
                problems.append(Problem(("plugin", name), "this plugin is not enabled", hint))
    return problems


def listener_name(listener: models.Listener) -> str:
    """Its name, or what stands for it: "submission-587"."""
    if listener.name:
        return listener.name
    try:
        endpoint = parse_endpoint(listener.address)
    except ValueError:
        return listener.service or listener.origin
    return f"{listener.service or listener.origin}-{endpoint.port or endpoint.path.rpartition('/')[2]}"


def _gateway(gateway: models.Gateway, listeners: Sequence[models.Listener | None], problems: list[Problem]) -> None:
    if not is_domain(gateway.hostname):
        problems.append(Problem(("gateway", "hostname"), f'"{gateway.hostname}" is no host name', 'for example "gw.example.org"'))
    for name in ("hostname", "authserv_id", "postmaster"):
        text: str = getattr(gateway, name)
        if not text.isascii():
            # Greetings, Received fields and reports are ASCII (RFC 5321 §2.3.5: A-labels).
            local_part, at, domain = text.rpartition("@")
            problems.append(
                Problem(("gateway", name), f'"{text}" is not ASCII', f'write it as "{local_part}{at}{normalise_domain(domain)}"')
            )
    if not gateway.domains and any(listener and listener.origin == "internet" for listener in listeners):
        problems.append(Problem(("gateway", "domains"), "is empty: an internet listener would refuse every recipient"))
    for index, domain in enumerate(gateway.domains):
        path: Path = ("gateway", "domains", index)
        if domain in ("*", ".", ""):
            problems.append(Problem(path, f'open relay: "{domain}" takes mail for everybody from anybody', "name your own domains"))
        elif not is_domain(domain.removeprefix(".")):
            problems.append(Problem(path, f'"{domain}" is no domain'))
        elif domain.startswith(".") and "." not in domain[1:].rstrip("."):
            problems.append(Problem(path, f'open relay: "{domain}" is a whole top-level domain', "name your own domains"))
    if gateway.authserv_id and not is_domain(gateway.authserv_id):
        problems.append(Problem(("gateway", "authserv_id"), f'"{gateway.authserv_id}" is no domain name (RFC 8601 §2.5)'))
    if gateway.postmaster and not _is_address(gateway.postmaster):
        problems.append(Problem(("gateway", "postmaster"), f'"{gateway.postmaster}" is no address', "write it as name@domain"))
    if gateway.reprocess_address:
        domain = normalise_domain(gateway.reprocess_address.rpartition("@")[2])
        ours = [normalise_domain(one) for one in gateway.domains]
        if not _is_address(gateway.reprocess_address):
            problems.append(
                Problem(("gateway", "reprocess_address"), f'"{gateway.reprocess_address}" is no address', "write it as name@domain")
            )
        elif gateway.reprocess_address.lower() == gateway.postmaster.lower():
            message = "is the postmaster's address, too: reports would be opened and judged, and nobody would read them"
            problems.append(Problem(("gateway", "reprocess_address"), message, "an address of its own"))
        elif domain not in ours and not any(one.startswith(".") and domain.endswith(one) for one in ours):
            problems.append(Problem(("gateway", "reprocess_address"), f'"{gateway.reprocess_address}" is not in one of our domains'))
    _limits(gateway.limits, problems)


def _limits(limits: Mapping[str, float], problems: list[Problem]) -> None:
    known = {field.name: type(getattr(DEFAULT_LIMITS, field.name)) for field in fields(Limits)}
    for name, value in limits.items():
        path: Path = ("gateway", "limits", name)
        if name not in known:
            problems.append(Problem(path, "there is no such limit", near(name, list(known)) or "docs/limits.md lists them"))
        elif value <= 0:
            problems.append(Problem(path, f"must be more than 0, and is {value:g}"))
        elif known[name] is int and value != int(value):
            problems.append(Problem(path, f"must be a whole number, and is {value:g}"))


def _listener(index: int, listener: models.Listener, problems: list[Problem]) -> Endpoint | None:
    def problem(field: str, message: str, hint: str = "") -> None:
        problems.append(Problem(("listener", index, field) if field else ("listener", index), message, hint))

    if listener.service:
        for name in _NOT_FOR_SERVICES:
            if name in listener.model_fields_set:
                problem(name, "is not for a service", "what is spoken there, and with whom, is its plugin's to say")
        if listener.origin != "internet":
            problem("origin", "is not for a service", "take it out: its plugin says what is known of who speaks there")
    endpoint: Endpoint | None = None
    try:
        endpoint = parse_endpoint(listener.address)
    except ValueError as error:
        problem("address", str(error))
    networks_are_named = bool(listener.peers)
    for number, text in enumerate(listener.peers):
        path: Path = ("listener", index, "peers", number)
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError:
            problems.append(Problem(path, f'"{text}" is no network', 'for example "192.0.2.0/24" or "2001:db8::/32"'))
            continue
        if network.prefixlen < _SMALLEST_NETWORK[network.version]:
            networks_are_named = False
            if listener.origin == "trusted":
                problems.append(Problem(path, f'open relay: "{text}" trusts strangers', "name the addresses of your own servers"))
    # Behind a proxy whoever connects is near, and strangers are announced by it.
    near = endpoint is not None and endpoint.local and not listener.front.proxies
    reached_by_us = networks_are_named or near
    problems.extend(find_front_problems(index, listener, endpoint is not None and bool(endpoint.path)))
    # A certificate that some authority gave to somebody is no name: strangers have certificates, too.
    known_by_name = listener.client_certificates == "required" and bool(listener.client_names)
    if listener.tls != "none" and not listener.certificate:
        problem("tls", f'"{listener.tls}" needs a certificate', 'certificate = "NICKNAME" of an entry of the database')
    if listener.tls == "none" and listener.certificate:
        problem("certificate", "is not used without tls", 'set tls = "starttls"')
    if listener.origin == "submission" and listener.tls == "none" and not listener.front.xclient_login:
        problem("origin", "submission without tls: nobody could authenticate", 'set tls = "starttls-required" or "implicit"')
    if listener.origin == "trusted":
        if not listener.senders:
            problem("origin", "trusted needs senders: the addresses that may send there", 'for example senders = ["@example.org"]')
        if endpoint is not None and not reached_by_us and not known_by_name:
            problem(
                "origin",
                f"open relay: anybody who reaches {listener.address} would be trusted",
                'listen on 127.0.0.1 or a unix socket, or set peers = ["192.0.2.7"], or require client certificates and set client_names',
            )
    elif listener.senders:
        problem("senders", "is for trusted listeners", "who submits mail may use the addresses of their user entry (mailsec user)")
    for number, pattern in enumerate(listener.senders):
        if not _is_pattern(pattern):
            problems.append(Problem(("listener", index, "senders", number), f'"{pattern}" is no pattern', _PATTERN_HINT))
    if listener.behind:
        if listener.origin != "internet":
            problem("behind", "is for internet listeners")
        elif not reached_by_us:
            problem("behind", "strangers could forge results here", "listen on 127.0.0.1 or a unix socket, or set peers")
    if listener.protocol == "lmtp" and endpoint is not None and endpoint.port == 25:
        # RFC 2033 §5: LMTP must not be spoken on port 25, where clients expect SMTP.
        problem("protocol", "lmtp is not spoken on port 25", 'another port (24), or a unix socket: address = "unix:/run/mailsec/lmtp"')
    if listener.proxy and listener.origin == "mailbox":
        problem("proxy", "is for listeners that take mail")
    if listener.recipients_per_hour and listener.origin not in ("submission", "trusted"):
        problem(
            "recipients_per_hour", "is for submission and trusted listeners", "elsewhere nobody is known whose recipients could be counted"
        )
    if listener.normalise and not reached_by_us:
        problem("normalise", "strangers could smuggle mail here", "listen on 127.0.0.1 or a unix socket, or set peers")
    return endpoint


def _clashes(listeners: Sequence[models.Listener | None], problems: list[Problem]) -> None:
    """Addresses and names that are given twice."""
    seen: list[tuple[int, Endpoint]] = []
    names: dict[str, int] = {}
    for index, listener in enumerate(listeners):
        if listener is None:
            continue
        name = listener_name(listener)
        if listener.name and name in names:
            problems.append(Problem(("listener", index, "name"), f'"{name}" is the name of listener[{names[name]}] already'))
        names.setdefault(name, index)
        try:
            endpoint = parse_endpoint(listener.address)
        except ValueError:
            continue
        for other, taken in seen:
            if endpoint.collides(taken):
                problems.append(Problem(("listener", index, "address"), f"{listener.address} is taken by listener[{other}] already"))
                break
        seen.append((index, endpoint))


_PATTERN_HINT = 'write "name@domain", "@domain", "@.domain" (all below it) or "*"'


def _is_address(text: str) -> bool:
    try:
        Address.parse(text)
    except AddressError:
        return False
    return True


def _is_pattern(text: str) -> bool:
    if text == "*":
        return True
    if text.startswith("@"):
        return is_domain(text[1:].removeprefix("."))
    return _is_address(text)


def _rules(rules: Sequence[models.Rule | None], listeners: Sequence[models.Listener | None], problems: list[Problem]) -> None:
    known = [listener_name(listener) for listener in listeners if listener is not None]
    names: dict[str, int] = {}
    for index, rule in enumerate(rules):
        if rule is None:
            continue
        path: Path = ("rule", index)
        if rule.name in names:
            problems.append(Problem((*path, "name"), f'"{rule.name}" is the name of rule[{names[rule.name]}] already'))
        names.setdefault(rule.name, index)
        match = rule.match
        if None not in listeners:
            for number, name in enumerate(match.listener):
                if name not in known:
                    problems.append(Problem((*path, "match", "listener", number), f'there is no listener "{name}"', near(name, known)))
        for concern in ("sender", "recipient"):
            for number, pattern in enumerate(getattr(match, concern)):
                if not _is_pattern(pattern):
                    problems.append(Problem((*path, "match", concern, number), f'"{pattern}" is no pattern', _PATTERN_HINT))
        for where, expression in [(("subject",), match.subject), *((("header", name), text) for name, text in match.header.items())]:
            try:
                re.compile(expression)
            except re.error as error:
                problems.append(Problem((*path, "match", *where), f"not a regular expression: {error}"))
        for name in match.header:
            if not _FIELD_NAME.fullmatch(name):
                problems.append(Problem((*path, "match", "header", name), f'"{name}" is no name of a header field'))
        if match.origin == ["internet"] and rule.sign in ("required", "if-possible"):
            problems.append(Problem((*path, "sign"), "mail from the Internet is never signed", "only submission and trusted are"))
        if match.origin == ["internet"] and rule.encrypt in ("required", "if-possible"):
            problems.append(Problem((*path, "encrypt"), "mail from the Internet is never encrypted", "only submission and trusted are"))
        if rule.profile and rule.profile not in PROFILES:
            problems.append(Problem((*path, "profile"), f'there is no profile "{rule.profile}"', near(rule.profile, list(PROFILES))))
        if rule.wrap == "triple" and rule.sign == "never":
            problems.append(
                Problem((*path, "wrap"), "a triple wrap is signed twice, and this rule signs never", 'leave it out, or say "sign"')
            )
        for name in ("wrap", "compress", "encrypt_to_sender"):
            if getattr(rule, name) not in ("", None) and not rule.encrypt:
                why = f"says how mail is encrypted, and this rule does not say that it is: {name} would change nothing"
                problems.append(
                    Problem((*path, name), why, 'add encrypt = "required" or "if-possible", or agree on it: mailsec partner set')
                )


def _relay(relay: models.Relay, endpoints: Sequence[Endpoint], hostname: str, problems: list[Problem]) -> None:
    _hop(("relay", "next_hop"), relay.next_hop, endpoints, hostname, problems)
    for domain, hop in relay.routes.items():
        if not is_domain(domain.removeprefix(".")):
            problems.append(Problem(("relay", "routes", domain), f'"{domain}" is no domain'))
        _hop(("relay", "routes", domain), hop, endpoints, hostname, problems)
    problems.extend(find_unreached_routes(relay))
    if relay.retry_longest < relay.retry_first:
        problems.append(Problem(("relay", "retry_longest"), "is less than retry_first"))
    if relay.give_up_after <= relay.retry_first:
        problems.append(Problem(("relay", "give_up_after"), "is not more than retry_first: mail would be tried once, and given up"))
    if "warn_after" in relay.model_fields_set and relay.warn_after >= relay.give_up_after:
        message = "is not less than give_up_after: nobody would be told before it has failed"
        problems.append(Problem(("relay", "warn_after"), message, "0 where senders are not to be told that it takes long"))


def _spool(gateway: models.Gateway, spool: models.Spool, problems: list[Problem]) -> None:
    if PurePath(spool.directory).is_relative_to(gateway.run_directory):
        # Promise 1: /run is empty after a reboot.
        message = "is in the run directory, which need not outlive a reboot: mail would be lost"
        problems.append(Problem(("spool", "directory"), message, 'for example directory = "/var/spool/mailsec"'))


def _postmaster(gateway: models.Gateway, relay: models.Relay, problems: list[Problem]) -> None:
    """Reports, and mail for `<postmaster>`, must reach somebody: this host has no mailboxes."""
    address = gateway.postmaster or gateway.hostname
    domain, host = normalise_domain(address.rpartition("@")[2]), normalise_domain(gateway.hostname)
    named = [normalise_domain(one) for one in (*gateway.domains, *relay.routes)]
    by_default = not gateway.postmaster and (not gateway.domains or any(not one.startswith(".") for one in gateway.domains))
    if domain != host or domain in named or by_default:
        return
    if not any(one.startswith(".") and domain.endswith(one) for one in named):
        message = f"mail for the postmaster would go to {gateway.hostname}, which is this gateway itself"
        problems.append(Problem(("gateway", "postmaster"), message, 'name somebody with a mailbox: postmaster = "name@example.org"'))


def _mail_for_us(
    gateway: models.Gateway, relay: models.Relay, listeners: Sequence[models.Listener | None], problems: list[Problem]
) -> None:
    """What comes from the Internet for our domains must not go where DNS says: that is where it has just come from."""
    if not any(listener is not None and listener.origin == "internet" for listener in listeners):
        return
    for index, domain in enumerate(gateway.domains):
        hop = next((hop for pattern, hop in relay.routes.items() if covers(pattern, domain)), relay.next_hop)
        if "mx" in hop.to:
            message = f'mail for "{domain}" would go to its MX, which is where mail from the Internet has come from: in circles'
            problems.append(Problem(("gateway", "domains", index), message, f'routes = {{ "{domain}" = "smtp://HOST:PORT" }} in [relay]'))


def _hop(path: Path, hop: models.Hop, endpoints: Sequence[Endpoint], hostname: str, problems: list[Problem]) -> None:
    try:
        target = parse_hop(hop)
    except ValueError as error:
        problems.append(Problem(path, str(error)))
        return
    for one in (target, *target.others):
        if _is_ours(one, endpoints, hostname):
            problems.append(Problem(path, f"{one} is a listener of this gateway: mail would go round in circles"))
    if bool(hop.username) != bool(hop.password_file):
        problems.append(Problem(path, "username and password_file need each other"))
    if hop.username and hop.tls not in ("required", "verified"):
        # RFC 4954 §4: the client logs in under TLS only, also at a host that is near.
        problems.append(Problem(path, "the password could leave in clear", 'set tls = "verified"'))


def _is_ours(target: NextHop, endpoints: Sequence[Endpoint], own_name: str = "") -> bool:
    return any(endpoint.is_reached_by(target.host, target.port, target.path, own_name=own_name) for endpoint in endpoints)
