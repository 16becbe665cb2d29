"""Content ciphers over blocks: AES in CBC, GCM and CCM, and for reading triple DES and RC2.

Encryption produces exactly the length that was announced; decryption writes into a `Scratch` and says at the end whether it holds.
Invariant: nothing that was decrypted is readable before tag or padding were right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers import algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM

from mailsec.algorithms.ciphers import Cipher, CipherParameters
from mailsec.cms import rc2
from mailsec.errors import CryptoError
from mailsec.interfaces import Scratch
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.octets import BLOCK, Segments

__all__ = ["decrypt_into", "encrypt", "encrypted_length", "most_octets"]

_RC2_OCTETS: Final = 1024 * 1024
"""Octets of content that RC2 is read for: about two seconds of computing."""
_BLOCK_CIPHERS: Final[dict[str, Any]] = {"aes": algorithms.AES, "3des": TripleDES}


def most_octets(cipher: Cipher, limits: Limits = DEFAULT_LIMITS) -> int | None:
    """Octets of content up to which a cipher is read; None for as many as a message may have."""
    if cipher.mode == "ccm":
        # The whole content at once, and its length first.
        return limits.whole_content_octets
    return _RC2_OCTETS if cipher.algorithm == "rc2" else None


def encrypted_length(cipher: Cipher, length: int) -> int:
    """Octets of the encrypted content, the tag (which stands elsewhere) left out."""
    # RFC 5652 §6.3: CBC pads with 1 to a block's octets.
    return length + 16 - length % 16 if cipher.mode == "cbc" else length


def encrypt(
    cipher: Cipher, key: bytes, nonce: bytes, content: Iterable[bytes | memoryview], *, associated: bytes = b""
) -> Iterator[bytes | memoryview]:
    """The encrypted content in pieces; for GCM the last piece is the tag of 16 octets."""
    if cipher.mode == "gcm":
        if isinstance(content, Segments) and len(content) <= BLOCK:
            # In one call: half the time for a small message.
            sealed = AESGCM(key).encrypt(nonce, content.join(), associated)
            yield sealed[:-16]
            yield sealed[-16:]
            return
        encryptor: Any = BlockCipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()
        if associated:
            encryptor.authenticate_additional_data(associated)
        for block in content:
            for piece in _cut(block):
                yield encryptor.update(piece)
        yield encryptor.finalize()
        yield encryptor.tag
        return
    if cipher.mode != "cbc" or cipher.legacy:
        raise CryptoError(f"{cipher.name} is not written")
    encryptor = BlockCipher(algorithms.AES(key), modes.CBC(nonce)).encryptor()
    if isinstance(content, Segments) and len(content) <= BLOCK:
        padding = 16 - len(content) % 16
        yield encryptor.update(b"".join((*content, bytes((padding,)) * padding)))
        return
    length = 0
    for block in content:
        length += len(block)
        for piece in _cut(block):
            yield _updated(encryptor, piece)
    padding = 16 - length % 16
    yield encryptor.update(bytes((padding,)) * padding) + encryptor.finalize()


def _updated(cipher: Any, piece: bytes | memoryview) -> memoryview:
    """What `update` gives, at twice its speed in CBC: into memory that is there already, which is nobody else's."""
    room = bytearray(len(piece) + 15)
    return memoryview(room)[: cipher.update_into(piece, room)]


def _cut(block: bytes | memoryview) -> Iterator[bytes | memoryview]:
    # The library holds the interpreter's lock and a copy for as long as one call takes.
    if len(block) <= BLOCK:
        yield block
        return
    view = memoryview(block)
    for start in range(0, len(view), BLOCK):
        yield view[start : start + BLOCK]


def decrypt_into(
    scratch: Scratch,
    parameters: CipherParameters,
    key: bytes,
    content: Iterable[bytes | memoryview],
    length: int,
    *,
    associated: bytes = b"",
    tag: bytes = b"",
    limits: Limits = DEFAULT_LIMITS,
) -> bool:
    """Decrypt `length` octets into `scratch`; True where tag or padding are right. Where they are not, nothing in it may be read.

    The same work is done for every key, right or wrong: only the end tells.
    """
    mode = parameters.cipher.mode
    most = most_octets(parameters.cipher, limits)
    if most is not None and length > most:
        raise CryptoError(f"{parameters.cipher.name} over content that is too large")
    if mode == "gcm":
        return _decrypt_gcm(scratch, parameters, key, content, length, associated, tag)
    if mode == "ccm":
        return _decrypt_ccm(scratch, parameters, key, content, associated, tag)
    return _decrypt_cbc(scratch, parameters, key, content, length)


def _decrypt_gcm(
    scratch: Scratch,
    parameters: CipherParameters,
    key: bytes,
    content: Iterable[bytes | memoryview],
    length: int,
    associated: bytes,
    tag: bytes,
) -> bool:
    if length <= BLOCK and len(tag) == 16:
        try:
            scratch.append(AESGCM(key).decrypt(parameters.nonce, b"".join((*content, tag)), associated))
        except (InvalidTag, ValueError):
            return False
        return True
    mode = modes.GCM(parameters.nonce, None, min_tag_length=12)
    decryptor: Any = BlockCipher(algorithms.AES(key), mode).decryptor()
    if associated:
        decryptor.authenticate_additional_data(associated)
    for block in content:
        for piece in _cut(block):
            scratch.append(decryptor.update(piece))
    try:
        decryptor.finalize_with_tag(tag)
    except (InvalidTag, ValueError):
        return False
    return True


def _decrypt_ccm(
    scratch: Scratch, parameters: CipherParameters, key: bytes, content: Iterable[bytes | memoryview], associated: bytes, tag: bytes
) -> bool:
    try:
        scratch.append(AESCCM(key, len(tag)).decrypt(parameters.nonce, b"".join(content) + tag, associated))
    except (InvalidTag, ValueError):
        return False
    return True


def _decrypt_cbc(scratch: Scratch, parameters: CipherParameters, key: bytes, content: Iterable[bytes | memoryview], length: int) -> bool:
    size = len(parameters.nonce)
    if not length or length % size:
        return False
    if parameters.cipher.algorithm == "rc2":
        whole = rc2.decrypt_cbc(rc2.expanded_key(key, len(key) * 8), parameters.nonce, b"".join(content))
        return _append_unpadded(scratch, whole, size)
    decryptor: Any = BlockCipher(_BLOCK_CIPHERS[parameters.cipher.algorithm](key), modes.CBC(parameters.nonce)).decryptor()
    if length <= BLOCK:
        return _append_unpadded(scratch, decryptor.update(b"".join(content)), size)
    # The last block is held back, as its padding is no content.
    held = b""
    for block in content:
        for piece in _cut(block):
            plain = _updated(decryptor, piece)
            if len(plain) < size:
                continue
            if held:
                scratch.append(held)
            scratch.append(plain[:-size])
            held = bytes(plain[-size:])
    return _append_unpadded(scratch, held, size)


def _append_unpadded(scratch: Scratch, last: bytes, size: int) -> bool:
    # RFC 5652 §6.3: each octet of the padding is its length.
    padding = last[-1]
    if not 1 <= padding <= size or last[-padding:] != bytes((padding,)) * padding:
        return False
    scratch.append(last[:-padding])
    return True
