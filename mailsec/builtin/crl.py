"""Revocation lists as a revocation source: from files, and from where certificates and lists say that they are (RFC 5280 §4.2.1.13, §5.2.6).

Lists of another scheme than http and https are for plugins ("ldap:…"). The one invariant: nothing is judged here; a list is passed on if it can
be read.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from mailsec.builtin.asking import Asking, over_http
from mailsec.errors import MailsecError, Unavailable
from mailsec.interfaces import Evidence, EvidenceRequest, Runtime
from mailsec.keys.files import pem_blocks
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.settings import RevocationSettings
from mailsec.pki.crl import addresses, distribution_points
from mailsec.x509.certificate import load_certificate
from mailsec.x509.crl import CertificateList, load_crl

__all__ = ["CrlSource", "read_lists"]

_MOST_LISTS = 16
"""Lists that are taken from one address (RFC 5280 §4.2.1.13: there is one): attack: a hundred thousand small ones in PEM."""
_KEPT_OCTETS = 64 * 1024 * 1024
_KEPT_FOR = timedelta(hours=1)
"""How long a list that was fetched serves other certificates without being fetched again, at most."""


def read_lists(data: bytes) -> tuple[CertificateList, ...]:
    """The lists in a file (PEM or DER); raise InputError where it cannot be read. What is no list is left out."""
    if b"-----BEGIN " in data:
        found = [load_crl(block.data) for block in pem_blocks(data) if block.label == "X509 CRL"]
    else:
        found = [load_crl(data)]
    return tuple(crl for crl in found if crl.readable)


class CrlSource:
    """A `RevocationSource`."""

    name = "crl"

    def __init__(self, settings: RevocationSettings, runtime: Runtime, asking: Asking) -> None:
        self._files = settings.crl_files
        self.local = bool(settings.crl_files)
        """True where there are files: they are looked at before anybody is asked, and when an answer is looked at again."""
        self._runtime = runtime
        self._asking = asking
        self._read: dict[str, tuple[tuple[int, int], tuple[CertificateList, ...]]] = {}
        self._fetched: dict[str, tuple[datetime, tuple[CertificateList, ...]]] = {}

    def addresses(self, request: EvidenceRequest) -> Sequence[str]:
        """Those of http and https."""
        return over_http(request.urls)

    async def evidence(self, request: EvidenceRequest) -> Sequence[Evidence]:
        """Lists that may hold the certificate; none where there is none. Raise Unavailable where its lists cannot be had."""
        if request.kind != "crl":
            return ()
        certificate = load_certificate(request.certificate)
        now = self._runtime.now()
        found: list[Evidence] = []
        error: MailsecError | None = None
        for path in self._files:
            try:
                lists = await self._runtime.in_thread(self._from_file, path)
            except MailsecError as caught:
                error = caught
                continue
            for crl in lists:
                # RFC 5280 §5.2.5: an indirect list speaks of certificates of other issuers.
                if crl.issuer.matches(certificate.issuer) or (crl.distribution_point is not None and crl.distribution_point.indirect):
                    found.append(Evidence("crl", crl.der, path, now))
        points = distribution_points(certificate)
        answered: set[int] = set()
        for url in over_http(request.urls):
            # RFC 5280 §4.2.1.13: the other names of a point lead to the same list.
            places = {index for index, point in enumerate(points) if url in addresses((point,))}
            if places and places <= answered:
                continue
            try:
                lists = await self._from_url(url, now)
            except MailsecError as caught:
                error = caught
                continue
            found += [Evidence("crl", crl.der, url, now) for crl in lists]
            if any(crl.next_update is not None and crl.next_update > now for crl in lists):
                answered |= places
        if error is not None and not found:
            raise Unavailable(error.message, hint=error.hint, stage="revocation")
        return found

    def _from_file(self, path: str) -> tuple[CertificateList, ...]:
        try:
            facts = Path(path).stat()
            version = (facts.st_mtime_ns, facts.st_size)
            known = self._read.get(path)
            if known is not None and known[0] == version:
                return known[1]
            with Path(path).open("rb") as file:
                data = file.read(DEFAULT_LIMITS.fetch_octets * 2)
        except OSError as error:
            raise Unavailable(f"cannot read the list {path}: {error.strerror}", stage="revocation") from None
        lists = read_lists(data)
        self._read[path] = (version, lists)
        return lists

    async def _from_url(self, url: str, now: datetime) -> tuple[CertificateList, ...]:
        known = self._fetched.get(url)
        if known is not None and now < known[0]:
            return known[1]
        lists = read_lists(await self._asking.ask(url))[:_MOST_LISTS]
        if not lists:
            raise Unavailable(f"{url} is no revocation list", stage="revocation")
        ends = [crl.next_update for crl in lists if crl.next_update is not None]
        self._fetched.pop(url, None)
        self._fetched[url] = (min([now + _KEPT_FOR, *ends]), lists)
        while sum(len(crl.der) for _, several in self._fetched.values() for crl in several) > _KEPT_OCTETS:
            del self._fetched[next(iter(self._fetched))]
        return lists
