"""What has no peer yet (ML-KEM, ML-DSA, X25519, X448): read with the ASN.1 modules of the RFCs as pyasn1-alt-modules has them.

The content key is derived and unwrapped here a second time, from the structures of those modules and the primitives alone.
"""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, keywrap, padding, serialization
from cryptography.hazmat.primitives.asymmetric import x448, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pyasn1.codec.der.decoder import decode
from pyasn1.codec.der.encoder import encode
from pyasn1.type import univ
from pyasn1_alt_modules import rfc5280, rfc5652, rfc5753, rfc8418, rfc8419, rfc9629, rfc9882, rfc9936

from tests.cms.people import private_key
from tests.interop import ours
from tests.interop.rows import CONTENT, ROWS, Row

AES_256_WRAP = "2.16.840.1.101.3.4.1.45"
HKDF_SHA256 = "1.2.840.113549.1.9.16.3.28"


def row(name: str) -> Row:
    return next(one for one in ROWS if one.name == name)


def read(octets: bytes, model: Any) -> Any:
    """Decoded by the model, which encodes it to the same octets again: it is DER, and nothing is left over."""
    value, rest = decode(octets, asn1Spec=model)
    assert rest == b""
    assert encode(value) == octets
    return value


def enveloped(octets: bytes) -> Any:
    outer = read(octets, rfc5652.ContentInfo())
    return read(bytes(outer["content"]), rfc5652.EnvelopedData())


def decrypted(key: bytes, content: Any) -> bytes:
    iv = bytes(read(bytes(content["contentEncryptionAlgorithm"]["parameters"]), univ.OctetString()))
    decryptor = Cipher(algorithms.AES256(key), modes.CBC(iv)).decryptor()
    plain = decryptor.update(bytes(content["encryptedContent"])) + decryptor.finalize()
    unpadder = padding.PKCS7(128).unpadder()
    return unpadder.update(plain) + unpadder.finalize()


@pytest.mark.parametrize(("name", "kem"), [("ml-kem-768", rfc9936.id_alg_ml_kem_768), ("ml-kem-1024", rfc9936.id_alg_ml_kem_1024)])
def test_a_kem_recipient_is_that_of_rfc_9629_and_opens(name: str, kem: univ.ObjectIdentifier) -> None:
    found = enveloped(ours.write(row(name)))
    # RFC 5652 §6.1: version 3, as there is an OtherRecipientInfo.
    assert found["version"] == 3
    other = found["recipientInfos"][0]["ori"]
    assert other["oriType"] == rfc9629.id_ori_kem
    info = read(bytes(other["oriValue"]), rfc9629.KEMRecipientInfo())
    assert info["version"] == 0 and info["kem"]["algorithm"] == kem and not info["kem"]["parameters"].isValue
    assert (str(info["kdf"]["algorithm"]), str(info["wrap"]["algorithm"]), int(info["kekLength"])) == (HKDF_SHA256, AES_256_WRAP, 32)
    derived = rfc9629.CMSORIforKEMOtherInfo()
    derived["wrap"]["algorithm"] = info["wrap"]["algorithm"]
    derived["kekLength"] = 32
    secret = serialization.load_der_private_key(private_key(name), None).decapsulate(bytes(info["kemct"]))
    kek = HKDF(hashes.SHA256(), 32, None, encode(derived)).derive(secret)
    key = keywrap.aes_key_unwrap(kek, bytes(info["encryptedKey"]))
    assert decrypted(key, found["encryptedContentInfo"]) == CONTENT


@pytest.mark.parametrize(
    ("name", "scheme", "digest", "public_key"),
    [
        ("x25519", rfc8418.dhSinglePass_stdDH_hkdf_sha256_scheme, hashes.SHA256(), x25519.X25519PublicKey),
        ("x448", rfc8418.dhSinglePass_stdDH_hkdf_sha512_scheme, hashes.SHA512(), x448.X448PublicKey),
    ],
)
def test_an_agreement_on_a_montgomery_curve_is_that_of_rfc_8418_and_opens(
    name: str, scheme: Any, digest: hashes.HashAlgorithm, public_key: Any
) -> None:
    found = enveloped(ours.write(row(name)))
    assert found["version"] == 2
    info = found["recipientInfos"][0]["kari"]
    assert info["version"] == 3 and info["keyEncryptionAlgorithm"]["algorithm"] == scheme
    public = info["originator"]["originatorKey"]
    assert not public["algorithm"]["parameters"].isValue
    wrap = read(bytes(info["keyEncryptionAlgorithm"]["parameters"]), rfc5280.AlgorithmIdentifier())
    assert str(wrap["algorithm"]) == AES_256_WRAP
    shared = rfc5753.ECC_CMS_SharedInfo()
    shared["keyInfo"]["algorithm"] = wrap["algorithm"]
    shared["suppPubInfo"] = (256).to_bytes(4, "big")
    own: Any = serialization.load_der_private_key(private_key(name), None)
    secret = own.exchange(public_key.from_public_bytes(public["publicKey"].asOctets()))
    kek = HKDF(digest, 32, None, encode(shared)).derive(secret)
    key = keywrap.aes_key_unwrap(kek, bytes(info["recipientEncryptedKeys"][0]["encryptedKey"]))
    assert decrypted(key, found["encryptedContentInfo"]) == CONTENT


@pytest.mark.parametrize(
    ("name", "algorithm"),
    [
        ("ed25519", rfc8419.id_Ed25519),
        ("ed448", rfc8419.id_Ed448),
        ("ml-dsa-44", rfc9882.id_ml_dsa_44),
        ("ml-dsa-65", rfc9882.id_ml_dsa_65),
        ("ml-dsa-87", rfc9882.id_ml_dsa_87),
    ],
)
def test_a_signer_is_that_of_the_rfc_and_its_signature_is_right(name: str, algorithm: univ.ObjectIdentifier) -> None:
    outer = read(ours.write(row(name)), rfc5652.ContentInfo())
    signed = read(bytes(outer["content"]), rfc5652.SignedData())
    (info,) = signed["signerInfos"]
    # RFC 8419 §3.1, RFC 9882 §3.4: the parameters of the signature algorithm are absent.
    assert info["signatureAlgorithm"]["algorithm"] == algorithm and not info["signatureAlgorithm"]["parameters"].isValue
    attributes = bytearray(encode(info["signedAttrs"]))
    # RFC 5652 §5.4: signed under the tag of SET OF.
    attributes[0] = 0x31
    public: Any = serialization.load_der_private_key(private_key(name), None).public_key()
    public.verify(bytes(info["signature"]), bytes(attributes))
