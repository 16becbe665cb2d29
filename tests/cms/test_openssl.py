"""Details of what the `openssl cms` program signs, beyond the cells of `tests/interop`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from people import authority_der, pem, person, private_key
from test_sign_verify import CONTENT, sign, verify

from mailsec.cms.signed import read_signed_data
from mailsec.errors import CryptoError
from mailsec.keys.files import load_certificates, load_pkcs12, load_private_key
from mailsec.keys.software import SoftwareKey
from mailsec.model.mechanism import SignatureMechanism
from mailsec.x509.certificate import load_certificate


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with the CA and the content."""
    (tmp_path / "ca.pem").write_bytes(pem(authority_der(), "CERTIFICATE"))
    (tmp_path / "content").write_bytes(CONTENT)
    return tmp_path


@pytest.fixture
def openssl(need, files):
    """Runs openssl in the folder."""
    program = need("openssl")

    def run(*arguments: str) -> bytes:
        done = subprocess.run([program, *arguments], cwd=files, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run


def put_person(files: Path, kind: str) -> None:
    (files / "cert.pem").write_bytes(pem(person(kind).certificate, "CERTIFICATE"))
    (files / "key.pem").write_bytes(pem(private_key(kind), "PRIVATE KEY"))


SIGN = {
    "detached": [],
    "opaque": ["-nodetach"],
    "opaque BER stream": ["-nodetach", "-stream"],
    "by key id": ["-keyid"],
    "without attributes": ["-noattr"],
    "opaque without attributes": ["-noattr", "-nodetach", "-stream"],
    "with signing-certificate": ["-cades"],
}


@pytest.mark.parametrize("how", SIGN)
@pytest.mark.parametrize("kind", ["rsa-2048", "p256"])
def test_we_verify_what_openssl_signs(openssl, files, kind, how):
    put_person(files, kind)
    command = ["cms", "-sign", "-binary", "-in", "content", "-signer", "cert.pem", "-inkey", "key.pem", "-outform", "DER", "-out", "signed"]
    openssl(*command, *SIGN[how])
    cms = (files / "signed").read_bytes()
    detached = read_signed_data(cms).detached
    assert detached == ("-nodetach" not in SIGN[how])
    (result,) = verify(cms, CONTENT if detached else None)
    assert result.intact, result.reasons
    assert result.reasons == ()
    (changed,) = verify(cms, CONTENT + b"!")
    assert not changed.intact


@pytest.mark.parametrize("digest", ["sha256", "sha384", "sha512", "sha3-256", "sha224", "sha1", "md5"])
@pytest.mark.parametrize("kind", ["rsa-2048", "p521", "brainpool256"])
def test_we_verify_every_digest_and_name_the_weak_ones(openssl, files, kind, digest):
    if digest in ("md5", "sha3-256") and kind != "rsa-2048":
        pytest.skip("no identifier for ECDSA with it in this openssl")
    put_person(files, kind)
    openssl(
        *("cms", "-sign", "-binary", "-in", "content", "-signer", "cert.pem", "-inkey", "key.pem", "-md", digest),
        *("-outform", "DER", "-out", "signed"),
    )
    (result,) = verify((files / "signed").read_bytes(), CONTENT)
    assert result.intact, result.reasons
    assert result.digest == digest
    assert [reason.code for reason in result.reasons] == (["weak-digest"] if digest in ("sha1", "md5") else [])


@pytest.mark.parametrize("salt", ["-1", "-2", "0", "17"])
@pytest.mark.parametrize("mgf", ["sha256", "sha512"])
def test_we_verify_pss_with_any_salt_and_mask(openssl, files, salt, mgf):
    put_person(files, "rsa-2048")
    openssl(
        *("cms", "-sign", "-binary", "-in", "content", "-signer", "cert.pem", "-inkey", "key.pem", "-outform", "DER", "-out", "signed"),
        *("-keyopt", "rsa_padding_mode:pss", "-keyopt", f"rsa_pss_saltlen:{salt}", "-keyopt", f"rsa_mgf1_md:{mgf}"),
    )
    (result,) = verify((files / "signed").read_bytes(), CONTENT)
    assert result.intact, result.reasons
    assert result.signature == "rsassa-pss"


def test_50_megabytes_streamed_by_openssl_are_verified_in_linear_time(openssl, files):
    put_person(files, "p256")
    big = b"0123456789abcde\n" * (50 * 65536)
    (files / "big").write_bytes(big)
    openssl(
        *("cms", "-sign", "-binary", "-nodetach", "-stream", "-in", "big", "-signer", "cert.pem", "-inkey", "key.pem"),
        *("-outform", "DER", "-out", "signed"),
    )
    cms = (files / "signed").read_bytes()
    signed = read_signed_data(cms)
    assert signed.content is not None
    assert not signed.content.primitive
    assert len(signed.content) == len(big)
    (result,) = verify(cms)
    assert result.intact


def test_a_key_for_pss_alone_signs_and_verifies_in_both_directions(openssl, files):
    # RFC 4055 §3.1: id-RSASSA-PSS in the certificate says that the key does nothing else.
    openssl("genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048", "-out", "key.pem")
    subject = ("-subj", "/CN=pss", "-addext", "subjectAltName=email:pss@example.org", "-addext", "extendedKeyUsage=emailProtection")
    openssl("req", "-x509", "-new", "-key", "key.pem", "-days", "30", "-out", "cert.pem", *subject)
    (certificate,) = load_certificates((files / "cert.pem").read_bytes())
    key = SoftwareKey("pss", load_private_key((files / "key.pem").read_bytes()), certificate=certificate)
    assert key.key_type == "rsa-pss"
    (files / "signed").write_bytes(sign(key, form="opaque"))
    assert openssl("cms", "-verify", "-CAfile", "cert.pem", "-purpose", "any", "-binary", "-inform", "DER", "-in", "signed") == CONTENT
    command = ["cms", "-sign", "-binary", "-nodetach", "-in", "content", "-signer", "cert.pem", "-inkey", "key.pem"]
    openssl(*command, "-outform", "DER", "-out", "signed", "-keyopt", "rsa_padding_mode:pss", "-keyopt", "rsa_pss_saltlen:-1")
    (result,) = verify((files / "signed").read_bytes(), CONTENT)
    assert result.intact and result.signature == "rsassa-pss", result.reasons


@pytest.mark.parametrize("source", ["file", "encrypted file", "PKCS#12"])
@pytest.mark.parametrize("bound", ["sha256", "sha384"])
def test_a_key_bound_to_pss_parameters_signs_with_them_from_every_kind_of_file(openssl, files, bound, source):
    # RFC 4055 §1.2, §3.1: hash, mask and shortest salt stand in the key, and bind its signatures.
    options = (f"rsa_pss_keygen_md:{bound}", f"rsa_pss_keygen_mgf1_md:{bound}", "rsa_pss_keygen_saltlen:40", "rsa_keygen_bits:2048")
    openssl("genpkey", "-algorithm", "RSA-PSS", *(word for one in options for word in ("-pkeyopt", one)), "-out", "key.pem")
    subject = ("-subj", "/CN=pss", "-addext", "subjectAltName=email:pss@example.org")
    openssl("req", "-x509", "-new", "-key", "key.pem", "-days", "30", "-out", "cert.pem", *subject, "-sigopt", "rsa_pss_saltlen:40")
    (certificate,) = load_certificates((files / "cert.pem").read_bytes())
    if source == "PKCS#12":
        openssl("pkcs12", "-export", "-inkey", "key.pem", "-in", "cert.pem", "-passout", "pass:x", "-out", "store.p12")
        (one,) = load_pkcs12((files / "store.p12").read_bytes(), b"x").keys
        assert one.certificate == certificate
        private_key = one.private_key
    elif source == "file":
        private_key = load_private_key((files / "key.pem").read_bytes())
        alone = SoftwareKey("pss", private_key)
        assert alone.key_type == "rsa-pss" and alone.public_key == load_certificate(certificate).spki
    else:
        openssl("pkey", "-in", "key.pem", "-aes256", "-passout", "pass:x", "-out", "locked.pem")
        private_key = load_private_key((files / "locked.pem").read_bytes(), b"x")
    key = SoftwareKey("pss", private_key, certificate=certificate)
    assert key.key_type == "rsa-pss" and not key.can(SignatureMechanism("rsassa-pkcs1-v1_5", bound))
    assert not key.can(SignatureMechanism("rsassa-pss", "sha512", "sha512", 64)) and not key.can(
        SignatureMechanism("rsassa-pss", bound, bound, 20)
    )
    (files / "signed").write_bytes(cms := sign(key, form="opaque"))
    assert openssl("cms", "-verify", "-CAfile", "cert.pem", "-purpose", "any", "-binary", "-inform", "DER", "-in", "signed") == CONTENT
    (result,) = verify(cms, CONTENT)
    assert result.intact and not result.reasons and result.digest == bound


def test_a_key_bound_to_what_the_profile_refuses_does_not_sign(openssl, files):
    options = ("rsa_pss_keygen_md:sha1", "rsa_pss_keygen_mgf1_md:sha1", "rsa_keygen_bits:2048")
    openssl("genpkey", "-algorithm", "RSA-PSS", *(word for one in options for word in ("-pkeyopt", one)), "-out", "key.pem")
    openssl("req", "-x509", "-new", "-key", "key.pem", "-days", "30", "-out", "cert.pem", "-subj", "/CN=pss", "-sha1")
    (certificate,) = load_certificates((files / "cert.pem").read_bytes())
    key = SoftwareKey("pss", load_private_key((files / "key.pem").read_bytes()), certificate=certificate)
    with pytest.raises(CryptoError, match="own parameters only: sha1"):
        sign(key, form="opaque")
