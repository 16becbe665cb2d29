"""A private key out of an NSS database, as pk12util takes it out: wrapped on the token, opened here.

softoken gives every key to whoever knows the password, whatever CKA_EXTRACTABLE says. Others give those only that are marked so. The one
invariant: the key that it is wrapped with is made anew each time, lives in the session, and is destroyed with it.
"""

from __future__ import annotations

import ctypes
import os
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType, Mechanism

from mailsec.errors import KeyUnavailable, PrivateKeyError, TokenError
from mailsec.tokens.codes import CkError
from mailsec.tokens.cryptoki import CkMechanism, Value
from mailsec.tokens.token import Token

__all__ = ["export_key"]

_BLOCK: Final = 16


class _Vector(ctypes.Structure):
    _fields_ = [("octets", ctypes.c_ubyte * _BLOCK)]


def export_key(token: Token, key_id: bytes) -> bytes:
    """PKCS#8 DER of the private key with this CKA_ID. Raise KeyUnavailable, or TokenError for one that stays where it is."""
    token.need_service()
    token.renew_login()
    secret, vector = os.urandom(32), os.urandom(_BLOCK)
    template: dict[int, Value] = {
        Attribute.CLASS: int(ObjectClass.SECRET_KEY),
        Attribute.KEY_TYPE: int(KeyType.AES),
        Attribute.TOKEN: False,
        Attribute.WRAP: True,
        Attribute.VALUE: secret,
    }

    def wrapped(session: int) -> bytes:
        functions = token.functions
        found = functions.find(session, {Attribute.CLASS: int(ObjectClass.PRIVATE_KEY), Attribute.ID: key_id, Attribute.TOKEN: True})
        if not key_id or not found:
            raise KeyUnavailable(
                f"token {token.state.label!r} has no key {key_id.hex()}",
                hint="the command mailsec key list shows those that there are",
                stage=token.stage,
            )
        wrapping = functions.create(session, template)
        try:
            return functions.wrap(session, wrapping, found[0], CkMechanism.of(int(Mechanism.AES_CBC_PAD), _Vector.from_buffer_copy(vector)))
        finally:
            functions.destroy(session, wrapping)

    try:
        octets = token.call(wrapped)
    except CkError as error:
        raise TokenError(
            f"token {token.state.label!r} keeps the private key to itself ({error.name})",
            hint="a key that was made on a card or an HSM never leaves it: use it there",
            stage=token.stage,
        ) from error
    opened = Cipher(algorithms.AES(secret), modes.CBC(vector)).decryptor()
    padded = opened.update(octets) + opened.finalize()
    return _pkcs8(padded[: -padded[-1]] if padded else b"", token)


def _pkcs8(octets: bytes, token: Token) -> bytes:
    """As everybody else writes it: softoken leaves out what it does not need."""
    try:
        key = serialization.load_der_private_key(octets, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PrivateKeyError(f"token {token.state.label!r} gave a private key that cannot be read") from error
    return key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
