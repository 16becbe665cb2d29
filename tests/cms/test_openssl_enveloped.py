"""Details of encrypted messages with the `openssl cms` program, beyond the cells of `tests/interop`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from people import MemoryScratch, pem, person, private_key
from test_enveloped import CONTENT, content_of, decrypt, encrypt

from mailsec.cms.decrypt import SecretKey, open_content
from mailsec.cms.enveloped import read_enveloped_data
from mailsec.interfaces import run_now


@pytest.fixture
def openssl(need, tmp_path: Path):
    """Runs openssl in a folder with the content, a key and its certificate."""
    program = need("openssl")
    (tmp_path / "content").write_bytes(CONTENT)

    def run(kind: str, *arguments: str, check: bool = True) -> bytes:
        (tmp_path / "cert.pem").write_bytes(pem(person(kind).certificate, "CERTIFICATE"))
        (tmp_path / "key.pem").write_bytes(pem(private_key(kind), "PRIVATE KEY"))
        done = subprocess.run([program, *arguments], cwd=tmp_path, capture_output=True, check=False)
        if check:
            assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run


@pytest.mark.parametrize("how", [[], ["-stream"], ["-keyid"]], ids=["definite", "stream", "keyid"])
@pytest.mark.parametrize("cipher", ["aes-256-cbc", "aes-192-gcm"])
@pytest.mark.parametrize("kind", ["rsa-2048", "p256", "brainpool384"])
def test_we_open_what_openssl_encrypts(openssl, tmp_path, kind, cipher, how):
    command = ["cms", "-encrypt", "-binary", "-in", "content", "-outform", "DER", "-out", "encrypted", f"-{cipher}", "-recip", "cert.pem"]
    openssl(kind, *command, *how)
    opened = decrypt((tmp_path / "encrypted").read_bytes(), kind)
    assert content_of(opened) == CONTENT
    assert opened.algorithm == cipher


@pytest.mark.parametrize("mgf", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("digest", ["sha1", "sha256", "sha384"])
def test_we_open_oaep_with_any_hashes(openssl, tmp_path, digest, mgf):
    openssl(
        "rsa-2048",
        *("cms", "-encrypt", "-binary", "-in", "content", "-outform", "DER", "-out", "encrypted", "-aes-256-cbc", "-recip", "cert.pem"),
        *("-keyopt", "rsa_padding_mode:oaep", "-keyopt", f"rsa_oaep_md:{digest}", "-keyopt", f"rsa_mgf1_md:{mgf}"),
    )
    assert content_of(decrypt((tmp_path / "encrypted").read_bytes(), "rsa-2048")) == CONTENT


@pytest.mark.parametrize("cipher", ["aes-128-cbc", "aes-256-cbc"])
def test_we_open_with_a_password(openssl, tmp_path, cipher):
    command = ["cms", "-encrypt", "-binary", "-in", "content", "-outform", "DER", "-out", "encrypted", f"-{cipher}"]
    openssl("p256", *command, "-pwri_password", "secret")
    cms = (tmp_path / "encrypted").read_bytes()
    assert content_of(decrypt(cms, passwords=[b"wrong", b"secret"])) == CONTENT
    assert decrypt(cms, passwords=[b"wrong"]).content is None
    assert [reason.code for reason in decrypt(cms, "p256").reasons] == ["no-key"]


def test_we_open_with_a_shared_key(openssl, tmp_path):
    key = bytes(range(32))
    openssl(
        "p256",
        *("cms", "-encrypt", "-binary", "-in", "content", "-outform", "DER", "-out", "encrypted", "-aes-256-cbc"),
        *("-secretkey", key.hex(), "-secretkeyid", "C0FFEE"),
    )
    enveloped = read_enveloped_data((tmp_path / "encrypted").read_bytes())
    fitting = [SecretKey(key, b"\xc0\xff\xee"), SecretKey(key)]
    for secret in (*fitting, SecretKey(b"x" * 32), SecretKey(key, b"1")):
        opened = run_now(open_content(enveloped, scratch=MemoryScratch, secret_keys=[secret]))
        # With a key that is not the right one, one padding in 256 looks right all the same: it is the content that tells.
        plain = None if opened.content is None else b"".join(opened.content.blocks())
        assert (plain == (tmp_path / "content").read_bytes()) == (secret in fitting)
    assert key.hex() not in repr(SecretKey(key))


def test_openssl_refuses_what_we_encrypted_to_another(openssl, tmp_path):
    (tmp_path / "encrypted").write_bytes(encrypt("p384"))
    out = openssl("p256", "cms", "-decrypt", "-inform", "DER", "-in", "encrypted", "-recip", "cert.pem", "-inkey", "key.pem", check=False)
    assert CONTENT not in out


def test_we_open_encrypted_data_with_its_content_key(openssl, tmp_path):
    key = bytes(range(16))
    openssl(
        "p256",
        *("cms", "-EncryptedData_encrypt", "-binary", "-in", "content", "-outform", "DER", "-out", "encrypted"),
        *("-aes-128-cbc", "-secretkey", key.hex()),
    )
    enveloped = read_enveloped_data((tmp_path / "encrypted").read_bytes())
    assert content_of(run_now(open_content(enveloped, scratch=MemoryScratch, secret_keys=[SecretKey(key)]))) == CONTENT
    assert run_now(open_content(enveloped, scratch=MemoryScratch, secret_keys=[SecretKey(key[:-1])])).content is None
    assert run_now(open_content(enveloped, [person("p256")], scratch=MemoryScratch)).content is None
