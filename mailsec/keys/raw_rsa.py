"""RSA padding in software, for tokens that have the bare operation only (CKM_RSA_X_509): the last resort, and an option (RFC 8017 §7.1, §9).

Invariant: taking padding off says nothing but yes or no; no step is left out because an earlier one failed (Manger's attack on OAEP).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable

from mailsec.algorithms.table import DIGESTS
from mailsec.errors import CryptoError
from mailsec.interfaces import Hash
from mailsec.model.mechanism import SignatureMechanism, TransportMechanism

__all__ = ["pad_signature", "unpad_oaep"]

NewHash = Callable[[str], Hash]


def pad_signature(
    mechanism: SignatureMechanism, digest: bytes, info: bytes, bits: int, new: NewHash, random: Callable[[int], bytes]
) -> bytes:
    """The octets that the bare operation signs: EMSA-PKCS1-v1_5 of `info` (a DigestInfo), or EMSA-PSS of `digest`; as long as the modulus."""
    size = (bits + 7) // 8
    if mechanism.kind == "rsassa-pkcs1-v1_5":
        # RFC 8017 §9.2 step 4: at least eight octets of padding.
        if size < len(info) + 11:
            raise CryptoError("the RSA key is too short for this digest")
        return b"\0\1" + b"\xff" * (size - len(info) - 3) + b"\0" + info
    # RFC 8017 §9.1.1
    hash_size, salt_size = len(digest), mechanism.salt_length
    encoded = (bits - 1 + 7) // 8
    if encoded < hash_size + salt_size + 2:
        raise CryptoError("the RSA key is too short for this digest and salt")
    salt = random(salt_size)
    seed = _digest(new, mechanism.digest, bytes(8) + digest + salt)
    block = bytes(encoded - salt_size - hash_size - 2) + b"\1" + salt
    masked = bytearray(_masked(block, seed, mechanism.mgf_digest or mechanism.digest, new))
    masked[0] &= 0xFF >> (8 * encoded - (bits - 1))
    return (bytes(masked) + seed + b"\xbc").rjust(size, b"\0")


def unpad_oaep(mechanism: TransportMechanism, padded: bytes, bits: int, new: NewHash) -> bytes:
    """The content key in what the bare operation gave (EME-OAEP decoding, RFC 8017 §7.1.2 step 3); CryptoError whatever is wrong with it."""
    size, hash_size = (bits + 7) // 8, DIGESTS[mechanism.digest].size
    padded = padded.rjust(size, b"\0")
    if len(padded) != size or size < 2 * hash_size + 2:
        raise CryptoError("the content key cannot be unwrapped")
    mask_digest = mechanism.mgf_digest or mechanism.digest
    masked_seed, masked_block = padded[1 : 1 + hash_size], padded[1 + hash_size :]
    seed = _masked(masked_seed, masked_block, mask_digest, new)
    block = _masked(masked_block, seed, mask_digest, new)
    label = _digest(new, mechanism.digest, mechanism.label)
    good = hmac.compare_digest(block[:hash_size], label) & (padded[0] == 0)
    rest = block[hash_size:].lstrip(b"\0")
    good &= rest[:1] == b"\1"
    if not good:
        raise CryptoError("the content key cannot be unwrapped")
    return rest[1:]


def _masked(octets: bytes, seed: bytes, digest: str, new: NewHash) -> bytes:
    """`octets` with MGF1 of `seed` laid over them (RFC 8017 §B.2.1)."""
    mask = b""
    for counter in range(-(-len(octets) // DIGESTS[digest].size)):
        mask += _digest(new, digest, seed + counter.to_bytes(4, "big"))
    return bytes(one ^ other for one, other in zip(octets, mask, strict=False))


def _digest(new: NewHash, name: str, octets: bytes) -> bytes:
    running = new(name)
    running.update(octets)
    return running.digest()
