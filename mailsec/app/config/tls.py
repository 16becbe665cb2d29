"""TLS in the configuration: policies of listeners and next hops, and what cannot be right about them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mailsec.algorithms.tls import GROUPS, SUITES, read_ciphers, read_protocols
from mailsec.app.config import models
from mailsec.app.config.addresses import is_domain
from mailsec.app.config.lines import Path
from mailsec.app.config.problems import Problem, near
from mailsec.errors import AddressError, ConfigurationError
from mailsec.model.address import Address
from mailsec.model.tls import TlsPeer, TlsPolicy
from mailsec.rules.expressions import compile_expression
from mailsec.rules.session_variables import is_variable

__all__ = ["find_tls_problems", "fingerprint", "listener_tls", "peer_of", "policy_of", "tls_notes", "upstreams_of"]

_HEX = re.compile(r"[0-9A-Fa-f]{64}\Z")
_PIN_HINT = "a SHA-256 fingerprint in hexadecimal, as mailsec cert show and openssl x509 -fingerprint -sha256 print it"

_CAN_AUTHENTICATE = ("submission", "mailbox")


def policy_of(tls: models.Tls, one: models.Listener | models.Peer) -> TlsPolicy:
    """The policy of a listener or next hop: its own settings before those of [tls]."""
    own = bool(one.tls_profile)
    return TlsPolicy(
        profile=one.tls_profile or tls.profile,
        # A profile of one's own begins with its own lists.
        protocols=tuple(one.protocols or (() if own else tls.protocols)),
        ciphers=one.ciphers or ("" if own else tls.ciphers),
        groups=() if own else tuple(tls.groups),
        resumption=tls.resumption,
        lifetime=tls.session_lifetime,
    )


def listener_tls(tls: models.Tls, listener: models.Listener) -> dict[str, Any]:
    """The TLS fields of `ListenerSettings`."""
    certificates = tuple(listener.certificate)
    return {
        "tls": listener.tls,
        "certificate": certificates[0] if certificates else "",
        "certificates": certificates,
        "tls_policy": policy_of(tls, listener),
        "sni": listener.sni,
        "client_certificates": listener.client_certificates,
        "require": listener.require,
        "client_names": tuple(listener.client_names),
        "client_fingerprints": tuple((fingerprint(text), tuple(whom)) for text, whom in listener.client_fingerprints.items()),
    }


def peer_of(tls: models.Tls, peer: models.Peer) -> TlsPeer:
    """Who a next hop, or a mailbox's server, must be, and what it is shown."""
    return TlsPeer(policy_of(tls, peer), tuple(_pin(pin) for pin in peer.pins), peer.authority, peer.certificate)


def upstreams_of(listener: models.Listener) -> Iterator[tuple[Path, models.Upstream]]:
    """The mailboxes' servers that a listener names, each with where it stands there."""
    if listener.upstream.to:
        yield ("upstream",), listener.upstream
    for number, one in enumerate(listener.allowed_upstreams):
        yield ("allowed_upstreams", number), one


def fingerprint(text: str) -> str:
    """A SHA-256 fingerprint in lower-case hexadecimal, written with or without colons; raise ValueError."""
    digits = text.strip().replace(":", "")
    if not _HEX.match(digits):
        raise ValueError(f'"{text}" is no fingerprint')
    return digits.lower()


def _pin(text: str) -> str:
    kind, colon, rest = text.strip().partition(":")
    if not colon or kind.lower() not in ("sha256", "key-sha256"):
        raise ValueError(f'"{text}" is no pin: "sha256:…" (of the certificate) or "key-sha256:…" (of its key)')
    return f"{kind.lower()}:{fingerprint(rest)}"


def find_tls_problems(sections: Mapping[str, Any]) -> list[Problem]:
    """All contradictions of TLS settings in the sections (each a model, a list of models, or None)."""
    problems: list[Problem] = []
    tls: models.Tls | None = sections["tls"]
    if tls is not None:
        _policy(("tls",), tls.profile, tls.protocols, tls.ciphers, problems)
        for index, group in enumerate(tls.groups):
            if group not in GROUPS:
                hint = near(group, GROUPS) or "one of " + ", ".join(GROUPS)
                problems.append(Problem(("tls", "groups", index), f'there is no key exchange group "{group}"', hint))
        if tls.ocsp_stapling:
            problems.append(
                Problem(
                    ("tls", "ocsp_stapling"),
                    "cannot be done: pyOpenSSL 26.4 sends no OCSP response, though it has the words for it",
                    "take it out; clients ask the responder themselves",
                )
            )
    for index, listener in enumerate(sections["listener"]):
        if listener is not None:
            _listener(("listener", index), listener, problems)
    relay: models.Relay | None = sections["relay"]
    if relay is not None:
        hops = {("relay", "next_hop"): relay.next_hop} | {("relay", "routes", domain): hop for domain, hop in relay.routes.items()}
        for path, hop in hops.items():
            _peer(path, hop, problems, many="mx" if "mx" in hop.to else "")
    return problems


def _policy(path: Path, profile: str, protocols: Sequence[str], ciphers: str, problems: list[Problem]) -> None:
    try:
        if protocols:
            read_protocols(tuple(protocols))
    except ConfigurationError as error:
        problems.append(Problem((*path, "protocols"), error.message, error.hint))
    try:
        if ciphers:
            read_ciphers(ciphers)
    except ConfigurationError as error:
        problems.append(Problem((*path, "ciphers"), error.message, error.hint))


def _listener(path: Path, listener: models.Listener, problems: list[Problem]) -> None:
    def problem(field: str, message: str, hint: str = "") -> None:
        problems.append(Problem((*path, field), message, hint))

    _policy(path, listener.tls_profile, listener.protocols, listener.ciphers, problems)
    for reference in listener.certificate:
        _reference((*path, "certificate"), reference, problems)
    if listener.tls == "none":
        given = [
            name for name in ("client_certificates", "sni", "tls_profile", "protocols", "ciphers") if name in listener.model_fields_set
        ]
        for name in given:
            if getattr(listener, name) not in ("none", "any", "", []):
                problem(name, "is not used without tls", 'set tls = "starttls"')
    elif listener.client_certificates == "required" and listener.tls == "starttls":
        problem("client_certificates", "required, and who does not begin TLS shows none", 'set tls = "starttls-required" or "implicit"')
    if listener.client_certificates == "required-for-relaying" and listener.origin not in ("submission", "trusted"):
        problem("client_certificates", f'nothing is relayed for "{listener.origin}"', 'set "required" or "optional"')
    if listener.client_certificates == "none":
        for useless in ("client_names", "client_fingerprints"):
            if getattr(listener, useless):
                problem(useless, "is not used where no certificate is asked for", 'set client_certificates = "required"')
    if listener.protocol == "pop3":
        for place, upstream in upstreams_of(listener):
            _peer((*path, *place), upstream, problems, many=upstream.to if upstream.to.startswith((".", "*")) else "")
    if listener.require:
        try:
            compile_expression(listener.require, is_variable)
        except ConfigurationError as error:
            problem("require", error.message, error.hint)
    for index, wanted in enumerate(listener.client_names):
        if not (_is_address(wanted) if "@" in wanted else is_domain(wanted)):
            problems.append(Problem((*path, "client_names", index), f'"{wanted}" is neither a host name nor an address'))
    if listener.client_fingerprints and listener.origin not in _CAN_AUTHENTICATE:
        problem("client_fingerprints", "is for submission", "client_names says who may come here")
    for text, whom in listener.client_fingerprints.items():
        try:
            fingerprint(text)
        except ValueError as error:
            problems.append(Problem((*path, "client_fingerprints", text), str(error), _PIN_HINT))
        if not whom:
            problems.append(
                Problem((*path, "client_fingerprints", text), "names no address that it may use", 'for example ["printer@example.org"]')
            )
        for index, pattern in enumerate(whom):
            if not _is_pattern(pattern):
                problems.append(
                    Problem((*path, "client_fingerprints", text, index), f'"{pattern}" is no pattern', 'write "name@domain" or "@domain"')
                )


def _peer(path: Path, peer: models.Peer, problems: list[Problem], *, many: str = "") -> None:
    """`many`: how `to` is written where it means many hosts."""
    _policy(path, peer.tls_profile, peer.protocols, peer.ciphers, problems)
    for name in ("server_name", "pins", "authority"):
        if getattr(peer, name) and peer.tls != "verified":
            problems.append(Problem((*path, name), f'is not used by tls = "{peer.tls}"', 'set tls = "verified"'))
    if many and (peer.server_name or peer.pins):
        problems.append(Problem((*path, "server_name" if peer.server_name else "pins"), f"is for one host, and {many} means many"))
    if peer.pins and (peer.authority or peer.server_name):
        problems.append(
            Problem(
                (*path, "authority" if peer.authority else "server_name"),
                "is not asked for where pins are given",
                "take one of the two out",
            )
        )
    if peer.server_name and not is_domain(peer.server_name):
        problems.append(Problem((*path, "server_name"), f'"{peer.server_name}" is no host name'))
    for index, pin in enumerate(peer.pins):
        try:
            _pin(pin)
        except ValueError as error:
            problems.append(Problem((*path, "pins", index), str(error), _PIN_HINT))
    if peer.certificate:
        _reference((*path, "certificate"), peer.certificate, problems)
        if peer.tls == "none":
            problems.append(Problem((*path, "certificate"), "is not used without tls", 'set tls = "verified"'))


def _reference(path: Path, reference: str, problems: list[Problem]) -> None:
    if not reference or reference == "file:":
        problems.append(Problem(path, "names no certificate", '"NICKNAME", or "file:DIR"'))
    elif reference.startswith("pkcs11:") or (":" in reference and not reference.startswith("file:")):
        problems.append(
            Problem(
                path,
                f'"{reference}" would be a key on a token, and pyOpenSSL 26.4 takes none',
                'use a key of the database, or "file:DIR"; keys that sign mail can be on tokens',
            )
        )


def tls_notes(tls: models.Tls, listeners: Sequence[models.Listener], relay: models.Relay) -> Sequence[str]:
    """What somebody who checks a configuration should know: weak ciphers that lists name, names that only DNS vouches for."""
    notes = []
    lists = {"[tls]": tls.ciphers} | {f"listener on {one.address}": one.ciphers for one in listeners}
    for where, text in lists.items():
        if text:
            older = set(read_ciphers(text)[0].split(":"))
            weak = [f"{suite.openssl} ({suite.weakness})" for suite in SUITES if suite.weakness and suite.openssl in older]
            if weak:
                notes.append(f"{where} allows weak ciphers: {', '.join(weak)}")
    for where, hop in {"next_hop": relay.next_hop, **relay.routes}.items():
        if "mx" in hop.to and hop.tls == "verified" and not hop.authority:
            notes.append(
                f'[relay] {where}: "mx" takes the name that is verified from DNS, whose answers can be forged (neither DANE nor MTA-STS is '
                "asked); a partner that matters has a route with its host"
            )
    return notes


def _is_address(text: str) -> bool:
    try:
        Address.parse(text)
    except AddressError:
        return False
    return True


def _is_pattern(text: str) -> bool:
    return text == "*" or (is_domain(text[1:].removeprefix(".")) if text.startswith("@") else _is_address(text))
