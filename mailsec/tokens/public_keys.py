"""Operations with public keys that are not on the token: each is put there for one operation, in the session, and destroyed.

The one invariant: nothing stays on the token, nobody need be logged in, and what a stranger's key could make slow is refused before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pkcs11.constants import Attribute, ObjectClass

from mailsec.algorithms.public_keys import public_key_facts
from mailsec.asn1 import writer
from mailsec.asn1.reader import SEQUENCE, read_single
from mailsec.asn1.values import read_integer
from mailsec.errors import Asn1Error, CryptoError
from mailsec.keys.public_objects import public_point
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.tokens.codes import DEVICE, LOST, CkError
from mailsec.tokens.cryptoki import Value
from mailsec.tokens.mechanisms import ck_mechanism
from mailsec.tokens.token import Token

__all__ = ["encrypt", "verify"]

T = TypeVar("T")


def encrypt(token: Token, public_key: bytes, operation: str, data: bytes) -> bytes:
    """`data` raised to the public exponent ("CKM_RSA_X_509"). Raise KeyUnavailable (the token is out), CryptoError (it does not do this)."""
    template = _template(public_key)
    modulus = template.get(Attribute.MODULUS)
    # Attack: SoftHSM2 ends the whole process where the octets are longer than the modulus.
    if operation != "CKM_RSA_X_509" or not isinstance(modulus, bytes) or len(data) != len(modulus) or data >= modulus:
        raise CryptoError("not a number that this RSA key could raise")
    return _with(token, template, lambda session, key: token.functions.encrypt(session, key, ck_mechanism(operation), data))


def verify(token: Token, public_key: bytes, operation: str, data: bytes, signature: bytes) -> bool:
    """What the token says of r and s ("CKM_ECDSA"), each as long as the order of the curve, over a digest. Errors as of `encrypt`."""
    template = _template(public_key)
    size = (public_key_facts(public_key).bits + 7) // 8
    if operation != "CKM_ECDSA" or Attribute.EC_POINT not in template or len(signature) != 2 * size or not 0 < len(data) <= size:
        raise CryptoError("not a signature that this key could have made")
    return _with(token, template, lambda session, key: token.functions.verify(session, key, ck_mechanism(operation), data, signature))


def _with(token: Token, template: dict[int, Value], function: Callable[[int, int], T]) -> T:
    functions = token.functions

    def use(session: int) -> T:
        key = functions.create(session, template)
        try:
            return function(session, key)
        finally:
            functions.destroy(session, key)

    try:
        return token.call(use)
    except CkError as error:
        if error.code in LOST or error.code in DEVICE:
            raise token.away(error) from error
        raise CryptoError(f"the token does not do it ({error.name})") from error


def _template(public_key: bytes) -> dict[int, Value]:
    common: dict[int, Value] = {
        Attribute.CLASS: int(ObjectClass.PUBLIC_KEY),
        Attribute.TOKEN: False,
        Attribute.PRIVATE: False,
        Attribute.VERIFY: True,
    }
    try:
        facts, point = public_key_facts(public_key), public_point(public_key)
        if facts.key_type == "rsa":
            # Attack: a modulus of a million bits, or an exponent as long as it.
            if facts.bits > DEFAULT_LIMITS.rsa_bits or facts.exponent_bits > DEFAULT_LIMITS.rsa_exponent_bits:
                raise CryptoError("an RSA key that is too large")
            modulus, exponent = (read_integer(part) for part in read_single(point, SEQUENCE, "RSAPublicKey"))
            numbers: dict[int, Value] = {Attribute.MODULUS: _octets(modulus), Attribute.PUBLIC_EXPONENT: _octets(exponent)}
            return {**common, Attribute.KEY_TYPE: 0x00, Attribute.ENCRYPT: True, **numbers}  # CKK_RSA
        if facts.key_type.startswith("ec:"):
            algorithm = read_single(public_key, SEQUENCE, "SubjectPublicKeyInfo").children()[0]
            curve = algorithm.children()[1].encoding
            return {
                **common,
                Attribute.KEY_TYPE: 0x03,
                Attribute.EC_PARAMS: curve,
                Attribute.EC_POINT: writer.octet_string(point),
            }  # CKK_EC
    except (Asn1Error, ValueError, OverflowError, IndexError):
        raise CryptoError("a public key that cannot be read") from None
    raise CryptoError(f"a key of type {facts.key_type} is not put on a token")


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
