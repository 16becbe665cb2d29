"""Triple wraps and compression (RFC 2634 §1.1, RFC 8551 §3.6), written and read."""

from __future__ import annotations

import base64
import random
import re
from types import SimpleNamespace
from typing import Any

import pytest

from mailsec.errors import Refused
from mailsec.mime.index import index_message
from mailsec.model.octets import BytesOctets
from mailsec.model.protection import ProtectionPlan
from mailsec.model.verdict import SmimeWord

DATA = b"From: alice@example.org\r\nTo: bob@example.org\r\nSubject: plan\r\n\r\n" + b"the secret plan\r\n" * 400
TRIPLE = ProtectionPlan(sign=True, encrypt=True, wrap="triple")


def clear_of(smime: SimpleNamespace, people: SimpleNamespace, data: bytes) -> bytes:
    return b"".join(smime.peel(data, keys=[people.bob]).clear.blocks())


@pytest.mark.parametrize("form", ["detached", "opaque"])
@pytest.mark.parametrize("compress", [False, True])
def test_a_triple_wrap_is_signed_encrypted_and_signed(people: Any, smime: SimpleNamespace, form: str, *, compress: bool) -> None:
    plan = ProtectionPlan(sign=True, encrypt=True, wrap="triple", form=form, compress=compress)
    data = smime.protect(DATA, plan, people.bob, signers=[people.alice])
    # Promise 2: signature layers aside, the outermost entity is encrypted.
    assert b"secret" not in data and all(b"secret" not in base64.b64decode(one) for one in re.findall(rb"[A-Za-z0-9+/=]{76}", data))
    verdict = smime.judge(data, people.ca, keys=[people.bob])
    assert [layer.type for layer in verdict.layers] == [
        "signed-data", "enveloped-data", *(["compressed-data"] if compress else []), "signed-data"
    ]  # fmt: skip
    assert verdict.trusted and verdict.text == "the secret plan\n" * 399 + "the secret plan"
    # What Bob gets is what Alice signed, and it is trusted by itself.
    assert smime.judge(clear_of(smime, people, data), people.ca).trusted
    # Who has no key sees that Alice sealed it, and nothing of what is inside.
    sealed = smime.judge(data, people.ca)
    assert sealed.text is None and sealed.layers[0].signers[0].intact and sealed.layers[1].opened is False


def test_a_triple_wrap_whose_outer_signature_is_broken_is_not_trusted(people: Any, smime: SimpleNamespace) -> None:
    data = smime.protect(DATA, TRIPLE, people.bob, signers=[people.alice])
    broken = data.replace(b"Content-Description: S/MIME Cryptographic Message", b"Content-Description: another one", 1)
    verdict = smime.judge(broken, people.ca, keys=[people.bob])
    assert not verdict.trusted and verdict.word is SmimeWord.FAIL
    assert "outer-signature-broken" in {reason.code for reason in verdict.reasons}


def test_attack_the_inner_message_of_a_triple_wrap_sealed_again_by_somebody_else(people: Any, smime: SimpleNamespace) -> None:
    """What Alice wrote to Carol, put into Mallory's envelope for Bob: its author is still Alice, and the outer seal lends it nothing."""
    inner = smime.protect(DATA, ProtectionPlan(sign=True), signers=[people.alice])
    outer = smime.protect(inner.replace(b"alice@", b"mallory@", 1), ProtectionPlan(encrypt=True), people.bob)
    sealed = smime.sign(outer, people.ca.person("mallory@example.org"))
    verdict = smime.judge(sealed, people.ca, keys=[people.bob])
    assert not verdict.trusted and verdict.identity_match is False and verdict.layers[0].signers[0].matches_from is True


@pytest.mark.parametrize("plan", [ProtectionPlan(sign=True, wrap="triple"), ProtectionPlan(encrypt=True, wrap="triple")])
def test_a_triple_wrap_needs_both(people: Any, smime: SimpleNamespace, plan: ProtectionPlan) -> None:
    with pytest.raises(Refused, match="triple"):
        smime.protect(DATA, plan, people.bob, signers=[people.alice])


@pytest.mark.parametrize("sign", [True, False])
def test_what_is_compressed_is_smaller_and_comes_out_again(people: Any, smime: SimpleNamespace, *, sign: bool) -> None:
    signers = [people.alice] if sign else []
    plain = smime.protect(DATA, ProtectionPlan(sign=sign, encrypt=True), people.bob, signers=signers)
    data = smime.protect(DATA, ProtectionPlan(sign=sign, encrypt=True, compress=True), people.bob, signers=signers)
    assert len(data) < len(plain) / 2
    result = smime.peel(data, keys=[people.bob])
    assert [layer.type for layer in result.layers][:2] == ["enveloped-data", "compressed-data"] and result.text.startswith("the secret")
    clear = clear_of(smime, people, data)
    assert clear == clear_of(smime, people, plain) or (sign and smime.judge(clear, people.ca).trusted)


@pytest.mark.parametrize(
    "body", [b"short\r\n", base64.encodebytes(random.Random(1).randbytes(3000)), b"a" * 60 + b"\r\n" + b"\r\n" * 200_000]
)
def test_what_does_not_shrink_or_would_look_like_a_bomb_is_not_compressed(people: Any, smime: SimpleNamespace, body: bytes) -> None:
    data = b"From: alice@example.org\r\n\r\n" + body
    written = smime.protect(data, ProtectionPlan(encrypt=True, compress=True), people.bob)
    result = smime.peel(written, keys=[people.bob])
    assert [layer.type for layer in result.layers] == ["enveloped-data"] and result.clear is not None
    assert index_message(BytesOctets(clear_of(smime, people, written))).first("from") == "alice@example.org"


def test_attack_somebody_else_s_encrypted_text_signed_by_a_thief(people: Any, smime: SimpleNamespace) -> None:
    """Mallory takes what Alice encrypted to Bob, and signs it: she could not even read it (RFC 8551 §3.7)."""
    sealed = smime.protect(DATA, ProtectionPlan(encrypt=True, header_protection="baseline"), people.bob)
    mallory = people.ca.person("mallory@example.org")
    stolen = smime.sign(sealed.replace(b"From: alice@", b"From: mallory@", 1), mallory)
    verdict = smime.judge(stolen, people.ca, keys=[people.bob])
    assert verdict.signature_valid and verdict.identity_match and not verdict.trusted and verdict.word is SmimeWord.POLICY
    assert "signature-outside-encryption" in {reason.code for reason in verdict.reasons} and not verdict.protected_headers
    # Unopened, it is what it is: a sealed box, and Mallory's seal.
    assert smime.judge(stolen, people.ca).trusted
