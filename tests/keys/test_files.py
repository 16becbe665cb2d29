"""Files with keys and certificates: every form that people have, and what hostile ones do."""

from __future__ import annotations

import hashlib
import hmac
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from hypothesis import given
from hypothesis import strategies as st

from mailsec.asn1 import writer
from mailsec.errors import CertificateError, LimitExceeded, MailsecError, PrivateKeyError
from mailsec.keys.files import load_certificates, load_pkcs12, load_private_key, pem, pem_blocks
from mailsec.keys.software import SoftwareKey
from mailsec.model.limits import Limits

SERIAL = serialization
RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


def der(key, protection=None, form=SERIAL.PrivateFormat.PKCS8, encoding=SERIAL.Encoding.DER) -> bytes:
    return key.private_bytes(encoding, form, protection or SERIAL.NoEncryption())


def certificate(key, name: str, serial: int = 7) -> bytes:
    import datetime

    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder(subject, subject, key.public_key(), serial)
        .not_valid_before(datetime.datetime(2026, 1, 1))
        .not_valid_after(datetime.datetime(2036, 1, 1))
    )
    return builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()).public_bytes(SERIAL.Encoding.DER)


@pytest.mark.parametrize("encoding", [SERIAL.Encoding.PEM, SERIAL.Encoding.DER], ids=["pem", "der"])
@pytest.mark.parametrize("form", [SERIAL.PrivateFormat.PKCS8, SERIAL.PrivateFormat.TraditionalOpenSSL], ids=["pkcs8", "traditional"])
@pytest.mark.parametrize("key", [RSA, EC], ids=["rsa", "ec"])
def test_private_keys_are_read_in_every_form(key, form, encoding):
    assert load_private_key(der(key, form=form, encoding=encoding)) == der(key)


@pytest.mark.parametrize("encoding", [SERIAL.Encoding.PEM, SERIAL.Encoding.DER], ids=["pem", "der"])
def test_a_pass_phrase_opens_a_private_key_and_another_does_not(encoding):
    data = der(EC, SERIAL.BestAvailableEncryption(b"right"), encoding=encoding)
    assert load_private_key(data, b"right") == der(EC)
    for wrong in (b"wrong", None, b""):
        with pytest.raises(PrivateKeyError) as caught:
            load_private_key(data, wrong)
        assert "wrong" not in str(caught.value)


def test_the_old_encrypted_form_of_openssl_is_read(need, tmp_path):
    openssl = need("openssl")
    (tmp_path / "key.pem").write_bytes(der(RSA, encoding=SERIAL.Encoding.PEM))
    subprocess.run(
        [openssl, "rsa", "-in", "key.pem", "-out", "old.pem", "-aes256", "-passout", "pass:secret", "-traditional"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    old = (tmp_path / "old.pem").read_bytes()
    assert b"DEK-Info" in old
    assert load_private_key(old, b"secret") == der(RSA)
    with pytest.raises(PrivateKeyError):
        load_private_key(old, b"other")


@pytest.mark.parametrize("how", [["-v2", "aes-256-cbc"], ["-scrypt"], ["-v1", "PBE-SHA1-3DES"]], ids=" ".join)
def test_encrypted_pkcs8_of_openssl_is_read(need, tmp_path, how):
    openssl = need("openssl")
    (tmp_path / "key.pem").write_bytes(der(EC, encoding=SERIAL.Encoding.PEM))
    subprocess.run(
        [openssl, "pkcs8", "-topk8", "-in", "key.pem", "-out", "out.pem", "-passout", "pass:secret", *how],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert load_private_key((tmp_path / "out.pem").read_bytes(), b"secret") == der(EC)


def encrypted_with(parameters: bytes) -> bytes:
    pbes2 = writer.sequence(
        writer.oid("1.2.840.113549.1.5.13"),
        writer.sequence(parameters, writer.sequence(writer.oid("2.16.840.1.101.3.4.1.42"), writer.octet_string(b"i" * 16))),
    )
    return writer.sequence(pbes2, writer.octet_string(b"c" * 160))


@pytest.mark.parametrize(
    "kdf",
    [
        writer.sequence(writer.oid("1.2.840.113549.1.5.12"), writer.sequence(writer.octet_string(b"salt"), writer.integer(2_000_000_000))),
        writer.sequence(
            writer.oid("1.3.6.1.4.1.11591.4.11"),
            writer.sequence(writer.octet_string(b"salt"), writer.integer(1 << 30), writer.integer(8), writer.integer(1)),
        ),
        writer.sequence(
            writer.oid("1.3.6.1.4.1.11591.4.11"),
            writer.sequence(writer.octet_string(b"salt"), writer.integer(1 << 20), writer.integer(8), writer.integer(1)),
        ),
    ],
    ids=["pbkdf2", "scrypt cost", "scrypt memory"],
)
def test_a_derivation_that_costs_hours_is_refused_before_it_is_begun(kdf):
    with pytest.raises(LimitExceeded) as caught:
        load_private_key(encrypted_with(kdf), b"secret")
    assert caught.value.limit.startswith("kdf_iterations")


def test_a_private_key_of_too_many_bits_is_refused():
    with pytest.raises(PrivateKeyError):
        load_private_key(der(RSA), limits=Limits(rsa_bits=1024))
    with pytest.raises(PrivateKeyError, match="too large"):
        load_private_key(pem(b"\x30" * 40_000, "PRIVATE KEY"))


@given(st.binary(max_size=200), st.sampled_from([None, b"secret"]))
def test_any_octets_end_in_keys_or_our_errors(data, passphrase):
    for octets in (data, b"-----BEGIN PRIVATE KEY-----\n" + data + b"\n-----END PRIVATE KEY-----", pem(data, "ENCRYPTED PRIVATE KEY")):
        for load in (load_private_key, load_pkcs12):
            try:
                load(octets, passphrase)
            except MailsecError:
                pass
        try:
            load_certificates(octets)
        except MailsecError:
            pass


def test_pem_without_end_costs_linear_time():
    hostile = b"-----BEGIN PRIVATE KEY-----\nA: b\n" + b" aaaa\n" * 200_000
    assert list(pem_blocks(hostile * 3)) == []


# -- PKCS#12 ------------------------------------------------------------------------------------------------------------------


def test_pkcs12_gives_key_certificate_chain_and_names():
    own, issuer = certificate(EC, "own"), certificate(RSA, "issuer")
    data = pkcs12.serialize_key_and_certificates(
        b"my key",
        EC,
        x509.load_der_x509_certificate(own),
        [pkcs12.PKCS12Certificate(x509.load_der_x509_certificate(issuer), b"the issuer")],
        SERIAL.BestAvailableEncryption(b"secret"),
    )
    opened = load_pkcs12(data, b"secret")
    assert [(key.name, key.private_key, key.certificate) for key in opened.keys] == [("my key", der(EC), own)]
    assert opened.certificates == (("the issuer", issuer),)
    for wrong in (b"other", None):
        with pytest.raises(PrivateKeyError):
            load_pkcs12(data, wrong)
    assert b"secret" not in repr(opened).encode()
    assert der(EC)[-20:].hex() not in repr(opened)


@pytest.mark.parametrize("how", [[], ["-legacy"], ["-legacy", "-descert"], ["-keypbe", "NONE", "-certpbe", "NONE"]], ids=" ".join)
def test_pkcs12_of_openssl_is_read(need, tmp_path, how):
    openssl = need("openssl")
    own = certificate(EC, "own")
    (tmp_path / "key.pem").write_bytes(der(EC, encoding=SERIAL.Encoding.PEM))
    (tmp_path / "cert.pem").write_bytes(pem(own, "CERTIFICATE"))
    command = [openssl, "pkcs12", "-export", "-inkey", "key.pem", "-in", "cert.pem", "-name", "näme", "-out", "out.p12"]
    subprocess.run([*command, "-passout", "pass:secret", *how], cwd=tmp_path, check=True, capture_output=True)
    opened = load_pkcs12((tmp_path / "out.p12").read_bytes(), b"secret")
    assert [(key.name, key.private_key, key.certificate) for key in opened.keys] == [("näme", der(EC), own)]


def several_keys(entries, passphrase: bytes, iterations: int = 2048) -> bytes:
    """A PKCS#12 file with several keys, its integrity by PBMAC1 (RFC 9879)."""
    bags = []
    for name, key, cert in entries:
        label = writer.sequence(
            writer.oid("1.2.840.113549.1.9.20"), writer.set_of(b"\x1e" + writer.octet_string(name.encode("utf-16-be"))[1:])
        )
        shrouded = der(key, SERIAL.BestAvailableEncryption(passphrase))
        bags.append(writer.sequence(writer.oid("1.2.840.113549.1.12.10.1.2"), writer.explicit(0, shrouded), writer.set_of(label)))
        holder = writer.sequence(writer.oid("1.2.840.113549.1.9.22.1"), writer.explicit(0, writer.octet_string(cert)))
        bags.append(writer.sequence(writer.oid("1.2.840.113549.1.12.10.1.3"), writer.explicit(0, holder), writer.set_of(label)))
    data = writer.oid("1.2.840.113549.1.7.1")
    safe = writer.sequence(writer.sequence(data, writer.explicit(0, writer.octet_string(writer.sequence(*bags)))))
    salt = b"s" * 8
    hmac_sha256 = writer.sequence(writer.oid("1.2.840.113549.2.9"), writer.NULL)
    kdf = writer.sequence(
        writer.oid("1.2.840.113549.1.5.12"),
        writer.sequence(writer.octet_string(salt), writer.integer(iterations), writer.integer(32), hmac_sha256),
    )
    value = hmac.digest(hashlib.pbkdf2_hmac("sha256", passphrase, salt, min(iterations, 10_000), 32), safe, "sha256")
    mac = writer.sequence(
        writer.sequence(
            writer.sequence(writer.oid("1.2.840.113549.1.5.14"), writer.sequence(kdf, hmac_sha256)), writer.octet_string(value)
        ),
        writer.octet_string(b"unused"),
    )
    return writer.sequence(writer.integer(3), writer.sequence(data, writer.explicit(0, writer.octet_string(safe))), mac)


def test_pkcs12_with_several_keys_gives_all_with_their_names():
    ed = ed25519.Ed25519PrivateKey.generate()
    entries = [(name, key, certificate(key, name)) for name, key in (("sign 2025", EC), ("decrypt", RSA), ("sign 2026", ed))]
    opened = load_pkcs12(several_keys(entries, b"secret"), b"secret")
    assert {(key.name, key.private_key, key.certificate) for key in opened.keys} == {(name, der(key), cert) for name, key, cert in entries}
    assert opened.certificates == ()


def test_pkcs12_that_costs_hours_is_refused_before_it_is_begun():
    with pytest.raises(LimitExceeded):
        load_pkcs12(several_keys([("n", EC, certificate(EC, "n"))], b"secret", iterations=1_000_000_000), b"secret")


@pytest.mark.parametrize("iterations", [1_000_000, 1_000_001, 2**31])
def test_pkcs12_of_a_million_iterations_and_more_is_refused_with_a_hint_before_it_is_begun(iterations, monkeypatch):
    monkeypatch.setattr("mailsec.keys.files.pkcs12.load_pkcs12", lambda *_: pytest.fail("it was begun"))
    data = several_keys([("n", EC, certificate(EC, "n"))], b"secret", iterations=iterations)
    with pytest.raises(LimitExceeded, match="900000") as caught:
        load_pkcs12(data, b"secret")
    assert caught.value.hint


def test_pkcs12_of_nss_is_read(vectors):
    opened = load_pkcs12((vectors / "nss-smime-interop" / "Fran.p12").read_bytes(), b"nss")
    assert len(opened.keys) == 1
    assert opened.keys[0].certificate is not None


# -- certificates -------------------------------------------------------------------------------------------------------------


def test_certificates_are_read_in_every_form(need, tmp_path):
    one, two = certificate(EC, "one"), certificate(RSA, "two")
    assert load_certificates(one) == (one,)
    assert load_certificates(one + two) == (one, two)
    text = b"subject=one\n" + pem(one, "CERTIFICATE") + b"\nsubject=two\r\n" + pem(two, "CERTIFICATE").replace(b"\n", b"\r\n")
    assert load_certificates(text) == (one, two)
    assert load_certificates(pem(one + writer.sequence(), "TRUSTED CERTIFICATE")) == (one,)
    (tmp_path / "both.pem").write_bytes(text)
    openssl = need("openssl")
    for form in ("DER", "PEM"):
        command = [openssl, "crl2pkcs7", "-nocrl", "-certfile", "both.pem", "-outform", form]
        bundle = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True).stdout
        assert set(load_certificates(bundle)) == {one, two}


@pytest.mark.parametrize("data", [b"", b"text", b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", pem(b"x", "CERTIFICATE")])
def test_what_is_no_certificate_is_refused(data):
    with pytest.raises(CertificateError):
        load_certificates(data)


def test_a_key_with_the_certificate_of_another_key_is_refused():
    assert SoftwareKey("own", der(EC), certificate=certificate(EC, "own")).certificate is not None
    for other in (certificate(RSA, "other"), b"junk"):
        with pytest.raises(PrivateKeyError):
            SoftwareKey("own", der(EC), certificate=other)
