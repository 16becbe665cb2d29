"""The arithmetic of pkcs11_lattice.c, by cryptography: the module starts this, and asks over its standard input, a socket.

A question is four numbers of 32 bits (verb, parameter set, two lengths) and two strings; an answer three (1 or 0, two lengths) and two
strings. Keys are their seeds.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem

_DSA: dict[int, tuple[Any, Any]] = {
    1: (mldsa.MLDSA44PrivateKey, mldsa.MLDSA44PublicKey),
    2: (mldsa.MLDSA65PrivateKey, mldsa.MLDSA65PublicKey),
    3: (mldsa.MLDSA87PrivateKey, mldsa.MLDSA87PublicKey),
}
_KEM: dict[int, tuple[Any, Any]] = {
    2: (mlkem.MLKEM768PrivateKey, mlkem.MLKEM768PublicKey),
    3: (mlkem.MLKEM1024PrivateKey, mlkem.MLKEM1024PublicKey),
}


def answer(verb: str, parameters: int, one: bytes, two: bytes) -> tuple[bytes, bytes]:
    """Two strings; raise whatever for no."""
    private, public = (_KEM if verb in "Ked" else _DSA)[parameters]
    if verb in "KD":
        made = private.generate()
        return made.private_bytes_raw(), made.public_key().public_bytes_raw()
    if verb == "s":
        context, data = _split(two)
        return private.from_seed_bytes(one).sign(data, context), b""
    if verb == "v":
        length = {1: 2420, 2: 3309, 3: 4627}[parameters]
        context, data = _split(two[length:])
        public.from_public_bytes(one).verify(two[:length], data, context)
        return b"", b""
    if verb == "e":
        secret, ciphertext = public.from_public_bytes(one).encapsulate()
        return ciphertext, secret
    if verb == "d":
        return private.from_seed_bytes(one).decapsulate(two), b""
    raise ValueError(verb)


def _split(octets: bytes) -> tuple[bytes | None, bytes]:
    """The context, with its length before it, and the message."""
    end = 1 + octets[0]
    return octets[1:end] or None, octets[end:]


def main() -> None:
    """Answer until nobody asks any more."""
    connection = socket.socket(fileno=0).makefile("rwb")
    while len(head := connection.read(16)) == 16:
        verb, parameters, *sizes = struct.unpack("4I", head)
        one, two = (connection.read(size) for size in sizes)
        try:
            first, second = answer(chr(verb), parameters, one, two)
            connection.write(struct.pack("3I", 1, len(first), len(second)) + first + second)
        except Exception:
            connection.write(struct.pack("3I", 0, 0, 0))
        connection.flush()


if __name__ == "__main__":
    sys.exit(main())
