"""CK_MECHANISMs with their parameters, from operations as `keys.mechanism.written` writes them; and names of what a token offers.

Invariant: an operation that is not understood is refused; nothing is passed to a library that was not built here.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Final

from pkcs11.constants import MechanismFlag
from pkcs11.mechanisms import Mechanism

from mailsec.errors import CryptoError
from mailsec.model.tokens import TokenMechanism
from mailsec.tokens.cryptoki import CkMechanism

__all__ = ["ck_mechanism", "decapsulation", "derivation", "described", "name_of_mechanism"]

_HASHES: Final = {
    # PKCS #11 v3.1 §6.1.7: the hash, and MGF1 with it.
    "sha1": (Mechanism.SHA_1, 1),
    "sha224": (Mechanism.SHA224, 5),
    "sha256": (Mechanism.SHA256, 2),
    "sha384": (Mechanism.SHA384, 3),
    "sha512": (Mechanism.SHA512, 4),
    "sha3-256": (Mechanism.SHA3_256, 7),
    "sha3-384": (Mechanism.SHA3_384, 8),
    "sha3-512": (Mechanism.SHA3_512, 9),
}
_SIGNING: Final = frozenset(
    {
        "RSA_PKCS",
        "RSA_X_509",
        "ECDSA",
        "EDDSA",
        "ML_DSA",
        *(f"{digest}_RSA_PKCS" for digest in ("SHA1", "SHA224", "SHA256", "SHA384", "SHA512", "SHA3_256", "SHA3_384", "SHA3_512")),
        *(f"ECDSA_{digest}" for digest in ("SHA1", "SHA224", "SHA256", "SHA384", "SHA512", "SHA3_256", "SHA3_384", "SHA3_512")),
    }
)
_USES: Final = {
    MechanismFlag.ENCRYPT: "encrypt",
    MechanismFlag.DECRYPT: "decrypt",
    MechanismFlag.DIGEST: "digest",
    MechanismFlag.SIGN: "sign",
    MechanismFlag.VERIFY: "verify",
    MechanismFlag.GENERATE: "generate",
    MechanismFlag.GENERATE_KEY_PAIR: "generate-pair",
    MechanismFlag.WRAP: "wrap",
    MechanismFlag.UNWRAP: "unwrap",
    MechanismFlag.DERIVE: "derive",
    MechanismFlag.ENCAPSULATE: "encapsulate",
    MechanismFlag.DECAPSULATE: "decapsulate",
}


class _PssParameters(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulong) for name in ("hash", "mgf", "salt")]


class _OaepParameters(ctypes.Structure):
    _fields_ = [
        ("hash", ctypes.c_ulong),
        ("mgf", ctypes.c_ulong),
        ("source", ctypes.c_ulong),
        ("label", ctypes.c_void_p),
        ("length", ctypes.c_ulong),
    ]


class _EcdhParameters(ctypes.Structure):
    _fields_ = [
        ("kdf", ctypes.c_ulong),
        ("shared_length", ctypes.c_ulong),
        ("shared", ctypes.c_void_p),
        ("public_length", ctypes.c_ulong),
        ("public", ctypes.c_void_p),
    ]


def _number(name: str) -> int:
    # python-pkcs11 has the older spelling of a few.
    return int(getattr(Mechanism, name))


@lru_cache(maxsize=256)
def ck_mechanism(operation: str) -> CkMechanism:
    """The mechanism of "CKM_RSA_PKCS_PSS:sha256:32" and so on; raise CryptoError for what is none."""
    name, *parameters = operation.removeprefix("CKM_").split(":")
    try:
        if name in _SIGNING and not parameters:
            return CkMechanism.of(_number(name))
        if name.endswith("RSA_PKCS_PSS") and len(parameters) in (2, 3):
            digest, salt, *rest = parameters
            mask = rest[0] if rest else digest
            if not 0 <= int(salt) <= 64:
                raise ValueError
            return CkMechanism.of(_number(name), _PssParameters(_HASHES[digest][0], _HASHES[mask][1], int(salt)))
        if name == "RSA_PKCS_OAEP" and len(parameters) in (2, 3):
            digest, mask, *rest = parameters
            label = ctypes.create_string_buffer(bytes.fromhex(rest[0])) if rest else None
            # CKZ_DATA_SPECIFIED is 1, also where there is no label.
            made = _OaepParameters(
                _HASHES[digest][0], _HASHES[mask][1], 1, ctypes.addressof(label) if label else None, len(label) - 1 if label else 0
            )
            return CkMechanism.of(_number(name), made, label)
    except (KeyError, ValueError, AttributeError):
        pass
    raise CryptoError(f"not an operation of tokens: {operation[:80]!a}")


def derivation(operation: str, point: bytes) -> CkMechanism:
    """The mechanism of a key agreement with `point`, without KDF (CKD_NULL)."""
    name = operation.removeprefix("CKM_")
    if name not in ("ECDH1_DERIVE", "ECDH1_COFACTOR_DERIVE"):
        raise CryptoError(f"not an agreement of tokens: {operation[:80]!a}")
    buffer = ctypes.create_string_buffer(point, len(point))
    return CkMechanism.of(_number(name), _EcdhParameters(1, 0, None, len(point), ctypes.addressof(buffer)), buffer)


def decapsulation(operation: str) -> CkMechanism:
    """The mechanism that takes a shared secret out of a ciphertext."""
    if operation != "CKM_ML_KEM":
        raise CryptoError(f"not a decapsulation of tokens: {operation[:80]!a}")
    return CkMechanism.of(_number("ML_KEM"))


@lru_cache(maxsize=1024)
def name_of_mechanism(number: int) -> str:
    """ "CKM_ECDSA"; hexadecimal for a vendor's own."""
    try:
        name = Mechanism(number).name.lstrip("_")
    except ValueError:
        return f"0x{number:08X}"
    return f"CKM_{name}"


def described(rows: list[tuple[int, int, int, int]]) -> tuple[TokenMechanism, ...]:
    """Rows of C_GetMechanismInfo in words."""
    return tuple(
        TokenMechanism(
            name_of_mechanism(number),
            smallest,
            largest,
            bool(flags & 1),  # CKF_HW
            tuple(word for flag, word in _USES.items() if flags & flag),
        )
        for number, smallest, largest, flags in sorted(rows)
    )
