"""The attack classes of "Johnny, you are fired!" (2019) and of "Re: What's up Johnny?" (2019), and failures of gateways of 2026 (more of them:
`test_cves`), as messages of our own making: none is reported as trusted mail from the person who seems to write, and nothing is joined.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mailsec.cms.sign import detached, opaque
from mailsec.mime.index import index_message
from mailsec.model.octets import Segments
from tests.smime.attack_parts import FORGED, HEAD, TEXT, base64_part, encrypted_part, mixed, signature, signed_part

# -- "Johnny, you are fired!" ------------------------------------------------------------------------------------------------------------


def test_johnny_c1_a_detached_signature_that_carries_the_content_it_signs(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    signer, infos = signature(smime, people.alice, TEXT)
    der = opaque(Segments((TEXT,)), [signer], infos).join()
    data = HEAD + b'Content-Type: multipart/signed; protocol="application/pkcs7-signature"; boundary=b\r\n\r\n--b\r\n' + FORGED
    data += b"\r\n--b\r\n" + base64_part(b"application/pkcs7-signature", der) + b"\r\n--b--\r\n"
    verdict = smime.judge(data, people.ca)
    assert not verdict.trusted and not verdict.signature_valid


def test_johnny_c2_an_opaque_signature_whose_content_stands_elsewhere(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    signer, infos = signature(smime, people.alice, TEXT)
    data = HEAD + base64_part(b"application/pkcs7-mime; smime-type=signed-data", detached([signer], infos))
    assert not smime.judge(data, people.ca).trusted


def test_johnny_c3_a_good_signature_of_somebody_else_beside_a_broken_one(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    bob, good = signature(smime, people.bob, FORGED)
    alice, broken = signature(smime, people.alice, TEXT)
    der = opaque(Segments((FORGED,)), [alice, bob], [*broken, *good]).join()
    verdict = smime.judge(HEAD + base64_part(b"application/pkcs7-mime", der), people.ca)
    assert not verdict.trusted and verdict.signature_valid is False and len(verdict.layers[0].signers) == 2


@pytest.mark.parametrize("kind", [b"mixed", b"related", b"alternative"])
@pytest.mark.parametrize("first", [True, False])
def test_johnny_m1_text_before_or_behind_the_signed_part(people: Any, smime: SimpleNamespace, kind: bytes, first: bool) -> None:
    parts = [FORGED, signed_part(smime, people)]
    verdict = smime.judge(mixed(*(parts if first else parts[::-1]), kind=kind), people.ca)
    assert not verdict.trusted and "attacker" not in (verdict.text or "")


def test_johnny_m2_the_signed_part_as_an_invisible_image(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    html = b'Content-Type: text/html\r\n\r\nthe attacker<img src="cid:signed" style="display:none">\r\n'
    hidden = signed_part(smime, people).replace(b"Content-Type: multipart", b"Content-ID: <signed>\r\nContent-Type: multipart", 1)
    verdict = smime.judge(mixed(html, hidden, kind=b"related"), people.ca)
    assert not verdict.trusted and "attacker" not in (verdict.text or "")


def test_johnny_m3_the_signed_part_as_an_attachment_or_a_forwarded_message(people: Any, smime: SimpleNamespace) -> None:
    whole = smime.sign(HEAD + TEXT, people.alice)
    forwarded = b"Content-Type: message/rfc822\r\nContent-Disposition: attachment\r\n\r\n" + whole
    for data in (mixed(FORGED, forwarded), HEAD + forwarded):
        assert not smime.judge(data, people.ca).trusted


@pytest.mark.parametrize(
    "author",
    [
        b"From: alice@example.org <mallory@evil.example>",
        b'From: "alice@example.org" <mallory@evil.example>',
        b"From: alice@example.org, mallory@evil.example",
        b"From: (alice@example.org) mallory@evil.example",
        b"From: alice@example.org\r\nFrom: mallory@evil.example",
        b"From: mallory@evil.example\r\nFrom: alice@example.org",
        b"From: friends: alice@example.org;",
        b"From: =?utf-8?q?alice=40example.org?= <mallory@evil.example>",
        b"From: mallory@evil.example\r\nSender: alice@example.org",
        b"From: <@evil.example:alice@example.org>",
        b"From : mallory@evil.example\r\nFrom: alice@example.org",
        b"From: alice@example.org\x00@evil.example",
        b"From:",
    ],
)
def test_johnny_i1_another_author_than_the_signer(people: SimpleNamespace, smime: SimpleNamespace, author: bytes) -> None:
    data = author + b"\r\nTo: bob@example.org\r\n" + signed_part(smime, people)
    verdict = smime.judge(data, people.ca)
    assert not verdict.trusted and verdict.signature_valid and verdict.identity_match is False


# -- "Re: What's up Johnny? Covert content attacks" --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [b"mixed", b"related", b"alternative"])
def test_covert_content_is_not_decrypted_into_a_message_around_it(people: Any, smime: SimpleNamespace, kind: bytes) -> None:
    # The victim would answer the visible text, and quote the secret with it.
    secret = encrypted_part(people, b"Content-Type: text/plain\r\n\r\nthe secret\r\n")
    visible = b'Content-Type: text/html\r\n\r\nCan we meet?<div style="display:none"><img src="cid:x">\r\n'
    result = smime.peel(mixed(visible, secret, kind=kind), keys=[people.bob])
    assert result.clear is None and not all(layer.covers_all for layer in result.layers)


def test_covert_content_within_the_attacker_s_own_encryption(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    secret = encrypted_part(people, b"Content-Type: text/plain\r\n\r\nthe secret\r\n")
    inside = mixed(b"Content-Type: text/html\r\n\r\nCan we meet?<plaintext>\r\n", secret)
    result = smime.peel(HEAD + encrypted_part(people, inside[inside.index(b"Content-Type") :]), keys=[people.bob])
    delivered = b"" if result.clear is None else b"".join(result.clear.blocks())
    assert b"the secret" not in delivered


# -- gateways of 2026: what inside was believed outside -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"Authentication-Results: gw.example.org; smime=pass",
        b"From: ceo@example.org",
        b"Subject: [signed OK] x",
        b"X-Mailsec-Verdict: pass",
        b"Received: from trusted.example.org",
    ],
)
def test_cve_2026_27443_header_fields_within_a_layer_do_not_become_the_message_s(people: Any, smime: SimpleNamespace, line: bytes) -> None:
    result = smime.peel(HEAD + encrypted_part(people, line + b"\r\nContent-Type: text/plain\r\n\r\nhello\r\n"), keys=[people.bob])
    clear = index_message(result.clear)
    assert {field.name for field in clear.fields} == {"from", "to", "subject", "mime-version", "content-type"}
    assert clear.values("from") == ["alice@example.org"] and clear.values("subject") == ["x"]


def test_cve_2026_2748_a_signer_whose_address_only_resembles_the_author_s(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    for address in ("alice@example.org.evil.example", "alice@sub.example.org", "xalice@example.org", "alice@example.0rg.example"):
        other = people.ca.person(address)
        verdict = smime.judge(smime.sign(HEAD + TEXT, other), people.ca)
        assert verdict.signature_valid and verdict.identity_match is False and not verdict.trusted
