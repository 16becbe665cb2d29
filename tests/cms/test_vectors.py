"""SignedData of other implementations, from third-party test data."""

from __future__ import annotations

import pytest
from test_sign_verify import verify

from mailsec.algorithms.profiles import PROFILES
from mailsec.cms.signed import read_signed_data
from mailsec.errors import MailsecError
from mailsec.keys.files import load_certificates, pem_blocks

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
