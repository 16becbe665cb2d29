"""`cms`: a signer of ours is intact over what was signed and nothing else, and authenticated encryption opens to what was encrypted."""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.cms.compressed import decompress, read_compressed_data
from mailsec.cms.decrypt import open_content
from mailsec.cms.enveloped import read_enveloped_data
from mailsec.cms.signed import read_content_type, read_signed_data
from mailsec.cms.structure import describe
from mailsec.cms.verify import verify_signers
from mailsec.errors import MailsecError
from mailsec.interfaces import run_now
from mailsec.model.limits import Limits
from mailsec.model.octets import BytesOctets
from mailsec.testing.memory import MemoryScratch

from ..world import BACKEND, CONTENT, make_world, vector_files, vector_members
from . import Target

__all__ = ["TARGET"]

_WORDS = ("refused", "described", "broken", "closed", "intact", "opened", "inflated")
_SMALL = Limits(decompressed_octets=1 << 20)


def _signed(octets: BytesOctets) -> str:
    world = make_world()
    signed = read_signed_data(octets)
    ours = (world.alice.certificate, world.rsa.certificate)
    results = verify_signers(signed, None if signed.content is not None else (CONTENT,), backend=BACKEND)
    for result in results:
        assert result.intact or result.reasons, "what is not intact says why"
        if result.intact and result.certificate in ours:
            content = CONTENT if signed.content is None else b"".join(map(bytes, signed.content_blocks()))
            assert content == CONTENT, "intact over what nobody signed"
    return "intact" if any(result.intact for result in results) else "broken"


def _enveloped(octets: BytesOctets) -> str:
    world = make_world()
    opened = run_now(open_content(read_enveloped_data(octets), [world.bob, world.bob_rsa], scratch=MemoryScratch))
    assert (opened.content is None) == bool(opened.reasons), "closed with a reason, or open without one"
    if opened.content is not None and not opened.algorithm.endswith("-cbc"):
        assert bytes(opened.content.view(0, len(opened.content))) == CONTENT, "opened to what nobody encrypted"
    return "closed" if opened.content is None else "opened"


def _compressed(octets: BytesOctets) -> str:
    content = decompress(read_compressed_data(octets), MemoryScratch, limits=_SMALL)
    assert len(content) <= _SMALL.decompressed_octets
    return "inflated"


def check(data: bytes) -> str:
    """Read the octets as every content type."""
    octets = BytesOctets(data)
    words = {"refused"}
    for read in (read_content_type, describe, _signed, _enveloped, _compressed):
        try:
            words.add(str(read(octets)) if read.__name__.startswith("_") else "described")
        except MailsecError:
            continue
    return max(words, key=_WORDS.index)


def seeds() -> Sequence[bytes]:
    """What Alice signed and what is for Bob."""
    world = make_world()
    return [*world.cms, *world.encrypted, world.compressed]


def others() -> Sequence[bytes]:
    """Objects of other programs."""
    objects = vector_files(
        "rfc4134-examples/*.bin", "rustcrypto-cms/*.bin", "nss-smime-interop/**/*.env", "openssl-cms/**/*.cms", most=8_000
    )
    return [*objects, *vector_members("openssl-fuzz-corpora/cms.tar.gz", every=3)]


WORDS = (
    b"\x06\x09*\x86H\x86\xf7\x0d\x01\x07\x02",
    b"\x06\x09*\x86H\x86\xf7\x0d\x01\x07\x03",
    b"\x06\x0b*\x86H\x86\xf7\x0d\x01\x09\x10\x01\x17",
    b"\x06\x09`\x86H\x01e\x03\x04\x01.",
    b"0\x80",
    b"$\x80",
    b"\xa0\x80",
    b"\x00\x00",
    b"1\x00",
)
TARGET = Target("cms", check, seeds, others, WORDS, frozenset({"broken", "closed", "intact", "opened"}), 5_000, 40)
