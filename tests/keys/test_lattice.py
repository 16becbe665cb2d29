"""Keys of ML-DSA and ML-KEM in the forms of other programs."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from mailsec.asn1.reader import read_single
from mailsec.asn1.writer import integer, octet_string, sequence
from mailsec.errors import PrivateKeyError
from mailsec.keys.files import load_certificates, load_private_key, pem_blocks
from mailsec.keys.software import SoftwareKey

NAMES = {"sm_mldsa44": "ml-dsa-44", "sm_mlkem768": "ml-kem-768"}


def key_file(vectors: Path, name: str) -> bytes:
    return (vectors / "openssl-cms" / "smime-certs" / f"{name}.pem").read_bytes()


def parts(vectors: Path, name: str) -> tuple[bytes, bytes, bytes]:
    """The algorithm, the seed and the expanded key of a file of OpenSSL."""
    der = next(block.data for block in pem_blocks(key_file(vectors, name)) if block.label == "PRIVATE KEY")
    _, algorithm, held = read_single(der, 0x30).children()
    seed, expanded = read_single(held.content, 0x30).children()
    return algorithm.encoding, seed.content, expanded.content


def pkcs8(algorithm: bytes, held: bytes) -> bytes:
    return sequence(integer(0), algorithm, octet_string(held))


@pytest.mark.parametrize("name", NAMES)
def test_a_key_of_openssl_with_seed_and_expanded_form_is_read(vectors: Path, name: str) -> None:
    text = key_file(vectors, name)
    der = load_private_key(text)
    # It fits the certificate beside it, and only the seed is kept.
    assert SoftwareKey(name, der, certificate=load_certificates(text)[0]).key_type == NAMES[name]
    assert len(der) < 100 and load_private_key(der) == der
    loaded = serialization.load_der_private_key(der, None)
    assert loaded.private_bytes_raw() == parts(vectors, name)[1]


@pytest.mark.parametrize("at", [0, 100, 1200, -1])
@pytest.mark.parametrize("name", NAMES)
def test_a_key_whose_forms_do_not_belong_to_each_other_is_refused(vectors: Path, name: str, at: int) -> None:
    algorithm, seed, expanded = parts(vectors, name)
    other = bytes([seed[0] ^ 1]) + seed[1:]
    with pytest.raises(PrivateKeyError, match="do not belong"):
        load_private_key(pkcs8(algorithm, sequence(octet_string(other), octet_string(expanded))))
    changed = bytearray(expanded)
    changed[at] ^= 1
    # What the seed does not say of the public key is not looked at: it is not computed with either.
    looked_at = {"sm_mldsa44": (0, 100), "sm_mlkem768": (1200, -1)}
    data = pkcs8(algorithm, sequence(octet_string(seed), octet_string(bytes(changed))))
    if at in looked_at[name]:
        with pytest.raises(PrivateKeyError, match="do not belong"):
            load_private_key(data)
    else:
        assert len(load_private_key(data)) < 100


@pytest.mark.parametrize("name", NAMES)
def test_a_key_without_a_seed_or_of_another_length_is_refused_with_what_to_do(vectors: Path, name: str) -> None:
    algorithm, seed, expanded = parts(vectors, name)
    with pytest.raises(PrivateKeyError, match="only its expanded form") as caught:
        load_private_key(pkcs8(algorithm, octet_string(expanded)))
    assert "seed" in caught.value.hint
    for held in (
        sequence(octet_string(seed[:-1]), octet_string(expanded)),
        sequence(octet_string(seed), octet_string(expanded[:-1])),
        sequence(octet_string(seed)),
        sequence(),
        b"",
        b"\x30",
    ):
        with pytest.raises(PrivateKeyError):
            load_private_key(pkcs8(algorithm, held))
