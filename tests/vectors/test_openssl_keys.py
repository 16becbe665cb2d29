"""The keys and certificates of OpenSSL's own S/MIME tests: each signs or receives what it can, and the others are refused by name."""

from __future__ import annotations

import os
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mailsec.algorithms.profiles import PROFILES
from mailsec.cms.decrypt import open_content
from mailsec.cms.encrypt import encrypt_content
from mailsec.cms.enveloped import read_enveloped_data
from mailsec.cms.sign import opaque, sign_content, signer_for
from mailsec.cms.signed import read_signed_data
from mailsec.cms.verify import verify_signers
from mailsec.errors import CryptoError, MailsecError
from mailsec.interfaces import run_now
from mailsec.keys.files import load_certificates, load_private_key
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.model.octets import Segments
from mailsec.testing.memory import MemoryScratch
from mailsec.x509.certificate import load_certificate, summary
from mailsec.x509.crl import load_crl
from mailsec.x509.private_keys import load_public

pytestmark = pytest.mark.vectors

CONTENT = b"Content-Type: text/plain\r\n\r\nhello\r\n"
BACKEND = SoftwareBackend()
SIGN = ["csrsa1", "smrsa1", "smrsa2", "smrsa3", "smroot", "smec1", "smec3", "sm_mldsa44"]
RECEIVE = ["smrsa1", "smrsa2", "smrsa3", "smec1", "smec3", "sm_mlkem768"]


def key_of(vectors: Path, name: str) -> SoftwareKey:
    text = (vectors / "openssl-cms" / "smime-certs" / f"{name}.pem").read_bytes()
    return SoftwareKey(name, load_private_key(text), certificate=load_certificates(text)[0])


@pytest.mark.parametrize("name", SIGN)
def test_what_a_key_of_openssl_signs_is_intact(vectors: Path, name: str) -> None:
    signer = signer_for(key_of(vectors, name))
    digest = BACKEND.hash(signer.digest)
    digest.update(CONTENT)
    info = run_now(sign_content(signer, digest.digest(), at=datetime(2026, 11, 22, tzinfo=UTC)))
    signed = read_signed_data(opaque(Segments((CONTENT,)), [signer], [info]).join())
    (result,) = verify_signers(signed, None, backend=BACKEND)
    assert result.intact and not result.reasons, result.reasons


@pytest.mark.parametrize("name", RECEIVE)
def test_what_is_encrypted_to_a_certificate_of_openssl_opens_with_its_key(vectors: Path, name: str) -> None:
    key = key_of(vectors, name)
    assert key.certificate is not None
    sealed = encrypt_content(Segments((CONTENT,)), [key.certificate], backend=BACKEND, random=os.urandom, cipher="aes-256-gcm")
    enveloped = read_enveloped_data(run_now(sealed).join())
    opened = run_now(open_content(enveloped, [key], scratch=MemoryScratch))
    assert opened.content is not None and bytes(opened.content.view(0, 100)) == CONTENT


@pytest.mark.parametrize("name", ["smdh", "smec2", "sm_mlkem512", "sm_slhdsa_sha2_128s", "sm_slhdsa_shake_256s"])
def test_keys_of_kinds_that_mailsec_does_not_use_are_refused_and_their_certificates_named(vectors: Path, name: str) -> None:
    with pytest.raises(MailsecError):
        key_of(vectors, name)
    text = (vectors / "openssl-cms" / "smime-certs" / f"{name}.pem").read_bytes()
    (certificate,) = load_certificates(text)
    assert summary(load_certificate(certificate)).subject
    with pytest.raises(CryptoError):
        run_now(encrypt_content(Segments((CONTENT,)), [certificate], backend=BACKEND, random=os.urandom))
    with pytest.raises(MailsecError):
        load_public(load_certificate(certificate).spki)


def test_a_short_key_of_openssl_does_not_sign(vectors: Path) -> None:
    with pytest.raises(CryptoError, match="too short"):
        signer_for(key_of(vectors, "smrsa1024"), PROFILES["default"])


@pytest.mark.parametrize("archive", ["crl", "x509"])
def test_inputs_that_fuzzers_found_are_read_as_certificates_and_lists_or_not_at_all(vectors: Path, archive: str) -> None:
    seen = 0
    with tarfile.open(vectors / "openssl-fuzz-corpora" / f"{archive}.tar.gz") as corpus:
        for member in corpus:
            file = corpus.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            data = file.read()
            certificate = load_certificate(data)
            summary(certificate)
            load_crl(data)
            seen += 1
    assert seen > 20
