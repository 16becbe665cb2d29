"""Key agreement with every derivation of RFC 5753 and RFC 8418: opened by us, and by keys that are derived here a second time."""

from __future__ import annotations

import os
from typing import Any

import pytest
from asn1crypto import cms as oracle
from cryptography.hazmat.primitives import hashes, keywrap, serialization
from cryptography.hazmat.primitives.asymmetric import ec, x448, x25519
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from people import MemoryScratch, person, private_key

from mailsec.algorithms.ciphers import AGREEMENTS
from mailsec.asn1 import writer
from mailsec.cms.decrypt import open_content
from mailsec.cms.encrypt import encrypt_content
from mailsec.cms.enveloped import read_enveloped_data
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.model.octets import Segments

CONTENT = b"derived twice"
# RFC 5753 §7.1.4, RFC 8418 §2.2, §2.3: what the identifiers stand for, written down here once more.
X963, HKDFS = "x963", "hkdf"
SIZES = {"p256": 65, "x25519": 32, "x448": 56}
EXPECTED = {
    "1.3.133.16.840.63.0.2": (X963, hashes.SHA1(), False),
    "1.3.132.1.11.0": (X963, hashes.SHA224(), False),
    "1.3.132.1.11.1": (X963, hashes.SHA256(), False),
    "1.3.132.1.11.2": (X963, hashes.SHA384(), False),
    "1.3.132.1.11.3": (X963, hashes.SHA512(), False),
    "1.3.133.16.840.63.0.3": (X963, hashes.SHA1(), True),
    "1.3.132.1.14.0": (X963, hashes.SHA224(), True),
    "1.3.132.1.14.1": (X963, hashes.SHA256(), True),
    "1.3.132.1.14.2": (X963, hashes.SHA384(), True),
    "1.3.132.1.14.3": (X963, hashes.SHA512(), True),
    "1.2.840.113549.1.9.16.3.19": (HKDFS, hashes.SHA256(), False),
    "1.2.840.113549.1.9.16.3.20": (HKDFS, hashes.SHA384(), False),
    "1.2.840.113549.1.9.16.3.21": (HKDFS, hashes.SHA512(), False),
}


def test_every_derivation_of_the_table_is_held_here() -> None:
    assert set(AGREEMENTS) == set(EXPECTED)


# RFC 8418 §2: X25519 and X448 have no form with a cofactor.
@pytest.mark.parametrize(
    ("oid", "kind"), [(oid, kind) for oid, (_, _, cofactor) in EXPECTED.items() for kind in SIZES if kind == "p256" or not cofactor]
)
def test_a_message_with_this_derivation_opens(monkeypatch: pytest.MonkeyPatch, oid: str, kind: str) -> None:
    derivation, digest, _ = EXPECTED[oid]
    monkeypatch.setattr("mailsec.cms.encrypt._agreement_for", lambda _kind, _bits: AGREEMENTS[oid])
    certificate = person(kind).certificate
    assert certificate is not None
    written = run_now(encrypt_content(Segments((CONTENT,)), [certificate], backend=SoftwareBackend(), random=os.urandom)).join()
    opened = run_now(open_content(read_enveloped_data(written), [person(kind)], scratch=MemoryScratch))
    assert opened.content is not None and bytes(opened.content.view(0, 99)) == CONTENT, opened.reasons

    # Once more, by other code than ours: structures by asn1crypto, derivation and ciphers by cryptography.
    enveloped = oracle.ContentInfo.load(written)["content"]
    info = enveloped["recipient_infos"][0].chosen
    assert info["key_encryption_algorithm"]["algorithm"].dotted == oid
    secret = _secret(kind, info["originator"].dump()[-SIZES[kind] :])
    # RFC 5753 §7.2: ECC-CMS-SharedInfo: the wrap algorithm, and the length of its key in bits.
    wrap = info["key_encryption_algorithm"]["parameters"].dump()
    shared = writer.sequence(wrap, writer.explicit(2, writer.octet_string((256).to_bytes(4, "big"))))
    derived: Any = X963KDF(digest, 32, shared) if derivation == X963 else HKDF(digest, 32, None, shared)
    kek = derived.derive(secret)
    key = keywrap.aes_key_unwrap(kek, info["recipient_encrypted_keys"][0]["encrypted_key"].native)
    content = enveloped["encrypted_content_info"]
    iv = content["content_encryption_algorithm"]["parameters"].native
    plain = Cipher(algorithms.AES256(key), modes.CBC(iv)).decryptor().update(content["encrypted_content"].native)
    assert plain[: len(CONTENT)] == CONTENT


def _secret(kind: str, public: bytes) -> bytes:
    own: Any = serialization.load_der_private_key(private_key(kind), None)
    if kind == "p256":
        return bytes(own.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public)))
    peer = x25519.X25519PublicKey if kind == "x25519" else x448.X448PublicKey
    return bytes(own.exchange(peer.from_public_bytes(public)))
