"""Settings about people: who checks logins, and which recipients there are; and what cannot be right about them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mailsec.app.config.addresses import Endpoint, is_domain
from mailsec.app.config.base import File, Section, Several
from mailsec.app.config.lines import Path
from mailsec.app.config.problems import Problem
from mailsec.model.address import normalise_domain

__all__ = ["Authenticator", "Recipients", "find_authenticator_problems", "find_recipient_problems", "parse_server", "people_notes"]

_SERVER = re.compile(r"(smtps?)://(\[[^\]]+\]|[^\[\]:/]+)(?::(\d{1,5}))?/?")


class Authenticator(Section):
    """Who checks logins on "submission" listeners, in this order; where none is given, the users of the database (mailsec user). A login
    belongs to the first that knows it. SCRAM-SHA-256 is offered where all of them can do it, which is the database alone."""

    kind: Literal["database", "dovecot", "upstream", "passwd-file"]
    """ "database" (mailsec user), "dovecot" (its auth socket), "upstream" (the mail server that people have their accounts at is asked with
    the password that they gave) or "passwd-file"."""
    socket: str = ""
    """For "dovecot": "unix:/run/dovecot/auth-client", or "HOST:PORT" on this machine."""
    server: str = ""
    """For "upstream": "smtp://HOST:PORT" (STARTTLS is demanded) or "smtps://HOST:PORT" (TLS at once). Its certificate must hold its name."""
    file: File = ""
    """For "passwd-file": lines `login:hash` or `login:hash:address,address`, with hashes as `doveadm pw -s SHA512-CRYPT`, `htpasswd -nB` and
    `mkpasswd` write them. It is read again when it changes."""
    domains: Several = Field(default_factory=list)
    """For "dovecot" and "upstream": the domains whose addresses its logins are. A login "alice" is an address in the first; a login that is
    an address must be in one of them. Name only domains that this server keeps apart."""


class Recipients(Section):
    """Whether recipients of mail from "internet" exist, so that mail for nobody is refused at once instead of returned later."""

    check: Literal["none", "next-hop", "file"] = "none"
    """ "none" (whoever is in our domains), "next-hop" (the next hop of their domain is asked by RCPT; while it is away, mail for those that
    are not remembered waits at its sender) or "file". Plugins are asked in any case (`register_recipient_directories`)."""
    file: File = ""
    """For "file": lines "name@domain", "@domain" (everybody there) or "@.domain" (and below it). It is read again when it changes."""
    remember_known: float = Field(default=3600.0, ge=0, le=86400)
    """For "next-hop": seconds for which somebody who exists is remembered."""
    remember_unknown: float = Field(default=300.0, ge=0, le=86400)
    """For "next-hop": seconds for which somebody who does not exist is remembered."""


_NEEDED = {"database": (), "dovecot": ("socket", "domains"), "upstream": ("server", "domains"), "passwd-file": ("file",)}
_EXAMPLES = {
    "socket": 'socket = "unix:/run/dovecot/auth-client"',
    "server": 'server = "smtp://mail.example.org:587"',
    "file": 'file = "users"',
    "domains": 'domains = ["example.org"]',
}


def parse_server(text: str) -> tuple[str, int, bool]:
    """(host, port, TLS at once) of "smtp://HOST:PORT" or "smtps://HOST:PORT"; raise ValueError with what is wrong."""
    found = _SERVER.fullmatch(text)
    if found is None:
        raise ValueError(f'"{text}" is no server: "smtp://HOST:PORT" or "smtps://HOST:PORT"')
    scheme, host, port = found.groups()
    if host.startswith("["):
        try:
            host = str(ipaddress.ip_address(host[1:-1].removeprefix("IPv6:")))
        except ValueError:
            raise ValueError(f'"{host}" in brackets is no IP address') from None
    elif not is_domain(host):
        raise ValueError(f'"{host}" is no host name')
    number = int(port) if port else 465 if scheme == "smtps" else 587
    if not 0 < number < 65536:
        raise ValueError(f'"{port}" is no port: 1 to 65535')
    return host, number, scheme == "smtps"


def find_authenticator_problems(authenticators: Sequence[Authenticator | None], taken: Sequence[Endpoint]) -> list[Problem]:
    """All contradictions in `[[authenticator]]`. `taken`: where our own listeners listen."""
    problems: list[Problem] = []
    for index, one in enumerate(authenticators):
        if one is None:
            continue
        here: Path = ("authenticator", index)
        needed = _NEEDED[one.kind]
        for name, example in _EXAMPLES.items():
            if name in needed and not getattr(one, name):
                problems.append(Problem((*here, name), f'is missing for "{one.kind}"', f"for example {example}"))
            elif name not in needed and getattr(one, name):
                problems.append(Problem((*here, name), f'is not for "{one.kind}"'))
        for number, domain in enumerate(one.domains):
            if not is_domain(domain.removeprefix(".")):
                problems.append(Problem((*here, "domains", number), f'"{domain}" is no domain'))
        if one.kind == "dovecot" and one.socket:
            problems += _socket((*here, "socket"), one.socket)
        if one.kind == "upstream" and one.server:
            try:
                host, port, _ = parse_server(one.server)
            except ValueError as error:
                problems.append(Problem((*here, "server"), str(error)))
            else:
                if any(endpoint.is_reached_by(host, port) for endpoint in taken):
                    message = f"{one.server} is a listener of this gateway: logins would go round in circles"
                    problems.append(Problem((*here, "server"), message, "name the mail server that people have their accounts at"))
        if one.kind == "database" and any(other is not None and other.kind == "database" for other in authenticators[:index]):
            problems.append(Problem((*here, "kind"), "the database is asked already"))
    return problems


def people_notes(authenticators: Sequence[Authenticator], domains: Sequence[str]) -> Sequence[str]:
    """What somebody who checks a configuration should know: logins that are addresses of others. `domains`: the gateway's own."""
    ours = [normalise_domain(one) for one in domains]
    notes = []
    for index, one in enumerate(authenticators):
        for domain in one.domains:
            name = normalise_domain(domain)
            if name not in ours and not any(own.startswith(".") and name.endswith(own) for own in ours):
                notes.append(
                    f'authenticator[{index}]: whoever logs in there sends as somebody in "{domain}", which is not in [gateway] domains: mail '
                    "for them from the Internet is refused here"
                )
    return notes


def find_recipient_problems(recipients: Recipients) -> list[Problem]:
    """All contradictions in `[recipients]`."""
    if recipients.check == "file" and not recipients.file:
        return [Problem(("recipients", "file"), 'is missing for check = "file"', 'for example file = "recipients"')]
    if recipients.file and recipients.check != "file":
        return [Problem(("recipients", "file"), f'is not read with check = "{recipients.check}"', 'set check = "file"')]
    return []


def _socket(path: Path, text: str) -> list[Problem]:
    if text.startswith("unix:"):
        return [] if text.startswith("unix:/") else [Problem(path, "a unix socket needs an absolute path")]
    host, _, port = text.rpartition(":")
    try:
        near = host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        near = False
    if not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        return [Problem(path, f'"{text}" is no socket', f"for example {_EXAMPLES['socket']}")]
    # Passwords go there as they are.
    return [] if near else [Problem(path, "the password would go in clear", "a unix socket, or an address of this machine")]
