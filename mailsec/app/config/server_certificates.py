"""The certificates that the configuration names for TLS: whether they are there, and whether anybody would believe them.

What is absent is a mistake always. What is there and would not be believed (expired, no path to an anchor, another host's name) is told;
`[tls] enforce_valid_certs = "strict"` makes it a mistake, as NSSEnforceValidCerts does.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from mailsec.algorithms.tls import terms_of
from mailsec.app.certificate_files import open_keys, read_directory
from mailsec.app.config.lines import Path as Place
from mailsec.app.config.load import Configuration
from mailsec.app.config.models import Peer
from mailsec.app.config.problems import Problem, near
from mailsec.app.config.surroundings import read_anchor_file
from mailsec.app.config.tls import policy_of, upstreams_of
from mailsec.errors import ConfigurationError, MailsecError
from mailsec.keys.files import load_certificates
from mailsec.keys.software import SoftwareBackend
from mailsec.model.tls import TlsPolicy
from mailsec.model.trust import Anchor
from mailsec.net.tls_context import make_context
from mailsec.pki.identity import matches_host
from mailsec.pki.path import validate
from mailsec.store.certdb import CertDb
from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["doubts", "find_certificate_problems"]

# RFC 7633 §4: the TLS feature extension that asks for a staple.
_TLS_FEATURE = "1.3.6.1.5.5.7.1.24"


def find_certificate_problems(configuration: Configuration, database: CertDb, at: datetime) -> list[Problem]:
    """Everything that keeps TLS from being what the configuration says."""
    problems: list[Problem] = []
    for place, reference in _own(configuration):
        problems.extend(_absences(place, reference, database, at))
    policies: list[tuple[Place, TlsPolicy]] = [
        (("listener", index), policy_of(configuration.tls, one)) for index, one in enumerate(configuration.listeners)
    ]
    policies += [(place, policy_of(configuration.tls, peer)) for place, peer in _peers(configuration)]
    for place, policy in policies:
        try:
            terms_of(policy)
        except ConfigurationError:
            continue  # names that nobody knows: told where they stand
        try:
            make_context(policy)
        except ConfigurationError as error:
            # Names that this library does not know.
            problems.append(Problem(place, error.message, error.hint))
    known = sorted({entry.nickname for entry in database.entries()})
    for place, peer in _peers(configuration):
        if peer.authority and not any(entry.verified for entry in database.find(peer.authority, at=at)):
            problem = Problem(
                (*place, "authority"), f'there is no certificate "{peer.authority}" in {database.name}', near(peer.authority, known)
            )
            problems.append(problem)
    for index, path in enumerate(configuration.tls.client_anchor_files):
        try:
            read_anchor_file(path)
        except OSError as error:
            problems.append(Problem(("tls", "client_anchor_files", index), f"cannot read {path}: {(error.strerror or '').lower()}"))
        except MailsecError as error:
            problems.append(Problem(("tls", "client_anchor_files", index), f"{path}: {error.message}", error.hint))
    if configuration.tls.enforce_valid_certs == "strict":
        problems += doubts(configuration, database, at)
    return problems


def doubts(configuration: Configuration, database: CertDb, at: datetime) -> list[Problem]:
    """Why clients would not believe a server certificate that is there."""
    found: list[Problem] = []
    for index, listener in enumerate(configuration.listeners):
        shown = [(reference, der, chain) for reference in listener.certificate for der, chain in _shown(reference, database, at)]
        for reference, der, chain in shown:
            place: Place = ("listener", index, "certificate")
            found += [Problem(place, message, hint) for message, hint in _doubts(reference, load_certificate(der), chain, database, at)]
        host = configuration.gateway.hostname
        # Mail programs compare names; a server that delivers to another takes any.
        if (
            listener.origin in ("submission", "mailbox")
            and shown
            and not any(matches_host(load_certificate(der), host) for _, der, _ in shown)
        ):
            message = f"no certificate of {listener.address} names {host}: clients that compare names go away"
            found.append(Problem(("listener", index, "certificate"), message, '"mailsec cert show" tells which names are in it'))
    return found


def _own(configuration: Configuration) -> Iterator[tuple[Place, str]]:
    for index, listener in enumerate(configuration.listeners):
        for reference in listener.certificate:
            yield ("listener", index, "certificate"), reference
    for place, peer in _peers(configuration):
        if peer.certificate:
            yield (*place, "certificate"), peer.certificate


def _peers(configuration: Configuration) -> Iterator[tuple[Place, Peer]]:
    """Next hops and mailboxes' servers."""
    yield ("relay", "next_hop"), configuration.relay.next_hop
    for domain, hop in configuration.relay.routes.items():
        yield ("relay", "routes", domain), hop
    for index, listener in enumerate(configuration.listeners):
        for place, upstream in upstreams_of(listener):
            yield ("listener", index, *place), upstream


def _absences(place: Place, reference: str, database: CertDb, at: datetime) -> Iterator[Problem]:
    if reference.startswith("file:"):
        directory = reference.removeprefix("file:")
        try:
            read_directory(reference, directory, at)
        except MailsecError as error:
            yield Problem(place, error.message, error.hint)
        for path in open_keys(directory):
            yield Problem(place, f"others may read the secret in {path}", f"chmod o-rwx {path}")
        return
    if ":" in reference or not reference:
        return  # said by `app.config.tls` already
    found = database.find(reference, at=at)
    with_key = sorted({entry.nickname for entry in database.entries() if entry.has_key})
    if not found:
        hint = near(reference, with_key) or '"mailsec cert issue" makes one, "mailsec p12 import" brings one'
        yield Problem(place, f'there is no certificate "{reference}" in {database.name}', hint)
    elif not found[0].verified:
        yield Problem(place, f'"{reference}" was not put into the database by mailsec', '"mailsec db check" tells more')
    elif not found[0].has_key:
        yield Problem(place, f'there is no private key for "{reference}"', '"mailsec p12 import" brings certificate and key')


def _shown(reference: str, database: CertDb, at: datetime) -> Sequence[tuple[bytes, Sequence[bytes]]]:
    if reference.startswith("file:"):
        try:
            return [(own.der, own.chain) for own in read_directory(reference, reference.removeprefix("file:"), at)]
        except MailsecError:
            return []
    return [(entry.der, database.chain(entry)) for entry in database.find(reference, at=at)[:1] if entry.verified and entry.has_key]


def _doubts(reference: str, certificate: Certificate, chain: Sequence[bytes], database: CertDb, at: datetime) -> Iterator[tuple[str, str]]:
    if certificate.not_after is not None and certificate.not_after < at:
        yield f'"{reference}" expired on {certificate.not_after:%Y-%m-%d}', '"mailsec cert issue" makes a new one'
        return
    if certificate.not_before is not None and certificate.not_before > at:
        yield f'"{reference}" is not valid before {certificate.not_before:%Y-%m-%d %H:%M}', "is the clock right?"
        return
    if certificate.extension(_TLS_FEATURE) is not None:
        yield (
            f'"{reference}" demands an OCSP response in the handshake, which the TLS library cannot send: strict clients go away',
            "ask the authority for one without the TLS feature extension (must-staple)",
        )
    if why := _untrusted(certificate, chain, database, at):
        yield f'"{reference}" would be trusted by nobody: {why}', "is the chain complete? an authority of your own needs the trust letter C"


def _untrusted(certificate: Certificate, chain: Sequence[bytes], database: CertDb, at: datetime) -> str:
    anchors = list(database.anchors("tls-server"))
    intermediates = [load_certificate(der) for der in chain]
    backend = SoftwareBackend()
    why = ""
    # The system's anchors are read only where those of the database do not do.
    for more in (list[Anchor], _system_anchors):
        anchors += more()
        result = validate(certificate, anchors=tuple(anchors), intermediates=intermediates, at=at, purpose="tls-server", backend=backend)
        if result.valid:
            return ""
        why = "; ".join(dict.fromkeys(reason.message for reason in result.reasons)) or "no path to an anchor"
    return why


def _system_anchors() -> list[Anchor]:
    path = ssl.get_default_verify_paths().cafile or "/etc/ssl/certs/ca-certificates.crt"
    try:
        if not Path(path).is_file():
            return []
        return [Anchor(der, purposes=("tls-server",)) for der in load_certificates(Path(path).read_bytes())]
    except (OSError, MailsecError):
        return []
