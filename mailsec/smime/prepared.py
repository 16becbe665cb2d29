"""The entity that is protected, in the form that survives transport (RFC 8551 §3.1), checked and hashed in one pass over it.

The one invariant: the digests are of exactly the octets that `entity` gives each time it is gone over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from mailsec.errors import CryptoError, MimeError
from mailsec.interfaces import CryptoBackend, Hash
from mailsec.mime.canonical import LineCheck, labels_are_proof, span_is_proof, transport_proof_body
from mailsec.mime.multipart import find_boundary
from mailsec.mime.parts import read_parts
from mailsec.model.limits import Limits
from mailsec.model.message import Message
from mailsec.model.octets import BLOCK, BytesOctets, Segments, Slice

__all__ = ["HeaderInside", "Prepared", "hashed", "prepare"]

_SHORT = 512


class HeaderInside(Protocol):
    """Writes the header of what is protected, with its empty line."""

    def __call__(self, *, encoding: str | None = None, ascii_body: bool = True) -> bytes:
        """`encoding` takes the place of the Content-Transfer-Encoding that the message has."""
        ...


class Prepared(NamedTuple):
    """What is signed, and its digests by name."""

    entity: Segments
    digests: dict[str, bytes]
    boundary: str
    """One that does not occur in the entity; "" where nothing is signed."""
    detachable: bool
    """False where it must be wrapped to survive."""


def prepare(
    message: Message,
    header_inside: HeaderInside,
    names: Sequence[str],
    backend: CryptoBackend,
    random: Callable[[int], bytes],
    limits: Limits,
) -> Prepared:
    """Bring the content to its transport-proof form, and hash it: one pass where it is so already."""
    octets = message.octets
    part = read_parts(message, limits)
    header = header_inside()
    start, end = part.body_start, part.end
    header_octets = BytesOctets(header)
    # RFC 8551 §3.1.3: what is 7-bit with short lines is signed as it stands.
    whole = Segments((header, Slice(octets, start, end)))
    if _header_survives(header) and labels_are_proof(part):
        check = LineCheck()
        found = _hashed(whole, names, backend, random, check, header_octets)
        if check.end():
            return found
    try:
        if not _header_survives(header):
            raise MimeError("the content's header is not transport-proof", stage="canonical")
        body, encoding = transport_proof_body(octets, part)
    except MimeError:
        # RFC 8551 §3.1: what may not be changed and would not survive is wrapped, where nothing can touch it.
        return _hashed(whole, names, backend, random, None, header_octets)._replace(detachable=False)
    header = header_inside(encoding=encoding, ascii_body=encoding is None or encoding == "7bit")
    return hashed(Segments((header, *body.pieces)), names, backend, random)


def hashed(entity: Segments, names: Sequence[str], backend: CryptoBackend, random: Callable[[int], bytes]) -> Prepared:
    """An entity that survives transport as it is, hashed, with a boundary for it."""
    return _hashed(entity, names, backend, random, None, BytesOctets(b""))


def _header_survives(header: bytes) -> bool:
    """Whether no relay has a reason to touch it. Most messages have one of few headers."""
    return _known_header_survives(header) if len(header) <= _SHORT else _any_header_survives(header)


def _any_header_survives(header: bytes) -> bool:
    """Blanks at the ends of folded lines are left alone by relays; everything else must be proof."""
    proof = b"\r\n".join([line.rstrip(b" \t") for line in header.split(b"\r\n")]) if b" \r\n" in header or b"\t\r\n" in header else header
    return span_is_proof(BytesOctets(proof), 0, len(proof))


_known_header_survives = lru_cache(maxsize=256)(_any_header_survives)


def _hashed(
    entity: Segments,
    names: Sequence[str],
    backend: CryptoBackend,
    random: Callable[[int], bytes],
    check: LineCheck | None,
    header: BytesOctets,
) -> Prepared:
    """Hash the entity, check its body's lines, and see that the boundary does not occur in it, in one go over its blocks."""
    for name in names:
        if not name:
            raise CryptoError("a signer without a digest")
    if len(entity) <= BLOCK:
        return _hashed_at_once(entity, names, backend, random, check, len(header))
    running: list[Hash] = [backend.hash(name) for name in names]
    drawn: list[bytes] = []

    def first(mark: bytes) -> bool:
        """Go over the octets with the first boundary that was drawn; only if it occurs, which chance forbids, over them again."""
        if drawn:
            return _occurs(entity, mark)
        drawn.append(mark)
        found = False
        last = b""
        skip = len(header)
        for block in entity:
            data = bytes(block)
            for digest in running:
                digest.update(data)
            if check is not None and check.ok:
                if skip:  # the header comes as one block of its own, and was checked
                    skip -= len(data)
                else:
                    check.update(data)
            found = found or mark in data or mark in last + data[: len(mark)]
            last = data[-len(mark) :]
        return found

    boundary = find_boundary(random, first)
    return Prepared(entity, {name: digest.digest() for name, digest in zip(names, running, strict=True)}, boundary, True)


def _hashed_at_once(
    entity: Segments, names: Sequence[str], backend: CryptoBackend, random: Callable[[int], bytes], check: LineCheck | None, header: int
) -> Prepared:
    """The same for an entity that is one block."""
    data = entity.join()
    if check is not None:
        check.update(memoryview(data)[header:])
    digests: dict[str, bytes] = {}
    for name in names:
        running = backend.hash(name)
        running.update(data)
        digests[name] = running.digest()
    boundary = find_boundary(random, lambda mark: mark in data) if names else ""
    return Prepared(Segments((data,)), digests, boundary, True)


def _occurs(entity: Segments, mark: bytes) -> bool:
    last = b""
    for block in entity:
        data = last + bytes(block)
        if mark in data:
            return True
        last = data[-len(mark) :]
    return False
