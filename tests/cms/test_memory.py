"""Large messages over octets that are not in memory: read in small views, in time that grows with their size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from people import AT, person

from mailsec.asn1 import writer
from mailsec.cms.decrypt import open_content
from mailsec.cms.encrypt import encrypt_content
from mailsec.cms.enveloped import read_enveloped_data
from mailsec.cms.sign import opaque, sign_content, signer_for
from mailsec.cms.signed import read_signed_data
from mailsec.cms.verify import verify_signers
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.model.octets import BLOCK, BytesOctets, Segments

BACKEND = SoftwareBackend()
SIZE = 40 * 1024 * 1024
PIECE = bytes(range(256)) * 1024


class Watched:
    """Octets that count the largest view and all octets that were read."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.largest = self.total = 0

    def __len__(self) -> int:
        return len(self.data)

    def view(self, start: int, end: int) -> memoryview:
        piece = memoryview(self.data)[start:end]
        self.largest = max(self.largest, len(piece))
        self.total += len(piece)
        return piece

    def find(self, pattern: bytes, start: int = 0, end: int | None = None) -> int:
        return self.data.find(pattern, start, len(self.data) if end is None else end)

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[memoryview]:
        end = len(self.data) if end is None else min(end, len(self.data))
        for position in range(start, end, BLOCK):
            yield self.view(position, min(position + BLOCK, end))


class Sink:
    """A scratch that keeps a hash only."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.largest = 0

    def append(self, chunk: bytes | memoryview) -> None:
        self.hash.update(chunk)
        self.largest = max(self.largest, len(chunk))

    def __len__(self) -> int:
        return 0

    def seal(self) -> BytesOctets:
        return BytesOctets(self.hash.digest())

    def discard(self) -> None:
        pass


def pieces() -> Iterator[bytes]:
    for _ in range(SIZE // len(PIECE)):
        yield PIECE


CONTENT = Segments.produced(SIZE, pieces)
DIGEST = hashlib.sha256(CONTENT.join()).digest()


@pytest.mark.parametrize("chunk", [0, 1000, 4096])
def test_a_large_opaque_message_is_verified_in_small_views(chunk):
    signer = signer_for(person("p256"))
    info = run_now(sign_content(signer, DIGEST, at=AT))
    cms = opaque(CONTENT, [signer], [info]).join()
    if chunk:
        # The same in pieces of indefinite length, as OpenSSL (4096) and BouncyCastle (1000) write it.
        signed = read_signed_data(cms)
        start, end = signed.content.start, signed.content.end
        body = CONTENT.join()
        chunks = b"".join([writer.octet_string(body[at : at + chunk]) for at in range(0, SIZE, chunk)])
        head = b"\x30\x80" + writer.oid("1.2.840.113549.1.7.2") + b"\xa0\x80\x30\x80" + writer.integer(1)
        head += (
            writer.set_of(bytes.fromhex("300b0609608648016503040201"))
            + b"\x30\x80"
            + writer.oid("1.2.840.113549.1.7.1")
            + b"\xa0\x80\x24\x80"
        )
        cms = head + chunks + b"\0\0" * 3 + cms[end:] + b"\0\0" * 3
        assert start < end
    octets = Watched(cms)
    signed = read_signed_data(octets)
    (result,) = verify_signers(signed, None, backend=BACKEND)
    assert result.intact, result.reasons
    assert octets.largest <= BLOCK
    assert octets.total < 2.5 * len(octets)


@pytest.mark.parametrize("cipher", ["aes-256-cbc", "aes-256-gcm"])
def test_a_large_encrypted_message_is_opened_in_small_pieces(cipher):
    import os

    segments = run_now(encrypt_content(CONTENT, [person("p256").certificate], backend=BACKEND, random=os.urandom, cipher=cipher))
    assert max(map(len, segments)) <= 2 * BLOCK
    octets = Watched(segments.join())
    sink = Sink()
    opened = run_now(open_content(read_enveloped_data(octets), [person("p256")], scratch=lambda: sink))
    assert opened.content is not None
    assert opened.content.view(0, 32) == DIGEST
    assert octets.largest <= BLOCK
    assert sink.largest <= 2 * BLOCK
