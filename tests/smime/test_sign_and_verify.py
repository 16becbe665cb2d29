"""Signing and verifying: the round trip, openssl on both sides, and what people do to signed mail."""

from __future__ import annotations

import base64
import subprocess
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mailsec.cms.sign import detached
from mailsec.errors import KeyUnavailable, Refused
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.index import index_message
from mailsec.mime.parts import read_parts
from mailsec.model.octets import BytesOctets
from mailsec.model.protection import ProtectionPlan
from mailsec.model.verdict import Reason, Revocation, SmimeWord
from mailsec.smime.protect import protect_message
from tests.smime.attack_parts import base64_part
from tests.smime.attack_parts import signature as signature_of

PLAIN = (
    b"Received: from x \r\n\tby y\r\nFrom: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject : hello\r\nMIME-Version: 1.0\r\n"
    b"Content-Type: text/plain; charset=us-ascii\r\n\r\nHello Bob,\r\n\r\nall is well.\r\n"
)
EIGHT_BIT = PLAIN.replace(b"us-ascii", b"utf-8").replace(b"all is well", "alles grün \r\nFrom hier".encode())
MIXED = PLAIN.replace(
    b"Content-Type: text/plain; charset=us-ascii\r\n\r\n", b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n"
) + (b"\r\n--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n\x00\xff\n\r\r\n--b--\r\nepilogue\r\n")
WITH_BROKEN_INNER = PLAIN.replace(
    b"text/plain; charset=us-ascii", b'multipart/signed; boundary=c; protocol="application/pgp-signature"'
).replace(b"Hello Bob,", b"--c\r\n\r\nh\xc3\xa4 \r\n--c\r\n\r\nx\r\n--c--")
MESSAGES = {"plain": PLAIN, "8bit": EIGHT_BIT, "mixed": MIXED, "inner signed": WITH_BROKEN_INNER, "no header": b"\r\nbody", "nothing": b""}


def codes(reasons: tuple[Reason, ...]) -> set[str]:
    return {reason.code for reason in reasons}


@pytest.mark.parametrize("data", MESSAGES.values(), ids=MESSAGES.keys())
@pytest.mark.parametrize("form", ["detached", "opaque"])
@pytest.mark.parametrize("who", ["alice", "bob"])
def test_what_we_sign_is_intact(people: SimpleNamespace, smime: SimpleNamespace, data: bytes, form: str, who: str) -> None:
    written = smime.sign(data, getattr(people, who), form=form)
    result = smime.peel(written)
    assert result.signed and not result.encrypted and len(result.layers) == 1
    layer = result.layers[0]
    assert layer.covers_all and [signer.intact for signer in layer.signers] == [True]
    assert layer.signers[0].digest == "sha256" and layer.signers[0].signing_time == smime.at
    assert layer.detached == (form == "detached" and data is not WITH_BROKEN_INNER)
    assert written.isascii()


def test_promise_3_outer_fields_are_not_touched_in_any_octet(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    written = smime.sign(EIGHT_BIT, people.alice)
    assert written.startswith(
        b"Received: from x \r\n\tby y\r\nFrom: Alice <alice@example.org>\r\nTo: bob@example.net\r\nSubject : hello\r\nMIME-Version: 1.0\r\n"
    )
    result = smime.peel(written)
    assert result.text == "Hello Bob,\n\nalles grün \nFrom hier."
    assert result.content is not None
    assert bytes(result.content.view(0, 999)).startswith(
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    )


def test_an_inner_part_that_may_not_be_re_encoded_is_signed_opaque_and_comes_out_octet_for_octet(
    people: SimpleNamespace, smime: SimpleNamespace
) -> None:
    result = smime.peel(smime.sign(WITH_BROKEN_INNER, people.alice))
    assert result.layers[0].detached is False and result.content is not None
    body = WITH_BROKEN_INNER.partition(b"\r\n\r\n")[2]
    assert bytes(result.content.view(0, 9999)).endswith(b"\r\n\r\n" + body)


def test_a_signed_message_is_trusted_with_all_four_answers(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    for form in ("detached", "opaque"):
        verdict = smime.judge(smime.sign(PLAIN, people.alice, form=form), people.ca)
        assert verdict.trusted and verdict.word is SmimeWord.PASS
        assert (verdict.signature_valid, verdict.chain_valid, verdict.identity_match) == (True, True, True)
        assert verdict.revocation is Revocation.NOT_CHECKED and codes(verdict.reasons) == {"revocation-not-checked"}
        assert verdict.text == "Hello Bob,\n\nall is well."


def test_two_signers_are_both_needed(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    written = smime.sign(PLAIN, people.alice, people.bob)
    result = smime.peel(written)
    assert [signer.intact for signer in result.layers[0].signers] == [True, True]
    verdict = smime.judge(written, people.ca)
    assert verdict.signature_valid and verdict.chain_valid and verdict.identity_match is False and not verdict.trusted
    both = people.ca.person("alice@example.org", "rsa-2048")
    assert smime.judge(smime.sign(PLAIN, people.alice, both), people.ca).trusted


def test_a_signature_around_a_signature(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    inner = smime.sign(PLAIN, people.alice)
    written = smime.sign(inner, people.bob, form="opaque")
    result = smime.peel(written)
    assert [layer.type for layer in result.layers] == ["signed-data", "signed-data"]
    assert all(signer.intact for layer in result.layers for signer in layer.signers)
    assert smime.judge(written, people.ca).trusted
    broken = written.replace(b"application/pkcs7-mime", b"application/pkcs7-mime; x=y")
    assert smime.judge(broken, people.ca).trusted
    twice = smime.sign(smime.sign(PLAIN, people.alice), people.bob)
    changed = twice.replace(b"--=_", b"=", 0).replace(b"S/MIME Cryptographic Signature", b"S/MIME cryptographic Signature", 1)
    verdict = smime.judge(changed, people.ca)
    assert verdict.signature_valid and not verdict.trusted and verdict.word is SmimeWord.FAIL
    assert "outer-signature-broken" in codes(verdict.reasons)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(at=st.integers(0, 4000), bit=st.integers(0, 7))
@pytest.mark.parametrize("form", ["detached", "opaque"])
def test_no_changed_bit_of_the_signed_octets_is_intact(
    people: SimpleNamespace, smime: SimpleNamespace, form: str, at: int, bit: int
) -> None:
    written = smime.sign(EIGHT_BIT, people.alice, form=form, random=bytes)
    root = read_parts(index_message(BytesOctets(written)))
    start, end = (root.children[0].start, root.children[0].end) if form == "detached" else (root.body_start, root.end)
    at = start + at % (end - start)
    changed = written[:at] + bytes([written[at] ^ (1 << bit)]) + written[at + 1 :]
    verdict = smime.judge(changed, people.ca)
    if verdict.trusted:  # only where nothing changed for a reader of base64: another blank, or the case of nothing
        assert form == "opaque" and smime.peel(changed).content is not None
        assert b"".join(smime.peel(changed).content.blocks()) == b"".join(smime.peel(written).content.blocks())


share = st.floats(0, 1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(form=st.sampled_from(["detached", "opaque"]), first=share, length=share, put=st.binary(max_size=5))
def test_any_damage_ends_in_a_verdict(
    people: SimpleNamespace, smime: SimpleNamespace, form: str, first: float, length: float, put: bytes
) -> None:
    written = smime.sign(MIXED, people.alice, form=form, random=bytes)
    start = int(first * len(written))
    smime.judge(written[:start] + put + written[start + int(length * (len(written) - start)) :], people.ca)


def test_a_key_that_is_away_and_plans_that_cannot_be_done(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    with pytest.raises(KeyUnavailable) as away:
        smime.sign(PLAIN)
    assert away.value.temporary
    with pytest.raises(Refused):
        smime.sign(PLAIN, people.alice, profile="no such profile")
    message = index_message(BytesOctets(PLAIN))

    def protect(plan: ProtectionPlan) -> bytes:
        return run_now(
            protect_message(message, plan, signers=[people.alice], backend=SoftwareBackend(), random=bytes, work=smime.work, at=smime.at)
        ).join()

    # Promise 2: nothing meant to be encrypted leaves in clear.
    for plan in (ProtectionPlan(encrypt=True, sign=True), ProtectionPlan(refusal=Reason("x", "policy", "no certificate"))):
        with pytest.raises(Refused):
            protect(plan)
    assert protect(ProtectionPlan()) == PLAIN


def test_large_messages_go_through_work(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    data = PLAIN + b"line of text that is long enough to be one\r\n" * 40_000
    written = smime.sign(data, people.alice)
    assert smime.judge(written, people.ca).trusted
    opaque = smime.sign(data, people.alice, form="opaque")
    assert smime.judge(opaque, people.ca).trusted
    assert smime.peel(opaque).text == smime.peel(written).text


def test_a_source_of_chance_that_repeats_itself_does_not_end_the_inner_part_early(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    written = smime.sign(smime.sign(PLAIN, people.alice, random=bytes), people.bob, random=bytes)
    assert [len(layer.signers) for layer in smime.peel(written).layers] == [1, 1]
    assert smime.judge(written, people.ca).signature_valid


# -- what happens to mail on its way ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda data: data.replace(b"all is well", b"all is hell"), None),
        (lambda data: data.replace(b"is well.\r\n", b"is well. \r\n"), "damaged-trailing-blanks"),
        (lambda data: data.replace(b"is well.\r\n\r\n--", b"is well.\r\n\r\n\r\n--"), "damaged-last-lines"),
        (lambda data: data.replace(b"is well.\r\n\r\n--", b"is well.\r\n--"), "damaged-last-lines"),
        (
            lambda data: data.replace(
                b"us-ascii\r\n\r\nHello Bob,", b"us-ascii\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nHello=20Bob,"
            ),
            "damaged-re-encoded",
        ),
    ],
)
def test_damage_is_told_by_name_and_never_accepted(people: SimpleNamespace, smime: SimpleNamespace, damage, code: str | None) -> None:
    written = smime.sign(PLAIN, people.alice)
    changed = damage(written)
    assert changed != written
    verdict = smime.judge(changed, people.ca)
    assert verdict.signature_valid is False and not verdict.trusted and verdict.word is SmimeWord.FAIL
    found = {one for one in codes(verdict.reasons) if one.startswith("damaged-")}
    assert found == ({code} if code else set())


PLAINLY = b"Content-Type: text/plain\r\n\r\nHello Bob,\r\nFrom here all is well.\r\n.signed\r\n..\r\n"


@pytest.mark.parametrize(
    ("signed", "sent", "code"),
    [
        (PLAINLY.replace(b"\r\n", b"\n"), PLAINLY, "damaged-line-ends"),
        (PLAINLY, PLAINLY.replace(b"\nFrom ", b"\n>From "), "damaged-from-escaped"),
        (PLAINLY, PLAINLY.replace(b"\n.", b"\n.."), "damaged-dot-stuffed"),
    ],
)
def test_damage_to_what_others_sign_unprotected_is_told_by_name_and_never_accepted(
    people: SimpleNamespace, smime: SimpleNamespace, signed: bytes, sent: bytes, code: str
) -> None:
    """We write nothing that these could change (RFC 8551 §3.1.2); other programs do."""
    signer, infos = signature_of(smime, people.alice, signed)
    part = base64_part(b"application/pkcs7-signature", detached([signer], infos))
    label = b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; micalg=sha-256; boundary=c\r\n\r\n'
    frame = b"From: alice@example.org\r\nMIME-Version: 1.0\r\n" + label + b"--c\r\n%s\r\n--c\r\n" + part + b"\r\n--c--\r\n"
    verdict = smime.judge(frame.replace(b"%s", sent), people.ca)
    assert verdict.signature_valid is False and not verdict.trusted and verdict.word is SmimeWord.FAIL
    assert {one for one in codes(verdict.reasons) if one.startswith("damaged-")} == {code}
    if b"\r" in signed:
        assert smime.judge(frame.replace(b"%s", signed), people.ca).trusted


def test_a_list_footer_beside_the_signed_part_is_never_trusted(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    written = smime.sign(PLAIN, people.alice)
    header, _, body = written.partition(b"Content-Type: multipart/signed")
    inner = b"Content-Type: multipart/signed" + body
    listed = (
        header + b"Content-Type: multipart/mixed; boundary=list\r\n\r\n--list\r\n" + inner + b"\r\n--list\r\n\r\nfooter\r\n--list--\r\n"
    )
    verdict = smime.judge(listed, people.ca)
    assert verdict.signature_valid and verdict.identity_match and not verdict.trusted and verdict.word is SmimeWord.POLICY
    assert "partly-covered" in codes(verdict.reasons) and smime.peel(listed).layers[0].covers_all is False
    alone = header + b"Content-Type: multipart/mixed; boundary=list\r\n\r\n--list\r\n" + inner + b"\r\n--list--\r\n"
    assert smime.judge(alone, people.ca).trusted


def test_a_third_part_in_multipart_signed_is_never_trusted(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    written = smime.sign(PLAIN, people.alice, random=bytes)
    mark = b"--=_" + b"00" * 16
    assert written.endswith(mark + b"--\r\n")
    more = written.removesuffix(mark + b"--\r\n") + mark + b"\r\n\r\nbuy this\r\n" + mark + b"--\r\n"
    verdict = smime.judge(more, people.ca)
    assert verdict.signature_valid and not verdict.trusted


def test_a_second_content_type_is_never_trusted(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    written = smime.sign(PLAIN, people.alice).replace(b"MIME-Version: 1.0\r\n", b"MIME-Version: 1.0\r\n", 1)
    twice = written.replace(b"micalg=", b"boundary=evil; micalg=", 1)
    assert not smime.judge(twice, people.ca).trusted
    header, _, body = written.partition(b"\r\n\r\n")
    assert not smime.judge(header + b"\r\nContent-Type: text/html\r\n\r\n" + body, people.ca).trusted


def test_a_signature_in_a_forwarded_message_is_not_this_message_s(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    forwarded = b"From: mallory@evil.example\r\nContent-Type: message/rfc822\r\n\r\n" + smime.sign(PLAIN, people.alice)
    verdict = smime.judge(forwarded, people.ca)
    assert not verdict.signed and verdict.word is SmimeWord.NONE


def test_encrypted_layers_are_recognised_and_not_opened(smime: SimpleNamespace) -> None:
    # ContentInfo { envelopedData, … } that is cut off: encrypted all the same, so that no reply depends on it.
    der = bytes.fromhex("300f06092a864886f70d010703a0023000")
    data = (
        b"From: a@b.example\r\nContent-Type: application/pkcs7-mime; smime-type=enveloped-data\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    verdict = smime.judge(data + base64.b64encode(der) + b"\r\n")
    assert verdict.encrypted and not verdict.signed and verdict.layers[0].opened is False and verdict.word is SmimeWord.NEUTRAL


def test_unreadable_signatures_are_neutral(smime: SimpleNamespace) -> None:
    for signature in (b"!!!!", b"MAA=", b"", b"\r\n" * 50):
        data = (
            b'Content-Type: multipart/signed; boundary=b; protocol="application/pkcs7-signature"\r\nFrom: a@b.example\r\n\r\n--b\r\n\r\nx\r\n'
            b"--b\r\nContent-Type: application/pkcs7-signature\r\nContent-Transfer-Encoding: base64\r\n\r\n" + signature + b"\r\n--b--\r\n"
        )
        verdict = smime.judge(data)
        assert verdict.signed and verdict.signature_valid is False and verdict.word is SmimeWord.NEUTRAL and verdict.text == "x"


def test_a_list_that_turned_the_message_into_multipart_mixed(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    written = smime.sign(PLAIN, people.alice).replace(b"multipart/signed", b"multipart/mixed")
    verdict = smime.judge(written, people.ca)
    assert not verdict.signed and not verdict.trusted and "signature-without-content" in codes(verdict.reasons)


def test_matryoshkas_are_over_a_limit(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    data = PLAIN
    for _ in range(12):
        data = smime.sign(data, people.alice, form="opaque")
    verdict = smime.judge(data, people.ca)
    assert verdict.word is SmimeWord.PERMERROR and "limit-cms-layers" in codes(verdict.reasons) and not verdict.trusted
    nested = b"From: a@b.example\r\n" + b"".join(
        b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (level, level) for level in range(1000)
    )
    assert smime.judge(nested).word is SmimeWord.PERMERROR


# -- openssl ----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(people: SimpleNamespace, tmp_path: Path) -> Path:
    def pem(name: str, label: str, der: bytes) -> None:
        (tmp_path / name).write_bytes(
            b"-----BEGIN %s-----\n%s-----END %s-----\n" % (label.encode(), base64.encodebytes(der), label.encode())
        )

    pem("ca.pem", "CERTIFICATE", people.ca.der)
    pem("bob.pem", "CERTIFICATE", people.bob.certificate)
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    (tmp_path / "bob.key").write_bytes(people.bob._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return tmp_path


@pytest.mark.parametrize("command", ["cms", "smime"])
@pytest.mark.parametrize("form", ["detached", "opaque"])
@pytest.mark.parametrize("which", ["plain", "8bit", "mixed", "inner signed"])
def test_openssl_accepts_what_we_sign(
    people: SimpleNamespace, smime: SimpleNamespace, files: Path, need, command: str, form: str, which: str
) -> None:
    written = files / "signed.eml"
    written.write_bytes(smime.sign(MESSAGES[which], people.bob, form=form))
    out = files / "content"
    checked = subprocess.run(
        [
            need("openssl"),
            command,
            "-verify",
            "-in",
            written,
            "-CAfile",
            files / "ca.pem",
            "-purpose",
            "any",
            "-out",
            out,
            "-attime",
            "1795327200",
        ],
        capture_output=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    content = smime.peel(written.read_bytes()).content
    assert out.read_bytes() == b"".join(content.blocks())


@pytest.mark.parametrize(
    "options",
    [[], ["-nodetach"], ["-nodetach", "-stream"], ["-md", "sha512"], ["-keyid"], ["-noattr"], ["-keyopt", "rsa_padding_mode:pss"]],
)
def test_we_accept_what_openssl_signs(people: SimpleNamespace, smime: SimpleNamespace, files: Path, need, options: list[str]) -> None:
    (files / "in.txt").write_bytes(b"Content-Type: text/plain\r\n\r\nHello\r\nworld\r\n")
    made = subprocess.run(
        [
            *(need("openssl"), "cms", "-sign", "-in", files / "in.txt", "-signer", files / "bob.pem", "-inkey", files / "bob.key"),
            *("-from", "bob@example.org", "-to", "alice@example.org", "-subject", "hi", "-crlfeol", *options),
        ],
        capture_output=True,
        check=True,
    )
    data = made.stdout.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    verdict = smime.judge(data, people.ca, at=smime.at + timedelta(hours=1))
    assert verdict.signature_valid and verdict.identity_match and verdict.chain_valid and verdict.trusted, verdict.reasons
    assert verdict.text == "Hello\nworld"
    assert not smime.judge(data.replace(b"Hello", b"Hallo"), people.ca).trusted or "-nodetach" in options
