"""How a row is encrypted at rest: AES-256-GCM in chunks, each row under a key of its own (promise 2).

    sealed = %x01 salt(16) chunk(0) chunk(1) ... chunk(n)
    key    = HKDF-SHA256(data key, salt, "mailsec spool" || context)                                            RFC 5869
    chunk  = AES-256-GCM(key, nonce = counter(11 octets) || last(1 octet), 64 KiB of clear octets)              SP 800-38D

The salt makes the key unique for each sealing, so counters may be nonces. `context` names the row and the part ("body",
"private"), so no sealed octets can stand in another's place; the last octet of the nonce marks the end, so none can be cut off
(the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár). Chunks can be opened alone: large bodies need no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mailsec.errors import StoreError, Tampered
from mailsec.model.octets import Octets
from mailsec.store.scratch import WindowedOctets

__all__ = ["SealedOctets", "Sealer"]

_VERSION = b"\x01"
_SALT = 16
_HEAD = 1 + _SALT
_CHUNK = 64 * 1024
_TAG = 16


class Sealer:
    """Seals and opens with the data key. Its `repr` shows nothing."""

    __slots__ = ("_data_key", "_random")

    def __init__(self, data_key: bytes | None, random: Callable[[int], bytes]) -> None:
        self._data_key = data_key
        self._random = random

    def __repr__(self) -> str:
        return "<Sealer>"

    def _cipher(self, context: str, salt: bytes) -> AESGCM:
        if self._data_key is None:
            raise StoreError("the spool is locked: there is no data key", hint="give the pass phrase of the database")
        info = b"mailsec spool\0" + context.encode("utf-8", "surrogateescape")
        return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(self._data_key))

    def seal(self, context: str, octets: Iterable[bytes | memoryview]) -> Iterator[bytes]:
        """Yield `octets` sealed, piece by piece; empty octets too are one chunk, so that they are authenticated."""
        salt = self._random(_SALT)
        cipher = self._cipher(context, salt)
        yield _VERSION + salt
        pending = bytearray()
        number = 0
        for piece in octets:
            pending += piece
            if len(pending) > _CHUNK:
                # The last chunk is marked: one is always kept back until it is known to be the last.
                whole = (len(pending) - 1) // _CHUNK * _CHUNK
                view = bytes(memoryview(pending)[:whole])
                del pending[:whole]
                for start in range(0, whole, _CHUNK):
                    yield cipher.encrypt(_nonce(number, last=False), view[start : start + _CHUNK], None)
                    number += 1
        yield cipher.encrypt(_nonce(number, last=True), bytes(pending), None)

    def seal_small(self, context: str, octets: bytes) -> bytes:
        """Return `octets` sealed, in one piece."""
        return b"".join(self.seal(context, (octets,)))

    def open(self, context: str, sealed: Octets) -> SealedOctets:
        """The clear octets behind `sealed`; they are decrypted and checked as they are read."""
        head = bytes(sealed.view(0, _HEAD))
        if len(head) < _HEAD or head[:1] != _VERSION:
            raise Tampered("a sealed row of the spool does not begin as one")
        return SealedOctets(self._cipher(context, head[1:]), sealed)

    def open_small(self, context: str, sealed: Octets) -> bytes:
        """The clear octets behind `sealed`, checked, in one piece."""
        return b"".join(self.open(context, sealed).blocks())


class SealedOctets(WindowedOctets):
    """Clear octets over sealed ones. Every read opens whole chunks, so nothing unchecked is ever returned; raises Tampered."""

    __slots__ = ("_chunk", "_cipher", "_sealed")

    def __init__(self, cipher: AESGCM, sealed: Octets) -> None:
        chunks = -(-(len(sealed) - _HEAD) // (_CHUNK + _TAG))
        super().__init__(max(0, len(sealed) - _HEAD - chunks * _TAG))
        self._cipher = cipher
        self._sealed = sealed
        self._chunk = (-1, b"")
        if chunks < 1 or len(sealed) - _HEAD - (chunks - 1) * (_CHUNK + _TAG) < _TAG:
            raise Tampered("a sealed row of the spool was cut off")
        # Cutting at the border of a chunk would show only at its end: look at the last chunk first.
        self._open_chunk(chunks - 1)

    def _open_chunk(self, number: int) -> bytes:
        held, clear = self._chunk
        if held == number:
            return clear
        start = _HEAD + number * (_CHUNK + _TAG)
        end = start + _CHUNK + _TAG
        try:
            clear = self._cipher.decrypt(_nonce(number, last=end >= len(self._sealed)), bytes(self._sealed.view(start, end)), None)
        except InvalidTag:
            raise Tampered("a row of the spool was changed, or sealed under another key") from None
        self._chunk = (number, clear)
        return clear

    def _read(self, start: int, end: int) -> bytes:
        first, last = start // _CHUNK, (end - 1) // _CHUNK
        if first == last:
            return self._open_chunk(first)[start - first * _CHUNK : end - first * _CHUNK]
        clear = b"".join(self._open_chunk(number) for number in range(first, last + 1))
        return clear[start - first * _CHUNK : end - first * _CHUNK]


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\0")
