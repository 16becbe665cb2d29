"""TLS of a listener: its certificates, which of them a client is shown, and what of a session outlives a connection.

The one invariant: the policy of a listener (versions, ciphers, client certificates) is that of the connection; the name that a client
asks for changes the certificate and nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from zope.interface import implementer

from mailsec.errors import ConfigurationError
from mailsec.model.requests import StartTls
from mailsec.model.tls import TlsPolicy
from mailsec.net.tls_context import ContextFacts, OwnCertificate, add_certificate, make_context, own_certificate
from mailsec.net.tls_library import choose_by_name
from mailsec.net.tls_names import Choice, choices

__all__ = ["ServerTls", "server_tls"]

DEFAULT_POLICY = TlsPolicy()
_MOST_AUTHORITIES = 50
"""Names of authorities that clients are told: a long list costs every handshake."""


@implementer(IOpenSSLServerConnectionCreator)
class ServerTls:
    """What one listener shows. Call it with a `StartTls` request (as `WireProtocol` does), or give it to Twisted as it is.

    `sni` and `client_certificates` are those of `ListenerSettings`; `scope` names whose sessions may be resumed here: the listener and
    whatever a session was allowed to do on it.
    """

    def __init__(
        self,
        certificates: Sequence[OwnCertificate],
        policy: TlsPolicy = DEFAULT_POLICY,
        *,
        sni: str = "any",
        client_certificates: str = "none",
        authorities: Sequence[bytes] = (),
        scope: str = "",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._policy = policy
        self._sni = sni
        self._client_certificates = client_certificates
        self._monotonic = monotonic
        # A session that began under other rules for client certificates is never resumed under these.
        self._scope = hashlib.sha256(f"{scope}\0{client_certificates}\0{policy}".encode()).digest()
        self.use(certificates, authorities)

    def use(self, certificates: Sequence[OwnCertificate], authorities: Sequence[bytes] = ()) -> None:
        """Show these to whoever connects from now on. `authorities`: whose client certificates are believed (DER), told to clients.

        Raise ConfigurationError where one cannot be used; then nothing has changed.
        """
        if not certificates:
            raise ConfigurationError("a listener with TLS needs a certificate", hint='certificate = "NICKNAME" or "file:DIR"')
        choice = choices(certificates)
        contexts = self._make(choice, authorities)
        self.certificates = tuple(certificates)
        self._authorities = tuple(authorities)
        self._choice, self._contexts = choice, contexts
        self._made = self._monotonic()

    def _make(self, choice: Choice, authorities: Sequence[bytes]) -> dict[tuple[OwnCertificate, ...], SSL.Context]:
        contexts = {}
        for shown in choice.sets:
            context = contexts[shown] = self._context(shown, authorities)
            context.set_app_data(ContextFacts(shown))
        if len(contexts) > 1 or self._sni != "any":
            first = contexts[choice.default]
            # The context keeps the callback alive, as the library only points to it.
            first._mailsec_callback = choose_by_name(first, self._asked)  # type: ignore[attr-defined]
        return contexts

    def _context(self, shown: Sequence[OwnCertificate], authorities: Sequence[bytes]) -> SSL.Context:
        context = make_context(self._policy)
        for own in shown:
            add_certificate(context, own)
        context.set_options(SSL.OP_CIPHER_SERVER_PREFERENCE)
        # Sessions can be resumed within this worker: tickets under keys that the library draws for each context and forgets with it.
        context.set_session_id(self._scope)
        context.set_timeout(self._policy.lifetime)
        if self._policy.resumption:
            context.set_session_cache_mode(SSL.SESS_CACHE_SERVER)
        else:
            context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
            context.set_options(SSL.OP_NO_TICKET)
        if self._client_certificates != "none":
            mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if self._client_certificates == "required" else 0)
            # Whatever the client shows is taken here, and judged by `pki` after the handshake, with anchors, evidence and instant.
            context.set_verify(mode, lambda *_: True)
            for der in authorities[:_MOST_AUTHORITIES]:
                # Only names, which help a client to choose. Old roots (a serial number of zero) are no matter of a warning here.
                with warnings.catch_warnings(action="ignore"), contextlib.suppress(ValueError):
                    context.add_client_ca(x509.load_der_x509_certificate(der))
        return context

    def _asked(self, name: bytes | None) -> SSL.Context | None:
        if name is None:
            return None if self._sni == "required" else self._contexts[self._choice.default]
        shown = self._choice.named(name)
        if shown is None:
            return self._contexts[self._choice.default] if self._sni == "any" else None
        return self._contexts[shown]

    def __call__(self, request: StartTls) -> ServerTls:
        return self

    def serverConnectionForTLS(self, protocol: Any) -> SSL.Connection:
        if self._monotonic() - self._made > self._policy.lifetime:
            # RFC 9325 §3.4: keys of tickets are changed. New contexts have new ones; old tickets are then worth a full handshake.
            self.use(self.certificates, self._authorities)
        return SSL.Connection(self._contexts[self._choice.default], None)


def server_tls(certificate: bytes, private_key: bytes, chain: Sequence[bytes] = ()) -> ServerTls:
    """The TLS of a server with one certificate, its key (PKCS#8) and its chain, each PEM or DER, in memory.

    A PEM `certificate` may hold its chain. Raise ConfigurationError for what cannot be read or does not fit together.
    """
    return ServerTls([own_certificate("certificate", certificate, private_key, chain)])
