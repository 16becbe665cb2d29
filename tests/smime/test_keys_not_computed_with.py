"""Keys that OpenSSL computes with and we do not: what they signed is not trusted, and never called changed; each layer says why."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from mailsec.algorithms.profiles import PROFILES
from mailsec.errors import CryptoError, LimitExceeded, PrivateKeyError
from mailsec.keys.files import load_certificates, load_private_key
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.index import index_message
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.mechanism import SignatureMechanism
from mailsec.model.octets import BytesOctets
from mailsec.model.trust import Anchor
from mailsec.model.verdict import Reason, SmimeWord
from mailsec.pki.anchors import is_self_signed, may_be_self_signed
from mailsec.pki.path import PathResult, validate
from mailsec.smime.assess import assess
from mailsec.smime.ciphers_for import unfit
from mailsec.smime.report import authentication_results
from mailsec.x509.certificate import Certificate, load_certificate

BACKEND = SoftwareBackend()
LETTER = b"Content-Type: text/plain\r\n\r\nGood day.\r\n"
KINDS = {
    "brainpoolP320r1": ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:brainpoolP320r1"),
    "exponent of 67 bits": ("-algorithm", "RSA", "-pkeyopt", f"rsa_keygen_pubexp:{2**66 + 1}"),
}
REASONS = {
    "brainpoolP320r1": ("key-unsupported", "parse", "1.3.36.3.3.2.8.1.1.9", SmimeWord.NEUTRAL),
    "exponent of 67 bits": ("limit-rsa-exponent-bits", "limits", "67 bits", SmimeWord.PERMERROR),
}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SimpleNamespace]:
    """By kind of key: a self-signed certificate, a message that its key signed, and a certificate that it issued, all by OpenSSL."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "letter").write_bytes(LETTER)

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=60)

    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "leaf.key")
    found = {}
    for number, (kind, options) in enumerate(KINDS.items()):
        name = str(number)
        openssl("genpkey", *options, "-out", f"{name}.key")
        subject = ("-subj", "/CN=Alice", "-addext", "subjectAltName=email:alice@example.org", "-days", "30")
        openssl("req", "-x509", "-new", "-key", f"{name}.key", *subject, "-out", f"{name}.pem")
        ca = ("-CA", f"{name}.pem", "-CAkey", f"{name}.key")
        openssl("req", "-x509", "-new", "-key", "leaf.key", "-subj", "/CN=Bob", "-days", "9", *ca, "-out", f"{name}-leaf.pem")
        openssl("cms", "-sign", "-in", "letter", "-signer", f"{name}.pem", "-inkey", f"{name}.key", "-out", f"{name}.eml")
        openssl("cms", "-verify", "-in", f"{name}.eml", "-CAfile", f"{name}.pem", "-purpose", "any", "-out", os.devnull)
        openssl("verify", "-CAfile", f"{name}.pem", f"{name}-leaf.pem")
        message = (folder / f"{name}.eml").read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        found[kind] = SimpleNamespace(
            key=(folder / f"{name}.key").read_bytes(),
            certificate=_certificate(folder / f"{name}.pem"),
            below=_certificate(folder / f"{name}-leaf.pem"),
            message=b"From: alice@example.org\r\n" + message,
        )
    return found


def _certificate(path: Path) -> Certificate:
    return load_certificate(load_certificates(path.read_bytes())[0])


def judged(smime: SimpleNamespace, octets: bytes, *anchors: bytes):
    message = index_message(BytesOctets(octets))
    return assess(
        smime.peel(octets), message, anchors=[Anchor(der) for der in anchors], intermediates=(), at=datetime.now(UTC), backend=BACKEND
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_they_signed_is_neither_trusted_nor_called_changed(
    smime: SimpleNamespace, foreign: dict[str, SimpleNamespace], kind: str
) -> None:
    one, (code, stage, named, word) = foreign[kind], REASONS[kind]
    verdict = judged(smime, one.message, one.certificate.der)
    assert (verdict.trusted, verdict.signature_valid, verdict.word) == (False, False, word)
    assert [(reason.code, reason.stage) for reason in verdict.reasons] == [(code, stage)]
    assert named in verdict.reasons[0].message and "changed" not in f"{verdict.reasons}"
    field = authentication_results(verdict, "gw.example.org")
    assert f"smime={word.value}" in field and named in field


@pytest.mark.parametrize("kind", KINDS)
def test_content_that_was_changed_is_changed_whatever_the_key(
    smime: SimpleNamespace, foreign: dict[str, SimpleNamespace], kind: str
) -> None:
    one = foreign[kind]
    verdict = judged(smime, one.message.replace(b"Good day", b"Bad day"), one.certificate.der)
    assert verdict.word is SmimeWord.FAIL and verdict.reasons[0].code == "digest-differs"


@pytest.mark.parametrize("kind", KINDS)
def test_a_signature_by_them_around_a_good_one_is_unchecked_and_not_broken(
    smime: SimpleNamespace, people: SimpleNamespace, foreign: dict[str, SimpleNamespace], kind: str, tmp_path: Path
) -> None:
    one = foreign[kind]
    inner = smime.sign(b"From: alice@example.org\r\n" + LETTER, people.alice)
    content = inner[inner.index(b"MIME-Version") :]
    for name, data in (("inner", content), ("key", one.key)):
        (tmp_path / name).write_bytes(data)
    (tmp_path / "pem").write_bytes(_pem(one.certificate.der))
    command = ["openssl", "cms", "-sign", "-in", "inner", "-signer", "pem", "-inkey", "key", "-binary"]
    outer = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60).stdout
    verdict = judged(smime, b"From: alice@example.org\r\n" + _crlf(outer), people.ca.der)
    codes = {reason.code for reason in verdict.reasons}
    assert verdict.signature_valid and not verdict.trusted and verdict.word is REASONS[kind][3]
    assert codes >= {"outer-signature-unchecked", REASONS[kind][0]} and "outer-signature-broken" not in codes


def _crlf(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _pem(der: bytes) -> bytes:
    from mailsec.keys.files import pem

    return pem(der, "CERTIFICATE")


def path(certificate: Certificate, *anchors: bytes) -> PathResult:
    trusted = [Anchor(der) for der in anchors]
    return validate(certificate, anchors=trusted, intermediates=(), at=datetime.now(UTC), purpose="any", backend=BACKEND)


@pytest.mark.parametrize("kind", KINDS)
def test_certificates_below_them_are_unchecked_and_not_called_forged(foreign: dict[str, SimpleNamespace], kind: str) -> None:
    one, (code, _, named, _) = foreign[kind], REASONS[kind]
    result = path(one.below, one.certificate.der)
    assert not result.valid and result.reasons[0].code == code and named in result.reasons[0].message
    assert "signature-wrong" not in {reason.code for reason in result.reasons}


def test_a_certificate_with_such_a_key_is_not_valid_to_use(foreign: dict[str, SimpleNamespace]) -> None:
    one = foreign["brainpoolP320r1"].certificate
    (reason,) = path(one, one.der).reasons
    assert (reason.code, reason.stage) == ("key-unsupported", "policy") and "brainpool r1 of 256" in reason.hint
    assert "none that is computed with" in unfit(one, PROFILES["default"]) and "0 bits" not in unfit(one, PROFILES["default"])


@pytest.mark.parametrize("kind", KINDS)
def test_they_may_be_named_as_anchors_so_that_what_is_below_them_says_why(foreign: dict[str, SimpleNamespace], kind: str) -> None:
    one = foreign[kind]
    assert may_be_self_signed(one.certificate, BACKEND) and not is_self_signed(one.certificate, BACKEND)
    assert not may_be_self_signed(one.below, BACKEND)


def test_a_certificate_in_its_own_name_that_another_key_signed_is_no_anchor(people: SimpleNamespace) -> None:
    forged = bytearray(people.ca.der)
    forged[-1] ^= 1
    assert may_be_self_signed(load_certificate(people.ca.der), BACKEND)
    assert not may_be_self_signed(load_certificate(bytes(forged)), BACKEND)


def test_the_engine_says_of_each_no_whether_it_is_one(people: SimpleNamespace) -> None:
    mechanism = SignatureMechanism("rsassa-pkcs1-v1_5", "sha256")
    key = people.bob.public_key
    BACKEND.check_key(key, mechanism)
    with pytest.raises(CryptoError):
        BACKEND.check_key(key, replace(mechanism, digest="shake128"))
    with pytest.raises(CryptoError):
        BACKEND.check_key(b"rubbish", mechanism)
    with pytest.raises(LimitExceeded) as caught:
        SoftwareBackend(replace(DEFAULT_LIMITS, rsa_bits=1024)).check_key(key, mechanism)
    assert caught.value.limit == "rsa_bits"


def test_an_rsa_key_over_the_limit_gives_that_reason(smime: SimpleNamespace, people: SimpleNamespace) -> None:
    """With the limit lowered, as a key of 16,385 bits takes minutes to make."""
    signed = smime.sign(b"From: bob@example.org\r\n" + LETTER, people.bob)
    message = index_message(BytesOctets(signed))
    low = SoftwareBackend(replace(DEFAULT_LIMITS, rsa_bits=1024))
    result = _peeled(smime, message, low)
    (reason,) = result.layers[0].signers[0].reasons
    assert isinstance(reason, Reason) and (reason.code, reason.stage) == ("limit-rsa-bits", "limits") and "2048 bits" in reason.message
    verdict = assess(result, message, anchors=[people.ca.anchor], intermediates=(), at=smime.at, backend=low)
    assert verdict.word is SmimeWord.PERMERROR and not verdict.trusted


def _peeled(smime: SimpleNamespace, message, backend):
    from mailsec.interfaces import run_now
    from mailsec.smime.unprotect import unprotect_message
    from mailsec.testing.memory import MemoryScratch

    return run_now(unprotect_message(message, backend=backend, scratch=MemoryScratch, work=smime.work))


def test_a_key_file_on_another_curve_is_not_said_to_need_a_pass_phrase(foreign: dict[str, SimpleNamespace]) -> None:
    with pytest.raises(PrivateKeyError) as caught:
        load_private_key(foreign["brainpoolP320r1"].key)
    assert "curve" in caught.value.message and "brainpool r1 of 256" in caught.value.hint
