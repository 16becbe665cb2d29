"""A DKIM-Signature field for what leaves (RFC 6376 §5), over the segments as they leave: S/MIME, Received and all.

The one invariant: the value is signed in the form that survives folding ("relaxed"), with b= as its last tag, so that whoever writes the
field may fold it at its blanks.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mailsec.errors import CryptoError, LimitExceeded
from mailsec.interfaces import KeyHandle, Runtime
from mailsec.mime.index import index_message
from mailsec.model.limits import Limits
from mailsec.model.mechanism import SignatureMechanism
from mailsec.model.message import Message
from mailsec.model.octets import BytesOctets, Segments
from mailsec_dkim.canonical import BodyDigest, digest_bodies
from mailsec_dkim.signed_data import header_data

__all__ = ["FIELD", "Form", "body_hash", "header_of", "mechanism_of", "signature_value"]

FIELD = "DKIM-Signature"
_NAMES_A_LINE = 60


@dataclass(frozen=True, slots=True)
class Form:
    """How signatures are made."""

    headers: tuple[str, ...]
    """Fields that are signed where they are there."""
    oversigned: tuple[str, ...]
    """Fields of which one more is signed than there is: nobody can add another (RFC 6376 §8.15)."""
    relaxed_body: bool
    expire_seconds: int


def mechanism_of(handle: KeyHandle) -> tuple[str, SignatureMechanism]:
    """The algorithm that a key signs with. Raise CryptoError for a kind of key that DKIM does not have."""
    if handle.key_type == "ed25519":
        return "ed25519-sha256", SignatureMechanism("ed25519")
    if handle.key_type == "rsa":
        return "rsa-sha256", SignatureMechanism("rsassa-pkcs1-v1_5", "sha256")
    raise CryptoError(f"key {handle.name} is of the type {handle.key_type}: DKIM has rsa and ed25519", hint="make another key for DKIM")


def header_of(segments: Segments, limits: Limits) -> Message:
    """The header of what leaves, indexed. Raise LimitExceeded."""
    found = bytearray()
    for piece in segments:
        searched = max(0, len(found) - 3)
        found += piece
        end = found.find(b"\r\n\r\n", searched)
        if end >= 0 or len(found) > limits.header_octets + 4:
            break
    else:
        end = -1
    if end < 0 and len(found) > limits.header_octets + 4:
        raise LimitExceeded("header_octets", "the header is too long", stage="dkim")
    return index_message(BytesOctets(bytes(found if end < 0 else found[: end + 4])), limits)


async def body_hash(segments: Segments, start: int, runtime: Runtime, limits: Limits, *, relaxed: bool) -> bytes:
    """The digest of what stands behind `start`, in a thread where it is large."""

    def compute() -> bytes:
        return digest_bodies(_behind(segments, start), [BodyDigest(relaxed=relaxed)])[0]

    return await runtime.in_thread(compute, lane="bulk") if len(segments) > limits.bulk_threshold else compute()


async def signature_value(header: Message, digest: bytes, handle: KeyHandle, *, domain: str, selector: str, form: Form, now: int) -> str:
    """The value of the field. Raise KeyUnavailable, CryptoError."""
    algorithm, mechanism = mechanism_of(handle)
    names = list(_names(header, form))
    tags = [
        "v=1",
        f"a={algorithm}",
        f"c=relaxed/{'relaxed' if form.relaxed_body else 'simple'}",
        f"d={domain}",
        f"s={selector}",
        f"t={now}",
        *([f"x={now + form.expire_seconds}"] if form.expire_seconds else []),
        f"h={_in_lines(names)}",
        f"bh={base64.b64encode(digest).decode('ascii')}",
        "b=",
    ]
    value = "; ".join(tags)
    data = header_data(header, names, f"{FIELD}: {value}\r\n".encode("ascii"), relaxed=True)
    if algorithm == "ed25519-sha256":
        data = hashlib.sha256(data).digest()
    text = base64.b64encode(await handle.sign(mechanism, data)).decode("ascii")
    return value + " ".join(text[at : at + 64] for at in range(0, len(text), 64))


def _names(header: Message, form: Form) -> Iterator[str]:
    """What h= names: each field as often as it is there, and the oversigned ones once more."""
    there: dict[str, int] = {}
    for field in header.fields:
        there[field.name] = there.get(field.name, 0) + 1
    for name in dict.fromkeys((*form.headers, *form.oversigned)):
        for _ in range(there.get(name, 0) + (name in form.oversigned)):
            yield name


def _in_lines(names: Sequence[str]) -> str:
    """Names with colons, and a blank where a line may end (RFC 6376 §3.5: h= may be folded around colons)."""
    lines = [""]
    for name in names:
        if lines[-1] and len(lines[-1]) + len(name) > _NAMES_A_LINE:
            lines.append("")
        lines[-1] += f"{name}:"
    return " ".join(lines).removesuffix(":")


def _behind(segments: Segments, start: int) -> Iterator[bytes | memoryview]:
    at = 0
    for piece in segments:
        if at + len(piece) > start:
            yield piece if at >= start else memoryview(piece)[start - at :]
        at += len(piece)
