"""Building paths from a certificate up to an anchor (RFC 4158), the most likely first.

Candidates are found by name and ordered by key identifier and validity. Signatures are checked while a path grows, each pair once, so that
a hostile bag of certificates (CVE-2018-16875 and its like) costs at most the message's budget. Loops end where a name and key come again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from mailsec.interfaces import CryptoBackend
from mailsec.model.trust import Anchor
from mailsec.model.verdict import Reason
from mailsec.pki.anchors import AnchorSet
from mailsec.pki.budget import Budget
from mailsec.pki.signatures import is_signed_by, unchecked_reason
from mailsec.x509.certificate import Certificate

__all__ = ["CertificatePool", "Search"]


class CertificatePool:
    """Certificates that may stand between an end entity and an anchor, found by subject name. None of them is believed."""

    __slots__ = ("_base", "_by_name")

    def __init__(self, certificates: Iterable[Certificate], base: CertificatePool | None = None) -> None:
        """`base`: a pool that is kept, such as that of a database, and is not copied: a message adds its own few."""
        self._base = base
        self._by_name: dict[object, list[Certificate]] = {}
        for certificate in certificates:
            if certificate.readable and certificate not in self.named(key := certificate.subject.key):
                self._by_name.setdefault(key, []).append(certificate)

    def named(self, key: object) -> Sequence[Certificate]:
        """Those whose subject has this `Name.key`."""
        own = self._by_name.get(key, ())
        return own if self._base is None else (*self._base.named(key), *own)

    @property
    def certificates(self) -> tuple[Certificate, ...]:
        """All of them, those of the base first."""
        own = itertools.chain.from_iterable(self._by_name.values())
        return (*(() if self._base is None else self._base.certificates), *own)


class Search:
    """One search for paths. Iterate over `paths()`; afterwards `furthest` says how far it came."""

    __slots__ = ("anchors", "at", "backend", "budget", "dead_end", "pool", "too_long", "unchecked", "wrong_signature")

    def __init__(self, anchors: AnchorSet, pool: CertificatePool, at: datetime, backend: CryptoBackend, budget: Budget) -> None:
        self.anchors = anchors
        self.pool = pool
        self.at = at
        self.backend = backend
        self.budget = budget
        self.dead_end: tuple[Certificate, ...] = ()
        """The longest path that found no issuer."""
        self.wrong_signature: Certificate | None = None
        self.unchecked: Reason | None = None
        """Why nobody can tell whether a named issuer signed."""
        """A certificate whose issuer was there by name, but had not signed it."""
        self.too_long = False
        """True where an issuer was not tried, because the path would have been longer than the limit."""

    def paths(self, certificate: Certificate) -> Iterator[tuple[Anchor, tuple[Certificate, ...]]]:
        """Yield (anchor, path): the end entity first, the anchor's certificate last."""
        own = self.anchors.by_fingerprint.get(certificate.fingerprint)
        if own is not None:
            yield own[0], (certificate,)
        path = [certificate]
        # A stack of iterators instead of recursion: the length of a path is the sender's choice.
        stack = [self._issuers(certificate, path)]
        while stack:
            step = next(stack[-1], None)
            if step is None:
                stack.pop()
                path.pop()
                continue
            anchor, issuer = step
            if anchor is not None:
                yield anchor, (*path, issuer)
                continue
            path.append(issuer)
            stack.append(self._issuers(issuer, path))

    def _issuers(self, certificate: Certificate, path: list[Certificate]) -> Iterator[tuple[Anchor | None, Certificate]]:
        """Issuers of the last certificate of `path` that signed it: anchors first, then the pool."""
        found = False
        named = False
        # A path of `path_length` certificates, the anchor among them, is the longest.
        room = self.budget.limits.path_length - len(path)
        key = certificate.issuer.key
        candidates: list[tuple[int, Anchor | None, Certificate]] = []
        if room >= 1:
            candidates = [(self._rank(certificate, issuer), anchor, issuer) for anchor, issuer in self.anchors.by_name.get(key, ())]
        if room >= 2:
            candidates += [(4 + self._rank(certificate, issuer), None, issuer) for issuer in self.pool.named(key)]
        elif self.pool.named(key):
            self.too_long = True
        if len(candidates) > 1:
            candidates.sort(key=_first)
        for _, anchor, issuer in candidates:
            # RFC 4158 §2.4.1: the same name with the same key again leads nowhere new.
            if any(issuer.spki == other.spki and issuer.subject == other.subject for other in path):
                continue
            named = True
            if not self.budget.spend_candidate():
                break
            if self._signed(certificate, issuer):
                found = True
                yield anchor, issuer
            elif self.budget.exhausted:
                break
            elif self.unchecked is None:
                what = certificate.subject.text or "the certificate"
                self.unchecked = unchecked_reason(certificate.signature_algorithm, issuer.spki, issuer.key, what, self.backend)
        if found:
            return
        if named and self.wrong_signature is None and not self.budget.exhausted:
            self.wrong_signature = certificate
        if len(path) > len(self.dead_end):
            self.dead_end = tuple(path)

    def _signed(self, certificate: Certificate, issuer: Certificate) -> bool:
        # RFC 5280 §6.1.4 (e): a DSA key that inherits its parameters is judged when the whole path is known.
        if issuer.key.type == "dsa" and not issuer.key.parameters:
            return True
        return bool(
            is_signed_by(
                certificate.fingerprint,
                certificate.tbs,
                certificate.signature_algorithm,
                certificate.signature,
                issuer.spki,
                issuer.key,
                self.backend,
                self.budget,
            )
        )

    def _rank(self, certificate: Certificate, issuer: Certificate) -> int:
        """RFC 4158 §3.5: 0 for the likeliest issuer; key identifiers that differ only put it last, as some authorities write wrong ones."""
        rank = 0
        wanted = certificate.authority_key_id
        by_key = wanted is not None and wanted.key_id is not None and issuer.subject_key_id not in (None, wanted.key_id)
        by_serial = wanted is not None and wanted.serial is not None and wanted.serial != issuer.serial
        if by_key or by_serial:
            rank += 2
        if issuer.not_before is None or issuer.not_after is None or not issuer.not_before <= self.at <= issuer.not_after:
            rank += 1
        return rank


def _first(candidate: tuple[int, Anchor | None, Certificate]) -> int:
    return candidate[0]
