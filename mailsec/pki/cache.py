"""Paths that were found, kept until the first of their certificates or of the evidence about them ends.

Only accepted answers are kept: a refusal may be mended by the next message, which brings the certificate that was missing. Invariant: an
answer is given again only for the same certificate, purpose, anchors, options and evidence, at an instant between the one at which it was
found and its end.
"""

from __future__ import annotations

from datetime import datetime

from mailsec.pki.anchors import AnchorSet
from mailsec.pki.evidence import RevocationEvidence
from mailsec.pki.ocsp import OcspRules
from mailsec.pki.result import PathOptions, PathResult
from mailsec.x509.certificate import Certificate

__all__ = ["PathCache"]

Context = tuple[AnchorSet, PathOptions, RevocationEvidence | None, OcspRules | None]
"""What an answer depends on besides the certificate and the purpose; told apart as objects."""


class PathCache:
    """A bounded memory of accepted paths, the least recently used going first. One for each worker."""

    __slots__ = ("_kept", "_most")

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._kept: dict[tuple[object, ...], tuple[datetime, datetime, PathResult, Context]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, certificate: Certificate, purpose: str, context: Context, at: datetime) -> PathResult | None:
        """The answer, where it is known and holds at the instant."""
        key = (certificate.fingerprint, purpose, *map(id, context))
        known = self._kept.get(key)
        if known is None:
            return None
        found_at, until, result, _ = known
        if not found_at <= at <= until:
            if at > until:
                del self._kept[key]
            return None
        # Used last, forgotten last.
        self._kept[key] = self._kept.pop(key)
        return result

    def put(self, result: PathResult, purpose: str, context: Context, at: datetime) -> None:
        """Keep an accepted answer."""
        if not result.accepted or result.valid_until is None:
            return
        # The objects are kept with the answer, so that no other can take their place and their number.
        self._kept[result.chain[0].fingerprint, purpose, *map(id, context)] = (at, result.valid_until, result, context)
        if len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]

    def clear(self) -> None:
        """Forget everything: trust was changed."""
        self._kept.clear()
