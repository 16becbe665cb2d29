"""Messages that we encrypt: for whom, how, and what others make of them."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from mailsec.asn1 import writer
from mailsec.cms.structure import describe
from mailsec.errors import Refused
from mailsec.interfaces import run_now
from mailsec.keys.files import pem
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.mime.index import index_message
from mailsec.mime.parts import read_parts
from mailsec.model.octets import BytesOctets
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.smime.protect import protect_message

PLAIN = b"From: alice@example.org\r\nTo: bob@example.org\r\nSubject: plan\r\n\r\nthe secret plan\r\n"
GCM = "2.16.840.1.101.3.4.1.46"
CBC_128 = "2.16.840.1.101.3.4.1.2"
OAEP = "1.2.840.113549.1.1.7"


def capabilities(*oids: str) -> bytes:
    return writer.sequence(*(writer.sequence(writer.oid(oid)) for oid in oids))


@pytest.fixture(scope="session")
def readers(people: SimpleNamespace) -> SimpleNamespace:
    return SimpleNamespace(
        rsa=people.bob,
        ec=people.ca.person("carol@example.org", "ec-p256", usage="both"),
        signs=people.ca.person("dave@example.org", "rsa-2048", usage="sign"),
    )


@pytest.fixture
def protect(smime: SimpleNamespace) -> Callable[..., bytes]:
    def call(data: bytes, *recipients: EncryptionRecipient, signers: Any = (), **plan: Any) -> bytes:
        found = protect_message(
            index_message(BytesOctets(data)),
            ProtectionPlan(encrypt=True, sign=bool(signers), **plan),
            signers=signers,
            recipients=recipients,
            backend=SoftwareBackend(),
            random=os.urandom,
            work=smime.work,
            at=smime.at,
        )
        segments = run_now(found)
        written = segments.join()
        assert len(written) == len(segments) and written == segments.join()
        return written

    return call


def recipient(key: SoftwareKey, *oids: str) -> EncryptionRecipient:
    assert key.certificate is not None
    return EncryptionRecipient(key.certificate, capabilities(*oids) if oids else None)


def test_each_recipient_opens_the_one_copy(smime: SimpleNamespace, readers: Any, protect: Any) -> None:
    data = protect(PLAIN, recipient(readers.rsa), recipient(readers.ec))
    assert b"secret" not in data and data.startswith(PLAIN[: PLAIN.index(b"\r\n\r\n") + 2])
    for key in (readers.rsa, readers.ec):
        result = smime.peel(data, keys=[key])
        assert result.text == "the secret plan" and result.clear is not None and not result.signed


def test_signed_then_encrypted(people: Any, smime: SimpleNamespace, readers: Any, protect: Any) -> None:
    for form in ("detached", "opaque"):
        data = protect(PLAIN, recipient(readers.rsa), signers=[people.alice], form=form)
        verdict = smime.judge(data, people.ca, keys=[readers.rsa])
        assert verdict.trusted and verdict.encrypted and verdict.text == "the secret plan"
        assert [layer.type for layer in verdict.layers] == ["enveloped-data", "signed-data"]
        assert smime.judge(data, people.ca).signature_valid is None


def test_what_is_signed_already_is_encrypted_octet_for_octet(people: Any, smime: SimpleNamespace, readers: Any, protect: Any) -> None:
    signed = smime.sign(PLAIN, people.alice)
    data = protect(signed, recipient(readers.rsa))
    clear = smime.peel(data, keys=[readers.rsa]).clear
    assert b"".join(clear.blocks()) == signed


@pytest.mark.parametrize(
    ("profile", "known", "kind", "cipher", "transport"),
    [
        ("default", [()], "enveloped-data", "aes-256-cbc", "rsaes-pkcs1-v1_5"),
        ("default", [(GCM,)], "authEnveloped-data", "aes-256-gcm", "rsaes-pkcs1-v1_5"),
        ("default", [(GCM, OAEP)], "authEnveloped-data", "aes-256-gcm", "rsaes-oaep"),
        ("default", [(GCM,), ()], "enveloped-data", "aes-256-cbc", "rsaes-pkcs1-v1_5"),
        ("default", [(GCM,), (GCM,)], "authEnveloped-data", "aes-256-gcm", "rsaes-pkcs1-v1_5"),
        ("default", [(CBC_128,)], "enveloped-data", "aes-128-cbc", "rsaes-pkcs1-v1_5"),
        # What a recipient of long ago prefers is not written.
        ("default", [("1.2.840.113549.3.7",)], "enveloped-data", "aes-256-cbc", "rsaes-pkcs1-v1_5"),
        ("edi-energy", [()], "authEnveloped-data", "aes-128-gcm", "rsaes-oaep"),
        ("fips-algorithms", [(CBC_128,)], "authEnveloped-data", "aes-256-gcm", "rsaes-oaep"),
        ("compatible", [()], "enveloped-data", "aes-128-cbc", "rsaes-pkcs1-v1_5"),
    ],
)
def test_profile_and_capabilities_choose(
    smime: SimpleNamespace, readers: Any, protect: Any, profile: str, known: list[Any], kind: str, cipher: str, transport: str
) -> None:
    from mailsec.cms.structure import describe

    keys = [readers.rsa, readers.ec]
    data = protect(PLAIN, *(recipient(key, *oids) for key, oids in zip(keys, known, strict=False)), profile=profile)
    part = read_parts(index_message(BytesOctets(data)))
    assert part.content_type.name == "application/pkcs7-mime" and part.content_type.parameters["smime-type"] == kind
    result = smime.peel(data, keys=keys[:1])
    assert result.layers[0].algorithm == cipher and result.text == "the secret plan"
    described: Any = describe(result.layers[0].cms)
    assert [one["algorithm"] for one in described["recipients"] if one["kind"] == "key-transport"] == [transport]


def test_capabilities_that_cannot_be_read_are_none(readers: Any, protect: Any, smime: SimpleNamespace) -> None:
    for der in (b"", b"\x30", b"\x30\x80", b"\x04\x01a", b"\x30\x02\x30\x00"):
        data = protect(PLAIN, EncryptionRecipient(readers.rsa.certificate, der))
        assert smime.peel(data, keys=[readers.rsa]).layers[0].algorithm == "aes-256-cbc"


def test_promise_2_less_than_the_plan_asks_is_never_returned(readers: Any, people: Any, protect: Any) -> None:
    for given, profile in (
        ([], "default"),
        ([recipient(readers.signs)], "default"),
        ([recipient(readers.rsa), recipient(readers.signs)], "default"),
        ([EncryptionRecipient(b"no certificate")], "default"),
        ([recipient(readers.rsa)], "cnsa2"),
        ([recipient(readers.rsa)], "bsi-tr-02102"),
        ([recipient(readers.rsa)], "unknown"),
    ):
        with pytest.raises(Refused):
            protect(PLAIN, *given, profile=profile)


@pytest.mark.parametrize("line", [b"Dear Bob, the secret", b"Dear Bob: the secret", "Grüße: the secret".encode(), b">From here on: secret"])
def test_attack_text_that_begins_in_the_header_is_not_left_outside(readers: Any, protect: Any, line: bytes) -> None:
    with pytest.raises(Refused, match="line 4 of the header"):
        protect(PLAIN.replace(b"\r\n\r\n", b"\r\n" + line + b"\r\n\r\n"), recipient(readers.rsa))


def test_the_first_line_of_a_mailbox_file_is_no_text(smime: SimpleNamespace, readers: Any, protect: Any) -> None:
    result = smime.peel(protect(b"From alice Sun Nov 22 07:00:00 2026\r\n" + PLAIN, recipient(readers.rsa)), keys=[readers.rsa])
    assert result.text == "the secret plan"


def test_content_of_any_kind_comes_back(smime: SimpleNamespace, readers: Any, protect: Any) -> None:
    head = b"From: alice@example.org\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    for body in ("grüße\r\n".encode(), b"a\nb\rc\x00d", b"x" * 5000, b".\r\n.\r\n", b"", b"From me  \r\n"):
        result = smime.peel(protect(head + body, recipient(readers.rsa)), keys=[readers.rsa])
        from mailsec.mime.transfer import decode

        clear = index_message(result.clear)
        part = read_parts(clear)
        assert b"".join(decode(part.encoding, clear.octets.blocks(part.body_start, part.end))) == body
        assert {reason.code for reason in result.reasons} <= {"dot-line"}


# -- openssl ---------------------------------------------------------------------------------------------------------------------------


def written(folder: Path, key: SoftwareKey) -> list[str]:
    from cryptography.hazmat.primitives import serialization

    assert key.certificate is not None
    secret = key._key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(pem(secret, "PRIVATE KEY"))
    (folder / "cert.pem").write_bytes(pem(key.certificate, "CERTIFICATE"))
    return ["-inkey", str(folder / "key.pem"), "-recip", str(folder / "cert.pem")]


@pytest.mark.parametrize("who", ["rsa", "ec"])
@pytest.mark.parametrize("profile", ["default", "compatible", "pss", "edi-energy", "fips-algorithms"])
def test_openssl_opens_what_we_encrypt(need: Any, tmp_path: Path, readers: Any, protect: Any, who: str, profile: str) -> None:
    openssl = need("openssl")
    key = getattr(readers, who)
    (tmp_path / "m.eml").write_bytes(protect(PLAIN, recipient(key), profile=profile))
    command = [openssl, "cms", "-decrypt", "-in", str(tmp_path / "m.eml"), *written(tmp_path, key)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0 and b"the secret plan" in done.stdout, done.stderr


@pytest.mark.parametrize("who", ["rsa", "ec"])
@pytest.mark.parametrize("cipher", ["-aes128", "-aes256", "-aes-128-gcm", "-aes-256-gcm"])
@pytest.mark.parametrize("stream", [(), ("-stream",)])
def test_we_open_what_openssl_encrypts(
    need: Any, tmp_path: Path, smime: SimpleNamespace, people: Any, readers: Any, who: str, cipher: str, stream: tuple[str, ...]
) -> None:
    openssl = need("openssl")
    key = getattr(readers, who)
    options = written(tmp_path, key)
    signed = smime.sign(PLAIN, people.alice)
    (tmp_path / "m").write_bytes(signed[signed.index(b"Content-Type") :])
    header = ["-from", "alice@example.org", "-to", "bob@example.org", "-subject", "plan"]
    command = [openssl, "cms", "-encrypt", *header, cipher, *stream, "-binary", "-crlfeol", "-in", str(tmp_path / "m"), options[-1]]
    done = subprocess.run(command, capture_output=True, check=False)
    if b"AEAD" in done.stderr or b"unsupported" in done.stderr:
        pytest.skip("this openssl does not write it")
    assert done.returncode == 0, done.stderr
    from mailsec.mime.lines import to_crlf

    data = to_crlf(BytesOctets(done.stdout)).join()
    verdict = smime.judge(data, people.ca, keys=[key])
    assert verdict.trusted and verdict.text == "the secret plan", verdict
    assert smime.peel(data, keys=[key]).clear is not None


def test_two_keys_of_one_person_for_the_time_of_transition(people: Any, smime: SimpleNamespace, readers: Any, protect: Any) -> None:
    """Dual-recipient: an RSA and an ML-KEM certificate of Bob; each opens it, so it is no stronger than the classical one."""
    new = people.ca.person("bob@example.org", "ml-kem-768", usage="encrypt")
    data = protect(PLAIN, recipient(readers.rsa), recipient(new))
    for key in (readers.rsa, new):
        assert smime.peel(data, keys=[key]).text == "the secret plan"


def test_cnsa2_is_written_to_ml_kem_1024_only(people: Any, smime: SimpleNamespace, readers: Any, protect: Any) -> None:
    key = people.ca.person("bob@example.org", "ml-kem-1024", usage="encrypt")
    signer = people.ca.person("alice@example.org", "ml-dsa-87")
    data = protect(PLAIN, recipient(key), signers=[signer], profile="cnsa2")
    cms = base64.b64decode(data[data.index(b"\r\n\r\n") :])
    # id-alg-hkdf-with-sha384 (RFC 8619 §2), id-aes256-wrap, id-aes256-GCM.
    for oid in ("1.2.840.113549.1.9.16.3.29", "2.16.840.1.101.3.4.1.45", "2.16.840.1.101.3.4.1.46"):
        assert writer.oid(oid) in cms
    verdict = smime.judge(data, people.ca, keys=[key])
    assert verdict.layers[1].signers[0].signature == "ml-dsa-87" and verdict.text == "the secret plan"
    for other in (readers.rsa, people.ca.person("bob@example.org", "ml-kem-768", usage="encrypt")):
        with pytest.raises(Refused, match="cnsa2 does not allow"):
            protect(PLAIN, recipient(key), recipient(other), profile="cnsa2")


def test_what_a_profile_reads_is_told_and_written_by_whoever_answers(people: Any, smime: SimpleNamespace, protect: Any) -> None:
    """Capabilities that Bob signed come back as the cipher and key transport of what is written to him."""
    for profile, kind, oaep in (("default", b"authEnveloped-data", False), ("edi-energy", b"authEnveloped-data", True)):
        signed = smime.sign(PLAIN.replace(b"alice", b"bob"), people.bob, profile=profile)
        (signer,) = smime.peel(signed).layers[0].signers
        answer = protect(PLAIN, EncryptionRecipient(people.bob.certificate, signer.capabilities))
        assert kind in answer and smime.peel(answer, keys=[people.bob]).text == "the secret plan"
        assert (writer.oid(OAEP) in base64.b64decode(answer[answer.index(b"\r\n\r\n") :])) is oaep


def with_capabilities(people: SimpleNamespace, der: bytes | None) -> bytes:
    """Bob's certificate, issued anew with the extension of RFC 4262."""
    bob = x509.load_der_x509_certificate(people.bob.certificate)
    authority = x509.load_der_x509_certificate(people.ca.der)
    builder = x509.CertificateBuilder().subject_name(bob.subject).issuer_name(authority.subject).public_key(bob.public_key())
    builder = builder.serial_number(77).not_valid_before(bob.not_valid_before_utc).not_valid_after(bob.not_valid_after_utc)
    for extension in bob.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    if der is not None:
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.840.113549.1.9.15"), der), critical=False)
    key = serialization.load_der_private_key(people.ca.key, None)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    ("told", "signed", "cipher", "transport"),
    [
        (None, None, "aes-256-cbc", "rsaes-pkcs1-v1_5"),
        ((GCM,), None, "aes-256-gcm", "rsaes-pkcs1-v1_5"),
        ((CBC_128,), None, "aes-128-cbc", "rsaes-pkcs1-v1_5"),
        ((GCM, OAEP), None, "aes-256-gcm", "rsaes-oaep"),
        # What its holder signed is newer than what the authority wrote.
        ((GCM,), (CBC_128,), "aes-128-cbc", "rsaes-pkcs1-v1_5"),
    ],
)
def test_capabilities_in_a_certificate_decide_what_is_written_for_its_holder(
    people: SimpleNamespace, protect: Callable[..., bytes], told: Any, signed: Any, cipher: str, transport: str
) -> None:
    certificate = with_capabilities(people, None if told is None else capabilities(*told))
    written = protect(PLAIN, EncryptionRecipient(certificate, None if signed is None else capabilities(*signed)))
    enveloped = describe(base64.b64decode(written.partition(b"\r\n\r\n")[2]))
    assert enveloped["algorithm"] == cipher
    assert [one["algorithm"] for one in enveloped["recipients"]] == [transport], enveloped
