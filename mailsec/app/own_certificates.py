"""The certificates that the configuration names for TLS, as they are at this moment: from the database, and from directories.

They are looked at again and again: a certificate that was renewed is shown to whoever connects next, without a restart. The one
invariant: what cannot be read replaces nothing; what was good stays in use, and the log says why.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from mailsec.app.certificate_files import State, read_directory, state_of
from mailsec.app.config.surroundings import read_anchor_file
from mailsec.errors import ConfigurationError, MailsecError
from mailsec.interfaces import Runtime
from mailsec.model.settings import GatewaySettings
from mailsec.net.tls import ServerTls
from mailsec.net.tls_context import OwnCertificate
from mailsec.store.certdb import CertDb

__all__ = ["OwnCertificates", "find_certificates"]

_log = structlog.get_logger("mailsec.tls")

EVERY = 2.0
"""Seconds between two looks at the database's counter and at directories."""
_AGAIN = 600.0
"""Seconds after which everything is read again, although nothing shows a change: certificates become valid, and end."""


def find_certificates(database: CertDb, reference: str, runtime: Runtime) -> Sequence[OwnCertificate]:
    """What `reference` (a nickname, or "file:DIR") names: for a nickname our newest valid certificate for each kind of key.

    Raise ConfigurationError where there is none with a key.
    """
    at = runtime.now()
    if reference.startswith("file:"):
        return read_directory(reference, reference.removeprefix("file:"), at)
    found: dict[str, OwnCertificate] = {}
    for entry in database.find(reference, at=at):
        private_key = database.private_key(entry) if entry.verified and entry.has_key else None
        if private_key is None:
            continue
        own = OwnCertificate(reference, entry.der, private_key, tuple(database.chain(entry)))
        found.setdefault(own.certificate.key.type.partition(":")[0], own)
    if not found:
        raise ConfigurationError(f'there is no certificate with a key called "{reference}"', hint='"mailsec check" tells more')
    return list(found.values())


class OwnCertificates:
    """All that one worker shows, and the certificates of others that its next hops are known by: a `net.tls_client.Wallet`."""

    def __init__(self, database: CertDb, settings: GatewaySettings, client_anchor_files: Sequence[str] = ()) -> None:
        self._database = database
        self._client_anchor_files = client_anchor_files
        self._asks_clients = any(one.client_certificates != "none" for one in settings.listeners)
        self._settings = settings
        peers = [settings.relay.next_hop.peer, *(hop.peer for _, hop in settings.relay.routes)]
        for box in filter(None, (one.mailbox for one in settings.listeners)):
            peers += [upstream.peer for upstream in (box.upstream, *box.allowed) if upstream is not None]
        self._own_names = tuple(
            dict.fromkeys((*(name for one in settings.listeners for name in one.certificates), *(peer.certificate for peer in peers)))
        )
        self._other_names = tuple(dict.fromkeys(peer.authority for peer in peers))
        self._own: dict[str, Sequence[OwnCertificate]] = {}
        self._others: dict[str, bytes] = {}
        self._servers: dict[str, tuple[ServerTls, tuple[str, ...]]] = {}
        self._changes = -1
        self._states: dict[str, State] = {}
        self._read_at = float("-inf")
        self._authorities: Sequence[bytes] = ()

    # -- a Wallet ----------------------------------------------------------------------------------------------------------------

    def own(self, name: str) -> OwnCertificate | None:
        """The first certificate called `name`."""
        found = self._own.get(name)
        return found[0] if found else None

    def other(self, nickname: str) -> bytes | None:
        """The certificate (DER) that is called `nickname`, with or without a key."""
        return self._others.get(nickname)

    def all(self) -> Sequence[OwnCertificate]:
        """Everything that is shown to anybody, each once."""
        return list(dict.fromkeys(own for found in self._own.values() for own in found))

    # -- reading -----------------------------------------------------------------------------------------------------------------

    def load(self, runtime: Runtime) -> dict[str, ServerTls]:
        """Read everything (blocking), and make what each listener with TLS shows, by its name. Raise ConfigurationError."""
        self._changes, self._states = self._state()
        self._read(runtime)
        for listener in self._settings.listeners:
            if listener.certificates:
                server = ServerTls(
                    self._of(listener.certificates),
                    listener.tls_policy,
                    sni=listener.sni,
                    client_certificates=listener.client_certificates,
                    authorities=self._authorities,
                    scope=f"{listener.name}\0{listener.client_names}\0{listener.client_fingerprints}",
                    monotonic=runtime.monotonic,
                )
                self._servers[listener.name] = (server, listener.certificates)
        return {name: server for name, (server, _) in self._servers.items()}

    def _state(self) -> tuple[int, dict[str, State]]:
        directories = [name.removeprefix("file:") for name in self._own_names if name.startswith("file:")]
        return self._database.changes(), {directory: state_of(directory) for directory in directories}

    def _read(self, runtime: Runtime) -> None:
        own = {name: find_certificates(self._database, name, runtime) for name in self._own_names if name}
        others = {}
        for nickname in filter(None, self._other_names):
            for entry in self._database.find(nickname, at=runtime.now()):
                if entry.verified:
                    others[nickname] = entry.der
                    break
            else:
                raise ConfigurationError(f'there is no certificate "{nickname}"', hint='"mailsec check" tells more')
        if self._asks_clients:
            # Told to clients, so that they know which of their certificates to show; what is believed says the gateway's trust store.
            files = (der for path in self._client_anchor_files for der in read_anchor_file(path))
            self._authorities = tuple(dict.fromkeys((*(anchor.der for anchor in self._database.anchors("tls-client")), *files)))
        self._own, self._others = own, others
        self._read_at = runtime.monotonic()

    def _of(self, names: Sequence[str]) -> list[OwnCertificate]:
        return list(dict.fromkeys(own for name in names for own in self._own[name]))

    # -- watching ----------------------------------------------------------------------------------------------------------------

    async def watch(self, runtime: Runtime) -> None:
        """Look for changes until the worker ends."""
        while True:
            await runtime.sleep(EVERY)
            try:
                await self.look(runtime)
            except MailsecError as error:
                _log.warning("certificates stay as they were", error=error.message, hint=error.hint)

    async def look(self, runtime: Runtime) -> bool:
        """One look; True where what is shown has changed. Raise MailsecError where it cannot be read; all is as it was then."""
        changes, states = await runtime.in_thread(self._state, lane="database")
        if changes == self._changes and states == self._states and runtime.monotonic() < self._read_at + _AGAIN:
            return False
        # Whatever comes of it, this state is not looked at again until it changes: a broken file is told once.
        self._changes, self._states = changes, states
        self._read_at = runtime.monotonic()
        before = set(self.all())
        await runtime.in_thread(self._read, runtime, lane="database")
        new = [own for own in self.all() if own not in before]
        for server, names in self._servers.values():
            server.use(self._of(names), self._authorities)
        for own in new:
            certificate = own.certificate
            _log.info(
                "certificate replaced",
                certificate=own.name,
                subject=certificate.subject.text,
                fingerprint=certificate.fingerprint.hex(),
                not_after=f"{certificate.not_after:%Y-%m-%d}",
            )
        return bool(new)
