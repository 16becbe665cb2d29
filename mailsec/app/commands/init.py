"""`mailsec init DIR`: a commented configuration, a database with a CA and a server certificate, and what to do next."""

from __future__ import annotations

import base64
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mailsec.app.files import reason_of
from mailsec.app.output import Output, json_option
from mailsec.errors import MailsecError, UsageError

__all__ = ["init", "make_directory", "set_up_database"]

CA_NICKNAME = "CA"
SERVER_NICKNAME = "Server-Cert"


@json_option
@click.command()
@click.argument("directory", metavar="DIR")
@click.option("--hostname", default="", help="The name of this gateway  [default: the name of this machine]")
@click.option(
    "--domain",
    "domains",
    multiple=True,
    help="A mail domain of your own; may be repeated  [default: what follows the host name's first dot]",
)
@click.option("--next-hop", default="smtp://[127.0.0.1]:10026", show_default=True, help="Where mail goes.")
@click.pass_obj
def init(output: Output, directory: str, hostname: str, domains: tuple[str, ...], next_hop: str) -> None:
    """Write a commented configuration, a database and a server certificate into DIR."""
    from mailsec.app.config.addresses import is_domain, parse_hop
    from mailsec.app.config.models import Hop

    if not directory:
        raise UsageError("init where?", hint="for example mailsec init /etc/mailsec")
    guessed = not hostname and not domains
    hostname = hostname or _own_name(domains[0].lstrip(".") if domains else "example.org")
    domains = domains or (_domain_of(hostname),)
    for name in (hostname, *domains):
        if not is_domain(name):
            raise UsageError(f'"{name}" is no domain name', hint="for example --hostname gw.example.org --domain example.org")
    try:
        parse_hop(Hop(to=[next_hop]))
    except ValueError as error:
        raise UsageError(str(error)) from error
    target = make_directory(directory)
    ports = _ports()
    values = configuration_values(hostname, domains, next_hop, ports)
    set_up_database(target, hostname, domains)
    from mailsec.app.config.render import render

    configuration = target / "mailsec.toml"
    configuration.write_text(render(values), encoding="utf-8")
    output.result(
        {"directory": str(target), "configuration": str(configuration), "hostname": hostname, "domains": list(domains), "ports": ports},
        lambda: _say(output, target, domains, next_hop, ports),
    )
    if guessed:
        output.warning(
            f"nobody said what this is called: {hostname}, with mail of {', '.join(domains)}, is a guess",
            "mailsec init DIR --hostname NAME --domain DOMAIN; or change [gateway] in the configuration",
        )


def make_directory(directory: str) -> Path:
    """An empty directory that only we can enter; MailsecError where one with a configuration is there already."""
    target = Path(directory).expanduser().absolute()
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise MailsecError(f"cannot make {directory}: {reason_of(error)}") from error
    for name in ("mailsec.toml", "mailsec.db", "passphrase"):
        if (target / name).exists():
            raise MailsecError(f"{target / name} exists already", hint="choose another directory; nothing was changed")
    try:
        for name in ("spool", "run"):
            (target / name).mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise MailsecError(f"cannot write in {directory}: {reason_of(error)}") from error
    return target


def set_up_database(target: Path, hostname: str, domains: Sequence[str]) -> None:
    """`passphrase` and `mailsec.db` with a CA for our domains and a server certificate for our name."""
    from mailsec.model.trust import TrustFlags
    from mailsec.store.certdb import CertDb
    from mailsec.x509.issue import IssuedBy, issue_server, make_ca, make_key, public_key_of

    # 160 random bits: nobody types it, and nobody guesses it.
    passphrase = base64.b32encode(secrets.token_bytes(20)).decode("ascii").lower()
    descriptor = os.open(target / "passphrase", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"internal:{passphrase}\n")
    at = datetime.now(UTC)
    ca_key, server_key = make_key("ec-p256"), make_key("ec-p256")
    ca = make_ca(common_name=f"mailsec CA of {hostname}"[:64], key=ca_key, at=at, random=os.urandom)
    issuer = IssuedBy(ca, ca_key)
    names = list(dict.fromkeys([hostname, "localhost", "127.0.0.1"]))
    server = issue_server(issuer, names=names, public_key=public_key_of(server_key), at=at, random=os.urandom)
    with CertDb.create(str(target / "mailsec.db"), passphrase.encode(), at=at) as database:
        # Design §6: anchors added by hand are for named domains.
        plain = [domain.lstrip(".") for domain in domains]
        database.add(ca, CA_NICKNAME, trust=TrustFlags.parse("C,C,"), domains=plain, source="issued", private_key=ca_key, at=at)
        database.add(server, SERVER_NICKNAME, source="issued", private_key=server_key, at=at)


def configuration_values(hostname: str, domains: Sequence[str], next_hop: str, ports: Mapping[str, str]) -> dict[str, Any]:
    """The settings that differ from the defaults."""
    plain = [domain for domain in domains if not domain.startswith(".")]
    return {
        "gateway": {"hostname": hostname, "domains": list(domains)},
        "listener": [
            {"address": ports["submission"], "origin": "submission", "tls": "starttls-required", "certificate": SERVER_NICKNAME},
            {"address": ports["trusted"], "origin": "trusted", "senders": [f"@{domain}" for domain in plain] or ["*"]},
            {"address": ports["internet"], "origin": "internet", "tls": "starttls", "certificate": SERVER_NICKNAME},
        ],
        "passphrase": {"method": "file", "file": "passphrase"},
        "rule": [{"name": "everybody", "sign": "if-possible"}],
        "relay": {"next_hop": next_hop},
    }


def _own_name(domain: str) -> str:
    name = socket.getfqdn().lower()
    return name if "." in name and not name.startswith("localhost") and not name.endswith(".arpa") else f"gw.{domain}"


def _domain_of(hostname: str) -> str:
    _, _, rest = hostname.partition(".")
    return rest if "." in rest else hostname


def _ports() -> dict[str, str]:
    """The well-known ports where they can be had, others otherwise."""
    found = {}
    for origin, host, wanted in (("submission", "0.0.0.0", 587), ("trusted", "127.0.0.1", 10025), ("internet", "0.0.0.0", 25)):  # noqa: S104 - a mail server listens to the world
        free = _free(host, wanted)
        if free is None and wanted < 1024:
            free = _free(host, wanted + 2000)
        found[origin] = f"{host}:{free or _any_free(host)}"
    return found


def _free(host: str, port: int) -> int | None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return None
    return port


def _any_free(host: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _say(output: Output, target: Path, domains: Sequence[str], next_hop: str, ports: Mapping[str, str]) -> None:
    plain = domains[0].lstrip(".")
    output.text(f"Written to {target}:\n")
    output.table(
        ["file", "what it is"],
        [
            ["mailsec.toml", "the configuration, every setting explained"],
            ["mailsec.db", f'certificates, keys, users; holds "{CA_NICKNAME}" (for {", ".join(domains)}) and "{SERVER_NICKNAME}"'],
            ["passphrase", "opens the database; keep it secret, keep a copy"],
            ["spool/", "mail until it is delivered"],
        ],
    )
    output.text("")
    output.table(
        ["port", "who comes there"],
        [
            [ports["submission"], "people who authenticate themselves; their mail is signed"],
            [ports["trusted"], f"your own mail server, for senders @{plain}; its mail is signed"],
            [ports["internet"], f"everybody else, for recipients in {', '.join(domains)}; their mail is verified"],
        ],
    )
    where = _quoted(target / "mailsec.toml")
    output.text(
        f"\nMail goes to {next_hop}. Next:\n\n"
        f"a certificate for you:              mailsec cert issue -c {where} --address you@{plain}\n"
        f"a login, so that you can send mail: mailsec user add -c {where} you --address you@{plain}\n"
        f"is everything right?                mailsec check -c {where}\n"
        f"run it:                             mailsec serve -c {where}"
    )


def _quoted(path: Path) -> str:
    import shlex

    relative = os.path.relpath(path)
    return shlex.quote(relative if not relative.startswith("..") else str(path))
