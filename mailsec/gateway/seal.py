"""The seal on what this gateway delivers: `X-Mailsec-Seal`, an HMAC over what a reader is shown and over the verdict.

A message that comes back out of a mailbox is believed to bear our verdict only where every covered field is the octets that left us, in
the order in which they left us, and none was added: From, Sender, Reply-To, To, Cc, Date, Subject, MIME-Version, every Content-* field,
every result of ours; and the body, but for empty lines at its end. Nothing is folded or unfolded: whitespace that one program may change
is whitespace that moves a boundary. What delivery adds (Received, Return-Path, Delivered-To, X- fields) is not covered and breaks nothing.

The one invariant: a seal is believed on `mailbox` only, and only if it is the one seal, of a key that is in force, over exactly this.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from mailsec.interfaces import Runtime, SealKeys
from mailsec.mime.index import disguised_name, index_message
from mailsec.mime.results import forged_results
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import HeaderField, Message
from mailsec.model.octets import BytesOctets, Segments
from mailsec.model.seal import SealKey

__all__ = ["FIELD", "SealReading", "is_seal", "read_seal", "seal_fields", "sealed"]

FIELD: Final = "X-Mailsec-Seal"
_NAME: Final = FIELD.lower()
_COVERED: Final = frozenset({"from", "sender", "reply-to", "to", "cc", "date", "subject", "mime-version"})
_VALUE: Final = re.compile(rb"[ \t]*v=1; t=([0-9]{1,12}); k=([0-9a-f]{16}); b=([A-Za-z0-9+/]{43}=)[ \t]*\r\n\Z")
_LABEL: Final = b"mailsec seal 1"
_SKEW: Final = timedelta(minutes=10)
"""How far ahead the clock of another worker's machine may be."""


@dataclass(frozen=True, slots=True)
class SealReading:
    """What the seals of a message are worth."""

    valid: bool
    reason: str = ""
    """Why not; "" where there is none."""
    at: datetime | None = None
    """When it was sealed, as a valid seal says."""


NO_SEAL: Final = SealReading(False)


def is_seal(message: Message, one: HeaderField) -> bool:
    """True for a seal, and for a line that a careless reader may take for one."""
    return one.name == _NAME or (not one.name and disguised_name(message.octets, one) == _NAME)


def seal_fields(message: Message) -> tuple[HeaderField, ...]:
    """All seals of a message, whoever wrote them."""
    return tuple([one for one in message.fields if is_seal(message, one)])


def sealed(segments: Segments, key: SealKey, at: datetime, authserv_id: str, limits: Limits = DEFAULT_LIMITS) -> Segments:
    """`segments`, a whole message as it leaves, with a seal on top; as they are where their header could be read in two ways."""
    header = _header_of(segments, limits)
    message = index_message(BytesOctets(header), limits)
    covered = _covered(message, authserv_id)
    if covered is None:
        return segments
    instant = b"%d" % int(at.timestamp())
    digest = _body_digest(_behind(segments, message.body_start))
    mac = base64.b64encode(_mac(key, instant, covered, digest))
    return Segments((b"%s: v=1; t=%s; k=%s; b=%s\r\n" % (FIELD.encode(), instant, key.id.encode(), mac), *segments.pieces))


async def read_seal(message: Message, keys: SealKeys, runtime: Runtime, authserv_id: str, limits: Limits = DEFAULT_LIMITS) -> SealReading:
    """Whether the message is as we sealed it. Costs one pass over a body only where a key of ours is named."""
    seals = seal_fields(message)
    if not seals:
        return NO_SEAL
    if len(seals) > 1:
        # Attack: a seal of another message beside the own one, for whoever looks at the last or at the first.
        return SealReading(False, "more than one seal")
    match = _VALUE.match(bytes(message.octets.view(seals[0].value_start, seals[0].end))) if seals[0].name else None
    if match is None:
        return SealReading(False, "a seal that we do not write")
    key = await keys.find(match[2].decode("ascii"))
    if key is None:
        return SealReading(False, "a seal with a key that is not known here")
    arguments = message, key, match[1], match[3], runtime.now(), authserv_id
    if len(message.octets) <= limits.bulk_threshold:
        return _check(*arguments)
    return await runtime.in_thread(_check, *arguments, lane="bulk")


def _check(message: Message, key: SealKey, instant: bytes, text: bytes, now: datetime, authserv_id: str) -> SealReading:
    try:
        mac = binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return SealReading(False, "a seal that we do not write")
    covered = _covered(message, authserv_id)
    if covered is None:
        return SealReading(False, "a sealed message whose header can be read in two ways")
    octets = message.octets
    digest = _body_digest(octets.blocks(message.body_start, len(octets)))
    if not hmac.compare_digest(mac, _mac(key, instant, covered, digest)):
        return SealReading(False, "a seal of another message, or one of a message that was changed since")
    at = datetime.fromtimestamp(int(instant), UTC)
    if now >= key.retires_at:
        return SealReading(False, "a seal with a key that is no longer believed", at)
    if not key.created_at - _SKEW <= at <= now + _SKEW:
        return SealReading(False, "a seal from a time at which its key was not used", at)
    return SealReading(True, at=at)


def _covered(message: Message, authserv_id: str) -> list[bytes] | None:
    """The covered fields as they stand; None where a line is no field, and somebody may take it for one of these."""
    # The results that a reader could take for ours are those that `strip` would take away.
    results = frozenset(forged_results(message, authserv_id, method="smime").remove)
    found = []
    for one in message.fields:
        if not one.name:
            return None
        if one.name in _COVERED or one.name.startswith("content-") or one in results:
            found.append(message.raw(one))
    return found


def _mac(key: SealKey, instant: bytes, covered: Iterable[bytes], body: bytes) -> bytes:
    pieces = (_LABEL, instant, key.id.encode("ascii"), *covered, body)
    # Lengths stand before what they count: no two lists of fields give the same octets.
    return hmac.digest(key.secret, b"".join([b"%d:%b" % (len(piece), piece) for piece in pieces]), "sha256")


def _body_digest(blocks: Iterable[bytes | memoryview]) -> bytes:
    """SHA-256 of the body without the CRLFs at its end: some programs add one there, and some take them away."""
    digest = hashlib.sha256()
    held = 0
    rest = b""
    for block in blocks:
        data = rest + bytes(block)
        # A CR may be the first half of a CRLF that goes on in the next block.
        rest = b"\r" if data.endswith(b"\r") else b""
        kept = len(data) - len(rest)
        kept -= 2 * (pairs := _pairs_before(data, kept))
        if kept:
            _line_ends(digest, held)
            digest.update(memoryview(data)[:kept])
            held = 0
        held += pairs
    if rest:
        _line_ends(digest, held)
        digest.update(rest)
    return digest.digest()


def _pairs_before(data: bytes, end: int) -> int:
    """How many CRLFs stand at the end of data[:end]."""
    run = end - len(data[:end].rstrip(b"\r\n"))
    if not run % 2 and data[end - run : end] == b"\r\n" * (run // 2):
        return run // 2
    pairs = 0
    while data.endswith(b"\r\n", 0, end - 2 * pairs):
        pairs += 1
    return pairs


def _line_ends(digest: Any, number: int) -> None:
    """So many CRLFs, which may be a whole body, without having them all in memory."""
    while number > 0:
        digest.update(b"\r\n" * min(number, 4096))
        number -= 4096


def _header_of(segments: Segments, limits: Limits) -> bytes:
    """The octets up to the end of the header, and perhaps a few more."""
    found = bytearray()
    for piece in segments:
        found += piece
        if b"\r\n\r\n" in found or len(found) > limits.header_octets + 4:
            break
    end = found.find(b"\r\n\r\n")
    return bytes(found if end < 0 else found[: end + 4])


def _behind(segments: Segments, start: int) -> Iterator[bytes | memoryview]:
    """The octets from `start` on."""
    at = 0
    for piece in segments:
        if at + len(piece) > start:
            yield piece if at >= start else memoryview(piece)[start - at :]
        at += len(piece)
