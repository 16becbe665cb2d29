"""Listeners for mailboxes: their upstreams as the configuration writes them, and what cannot be right about them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import replace

from mailsec.app.config import models
from mailsec.app.config.addresses import is_domain
from mailsec.app.config.lines import Path
from mailsec.app.config.problems import Problem
from mailsec.app.config.tls import peer_of
from mailsec.model.networks import read_network
from mailsec.model.settings import MailboxSettings, Upstream

__all__ = ["find_mailbox_problems", "mailbox_settings", "parse_upstream"]

_UPSTREAM = re.compile(r"(pop3s?)://(\[[^\]]+\]|[^\[\]:/]+)(?::(\d{1,5}))?/?")
_PATTERN = re.compile(r"\*|\.[^:/\[\]]+")
_ONLY_HERE = ("upstream", "allowed_upstreams", "upstream_networks")


def parse_upstream(given: models.Upstream) -> Upstream:
    """The server that an `Upstream` names; raise ValueError with what is wrong."""
    if _PATTERN.fullmatch(given.to):
        if given.to != "*" and not is_domain(given.to[1:]):
            raise ValueError(f'"{given.to}" is no domain')
        return Upstream(given.to, 0, tls=given.tls, domains=tuple(given.domains))
    found = _UPSTREAM.fullmatch(given.to)
    if found is None:
        raise ValueError(f'"{given.to}" is no server: "pop3s://HOST:PORT" or "pop3://HOST:PORT"')
    scheme, host, port = found.groups()
    if host.startswith("["):
        host = host[1:-1].removeprefix("IPv6:")
        try:
            host = str(ipaddress.ip_address(host))
        except ValueError:
            raise ValueError(f'"{host}" in brackets is no IP address') from None
    elif not is_domain(host):
        raise ValueError(f'"{host}" is no host name')
    number = int(port) if port else 995 if scheme == "pop3s" else 110
    if not 0 < number < 65536:
        raise ValueError(f'"{port}" is no port: 1 to 65535')
    return Upstream(host, number, scheme == "pop3s", given.tls, tuple(given.domains))


def mailbox_settings(tls: models.Tls, listener: models.Listener) -> MailboxSettings | None:
    """What a listener reads from; None for one that takes mail."""
    if listener.protocol != "pop3":
        return None

    def upstream(given: models.Upstream) -> Upstream:
        return replace(parse_upstream(given), server_name=given.server_name, peer=peer_of(tls, given))

    return MailboxSettings(
        upstream=upstream(listener.upstream) if listener.upstream.to else None,
        allowed=tuple(map(upstream, listener.allowed_upstreams)),
        networks=tuple(listener.upstream_networks),
        separator=listener.separator,
        on_failure=listener.on_failure,
    )


def find_mailbox_problems(index: int, listener: models.Listener, is_ours: Callable[[str, int], bool]) -> list[Problem]:
    """All contradictions about mailboxes in one listener. `is_ours` says whether a host and port are a listener of this gateway."""
    problems: list[Problem] = []

    def problem(path: Path | str, message: str, hint: str = "") -> None:
        problems.append(Problem(("listener", index, *((path,) if isinstance(path, str) else path)), message, hint))

    if (listener.protocol == "pop3") != (listener.origin == "mailbox"):
        problem(
            "protocol",
            f'"{listener.protocol}" and the origin "{listener.origin}" do not go together',
            'POP3 is protocol = "pop3" and origin = "mailbox"',
        )
        return problems
    if listener.protocol != "pop3":
        for name in _ONLY_HERE:
            if getattr(listener, name) not in ([], models.Upstream()):
                problem(name, "is for mailboxes", 'protocol = "pop3" and origin = "mailbox"')
        return problems
    if listener.tls == "none":
        problem("tls", "mailboxes without tls: nobody could log in", 'set tls = "implicit", or "starttls-required" for STLS')
    if not listener.upstream.to and not listener.allowed_upstreams:
        problem(
            "upstream",
            "is empty, and so is allowed_upstreams: there is no mailbox to read",
            'for example upstream = "pop3s://mail.example.org"',
        )
    if listener.upstream.to:
        _upstream(("upstream",), listener.upstream, problem, is_ours, pattern=False)
    for number, one in enumerate(listener.allowed_upstreams):
        _upstream(("allowed_upstreams", number), one, problem, is_ours, pattern=True)
    for number, text in enumerate(listener.upstream_networks):
        try:
            read_network(text)
        except ValueError:
            problem(("upstream_networks", number), f'"{text}" is no network', 'for example "10.1.0.0/16" or "fd00::/8"')
    separator = listener.separator
    if len(separator) != 1 or not separator.isascii() or not separator.isprintable() or separator.isalnum() or separator in ' @.:[]"':
        problem("separator", f'"{separator}" cannot stand between a login and a server', 'one sign, such as "#", "%" or "!"')
    return problems


def _upstream(
    path: Path, given: models.Upstream, problem: Callable[..., None], is_ours: Callable[[str, int], bool], *, pattern: bool
) -> None:
    try:
        upstream = parse_upstream(given)
    except ValueError as error:
        problem(path, str(error))
        return
    is_pattern = upstream.host.startswith((".", "*"))
    if is_pattern and not pattern:
        problem(path, f'"{given.to}" is no server but a pattern', "patterns are for allowed_upstreams")
    if is_ours(upstream.host, upstream.port):
        problem(path, f"{upstream} is a listener of this gateway: logins would go round in circles")
    if upstream.tls == "none" and not _loopback(upstream.host):
        problem(path, "the password would go in clear", 'leave tls at "verified"')
    if given.domains and is_pattern:
        # Whoever runs a server could say that somebody is logged in, and have mail opened that they have caught.
        problem(path, "a pattern cannot have domains: anybody's server would say whose mailbox it is", "name the server")
    elif given.domains and upstream.tls == "required":
        problem(path, "domains need a verified server: another one would say whose mailbox it is", 'leave tls at "verified"')
    for number, domain in enumerate(given.domains):
        if not is_domain(domain.removeprefix(".")):
            problem((*path, "domains", number), f'"{domain}" is no domain')


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
