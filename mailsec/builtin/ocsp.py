"""OCSP as a revocation source: asks the responders that certificates name, or those that the configuration names (RFC 6960, RFC 9654).

The one invariant: nothing is judged here. An answer is passed on if it can be read, is no refusal, and is not to another request.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from urllib.parse import quote

from mailsec.builtin.asking import Asking, over_http
from mailsec.errors import MailsecError, Unavailable
from mailsec.interfaces import Evidence, EvidenceRequest, Runtime
from mailsec.model.settings import RevocationSettings
from mailsec.pki.ocsp import ocsp_request
from mailsec.x509.certificate import load_certificate
from mailsec.x509.ocsp import read_ocsp_response

__all__ = ["OcspSource"]

_LONGEST_GET = 255


class OcspSource:
    """A `RevocationSource`."""

    name = "ocsp"

    def __init__(self, settings: RevocationSettings, runtime: Runtime, asking: Asking) -> None:
        self._settings = settings
        self._responders = dict(settings.responders)
        self._runtime = runtime
        self._asking = asking

    async def evidence(self, request: EvidenceRequest) -> Sequence[Evidence]:
        """One response; none where nobody is known to ask. Raise Unavailable where nobody answers."""
        if request.kind != "ocsp" or request.issuer is None:
            return ()
        certificate, issuer = load_certificate(request.certificate), load_certificate(request.issuer)
        error: MailsecError | None = None
        for url in self.addresses(request):
            nonce = self._runtime.random(32) if self._settings.ocsp_nonce else None
            question = ocsp_request(certificate, issuer, nonce=nonce, hash_name=self._settings.ocsp_hash)
            try:
                octets = await self._ask(url, question, nonce)
                response = read_ocsp_response(octets)
                if response.status != "successful":
                    raise Unavailable(f"{url} answers {response.status}", stage="revocation")
                # RFC 9654 §2.1: an answer with another nonce is to another request: somebody plays it again.
                if nonce is not None and response.nonce is not None and response.nonce != nonce:
                    raise Unavailable(f"{url} answers another request", stage="revocation")
            except MailsecError as caught:
                error = caught
                continue
            return (Evidence("ocsp", octets, url, self._runtime.now()),)
        if error is not None:
            raise Unavailable(error.message, hint=error.hint, stage="revocation")
        return ()

    def addresses(self, request: EvidenceRequest) -> Sequence[str]:
        """The responder that was chosen for everything, else the one for the issuer, else those that the certificate names."""
        if request.kind != "ocsp" or request.issuer is None:
            return ()
        if self._settings.default_responder:
            return (self._settings.default_responder,)
        chosen = self._responders.get(load_certificate(request.issuer).subject.text) if self._responders else None
        return over_http(request.urls) if chosen is None else (chosen,)

    async def _ask(self, url: str, question: bytes, nonce: bytes | None) -> bytes:
        # RFC 9919 §5, RFC 6960 §A.1: short questions without a nonce by GET, so that answers can be kept on the way.
        encoded = quote(b64encode(question), safe="")
        if nonce is None and len(encoded) <= _LONGEST_GET:
            return await self._asking.ask(f"{url.rstrip('/')}/{encoded}")
        return await self._asking.ask(url, body=question, content_type="application/ocsp-request")
