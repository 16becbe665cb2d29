"""What lies on a token: certificates with their labels and trust, and private keys. Read anew each time: others write there, too.

The one invariant: an object that cannot be read is passed over or shown without what could not be read; it never hides the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType

from mailsec.errors import Asn1Error, CryptoError
from mailsec.keys.public_objects import ec_public_key, facts_of, mldsa_public_key, mlkem_public_key, rsa_public_key
from mailsec.model.tokens import TokenCertificate, TokenKey
from mailsec.model.trust import TrustFlags
from mailsec.tokens.codes import CkError
from mailsec.tokens.cryptoki import Cryptoki
from mailsec.tokens.token import Token
from mailsec.tokens.trust_objects import SHA1_HASH, TRUST_CLASS, read_trust
from mailsec.x509.certificate import load_certificate

__all__ = ["PUBLIC_ATTRIBUTES", "public_key_of", "read_certificates", "read_keys"]

_OF_CERTIFICATE: Final = (Attribute.LABEL, Attribute.ID, Attribute.VALUE)
_OF_KEY: Final = (
    Attribute.LABEL,
    Attribute.ID,
    Attribute.KEY_TYPE,
    Attribute.MODULUS,
    Attribute.PUBLIC_EXPONENT,
    Attribute.EC_PARAMS,
    Attribute.ALWAYS_AUTHENTICATE,
    Attribute.EXTRACTABLE,
)
_NAME_OCTETS: Final = 1024
"""Attack: labels of a megabyte, which fill the list that a host tells its workers until none can read it."""
PUBLIC_ATTRIBUTES: Final = (
    Attribute.KEY_TYPE,
    Attribute.MODULUS,
    Attribute.PUBLIC_EXPONENT,
    Attribute.EC_PARAMS,
    Attribute.EC_POINT,
    Attribute.VALUE,
)


def read_certificates(token: Token) -> Sequence[TokenCertificate]:
    """Every X.509 certificate, by label. Raise KeyUnavailable, TokenError."""
    return token.reading(lambda session: _certificates(token, session))


def read_keys(token: Token) -> Sequence[TokenKey]:
    """Every private key that can be seen: without a login mostly none."""
    return token.reading(lambda session: _keys(token, session))


def _certificates(token: Token, session: int) -> Sequence[TokenCertificate]:
    functions = token.functions
    trust = _trust(token, session)
    with_key = {_octets(functions, session, handle, Attribute.ID) for handle in _private_keys(functions, session)} - {b""}
    found = []
    for handle in functions.find(session, {Attribute.CLASS: int(ObjectClass.CERTIFICATE), Attribute.CERTIFICATE_TYPE: 0}):
        try:
            values = functions.attributes(session, handle, _OF_CERTIFICATE)
        except CkError:  # deleted meanwhile
            continue
        der, identifier = values[Attribute.VALUE] or b"", values[Attribute.ID] or b""
        if not der:
            continue
        flags, problem = trust.get(hashlib.sha1(der, usedforsecurity=False).digest(), (TrustFlags(), ""))
        found.append(
            TokenCertificate(token.state.label, _name(values[Attribute.LABEL]), identifier, der, identifier in with_key, flags, problem)
        )
    return tuple(sorted(found, key=lambda one: (one.label, one.der)))


def _trust(token: Token, session: int) -> dict[bytes, tuple[TrustFlags, str]]:
    """Letters by the SHA-1 of a certificate; nothing where the token keeps none, or where it could not be checked."""
    # NSS checks who wrote trust only while somebody is logged in: before, an edited database says what it likes.
    if not token.usable:
        return {}
    found = {}
    for handle in token.functions.find(session, {Attribute.CLASS: TRUST_CLASS}):
        try:
            fingerprint = token.functions.attributes(session, handle, [SHA1_HASH])[SHA1_HASH]
        except CkError:
            continue
        if fingerprint:
            found[fingerprint] = read_trust(token.functions, session, handle)
    return found


def _private_keys(functions: Cryptoki, session: int) -> list[int]:
    return functions.find(session, {Attribute.CLASS: int(ObjectClass.PRIVATE_KEY), Attribute.TOKEN: True})


def _keys(token: Token, session: int) -> Sequence[TokenKey]:
    functions = token.functions
    found = []
    for handle in _private_keys(functions, session):
        try:
            values = functions.attributes(session, handle, _OF_KEY)
            identifier = values[Attribute.ID] or b""
            spki = _public_key(functions, session, identifier, values)
        except CkError:
            continue
        facts = facts_of(spki) if spki else None
        if facts is None:
            continue
        found.append(
            TokenKey(
                token.state.label,
                _name(values[Attribute.LABEL]),
                identifier,
                facts.key_type,
                facts.bits,
                spki,
                always_authenticate=values[Attribute.ALWAYS_AUTHENTICATE] == b"\1",
                extractable=values[Attribute.EXTRACTABLE] == b"\1",
            )
        )
    return tuple(sorted(found, key=lambda one: (one.label, one.id)))


def _public_key(functions: Cryptoki, session: int, identifier: bytes, private: dict[int, bytes | None]) -> bytes:
    """SubjectPublicKeyInfo of a private key: from itself (RSA), from its public key, or from a certificate with its CKA_ID."""
    if private[Attribute.MODULUS] and private[Attribute.PUBLIC_EXPONENT]:
        return rsa_public_key(private[Attribute.MODULUS] or b"", private[Attribute.PUBLIC_EXPONENT] or b"")
    if not identifier:
        return b""
    for handle in functions.find(session, {Attribute.CLASS: int(ObjectClass.PUBLIC_KEY), Attribute.ID: identifier}):
        try:
            if spki := public_key_of(functions.attributes(session, handle, PUBLIC_ATTRIBUTES)):
                return spki
        except (CryptoError, Asn1Error):
            continue
    for handle in functions.find(session, {Attribute.CLASS: int(ObjectClass.CERTIFICATE), Attribute.ID: identifier}):
        certificate = load_certificate(_octets(functions, session, handle, Attribute.VALUE))
        if certificate.spki:
            return certificate.spki
    return b""


def public_key_of(values: dict[int, bytes | None]) -> bytes:
    """SubjectPublicKeyInfo of the attributes of a public key; empty where they are none that we know."""
    kind = int.from_bytes(values[Attribute.KEY_TYPE] or b"", "little")
    modulus, exponent = values[Attribute.MODULUS], values[Attribute.PUBLIC_EXPONENT]
    if kind == KeyType.RSA and modulus and exponent:
        return rsa_public_key(modulus, exponent)
    parameters, point = values[Attribute.EC_PARAMS], values[Attribute.EC_POINT]
    if parameters and point:
        return ec_public_key(parameters, point)
    if kind == KeyType.ML_DSA and values[Attribute.VALUE]:
        return mldsa_public_key(values[Attribute.VALUE] or b"")
    if kind == KeyType.ML_KEM and values[Attribute.VALUE]:
        return mlkem_public_key(values[Attribute.VALUE] or b"")
    return b""


def _octets(functions: Cryptoki, session: int, handle: int, attribute: int) -> bytes:
    try:
        return functions.attributes(session, handle, [attribute])[attribute] or b""
    except CkError:
        return b""


def _name(label: bytes | None) -> str:
    return (label or b"")[:_NAME_OCTETS].decode("utf-8", "replace").rstrip("\0")
