"""Client certificates: whether one is to be believed, and who its holder is.

The TLS library takes whatever a client shows; it is judged here, after every handshake, resumed ones too, and before anything of the
session is believed: a path to an anchor for TLS clients, its purpose, revocation. The one invariant: `peer_verified` and `peer_identity`
come from here only, and neither without an accepted path at this instant.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from mailsec.errors import MailsecError, Refused, Reply, Unavailable
from mailsec.gateway.evidence import TrustStore
from mailsec.gateway.inquiry import Inquiries, Inquiry
from mailsec.interfaces import CryptoBackend, Runtime
from mailsec.model.address import Address, normalise_domain
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.session import Identity, TlsInfo
from mailsec.model.settings import ListenerSettings, RevocationSettings
from mailsec.model.trust import Anchor
from mailsec.pki.anchors import AnchorSet
from mailsec.pki.build import CertificatePool
from mailsec.pki.identity import matches, matches_host
from mailsec.pki.ocsp import OcspRules
from mailsec.pki.path import PathOptions, PathResult, validate
from mailsec.x509.certificate import Certificate, load_certificate

__all__ = ["ClientCertificates"]

_MOST_CHAINS = 1024
_PURPOSE = "tls-client"
_PRINTABLE = re.compile(r"[^ -~]")


class ClientCertificates:
    """Judges what clients show. One for each worker."""

    def __init__(
        self,
        runtime: Runtime,
        trust: TrustStore,
        inquiries: Inquiries,
        backend: CryptoBackend,
        revocation: RevocationSettings,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._runtime = runtime
        self._trust = trust
        self._inquiries = inquiries
        self._backend = backend
        self._checks = revocation.mode != "off"
        self._skips = revocation.mode == "check"
        chosen = revocation.default_responder_certificate
        self._rules = OcspRules(responders=(chosen,)) if chosen else None
        self._limits = limits
        self._given: tuple[Sequence[Anchor], Sequence[bytes], Sequence[bytes]] = ((), (), ())
        self._anchors = AnchorSet(())
        self._options = PathOptions()
        self._pool = CertificatePool(())
        self._chains: OrderedDict[bytes, tuple[bytes, ...]] = OrderedDict()

    async def judge(self, listener: ListenerSettings, info: TlsInfo) -> TlsInfo:
        """`info` with the answer in it. Raise Refused where one is required and this is none; Unavailable where nobody can say."""
        if info.peer_certificate is None:
            return info
        certificate = load_certificate(info.peer_certificate)
        try:
            result = await self._path(certificate, self._chain(info))
        except MailsecError as error:
            if listener.client_certificates == "required":
                raise Unavailable(f"a client certificate cannot be judged now: {error.message}", hint=error.hint, stage="tls") from error
            return replace(info, peer_reasons=(error.message,))
        reasons = [] if result.accepted else _words(result)
        identity = None
        if not reasons:
            self._keep_chain(info)
            identity, refusal = _identity(listener, certificate, result.anchor)
            reasons = [refusal] if refusal else []
        if reasons and listener.client_certificates == "required":
            why = "; ".join(reasons)
            raise Refused(
                f"the client certificate of {certificate.subject.text or 'nobody'} is not accepted: {why}",
                hint="an anchor for clients has the trust letter T (mailsec cert trust)",
                # RFC 3463 §3.8: X.7.1. The words tell the client's administrator what to do; they hold nothing that the client did not show.
                reply=Reply(554, "5.7.1", _PRINTABLE.sub("?", f"client certificate not accepted: {why}")[:400]),
                stage="tls",
            )
        return replace(info, peer_verified=not reasons, peer_reasons=tuple(reasons), peer_identity=identity)

    def _chain(self, info: TlsInfo) -> tuple[bytes, ...]:
        """What the client sent above its certificate. A resumed session holds none: then what it sent when the session began."""
        return info.peer_chain or (self._chains.get(info.peer_certificate or b"", ()) if info.resumed else ())

    def _keep_chain(self, info: TlsInfo) -> None:
        # Of accepted certificates only: what strangers show fills no memory.
        certificate = info.peer_certificate
        if certificate is not None and info.peer_chain:
            self._chains[certificate] = info.peer_chain
            self._chains.move_to_end(certificate)
            if len(self._chains) > _MOST_CHAINS:
                self._chains.popitem(last=False)

    async def _path(self, certificate: Certificate, chain: Sequence[bytes]) -> PathResult:
        await self._take_trust()
        pool = CertificatePool(map(load_certificate, chain[: self._limits.path_length]), self._pool) if chain else self._pool

        def ask(inquiry: Inquiry) -> PathResult:
            helpful = CertificatePool(inquiry.intermediates, pool) if inquiry.intermediates else pool
            result = validate(
                certificate,
                anchors=self._anchors,
                intermediates=helpful,
                at=self._runtime.now(),
                purpose=_PURPOSE,
                backend=self._backend,
                options=self._options,
                evidence=inquiry.evidence,
                rules=self._rules,
                budget=inquiry.budget,
            )
            inquiry.wanted += result.missing
            return result

        if not self._checks:
            return ask(Inquiry())
        return await self._inquiries.judge((_PURPOSE, certificate.fingerprint), ask)

    async def _take_trust(self) -> None:
        trust = self._trust
        given = (await trust.anchors(_PURPOSE), await trust.distrusted(_PURPOSE), await trust.authorities())
        # The same objects until something changes: what is made of them is kept as long.
        if all(new is old for new, old in zip(given, self._given, strict=True)):
            return
        anchors, distrusted, authorities = self._given = given
        self._anchors = AnchorSet(anchors)
        self._pool = CertificatePool(map(load_certificate, authorities))
        self._options = PathOptions(
            distrusted=frozenset(load_certificate(der).fingerprint for der in distrusted),
            check_revocation=self._checks,
            skip_sourceless=self._skips,
        )


def _words(result: PathResult) -> list[str]:
    return list(dict.fromkeys(reason.message for reason in result.reasons)) or [f"revocation: {result.revocation.value}"]


def _identity(listener: ListenerSettings, certificate: Certificate, anchor: Anchor | None) -> tuple[Identity | None, str]:
    """Whom an accepted certificate names on this listener, and why it is not accepted there after all ("": it is)."""
    names = listener.client_names
    if names and not any(matches(certificate, name) if "@" in name else matches_host(certificate, name) for name in names):
        return None, "it holds none of the names that may come here"
    name = certificate.subject.text or "a certificate"
    if listener.client_fingerprints:
        whom = dict(listener.client_fingerprints).get(certificate.fingerprint.hex())
        if whom is None:
            return None, "it is none of the certificates that may come here"
        return Identity(whom[0] if whom else name, whom, "certificate"), ""
    # Attack: an authority that is believed for one domain's clients names somebody of another's.
    addresses = tuple(str(address) for address in certificate.addresses if anchor is None or _may_name(anchor, address))
    return (Identity(addresses[0], addresses, "certificate") if addresses else None), ""


def _may_name(anchor: Anchor, address: Address) -> bool:
    """Whether an anchor may vouch for this address: one without domains, which is for TLS only, for all of them."""
    if not anchor.domains or "*" in anchor.domains:
        return True
    domains = [normalise_domain(domain.lstrip(".")) for domain in anchor.domains]
    return any(address.domain_key == domain or address.domain_key.endswith("." + domain) for domain in domains)
