"""Requests for certificates (RFC 2986), signed with any key handle: one of the database, or one that never leaves its token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mailsec.algorithms.table import algorithm_identifier
from mailsec.asn1 import writer
from mailsec.errors import CryptoError, PrivateKeyError
from mailsec.interfaces import KeyHandle
from mailsec.keys.software import SoftwareBackend
from mailsec.model.address import Address
from mailsec.model.mechanism import SignatureMechanism
from mailsec.x509.request import request_info

__all__ = ["make_request"]

_RSA: Final = (SignatureMechanism("rsassa-pkcs1-v1_5", "sha256"), SignatureMechanism("rsassa-pss", "sha256", "sha256", 32))
_CURVES: Final = {"ec:secp384r1": "sha384", "ec:secp521r1": "sha512"}


async def make_request(
    handle: KeyHandle, public_key: bytes, *, addresses: Sequence[Address], common_name: str = "", usage: str = "both"
) -> bytes:
    """A request for an S/MIME certificate for these mailboxes, DER. `public_key` is the SubjectPublicKeyInfo of `handle`'s key.

    Raise UsageError, PrivateKeyError for what cannot be asked for, KeyUnavailable, CryptoError where the key does not sign.
    """
    info = request_info(addresses=addresses, public_key=public_key, common_name=common_name, usage=usage)
    mechanism = _mechanism(handle)
    signature = await handle.sign(mechanism, info)
    # RFC 2986 §3: the signature proves possession. On a token anybody may have laid a public key beside another private one.
    if not SoftwareBackend().verify(public_key, mechanism, signature, info):
        raise CryptoError(f"what the key {handle.name} signed does not fit its public key", hint="which key was meant?")
    return writer.sequence(info, algorithm_identifier(mechanism), writer.bit_string(signature))


def _mechanism(handle: KeyHandle) -> SignatureMechanism:
    """What every authority reads comes first."""
    if handle.key_type == "rsa":
        able = [each for each in _RSA if handle.can(each)]
    elif handle.key_type.startswith("ec:"):
        # RFC 5480 §4: a digest that is as strong as the curve.
        able = [SignatureMechanism("ecdsa", _CURVES.get(handle.key_type, "sha256"))]
    else:
        able = [SignatureMechanism(handle.key_type)]
    if not able or not handle.can(able[0]):
        raise PrivateKeyError(f"the key {handle.name} cannot sign a request", hint="use an RSA, EC, Ed25519 or ML-DSA key")
    return able[0]
