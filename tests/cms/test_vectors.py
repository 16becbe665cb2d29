"""SignedData of other implementations, from third-party test data."""

from __future__ import annotations

import json

import pytest
from people import MemoryScratch
from test_sign_verify import verify

from mailsec.algorithms.profiles import PROFILES
from mailsec.cms.compressed import decompress, read_compressed_data
from mailsec.cms.decrypt import open_content
from mailsec.cms.enveloped import read_enveloped_data
from mailsec.cms.signed import read_signed_data
from mailsec.errors import MailsecError
from mailsec.interfaces import run_now
from mailsec.keys.files import load_certificates, load_pkcs12, load_private_key, pem_blocks
from mailsec.keys.software import SoftwareKey

LEGACY = PROFILES["legacy"]


def octets_of(path) -> bytes:
    data = path.read_bytes()
    return next(pem_blocks(data)).data if b"-----BEGIN" in data else data


@pytest.mark.parametrize("number", ["4.1", "4.2", "4.3", "4.4", "4.5", "4.6", "4.7", "4.10"])
def test_examples_of_rfc_4134(vectors, number):
    folder = vectors / "rfc4134-examples"
    extra = [der for path in sorted(folder.glob("*.cer")) for der in load_certificates(path.read_bytes())]
    content = (folder / "ExContent.bin").read_bytes() if number == "4.3" else None
    cms = (folder / f"{number}.bin").read_bytes()
    strict = verify(cms, content, extra_certificates=extra)
    results = verify(cms, content, extra_certificates=extra, profile=LEGACY)
    assert results
    for result, weak in zip(results, strict, strict=True):
        if number == "4.6" and not result.intact:
            # Diane's DSA key inherits its parameters from a certificate that nobody has validated: refused on purpose.
            assert [reason.code for reason in result.reasons] == ["key-parameters-missing"]
            continue
        assert result.intact, result.reasons
        assert not result.reasons
        assert {reason.code for reason in weak.reasons} & {"weak-digest", "weak-key", "weak-algorithm"}


def test_pss_of_bouncy_castle(vectors):
    folder = vectors / "bouncycastle-smime" / "cms"
    content = (folder / "PSSSignData.data").read_bytes()
    for name, outside in (("PSSSignDataSHA256Enc.sig", None), ("PSSSignDataSHA256.sig", content)):
        (result,) = verify((folder / name).read_bytes(), outside, profile=LEGACY)
        assert result.intact, result.reasons
        assert result.signature == "rsassa-pss"


def test_a_signature_of_go(vectors):
    cms = octets_of(vectors / "go-pkcs7-fixtures" / "smallstep" / "SignedTestFixture.0.p7.pem")
    (result,) = verify(cms, profile=LEGACY)
    assert result.intact, result.reasons


@pytest.mark.parametrize("name", ["no_ct_attr.cms", "pkcs7-md4.pem"])
def test_hostile_signed_data_of_openssl_is_refused(vectors, name):
    cms = octets_of(vectors / "openssl-cms" / "80-test_cms_data" / name)
    for profile in (PROFILES["default"], LEGACY):
        results = verify(cms, profile=profile)
        assert results
        assert not any(result.intact for result in results)
        assert all(result.reasons for result in results)


def test_malformed_signed_data_of_nss_is_refused(vectors):
    for path in sorted((vectors / "nss-smime-interop" / "malformed").iterdir()):
        try:
            results = verify(path.read_bytes(), b"content")
        except MailsecError:
            continue
        assert not any(result.intact for result in results)


def test_the_fuzzing_corpus_of_openssl_ends_in_values_or_our_errors(vectors):
    import tarfile

    count = 0
    with tarfile.open(vectors / "openssl-fuzz-corpora" / "cms.tar.gz") as corpus:
        for member in corpus:
            file = corpus.extractfile(member) if member.isfile() else None
            if file is None:
                continue
            data = file.read()
            count += 1
            try:
                signed = read_signed_data(data)
                verify(data, None if signed.content is not None else b"")
            except MailsecError:
                pass
    assert count > 50


def opened_with(cms: bytes, keys, **options):
    return run_now(open_content(read_enveloped_data(cms), keys, scratch=MemoryScratch, **options))


def pkcs12_keys(path, passphrase: bytes) -> list[SoftwareKey]:
    opened = load_pkcs12(path.read_bytes(), passphrase)
    return [SoftwareKey(key.name, key.private_key, certificate=key.certificate) for key in opened.keys]


@pytest.mark.parametrize(("message", "key"), [("fran-ec_ossl-aes128-sha256.env", "Fran-ec.p12"), ("fran-oaep_ossl.env", "Fran.p12")])
def test_encrypted_messages_of_the_nss_tests_open(vectors, message, key):
    folder = vectors / "nss-smime-interop"
    keys = pkcs12_keys(folder / key, b"nss")
    assert opened_with((folder / message).read_bytes(), keys).algorithm in ("3des-cbc", "aes-128-cbc")
    opened = opened_with((folder / message).read_bytes(), keys, allow_legacy=True)
    assert opened.content is not None, opened.reasons
    assert b"This is a test message to Fran." in bytes(opened.content.view(0, 10_000))


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_key_agreement_of_bouncy_castle_opens(vectors, number):
    folder = vectors / "bouncycastle-smime" / "cms" / "ecdh"
    rows = json.loads((vectors / "bouncycastle-smime" / "expected.json").read_text())
    row = next(row for row in rows if row["id"] == f"bc/ecdh{number}")
    (certificate,) = load_certificates((folder / "ecc.crt").read_bytes())
    key = SoftwareKey("ecc", load_private_key((folder / "ecc.key").read_bytes()), certificate=certificate)
    opened = opened_with(octets_of(vectors / "bouncycastle-smime" / row["file"]), [key], allow_legacy=True)
    assert opened.content is not None, opened.reasons
    # The file has LF where the message has CRLF.
    assert bytes(opened.content.view(0, 10_000)).replace(b"\r\n", b"\n") == (folder / "sess.txt").read_bytes()


def test_an_encrypted_message_of_go_opens_as_legacy(vectors):
    folder = vectors / "go-pkcs7-fixtures" / "smallstep"
    (certificate,) = load_certificates((folder / "EncryptedTestFixture.1.crt.pem").read_bytes())
    key = SoftwareKey("go", load_private_key((folder / "EncryptedTestFixture.2.key.pem").read_bytes()), certificate=certificate)
    cms = octets_of(folder / "EncryptedTestFixture.0.p7.pem")
    opened = opened_with(cms, [key], allow_legacy=True)
    assert opened.content is not None, opened.reasons


def test_gcm_in_enveloped_data_of_openssl_is_refused(vectors):
    cms = octets_of(vectors / "openssl-cms" / "cms-msg" / "enveloped-content-type-for-aes-gcm.pem")
    assert opened_with(cms, []).content is None


def test_a_malformed_rsa_message_of_openssl_is_refused(vectors):
    folder = vectors / "openssl-cms"
    text = (folder / "smime-certs" / "smrsa1.pem").read_bytes()
    key = SoftwareKey("smrsa1", load_private_key(text), certificate=load_certificates(text)[0])
    try:
        opened = opened_with((folder / "80-test_cms_data" / "rsa-malformed.der").read_bytes(), [key])
    except MailsecError:
        return
    assert opened.content is None


@pytest.mark.parametrize("number", ["5.1", "5.2"])
def test_encrypted_examples_of_rfc_4134(vectors, number):
    folder = vectors / "rfc4134-examples"
    certificate = (folder / "BobRSASignByCarl.cer").read_bytes()
    bob = SoftwareKey("bob", load_private_key((folder / "BobPrivRSAEncrypt.pri").read_bytes()), certificate=certificate)
    cms = (folder / f"{number}.bin").read_bytes()
    assert opened_with(cms, [bob]).content is None
    opened = opened_with(cms, [bob], allow_legacy=True)
    assert opened.content is not None, opened.reasons
    assert bytes(opened.content.view(0, 1000)) == (folder / "ExContent.bin").read_bytes()


def test_the_compressed_example_of_rustcrypto_is_read(vectors):
    content = read_compressed_data((vectors / "rustcrypto-cms" / "compressed_data.bin").read_bytes())
    octets = decompress(content, MemoryScratch)
    assert len(octets) > 0
