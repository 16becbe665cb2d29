"""CompressedData (RFC 3274): content deflated by zlib, read under limits and written.

Invariant: what comes out of `decompress` is at most `limits.decompressed_octets`, and at most `limits.decompressed_ratio` times what
went in (beyond a first 64 KiB): a bomb costs no more than its limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

from mailsec.asn1 import writer
from mailsec.asn1.reader import INTEGER, SEQUENCE
from mailsec.asn1.stream import StringSpan, Walker
from mailsec.asn1.values import read_oid
from mailsec.cms.signed import ID_DATA
from mailsec.errors import Asn1Error, CmsError, LimitExceeded
from mailsec.interfaces import Scratch
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.octets import BLOCK, Octets, Segments, octets_of

__all__ = ["ID_COMPRESSED_DATA", "compress", "decompress", "read_compressed_data"]

ID_COMPRESSED_DATA: Final = "1.2.840.113549.1.9.16.1.9"
_ZLIB: Final = "1.2.840.113549.1.9.16.3.8"
_GRACE: Final = 64 * 1024


def read_compressed_data(octets: Octets | bytes, start: int = 0, end: int | None = None, *, limits: Limits = DEFAULT_LIMITS) -> StringSpan:
    """The compressed content of the ContentInfo at [start, end); raise CmsError for what is none."""
    walker = Walker(octets_of(octets), start, end, limits=limits)
    try:
        walker.enter(SEQUENCE, "ContentInfo")
        content_type = read_oid(walker.take("contentType"))
        if content_type != ID_COMPRESSED_DATA:
            raise CmsError(f"content type {content_type} where compressed data is expected")
        walker.enter(0xA0, "content")
        walker.enter(SEQUENCE, "CompressedData")
        walker.take("version").expect(INTEGER, "version")
        algorithm = read_oid(walker.take("compressionAlgorithm").expect(SEQUENCE, "compressionAlgorithm").children()[0])
        if algorithm != _ZLIB:
            raise CmsError(f"compression algorithm {algorithm} is not known")
        walker.enter(SEQUENCE, "encapContentInfo")
        walker.take("eContentType")
        walker.enter(0xA0, "eContent")
        return walker.string()
    except (Asn1Error, IndexError) as error:
        raise CmsError(f"CompressedData: {error}") from None


def decompress(content: StringSpan, scratch: Callable[[], Scratch], *, limits: Limits = DEFAULT_LIMITS) -> Octets:
    """Inflate into a scratch and seal it; CmsError for a broken stream, LimitExceeded for a bomb."""
    target = scratch()
    try:
        _inflate(content, target, limits)
    except BaseException:
        target.discard()
        raise
    return target.seal()


def _inflate(content: StringSpan, target: Scratch, limits: Limits) -> None:
    inflater = zlib.decompressobj()
    taken = given = 0

    def inflate(piece: bytes | memoryview) -> bytes:
        nonlocal given
        plain = inflater.decompress(piece, BLOCK)
        given += len(plain)
        if given > limits.decompressed_octets:
            raise LimitExceeded("decompressed_octets", f"more than {limits.decompressed_octets} octets of compressed content")
        if given > _GRACE + limits.decompressed_ratio * taken:
            raise LimitExceeded("decompressed_ratio", f"content compressed more than {limits.decompressed_ratio} times")
        target.append(plain)
        return plain

    try:
        for block in content.blocks():
            view = memoryview(block)
            for start in range(0, len(view), _GRACE):
                piece: bytes | memoryview = view[start : start + _GRACE]
                taken += len(piece)
                while piece and not inflater.eof:
                    inflate(piece)
                    piece = inflater.unconsumed_tail
        # What the last call had no room for.
        while not inflater.eof and inflate(b""):
            pass
    except zlib.error:
        raise CmsError("compressed content that is broken") from None
    if not inflater.eof:
        raise CmsError("compressed content that is cut off")


def compress(content: Segments, scratch: Callable[[], Scratch], *, level: int = 6) -> Segments:
    """A CompressedData (definite-length DER) of `content`, which is deflated into a scratch first, as its length must be known."""
    target = scratch()
    deflater = zlib.compressobj(level)
    for block in content:
        target.append(deflater.compress(block))
    target.append(deflater.flush())
    body = target.seal()
    size = len(body)
    head = writer.header(0x04, size)
    head = writer.oid(ID_DATA) + writer.header(0xA0, len(head) + size) + head
    head = writer.header(0x30, len(head) + size) + head
    head = writer.integer(0) + writer.sequence(writer.oid(_ZLIB)) + head
    for tag in (0x30, 0xA0):
        head = writer.header(tag, len(head) + size) + head
    head = writer.oid(ID_COMPRESSED_DATA) + head
    head = writer.header(0x30, len(head) + size) + head
    return Segments((head, Segments.of(body)))
