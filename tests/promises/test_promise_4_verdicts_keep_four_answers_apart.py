"""Promise 4: intact, chains, not revoked and matches From are four answers; each no has a reason to act on; trusted is all of them."""

from __future__ import annotations

import base64
import os
from datetime import timedelta
from itertools import product

import pytest

from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.index import index_message
from mailsec.model.octets import BytesOctets
from mailsec.model.protection import ProtectionPlan
from mailsec.model.verdict import Revocation, SmimeWord, Verdict
from mailsec.smime.assess import assess
from mailsec.smime.protect import protect_message
from mailsec.smime.unprotect import unprotect_message
from mailsec.testing.authority import Authority
from mailsec.testing.memory import MemoryScratch

OURS, STRANGER = Authority("Ours"), Authority("Stranger")
AT = OURS.at + timedelta(days=3)
KEYS = {
    "ours": OURS.issue("alice@example.org"),
    "stranger": STRANGER.issue("alice@example.org"),
    "expired": OURS.issue("alice@example.org", days=1),
}


async def work(cost, function, *args):
    return function(*args)


def another_amount(octets: bytes, form: str) -> bytes:
    """The message with one word changed under its signature."""
    head, gap, body = octets.partition(b"\r\n\r\n")
    if form == "opaque":
        body = base64.encodebytes(base64.b64decode(body).replace(b"Pay ten", b"Pay two")).replace(b"\n", b"\r\n")
    changed = head + gap + body.replace(b"Pay ten", b"Pay two")
    assert changed != octets
    return changed


def judge(*, changed: bool, key: str, author: str, form: str) -> Verdict:
    octets = f"From: {author}\r\nTo: b@example.net\r\nContent-Type: text/plain\r\n\r\nPay ten.\r\n".encode()
    plan = ProtectionPlan(sign=True, signer="x", form=form)
    signing = protect_message(
        index_message(BytesOctets(octets)), plan, signers=[KEYS[key]], backend=SoftwareBackend(), random=os.urandom, work=work, at=AT
    )
    octets = run_now(signing).join()
    if changed:
        octets = another_amount(octets, form)
    message = index_message(BytesOctets(octets))
    result = run_now(unprotect_message(message, backend=SoftwareBackend(), scratch=MemoryScratch, work=work))
    return assess(result, message, anchors=[OURS.anchor], intermediates=(), at=AT, backend=SoftwareBackend())


@pytest.mark.parametrize(("key", "author"), list(product(KEYS, ["alice@example.org", "mallory@evil.example"])))
@pytest.mark.parametrize("form", ["detached", "opaque"])
def test_one_no_changes_no_other_answer(key, author, form):
    verdict = judge(changed=False, key=key, author=author, form=form)
    (signer,) = verdict.layers[0].signers
    assert (signer.intact, signer.chains, signer.matches_from) == (True, key == "ours", author == "alice@example.org")
    assert signer.revocation is verdict.revocation is Revocation.NOT_CHECKED
    answers = (verdict.signature_valid, verdict.chain_valid, verdict.identity_match)
    assert answers == (True, key == "ours", author == "alice@example.org")
    assert verdict.trusted == all(answers)
    assert verdict.word is (SmimeWord.PASS if verdict.trusted else SmimeWord.POLICY)
    # each no has a reason of its own stage, and nothing else has
    stages = {reason.stage for reason in (*verdict.reasons, *signer.reasons)}
    assert "integrity" not in stages
    assert ("path" in stages) == (key != "ours")
    assert ("identity" in stages) == (author != "alice@example.org")
    assert all(reason.code and reason.message and (reason.hint or reason.rfc) for reason in verdict.reasons), verdict.reasons


@pytest.mark.parametrize(("key", "author"), list(product(KEYS, ["alice@example.org", "mallory@evil.example"])))
@pytest.mark.parametrize("form", ["detached", "opaque"])
def test_what_is_not_intact_proves_nothing_about_anybody(key, author, form):
    verdict = judge(changed=True, key=key, author=author, form=form)
    assert (verdict.signature_valid, verdict.chain_valid, verdict.identity_match) == (False, None, None)
    assert not verdict.trusted and verdict.word is SmimeWord.FAIL
    assert {reason.stage for reason in verdict.reasons} == {"integrity"}
    assert all(reason.code and reason.message and (reason.hint or reason.rfc) for reason in verdict.reasons), verdict.reasons


def test_unsigned_mail_has_no_answers_and_no_trust():
    octets = b"From: a@example.net\r\n\r\nx\r\n"
    message = index_message(BytesOctets(octets))
    result = run_now(unprotect_message(message, backend=SoftwareBackend(), scratch=MemoryScratch, work=work))
    verdict = assess(result, message, anchors=[OURS.anchor], intermediates=(), at=AT, backend=SoftwareBackend())
    answers = (verdict.signature_valid, verdict.chain_valid, verdict.identity_match)
    assert answers == (None, None, None) and not verdict.trusted and verdict.word is SmimeWord.NONE
