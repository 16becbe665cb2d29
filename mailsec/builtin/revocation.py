"""The built-in revocation sources as a plugin: "ocsp", "crl", and certificates of issuers where they may be fetched.

A plugin of yours registers its sources in the same way (`register_revocation_sources`), and `[revocation] order` names them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mailsec.builtin.asking import Asking, over_http
from mailsec.builtin.crl import CrlSource
from mailsec.builtin.ocsp import OcspSource
from mailsec.errors import MailsecError, Unavailable
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Evidence, EvidenceRequest, RevocationSource, Runtime
from mailsec.keys.files import load_certificates
from mailsec.model.settings import GatewaySettings

__all__ = ["IssuerSource", "RevocationPlugin"]

_MOST = 8
"""Certificates that are taken from one file."""


class IssuerSource:
    """Fetches certificates of issuers from where certificates say they are (RFC 5280 §4.2.2.1, id-ad-caIssuers)."""

    name = "issuer"

    def __init__(self, runtime: Runtime, asking: Asking) -> None:
        self._runtime = runtime
        self._asking = asking

    def addresses(self, request: EvidenceRequest) -> Sequence[str]:
        """Those of http and https."""
        return over_http(request.urls)

    async def evidence(self, request: EvidenceRequest) -> Sequence[Evidence]:
        """Certificates that may be the issuer's. Raise Unavailable where they cannot be had."""
        if request.kind != "issuer":
            return ()
        error: MailsecError | None = None
        for url in over_http(request.urls):
            try:
                found = load_certificates(await self._asking.ask(url))
            except MailsecError as caught:
                error = caught
                continue
            return [Evidence("issuer", der, url, self._runtime.now()) for der in found[:_MOST]]
        if error is not None:
            raise Unavailable(error.message, hint=error.hint, stage="revocation")
        return ()


class RevocationPlugin:
    """Brings them, unless revocation is off."""

    @hookimpl
    def register_revocation_sources(self, settings: GatewaySettings, runtime: Runtime) -> Iterable[RevocationSource]:
        """The sources that the configuration allows."""
        revocation = settings.revocation
        if revocation.mode == "off":
            return []
        asking = Asking(runtime)
        sources: list[RevocationSource] = [OcspSource(revocation, runtime, asking), CrlSource(revocation, runtime, asking)]
        if revocation.fetch_issuers:
            sources.append(IssuerSource(runtime, asking))
        return sources
