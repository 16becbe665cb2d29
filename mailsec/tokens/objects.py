"""Writing on a token: keys made there or brought there, certificates, names, trust.

What NSS's tools expect is kept: CKA_ID is the SHA-1 of the public key, a private key has its public key object beside it (or certutil shows
no "u"), a nickname is CKA_LABEL, and an e-mail certificate of an NSS database has its address. The one invariant: what belongs together is
there whole, or taken away again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, mlkem, rsa
from pkcs11.constants import Attribute, ObjectClass
from pkcs11.mechanisms import KeyType, Mechanism, MLDSAParameterSet, MLKEMParameterSet

from mailsec.algorithms.public_keys import algorithm_parameters
from mailsec.asn1 import writer
from mailsec.errors import PrivateKeyError, TokenError, UsageError
from mailsec.keys.public_objects import facts_of, key_identifier
from mailsec.model.tokens import TokenKey
from mailsec.model.trust import TrustFlags
from mailsec.tokens.catalogue import PUBLIC_ATTRIBUTES, public_key_of, read_keys
from mailsec.tokens.codes import CkError
from mailsec.tokens.cryptoki import CkMechanism, Value
from mailsec.tokens.token import Token
from mailsec.tokens.trust_objects import SHA1_HASH, TRUST_CLASS, trust_template, trust_values
from mailsec.x509.certificate import load_certificate

__all__ = [
    "KEY_KINDS",
    "delete_certificate",
    "delete_key",
    "generate_key",
    "import_certificate",
    "import_key",
    "rename_certificate",
    "set_trust",
]

_NSS_EMAIL: Final = 0xCE534352
_CURVES: Final = {"p256": "1.2.840.10045.3.1.7", "p384": "1.3.132.0.34", "p521": "1.3.132.0.35"}
_MLDSA: Final = {
    "ml-dsa-44": MLDSAParameterSet.ML_DSA_44,
    "ml-dsa-65": MLDSAParameterSet.ML_DSA_65,
    "ml-dsa-87": MLDSAParameterSet.ML_DSA_87,
}
_MLKEM: Final = {"ml-kem-768": MLKEMParameterSet.ML_KEM_768, "ml-kem-1024": MLKEMParameterSet.ML_KEM_1024}
_MLDSA_KEYS: Final = {
    mldsa.MLDSA44PrivateKey: MLDSAParameterSet.ML_DSA_44,
    mldsa.MLDSA65PrivateKey: MLDSAParameterSet.ML_DSA_65,
    mldsa.MLDSA87PrivateKey: MLDSAParameterSet.ML_DSA_87,
}
_MLKEM_KEYS: Final = {mlkem.MLKEM768PrivateKey: MLKEMParameterSet.ML_KEM_768, mlkem.MLKEM1024PrivateKey: MLKEMParameterSet.ML_KEM_1024}
KEY_KINDS: Final = ("rsa-2048", "rsa-3072", "rsa-4096", *_CURVES, "ed25519", *_MLDSA, *_MLKEM)

# What keys are for: attributes of the public and of the private key.
_Uses = tuple[dict[int, Value], dict[int, Value]]
_SIGNS: Final[_Uses] = ({Attribute.VERIFY: True}, {Attribute.SIGN: True})
_AGREES: Final[_Uses] = ({Attribute.VERIFY: True}, {Attribute.SIGN: True, Attribute.DERIVE: True})
_OPENS: Final[_Uses] = (
    {Attribute.VERIFY: True, Attribute.ENCRYPT: True, Attribute.WRAP: True},
    {Attribute.SIGN: True, Attribute.DECRYPT: True, Attribute.UNWRAP: True},
)
_DECAPSULATES: Final[_Uses] = ({Attribute.ENCAPSULATE: True}, {Attribute.DECAPSULATE: True})


def generate_key(token: Token, kind: str, label: str) -> TokenKey:
    """A key pair that is made on the token and never leaves it. Raise UsageError, TokenError, KeyUnavailable."""
    # "ec-p256", as in `cert request --key-type`, is the same.
    kind = kind.removeprefix("ec-")
    if kind not in KEY_KINDS:
        raise UsageError(f"there is no key of kind {kind!r}", hint=f"one of {', '.join(KEY_KINDS)}")
    name, special, (public_uses, private_uses) = _generation(kind)
    if name not in token.offered():
        raise TokenError(
            f"token {token.state.label!r} makes no {kind} keys", hint="the command mailsec token mechanisms shows what it can do"
        )
    with token.writing(secrets=True) as session:
        functions = token.functions
        public: dict[int, Value] = {Attribute.TOKEN: True, Attribute.LABEL: label, **public_uses, **special}
        private: dict[int, Value] = {
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.SENSITIVE: True,
            # NSS's tools write keys of their database to PKCS#12 files, as they always could.
            Attribute.EXTRACTABLE: token.library.softoken,
            Attribute.LABEL: label,
            **private_uses,
        }
        one, other = functions.generate_pair(session, CkMechanism.of(int(getattr(Mechanism, name))), public, private)
        with _whole(token, session, one, other):
            spki = public_key_of(functions.attributes(session, one, PUBLIC_ATTRIBUTES))
            facts = facts_of(spki)
            if facts is None:
                raise TokenError(f"token {token.state.label!r} made a key that cannot be read")
            identifier = key_identifier(spki)
            for handle in (one, other):
                functions.set_attributes(session, handle, {Attribute.ID: identifier})
    return TokenKey(token.state.label, label, identifier, facts.key_type, facts.bits, spki)


def _generation(kind: str) -> tuple[str, dict[int, Value], _Uses]:
    """Mechanism, what the template of the public key has besides, and what the keys are for."""
    if kind.startswith("rsa-"):
        return "RSA_PKCS_KEY_PAIR_GEN", {Attribute.MODULUS_BITS: int(kind[4:]), Attribute.PUBLIC_EXPONENT: b"\1\0\1"}, _OPENS
    if kind in _CURVES:
        return "EC_KEY_PAIR_GEN", {Attribute.EC_PARAMS: writer.oid(_CURVES[kind])}, _AGREES
    if kind == "ed25519":
        return "EC_EDWARDS_KEY_PAIR_GEN", {Attribute.EC_PARAMS: writer.printable_string("edwards25519")}, _SIGNS
    # PKCS #11 v3.2, ML-DSA and ML-KEM key pair generation: the parameters stand in the template of the public key, and nowhere else.
    if kind in _MLDSA:
        return "ML_DSA_KEY_PAIR_GEN", {Attribute.PARAMETER_SET: int(_MLDSA[kind])}, _SIGNS
    return "ML_KEM_KEY_PAIR_GEN", {Attribute.PARAMETER_SET: int(_MLKEM[kind])}, _DECAPSULATES


def import_key(token: Token, private_key: bytes, label: str) -> TokenKey:
    """Put a key (PKCS#8 DER) on the token, with its public key. Raise PrivateKeyError, TokenError, KeyUnavailable."""
    try:
        key: Any = serialization.load_der_private_key(private_key, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PrivateKeyError(f"the private key for {label!r} cannot be read") from error
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    facts, identifier = facts_of(spki), key_identifier(spki)
    secret, public = _parts(key, label)
    assert facts is not None
    family = "ML_KEM" if facts.key_type.startswith("ml-kem-") else "ML_DSA" if facts.key_type.startswith("ml-dsa-") else ""
    if family and family not in token.offered():
        raise TokenError(
            f"token {token.state.label!r} takes no {facts.key_type} keys", hint="the command mailsec token mechanisms shows what it can do"
        )
    common: dict[int, Value] = {Attribute.TOKEN: True, Attribute.LABEL: label, Attribute.ID: identifier}
    with token.writing(secrets=True) as session:
        functions = token.functions
        if functions.find(session, {Attribute.CLASS: int(ObjectClass.PRIVATE_KEY), Attribute.ID: identifier, Attribute.TOKEN: True}):
            raise UsageError(f"token {token.state.label!r} has this key already", hint="the command mailsec key list shows it")
        one = functions.create(
            session,
            {
                Attribute.CLASS: int(ObjectClass.PRIVATE_KEY),
                **common,
                Attribute.PRIVATE: True,
                Attribute.SENSITIVE: True,
                Attribute.EXTRACTABLE: token.library.softoken,
                **secret,
            },
        )
        with _whole(token, session, one):
            functions.create(session, {Attribute.CLASS: int(ObjectClass.PUBLIC_KEY), **common, **public})
    return TokenKey(token.state.label, label, identifier, facts.key_type, facts.bits, spki)


def _parts(key: Any, label: str) -> tuple[dict[int, Value], dict[int, Value]]:
    """What is particular to the private and to the public key."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        public: dict[int, Value] = {
            Attribute.KEY_TYPE: int(KeyType.RSA),
            Attribute.MODULUS: _big(numbers.public_numbers.n),
            Attribute.PUBLIC_EXPONENT: _big(numbers.public_numbers.e),
        }
        secret: dict[int, Value] = {
            Attribute.PRIVATE_EXPONENT: _big(numbers.d),
            Attribute.PRIME_1: _big(numbers.p),
            Attribute.PRIME_2: _big(numbers.q),
            Attribute.EXPONENT_1: _big(numbers.dmp1),
            Attribute.EXPONENT_2: _big(numbers.dmq1),
            Attribute.COEFFICIENT: _big(numbers.iqmp),
        }
        return {**public, **secret, **_OPENS[1]}, {**public, **_OPENS[0]}
    if isinstance(key, ec.EllipticCurvePrivateKey):
        size = (key.curve.key_size + 7) // 8
        point = key.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        kind: dict[int, Value] = {Attribute.KEY_TYPE: int(KeyType.EC), Attribute.EC_PARAMS: _curve(key)}
        value = key.private_numbers().private_value.to_bytes(size, "big")
        return (
            {**kind, Attribute.VALUE: value, **_AGREES[1]},
            {**kind, Attribute.EC_POINT: writer.octet_string(point), **_AGREES[0]},
        )
    if isinstance(key, ed25519.Ed25519PrivateKey):
        kind = {Attribute.KEY_TYPE: int(KeyType.EC_EDWARDS), Attribute.EC_PARAMS: writer.printable_string("edwards25519")}
        return (
            {**kind, Attribute.VALUE: key.private_bytes_raw(), **_SIGNS[1]},
            {**kind, Attribute.EC_POINT: writer.octet_string(key.public_key().public_bytes_raw()), **_SIGNS[0]},
        )
    for kinds, number, (public_uses, private_uses) in ((_MLDSA_KEYS, KeyType.ML_DSA, _SIGNS), (_MLKEM_KEYS, KeyType.ML_KEM, _DECAPSULATES)):
        parameters = next((found for kept, found in kinds.items() if isinstance(key, kept)), None)
        if parameters is not None:
            # PKCS #11 v3.2, ML-DSA and ML-KEM private key objects: the seed says all; a token that wants the expanded key beside it refuses.
            kind = {Attribute.KEY_TYPE: int(number), Attribute.PARAMETER_SET: int(parameters)}
            return (
                {**kind, Attribute.SEED: key.private_bytes_raw(), **private_uses},
                {**kind, Attribute.VALUE: key.public_key().public_bytes_raw(), **public_uses},
            )
    raise PrivateKeyError(f"the private key for {label!r} is of a kind that cannot be put on a token")


def _curve(key: ec.EllipticCurvePrivateKey) -> bytes:
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return algorithm_parameters(spki) or b""


def import_certificate(token: Token, der: bytes, label: str) -> bytes:
    """Put a certificate on the token; its CKA_ID, which joins it to its key. Raise UsageError, TokenError, KeyUnavailable."""
    certificate = load_certificate(der)
    if not certificate.readable:
        raise UsageError("the certificate cannot be read", hint="DER or PEM of one X.509 certificate")
    # A card's key may have any id: its certificate gets the same, or nobody finds the one by the other.
    of_key = next((key.id for key in read_keys(token) if key.public_key == certificate.spki and key.id), b"")
    identifier = of_key or key_identifier(certificate.spki)
    with token.writing() as session:
        functions = token.functions
        if functions.find(session, {Attribute.CLASS: int(ObjectClass.CERTIFICATE), Attribute.VALUE: der}):
            raise UsageError(
                f"token {token.state.label!r} has this certificate already", hint="`mailsec cert rename` gives it another name"
            )
        values: dict[int, Value] = {
            Attribute.CLASS: int(ObjectClass.CERTIFICATE),
            Attribute.CERTIFICATE_TYPE: 0,
            Attribute.TOKEN: True,
            Attribute.LABEL: label,
            Attribute.ID: identifier,
            Attribute.VALUE: der,
            Attribute.SUBJECT: certificate.subject.der,
            Attribute.ISSUER: certificate.issuer.der,
            Attribute.SERIAL_NUMBER: writer.integer(certificate.serial),
        }
        if token.library.softoken and certificate.addresses:
            values[_NSS_EMAIL] = str(certificate.addresses[0])
        functions.create(session, values)
    return identifier


def rename_certificate(token: Token, der: bytes, label: str) -> None:
    """Give a certificate another nickname."""
    with token.writing() as session:
        for handle in _certificate(token, session, der):
            token.functions.set_attributes(session, handle, {Attribute.LABEL: label})


def delete_certificate(token: Token, der: bytes) -> None:
    """Take a certificate from the token, with what an NSS database says of its trust. Its key stays."""
    with token.writing() as session:
        for handle in _certificate(token, session, der):
            token.functions.destroy(session, handle)
        for handle in _trust(token, session, der):
            token.functions.destroy(session, handle)


def delete_key(token: Token, key_id: bytes) -> None:
    """Destroy a private key, with its public key object."""
    with token.writing() as session:
        functions = token.functions
        found = functions.find(session, {Attribute.CLASS: int(ObjectClass.PRIVATE_KEY), Attribute.ID: key_id, Attribute.TOKEN: True})
        if not key_id or not found:
            raise UsageError(
                f"token {token.state.label!r} has no key {key_id.hex()}", hint="the command mailsec key list shows those that there are"
            )
        for handle in found:
            functions.destroy(session, handle)
        for handle in functions.find(session, {Attribute.CLASS: int(ObjectClass.PUBLIC_KEY), Attribute.ID: key_id, Attribute.TOKEN: True}):
            functions.destroy(session, handle)


def set_trust(token: Token, der: bytes, trust: TrustFlags) -> None:
    """Say what a certificate of an NSS database is trusted for."""
    if not token.library.softoken:
        raise TokenError(f"token {token.state.label!r} keeps no trust", hint="import the certificate into the database, and trust it there")
    certificate = load_certificate(der)
    with token.writing(secrets=True) as session:
        known = _trust(token, session, der)
        if known:
            try:
                token.functions.set_attributes(session, known[0], trust_values(trust))
                return
            except CkError:
                # One that somebody edited cannot be changed, only written anew.
                for handle in known:
                    token.functions.destroy(session, handle)
        template = trust_template(der, certificate.issuer.der, writer.integer(certificate.serial), trust)
        token.functions.create(session, template)


def _certificate(token: Token, session: int, der: bytes) -> list[int]:
    found = token.functions.find(session, {Attribute.CLASS: int(ObjectClass.CERTIFICATE), Attribute.VALUE: der})
    if not found:
        raise UsageError(
            f"token {token.state.label!r} does not have this certificate", hint="`mailsec cert list` shows those that there are"
        )
    return found


def _trust(token: Token, session: int, der: bytes) -> list[int]:
    fingerprint = hashlib.sha1(der, usedforsecurity=False).digest()
    return token.functions.find(session, {Attribute.CLASS: TRUST_CLASS, SHA1_HASH: fingerprint}) if token.library.softoken else []


@contextmanager
def _whole(token: Token, session: int, *handles: int) -> Iterator[None]:
    """Take away what was made where the rest fails."""
    try:
        yield
    except BaseException:
        for handle in handles:
            try:
                token.functions.destroy(session, handle)
            except CkError:
                pass
        raise


def _big(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
