"""Keys and certificates as files carry them: PEM (RFC 7468), PKCS#8 (RFC 5958), PKCS#12 (RFC 7292), PKCS#7 bundles.

Octets in, DER out; nothing here touches a file. Invariant: a key derivation that would cost more than `limits.kdf_iterations` is refused
before it is begun, and no pass phrase or key octet is in an error.
"""

from __future__ import annotations

import base64
import binascii
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from mailsec.algorithms.public_keys import CURVES_READ
from mailsec.asn1.reader import INTEGER, SEQUENCE, Element, read_element, read_single
from mailsec.asn1.values import read_integer, read_octet_string, read_oid, read_string
from mailsec.errors import Asn1Error, CertificateError, CryptoError, LimitExceeded, PrivateKeyError
from mailsec.keys.lattice import seed_only
from mailsec.keys.software import plain_public_key
from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = ["PemBlock", "Pkcs12", "Pkcs12Key", "load_certificates", "load_pkcs12", "load_private_key", "pem", "pem_blocks"]

_FAILURES: Final = (ValueError, TypeError, UnsupportedAlgorithm, InternalError, OverflowError)

_DATA: Final = "1.2.840.113549.1.7.1"
_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
_ENCRYPTED_DATA: Final = "1.2.840.113549.1.7.6"
_PBES2: Final = "1.2.840.113549.1.5.13"
_PBMAC1: Final = "1.2.840.113549.1.5.14"
_PBKDF2: Final = "1.2.840.113549.1.5.12"
_SCRYPT: Final = "1.3.6.1.4.1.11591.4.11"
_KEY_BAG: Final = "1.2.840.113549.1.12.10.1.1"
_SHROUDED_KEY_BAG: Final = "1.2.840.113549.1.12.10.1.2"
_FRIENDLY_NAME: Final = "1.2.840.113549.1.9.20"

_KINDS_READ: Final = "have it written as PKCS#8, with AES and PBKDF2 where it has a pass phrase"
_SCRYPT_MEMORY: Final = 256 * 1024 * 1024


class PemBlock(NamedTuple):
    """One "-----BEGIN LABEL-----" block (RFC 7468 §2)."""

    label: str
    headers: bytes
    """Lines of RFC 1421 ("Proc-Type", "DEK-Info"), where old OpenSSL keys have them."""
    data: bytes
    text: bytes
    """The block as it stands."""


# Possessive ("*+"): a block without an end is given up at once; trying shorter ones would be quadratic. So would be header lines without
# end, each of which holds a BEGIN of its own: OpenSSL writes two of them, and one line of 20 is looked at 20 times at most.
_PEM: Final = re.compile(
    rb"-----BEGIN ([A-Z0-9][A-Z0-9 ]{0,60})-----[ \t]*\r?\n((?:[A-Za-z-]{1,40}: [^\n]*+\n(?:[ \t][^\n]*+\n){0,20}+){0,20}+)"
    rb"([A-Za-z0-9+/=\s]*+)-----END \1-----"
)


def pem_blocks(data: bytes) -> Iterator[PemBlock]:
    """The PEM blocks within a text, in order; what stands between them is passed over, and a block of bad base64 too."""
    for match in _PEM.finditer(data):
        try:
            yield PemBlock(match[1].decode("ascii"), match[2], base64.b64decode(match[3]), match[0])
        except (binascii.Error, ValueError):
            continue


def pem(der: bytes, label: str) -> bytes:
    """One PEM block (RFC 7468 §2): lines of 64 characters, LF."""
    encoded = base64.b64encode(der).decode("ascii")
    lines = [encoded[at : at + 64] for at in range(0, len(encoded), 64)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")).encode("ascii")


# -- private keys -------------------------------------------------------------------------------------------------------------


def load_private_key(data: bytes, passphrase: bytes | None = None, *, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The first private key in `data` (PEM or DER; PKCS#8 with or without a pass phrase, PKCS#1, SEC1) as PKCS#8 DER.

    Raises PrivateKeyError for no key, a broken one, or another pass phrase; LimitExceeded for a derivation that costs too much.
    """
    if b"-----BEGIN " in data:
        for block in pem_blocks(data):
            if block.label.endswith("PRIVATE KEY"):
                if block.label == "ENCRYPTED PRIVATE KEY":
                    return _decrypted(block.data, passphrase, limits)
                if b"ENCRYPTED" in block.headers:
                    # The old form of OpenSSL derives its key in one iteration: no cost, and little safety.
                    return _pkcs8(_loaded(serialization.load_pem_private_key, block.text, passphrase, True, limits), limits)
                if block.label == "PRIVATE KEY":
                    return _checked(block.data, limits)
                return _pkcs8(_loaded(serialization.load_der_private_key, block.data, None, False, limits), limits)
        raise PrivateKeyError("no private key in these PEM blocks", hint="a key begins with -----BEGIN PRIVATE KEY-----")
    try:
        parts = read_single(data, SEQUENCE, "private key", limits=limits).children()
        encrypted = len(parts) == 2 and parts[0].tag == SEQUENCE
    except Asn1Error:
        raise PrivateKeyError("not a private key: neither PEM nor DER") from None
    if encrypted:
        return _decrypted(data, passphrase, limits)
    # PrivateKeyInfo (RFC 5958 §2): version, AlgorithmIdentifier, OCTET STRING; the older forms have numbers there.
    if len(parts) >= 3 and parts[1].tag == SEQUENCE:
        return _checked(data, limits)
    return _pkcs8(_loaded(serialization.load_der_private_key, data, None, False, limits), limits)


def _loaded(loader: Any, data: bytes, passphrase: bytes | None, encrypted: bool, limits: Limits) -> Any:
    # Reading a key of a million bits tests its primes: seconds to hours. Five numbers of half or the whole size, and room for the rest.
    if len(data) > limits.rsa_bits + 8192:
        raise PrivateKeyError("a private key that is too large")
    if encrypted and not passphrase:
        raise PrivateKeyError("the private key is protected by a pass phrase", hint="give its pass phrase")
    try:
        return loader(data, passphrase if encrypted else None)
    except UnsupportedAlgorithm as error:
        # OpenSSL reads curves that are not computed with here.
        if "urve" in str(error):
            raise PrivateKeyError("the private key is on an elliptic curve that is not computed with", hint=CURVES_READ) from None
        raise PrivateKeyError("the private key is of a kind, or protected in a way, that is not read", hint=_KINDS_READ) from None
    except _FAILURES:
        if encrypted:
            raise PrivateKeyError("the private key cannot be opened: another pass phrase, or a broken file") from None
        raise PrivateKeyError("the private key cannot be read") from None


def _decrypted(data: bytes, passphrase: bytes | None, limits: Limits) -> bytes:
    try:
        parts = read_single(data, SEQUENCE, "EncryptedPrivateKeyInfo").children()
        _check_derivation(parts[0], limits)
    except (Asn1Error, IndexError):
        raise PrivateKeyError("the private key cannot be read") from None
    return _pkcs8(_loaded(serialization.load_der_private_key, data, passphrase, True, limits), limits)


def _checked(data: bytes, limits: Limits) -> bytes:
    """PKCS#8 as it stands, once it is known to be a key: an RSASSA-PSS key keeps its identifier. Of ML-DSA and ML-KEM keys, the seed."""
    data = seed_only(data)
    _check_bits(_loaded(serialization.load_der_private_key, data, None, False, limits), limits)
    return data


def _pkcs8(key: Any, limits: Limits) -> bytes:
    _check_bits(key, limits)
    der: bytes = key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return der


def _check_bits(key: Any, limits: Limits) -> None:
    bits = getattr(key, "key_size", 0)
    if bits > limits.rsa_bits:
        raise PrivateKeyError(f"the private key has {bits} bits, more than {limits.rsa_bits}")


def _check_derivation(algorithm: Element, limits: Limits) -> int:
    """Return the iterations of a password-based AlgorithmIdentifier (RFC 8018, RFC 7914, RFC 7292 §C); raise LimitExceeded for too many."""
    parts = algorithm.expect(SEQUENCE, "encryption algorithm").children()
    kind = read_oid(parts[0])
    if len(parts) < 2 or parts[1].tag != SEQUENCE:
        return 0
    parameters = parts[1].children()
    if kind in (_PBES2, _PBMAC1):
        return _check_derivation(parameters[0], limits) if parameters else 0
    if kind == _SCRYPT:
        numbers = [read_integer(part) for part in parameters[1:4] if part.tag == INTEGER]
        if len(numbers) == 3:
            cost, block, parallel = numbers
            _check_sum(cost * block * parallel, limits)
            if 128 * cost * block > _SCRYPT_MEMORY:
                raise LimitExceeded("kdf_iterations", "a key derivation that takes too much memory")
            return cost * block * parallel
        return 0
    # PBKDF2, and the schemes of PKCS#5 version 1 and PKCS#12: salt, iterations.
    if len(parameters) >= 2 and parameters[1].tag == INTEGER:
        return _check_iterations(read_integer(parameters[1]), limits)
    return 0


def _check_iterations(count: int, limits: Limits) -> int:
    if count > limits.kdf_iterations or count < 1:
        raise LimitExceeded(
            "kdf_iterations", f"key derivations of more than {limits.kdf_iterations} iterations", hint="have the file written with fewer"
        )
    return count


def _check_sum(count: int, limits: Limits) -> None:
    if count > limits.kdf_iterations_of_file or count < 1:
        most = limits.kdf_iterations_of_file
        raise LimitExceeded("kdf_iterations_of_file", f"key derivations of more than {most} iterations together", hint="split the file")


# -- PKCS#12 ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Pkcs12Key:
    """A private key of a PKCS#12 file, and its certificate where the file holds it."""

    name: str
    """friendlyName; "" where there is none."""
    private_key: bytes = field(repr=False)
    """PKCS#8 DER."""
    certificate: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pkcs12:
    """What a PKCS#12 file holds: keys with their certificates, and all other certificates with their names."""

    keys: tuple[Pkcs12Key, ...]
    certificates: tuple[tuple[str, bytes], ...]
    """(friendlyName, DER) of those that belong to no key here."""


def load_pkcs12(data: bytes, passphrase: bytes | None = None, *, limits: Limits = DEFAULT_LIMITS) -> Pkcs12:
    """Open a PKCS#12 file, its integrity checked. Raises PrivateKeyError for another pass phrase or what is none; LimitExceeded."""
    if len(data) > limits.cms_metadata_octets:
        raise LimitExceeded("cms_metadata_octets", "a PKCS#12 file that is too large")
    try:
        bags = _check_pkcs12(data, limits)
    except (Asn1Error, IndexError):
        raise PrivateKeyError("not a PKCS#12 file") from None
    opened = _open_pkcs12(data, passphrase)
    certificates: dict[bytes, str] = {}
    for entry in (opened.cert, *opened.additional_certs):
        if entry is not None:
            certificates.setdefault(entry.certificate.public_bytes(serialization.Encoding.DER), _name(entry.friendly_name))
    by_public_key = {_spki_of(der): der for der in certificates}

    keys: dict[bytes, Pkcs12Key] = {}
    if opened.key is not None:
        named = _name(opened.cert.friendly_name) if opened.cert is not None else ""
        _add_key(keys, named, opened.key, by_public_key, certificates, limits)
    # The library gives the first key only: the others are taken from their bags, after it has checked the file's integrity.
    for name, der, encrypted in bags:
        key = _loaded(serialization.load_der_private_key, der, passphrase or b"", encrypted and bool(passphrase), limits)
        _add_key(keys, name, key, by_public_key, certificates, limits)
    own = {key.certificate for key in keys.values()}
    return Pkcs12(tuple(keys.values()), tuple((name, der) for der, name in certificates.items() if der not in own))


def _open_pkcs12(data: bytes, passphrase: bytes | None) -> Any:
    # No pass phrase is written as an empty one by some, as none by others.
    for attempt in (passphrase,) if passphrase else (None, b""):
        try:
            with warnings.catch_warnings():
                # Files in BER (old Mozilla, Java) are read with a warning that means nothing to an operator.
                warnings.simplefilter("ignore")
                return pkcs12.load_pkcs12(data, attempt)
        except _FAILURES:
            continue
    hint = "it is the one that the file was exported with, not that of the database" if passphrase else "give its pass phrase"
    raise PrivateKeyError("the PKCS#12 file cannot be opened: another pass phrase, or a broken file", hint=hint)


def _add_key(
    keys: dict[bytes, Pkcs12Key], name: str, key: Any, by_public_key: dict[bytes, bytes], names: dict[bytes, str], limits: Limits
) -> None:
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    certificate = by_public_key.get(public)
    known = keys.get(public)
    name = name or (known.name if known else "") or (names.get(certificate, "") if certificate else "")
    keys[public] = Pkcs12Key(name, _pkcs8(key, limits), certificate)


def _name(friendly_name: bytes | None) -> str:
    return (friendly_name or b"").decode("utf-8", "replace")


def _spki_of(certificate: bytes) -> bytes:
    try:
        parts = read_element(certificate).children()[0].children()
        # As the keys beside it are written, which do not say that they are for RSASSA-PSS alone.
        return plain_public_key(parts[6 if parts[0].tag == 0xA0 else 5].encoding)
    except (Asn1Error, CryptoError, LimitExceeded, IndexError):
        return b""


def _check_pkcs12(data: bytes, limits: Limits) -> list[tuple[str, bytes, bool]]:
    """Check the cost of every derivation that can be seen; return the key bags that can: (name, DER, encrypted)."""
    parts = read_element(data, limits=limits).expect(SEQUENCE, "PFX").children()
    read_integer(parts[0])
    # Each derivation is within the limit, and all of them together: a thousand bags of the most that one may cost are hours.
    cost = 0
    if len(parts) > 2:
        # MacData (RFC 7292 §4): DigestInfo, salt, iterations; with PBMAC1 (RFC 9879) the derivation is in the algorithm.
        mac = parts[2].expect(SEQUENCE, "macData").children()
        cost += _check_derivation(mac[0].children()[0], limits)
        if len(mac) > 2:
            cost += _check_iterations(read_integer(mac[2]), limits)
    safe = read_element(_content(parts[1]), limits=limits).expect(SEQUENCE, "AuthenticatedSafe")
    bags: list[tuple[str, bytes, bool]] = []
    for info in safe:
        kind = read_oid(info.expect(SEQUENCE, "ContentInfo").children()[0])
        if kind == _ENCRYPTED_DATA:
            encrypted = info.children()[1].only("content").children()[1].children()
            cost += _check_derivation(encrypted[1], limits)
        elif kind == _DATA:
            for bag in read_element(_content(info), limits=limits).expect(SEQUENCE, "SafeContents"):
                found, iterations = _key_bag(bag.children(), limits)
                bags += found
                cost += iterations
    if cost:
        _check_sum(cost, limits)
    return bags


def _content(info: Element) -> bytes:
    """The OCTET STRING within a ContentInfo of type data."""
    return read_octet_string(info.expect(SEQUENCE, "ContentInfo").children()[1].only("content"))


def _key_bag(parts: list[Element], limits: Limits) -> tuple[list[tuple[str, bytes, bool]], int]:
    """The key of a bag, and the iterations that opening it costs: its key is derived twice, by the library and by us."""
    kind = read_oid(parts[0])
    if kind not in (_KEY_BAG, _SHROUDED_KEY_BAG):
        return [], 0
    value = parts[1].only("bagValue")
    cost = 0
    if kind == _SHROUDED_KEY_BAG:
        cost = 2 * _check_derivation(value.children()[0], limits)
    name = ""
    for attribute in parts[2].children() if len(parts) > 2 else ():
        members = attribute.children()
        if len(members) == 2 and read_oid(members[0]) == _FRIENDLY_NAME and (values := members[1].children()):
            name = read_string(values[0])
    return [(name, value.encoding, kind == _SHROUDED_KEY_BAG)], cost


# -- certificates -------------------------------------------------------------------------------------------------------------

_CERTIFICATE_LABELS: Final = ("CERTIFICATE", "X509 CERTIFICATE", "TRUSTED CERTIFICATE")
_BUNDLE_LABELS: Final = ("PKCS7", "CMS", "PKCS #7 SIGNED DATA")


def load_certificates(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> tuple[bytes, ...]:
    """The certificates in `data`, in order: PEM blocks, DER one behind another, or a PKCS#7 bundle. Raises CertificateError for none."""
    found: list[bytes] = []
    try:
        if b"-----BEGIN " in data:
            for block in pem_blocks(data):
                if block.label in _CERTIFICATE_LABELS:
                    # OpenSSL's "TRUSTED CERTIFICATE" has its own trust settings behind the certificate: not ours to believe.
                    found.append(read_element(block.data, limits=limits).expect(SEQUENCE, "certificate").encoding)
                elif block.label in _BUNDLE_LABELS:
                    found += _bundle(read_element(block.data, limits=limits), limits)
        else:
            offset = 0
            while offset < len(data) and len(found) < limits.asn1_elements:
                element = read_element(data, offset, limits=limits).expect(SEQUENCE, "certificate")
                found += _bundle(element, limits)
                offset = element.end
                if not data[offset:].strip():
                    break
    except Asn1Error as error:
        raise CertificateError(f"not a certificate: {error}") from None
    if not found:
        raise CertificateError("no certificate in these octets", hint="a certificate begins with -----BEGIN CERTIFICATE-----")
    return tuple(found)


def _bundle(element: Element, limits: Limits) -> list[bytes]:
    """The certificates of a ContentInfo with SignedData; the element itself where it is none."""
    parts = element.children()
    if len(parts) != 2 or parts[0].tag != 0x06:
        return [element.encoding]
    if read_oid(parts[0]) != _SIGNED_DATA:
        raise Asn1Error("a CMS message that is no signed data holds no certificates")
    for part in parts[1].only("content").children():
        if part.tag == 0xA0:
            members = [member.encoding for member in part if member.tag == SEQUENCE]
            if len(members) > limits.asn1_elements:
                raise LimitExceeded("asn1_elements", "too many certificates in one bundle")
            return members
    return []
