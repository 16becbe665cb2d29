"""Whose signature it is, and what people and programs are told."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.keys.software import SoftwareBackend
from mailsec.mime.fields import encode_field
from mailsec.mime.index import index_message
from mailsec.mime.results import read_results
from mailsec.model.octets import BytesOctets
from mailsec.model.verdict import Reason, Revocation, SmimeWord, Verdict
from mailsec.smime.assess import assess
from mailsec.smime.report import authentication_results, verdict_json

BODY = b"Content-Type: text/plain\r\n\r\nhello\r\n"
OURS = "gw.example.org"


def from_line(*lines: bytes) -> bytes:
    return b"".join(line + b"\r\n" for line in lines) + BODY


def codes(verdict: Verdict) -> set[str]:
    return {reason.code for reason in verdict.reasons}


@pytest.mark.parametrize(
    "line",
    [
        b"From: alice@example.org",
        b"From: ALICE@Example.ORG",
        b'From: "Mallory <mallory@evil.example>" <alice@example.org>',
        b"From: =?utf-8?Q?Alice?= <alice@example.org> (work)",
        b"From:\r\n Alice\r\n\t<alice@example.org>",
        b'From: "alice"@example.org',
    ],
)
def test_from_is_the_certificate_s_address(people: SimpleNamespace, smime: SimpleNamespace, line: bytes) -> None:
    verdict = smime.judge(smime.sign(from_line(line), people.alice), people.ca)
    assert verdict.trusted and verdict.identity_match, verdict.reasons


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ((b"From: mallory@evil.example",), "from-differs"),
        ((b"From: alice@example.org.evil.example",), "from-differs"),
        ((b"From: alice@sub.example.org",), "from-differs"),
        ((b'From: "alice@example.org" <mallory@evil.example>',), "from-differs"),
        ((b"From: mallory@evil.example (alice@example.org)",), "from-differs"),
        ((b"From: =?utf-8?Q?alice=40example=2Eorg?= <mallory@evil.example>",), "from-differs"),
        ((b"From: alice@example.org <mallory@evil.example>",), "from-unreadable"),
        ((b"From: =?utf-8?Q?alice?=@example.org",), "from-unreadable"),
        ((b"From: alice@example.org, mallory@evil.example",), "from-several"),
        ((b"From: Alice: alice@example.org;",), "from-unreadable"),
        ((b"From: <@evil.example:alice@example.org>",), "from-unreadable"),
        ((b"From: alice@example.org", b"From: mallory@evil.example"), "from-repeated"),
        ((b"From : mallory@evil.example", b"From: alice@example.org"), "from-repeated"),
        ((b"From: alice@example.org", b"FROM: alice@example.org"), "from-repeated"),
        ((b" From: mallory@evil.example", b"From: alice@example.org"), "from-repeated"),
        ((b"Fr\x00om: mallory@evil.example", b"From: alice@example.org"), "from-repeated"),
        ((b"Subject: no author",), "from-missing"),
        ((b"From:",), "from-unreadable"),
        ((b"From: mallory@evil.example", b"Sender: alice@example.org"), "sender-only"),
        ((b"From: " + b"alice@example.org, " * 2000,), "from-unreadable"),
    ],
)
def test_an_author_that_the_certificate_does_not_name_is_no_match(
    people: SimpleNamespace, smime: SimpleNamespace, lines: tuple[bytes, ...], code: str
) -> None:
    verdict = smime.judge(smime.sign(from_line(*lines), people.alice), people.ca)
    assert verdict.identity_match is False and not verdict.trusted and verdict.word is SmimeWord.POLICY
    assert verdict.signature_valid and verdict.chain_valid and code in codes(verdict)


def test_international_addresses_match_in_both_spellings(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    key = people.ca.person("jörg@bücher.example")
    for line in ("From: jörg@bücher.example", "From: Jörg <JÖRG@xn--bcher-kva.example>"):
        assert smime.judge(smime.sign(from_line(line.encode()), key), people.ca).identity_match


def test_a_stranger_s_ca_an_expired_certificate_and_no_anchor(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    data = from_line(b"From: alice@example.org")
    stranger = smime.judge(smime.sign(data, people.mallory), people.ca)
    assert (stranger.signature_valid, stranger.chain_valid, stranger.identity_match) == (True, False, True)
    assert stranger.word is SmimeWord.POLICY and not stranger.trusted and stranger.reasons
    signed = smime.sign(data, people.alice)
    late = smime.judge(signed, people.ca, at=smime.at + timedelta(days=5000))
    assert late.chain_valid is False and late.word is SmimeWord.POLICY
    nobody = smime.judge(signed)
    assert nobody.chain_valid is None and not nobody.trusted and "no-anchor" in codes(nobody)


def test_a_cms_object_without_a_message_has_no_author_to_match(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    result = smime.peel(smime.sign(from_line(b"From: alice@example.org"), people.alice))
    verdict = assess(result, None, anchors=[people.ca.anchor], intermediates=(), at=smime.at, backend=SoftwareBackend())
    assert verdict.identity_match is None and verdict.trusted


def test_unsigned_mail_has_no_answers(smime: SimpleNamespace) -> None:
    verdict = smime.judge(from_line(b"From: a@b.example"))
    assert verdict.word is SmimeWord.NONE and (verdict.signature_valid, verdict.chain_valid, verdict.identity_match) == (None, None, None)
    assert verdict.text is None and not verdict.reasons


def test_weak_digests_are_named_and_not_trusted(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    data = from_line(b"From: alice@example.org")
    result = smime.peel(smime.sign(data, people.alice))
    layer = result.layers[0]
    signer = dataclasses.replace(layer.signers[0], reasons=(Reason("weak-digest", "policy", "sha1 is broken"),))
    weak = dataclasses.replace(result, layers=(dataclasses.replace(layer, signers=(signer,)),))
    verdict = assess(
        weak, index_message(BytesOctets(data)), anchors=[people.ca.anchor], intermediates=(), at=smime.at, backend=SoftwareBackend()
    )
    assert verdict.signature_valid and verdict.chain_valid and not verdict.trusted and verdict.word is SmimeWord.POLICY


def test_a_layer_of_a_hundred_hostile_signers_is_bounded(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    verdict = smime.judge(smime.sign(from_line(b"From: alice@example.org"), *[people.alice] * 25), people.ca)
    assert verdict.word is SmimeWord.PERMERROR and not verdict.trusted


# -- what is told -------------------------------------------------------------------------------------------------------------------


def test_the_json_object(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    shown = verdict_json(smime.judge(smime.sign(from_line(b"From: alice@example.org"), people.alice), people.ca))
    assert json.loads(json.dumps(shown)) == shown
    for name in ("signed", "signature_valid", "chain_valid", "identity_match", "trusted"):
        assert shown[name] is True
    assert shown["encrypted"] is False and shown["revocation"] == "not-checked" and shown["text"] == "hello" and shown["error"] is None
    (layer,) = shown["layers"]
    (signer,) = layer["signers"]
    assert layer["type"] == "signed-data" and signer["intact"] and signer["chains"] and signer["matches_from"]
    assert signer["certificate"]["addresses"] == ["alice@example.org"] and signer["digest"] == "sha256" and signer["signature"] == "ecdsa"
    assert signer["signing_time"] == "2026-11-22T06:00:00Z" and signer["certificate"]["not_after"].endswith("Z")
    assert set(shown["reasons"][0]) == {"code", "stage", "message", "hint", "rfc"}


def test_the_header_field_names_the_word_and_the_reason(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    good = smime.judge(smime.sign(from_line(b"From: alice@example.org"), people.alice), people.ca)
    value = authentication_results(good, OURS)
    assert value.startswith(f"{OURS}; smime=pass body.smime-identifier=alice@example.org body.smime-serial=") and "reason" not in value
    bad = smime.judge(smime.sign(from_line(b"From: alice@example.org"), people.alice).replace(b"hello", b"hallo"), people.ca)
    assert authentication_results(bad, OURS).startswith(f'{OURS}; smime=fail reason="the content was changed')
    assert authentication_results(smime.judge(from_line(b"From: a@b.example")), OURS) == f"{OURS}; smime=none"
    # What is kept of one author is of their good messages, under the name that asked.
    assert authentication_results(good, OURS) == value and "smime=fail" in authentication_results(bad, OURS)
    assert authentication_results(good, "other.example").startswith("other.example; smime=pass")


@given(st.text(max_size=400))
def test_no_reason_makes_the_field_say_more_than_one_result(message: str) -> None:
    verdict = Verdict(
        SmimeWord.POLICY, True, False, True, False, Revocation.NOT_CHECKED, False, False, reasons=(Reason("x", "path", message),)
    )
    line = encode_field("Authentication-Results", authentication_results(verdict, OURS))
    read = read_results(index_message(BytesOctets(line + b"\r\n")).first("authentication-results") or "")
    if "=?" not in message:
        assert read.authserv_id == OURS and [result[:2] for result in read.results] == [("smime", "policy")]
