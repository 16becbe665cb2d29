"""RC2 (RFC 2268) with 40, 64 and 128 effective bits, for reading mail of the last century where legacy is allowed.

pyca/cryptography has 128 bits only. Slow (a few hundred kB a second), so what it is used for is bounded by its caller. Invariant: CBC
decryption of whole blocks, nothing else; it is never used for writing.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ["decrypt_cbc", "expanded_key"]

# RFC 2268 §2: PITABLE, "random" octets from the digits of pi.
_PI: Final = bytes.fromhex(
    "d978f9c419ddb5ed28e9fd794aa0d89dc67e37832b76538e624c6488448bfba2"
    "179a59f587b34f1361456d8d09817d32bd8f40eb86b77b0bf09521225c6b4e82"
    "54d66593ce60b21c7356c014a78cf1dc1275ca1f3bbee4d1423dd430a33cb626"
    "6fbf0eda4669075727f21d9bbc944303f811c7f690ef3ee706c3d52fc8661ed7"
    "08e8eade8052eef784aa72ac354d6a2a961ad2715a1549744b9fd05e0418a4ec"
    "c2e0416e0f51cbcc2491af50a1f47039997c3a8523b8b47afc02365b25559731"
    "2d5dfa98e38a92ae05df2910676cbac9d300e6cfe19ea82c6316013f58e289a9"
    "0d38341bab33ffb0bb480c5fb9b1cd2ec5f3db47e5a59c770aa62068fe7fc1ad"
)


def expanded_key(key: bytes, bits: int) -> tuple[int, ...]:
    """The 64 words of RFC 2268 §2 for a key and its effective bits."""
    octets = bytearray(key)
    for _ in range(128 - len(key)):
        octets.append(_PI[(octets[-1] + octets[-len(key)]) & 0xFF])
    effective = (bits + 7) // 8
    mask = 0xFF >> (8 * effective - bits)
    octets[128 - effective] = _PI[octets[128 - effective] & mask]
    for position in range(127 - effective, -1, -1):
        octets[position] = _PI[octets[position + 1] ^ octets[position + effective]]
    return struct.unpack("<64H", octets)


def _decrypt_block(words: tuple[int, ...], block: bytes) -> bytes:
    a, b, c, d = struct.unpack("<4H", block)
    at = 63
    # RFC 2268 §4: five reverse mixing rounds, a reverse mashing round, six, a mashing round, five.
    for rounds in (5, 6, 5):
        for _ in range(rounds):
            d = ((d >> 5 | d << 11) - words[at] - (c & b) - (~c & a)) & 0xFFFF
            c = ((c >> 3 | c << 13) - words[at - 1] - (b & a) - (~b & d)) & 0xFFFF
            b = ((b >> 2 | b << 14) - words[at - 2] - (a & d) - (~a & c)) & 0xFFFF
            a = ((a >> 1 | a << 15) - words[at - 3] - (d & c) - (~d & b)) & 0xFFFF
            at -= 4
        if at > 0:
            d = (d - words[c & 63]) & 0xFFFF
            c = (c - words[b & 63]) & 0xFFFF
            b = (b - words[a & 63]) & 0xFFFF
            a = (a - words[d & 63]) & 0xFFFF
    return struct.pack("<4H", a, b, c, d)


def decrypt_cbc(words: tuple[int, ...], iv: bytes, data: bytes) -> bytes:
    """Decrypt whole blocks of 8 octets."""
    pieces = []
    previous = int.from_bytes(iv, "big")
    for start in range(0, len(data), 8):
        block = data[start : start + 8]
        plain = int.from_bytes(_decrypt_block(words, block), "big") ^ previous
        pieces.append(plain.to_bytes(8, "big"))
        previous = int.from_bytes(block, "big")
    return b"".join(pieces)
