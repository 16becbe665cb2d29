"""Canonical forms of header fields and bodies (RFC 6376 §3.4), in blocks: a body is never in memory as a whole.

The one invariant: however a body is cut into blocks, its form and so its digest is the same; time is linear, and what is kept between two
blocks is a number and at most two octets.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

__all__ = ["BodyDigest", "digest_bodies", "relaxed_field", "simple_field"]

_BLANKS = re.compile(rb"[ \t]+")
_CRLFS = b"\r\n" * 4096


def simple_field(raw: bytes) -> bytes:
    """RFC 6376 §3.4.1: as it is."""
    return raw


def relaxed_field(raw: bytes) -> bytes:
    """RFC 6376 §3.4.2: the name in lower case, unfolded, runs of blanks one blank, none at the end or around the colon; with its CRLF."""
    name, _, value = raw.partition(b":")
    plain = _BLANKS.sub(b" ", value.replace(b"\r\n", b"")).strip(b" ")
    return name.rstrip(b" \t").lower() + b":" + plain + b"\r\n"


class BodyDigest:
    """SHA-256 of the canonical form of a body, or of its first `limit` octets (the l= tag); `length` is that of the whole form."""

    def __init__(self, *, relaxed: bool, limit: int | None = None) -> None:
        self.length = 0
        self._relaxed = relaxed
        self._limit = limit
        self._digest = hashlib.sha256()
        self._held = b""
        self._pairs = 0

    def update(self, block: bytes | memoryview) -> None:
        """The next octets of the body."""
        data = self._held + bytes(block)
        if self._relaxed:
            # RFC 6376 §3.4.4. First runs, then line ends: a pattern for both at once would be quadratic in a run of blanks.
            if b" " in data or b"\t" in data:
                data = _one_blank(data).replace(b" \r\n", b"\r\n")
            keep = len(data) - (2 if data.endswith(b" \r") else 1 if data.endswith((b" ", b"\r")) else 0)
        else:
            keep = len(data) - data.endswith(b"\r")
        self._held = data[keep:]
        self._take(data[:keep])

    def digest(self) -> bytes:
        """The end of the body has come."""
        rest, self._held = self._held, b""
        self._take(rest if rest != b" " or not self._relaxed else b"")
        # RFC 6376 §3.4.3, §3.4.4: empty lines at the end are ignored, and one CRLF ends a body; none an empty one that is relaxed
        if self.length or not self._relaxed:
            self._add(b"\r\n")
        return self._digest.digest()

    def _take(self, data: bytes) -> None:
        """Octets with their line ends, of which those at the end wait: they count only where something follows."""
        pairs = _pairs_at_end(data)
        kept = data[: len(data) - 2 * pairs]
        if kept:
            while self._pairs:
                count = min(self._pairs, 4096)
                self._add(_CRLFS[: 2 * count])
                self._pairs -= count
            self._add(kept)
        self._pairs += pairs

    def _add(self, data: bytes) -> None:
        if self._limit is not None and self.length + len(data) > self._limit:
            self._digest.update(data[: max(0, self._limit - self.length)])
        else:
            self._digest.update(data)
        self.length += len(data)


def _one_blank(data: bytes) -> bytes:
    """Each run of blanks and tabs as one blank. Halving runs is twenty times faster than a pattern in text, and a run of n takes log n passes."""
    data = data.replace(b"\t", b" ")
    while b"  " in data:
        data = data.replace(b"  ", b" ")
    return data


def _pairs_at_end(data: bytes) -> int:
    """How many CRLFs stand at the end. A bare CR or LF is no line end (RFC 6376 §5.3)."""
    run = len(data) - len(data.rstrip(b"\r\n"))
    if not run % 2 and data.endswith(b"\r\n" * (run // 2)):
        return run // 2
    count = 0
    while data.endswith(b"\r\n", 0, len(data) - 2 * count):
        count += 1
    return count


def digest_bodies(blocks: Iterable[bytes | memoryview], digests: Iterable[BodyDigest]) -> list[bytes]:
    """One pass over a body for several digests."""
    all_of_them = list(digests)
    for block in blocks:
        for one in all_of_them:
            one.update(block)
    return [one.digest() for one in all_of_them]
