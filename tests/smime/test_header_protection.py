"""Header protection as it is read (RFC 9788, the wrapped message of RFC 8551 §3.1, `protected-headers="v1"`): what passes, and what never does."""

from __future__ import annotations

import base64
import os
from types import SimpleNamespace
from typing import Any

import pytest

from mailsec.cms.encrypt import encrypt_content
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.index import index_message
from mailsec.model.message import Message
from mailsec.model.octets import BytesOctets, Segments

OUTER = b"From: Alice <alice@example.org>\r\nTo: bob@example.org\r\nSubject: [...]\r\nDate: Sun, 22 Nov 2026 06:00:00 +0000\r\n"
INNER = (
    b"From: Alice A. <alice@example.org>\r\nTo: bob@example.org\r\nSubject: the plan\r\nDate: Sun, 22 Nov 2026 07:00:00 +0100\r\n"
    b"HP-Outer: Subject: [...]\r\nHP-Outer: Date: Sun, 22 Nov 2026 06:00:00 +0000\r\n"
)


def sealed(people: SimpleNamespace, entity: bytes, outer: bytes = OUTER) -> bytes:
    found = encrypt_content(
        Segments((entity,)), [people.bob.certificate], backend=SoftwareBackend(), random=os.urandom, cipher="aes-256-gcm"
    )
    lines = base64.encodebytes(run_now(found).join()).replace(b"\n", b"\r\n")
    return outer + b"Content-Type: application/pkcs7-mime\r\nContent-Transfer-Encoding: base64\r\n\r\n" + lines


def clear_of(result: Any) -> Message:
    assert result.clear is not None
    return index_message(result.clear)


def codes(result: Any) -> set[str]:
    return {reason.code for reason in result.reasons}


def entity(parameters: bytes, header: bytes = INNER, body: bytes = b"hello\r\n") -> bytes:
    return header + b"Content-Type: text/plain; " + parameters + b"\r\n\r\n" + body


def test_an_obscured_subject_comes_back_from_inside(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    result = smime.peel(sealed(people, entity(b'hp="cipher"')), keys=[people.bob])
    clear = clear_of(result)
    assert clear.values("subject") == ["the plan"] and clear.values("date") == ["Sun, 22 Nov 2026 07:00:00 +0100"]
    # The display name may come from inside: the address is the same.
    assert clear.values("from") == ["Alice A. <alice@example.org>"] and clear.values("to") == ["bob@example.org"]
    assert not clear.all("hp-outer") and not codes(result)


@pytest.mark.parametrize("parameters", [b'protected-headers="v1"', b'hp="clear"'])
def test_older_and_unencrypted_marks_count_too(people: SimpleNamespace, smime: SimpleNamespace, parameters: bytes) -> None:
    clear = clear_of(smime.peel(sealed(people, entity(parameters)), keys=[people.bob]))
    assert clear.values("subject") == ["the plan"]


def test_without_a_mark_nothing_comes_from_inside(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    for parameters in (b"charset=utf-8", b'hp="other"', b'protected-headers="v2"'):
        result = smime.peel(sealed(people, entity(parameters)), keys=[people.bob])
        assert clear_of(result).values("subject") == ["[...]"] and not result.protected_fields


def test_a_wrapped_message_is_told_from_a_forwarded_one(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    inner = INNER + b"Content-Type: text/plain\r\n\r\nhello\r\n"
    wrapped = smime.peel(sealed(people, b"Content-Type: message/rfc822; forwarded=no\r\n\r\n" + inner), keys=[people.bob])
    assert clear_of(wrapped).values("subject") == ["the plan"] and wrapped.text == "hello"
    forwarded = smime.peel(sealed(people, b"Content-Type: message/rfc822\r\n\r\n" + inner), keys=[people.bob])
    assert clear_of(forwarded).values("subject") == ["[...]"]


def test_an_author_whom_only_the_inside_names_is_not_shown(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    for forged in (
        b"From: ceo@example.org\r\n",
        b"From: alice@example.org, ceo@example.org\r\n",
        b"From: alice@example.org\r\nFrom: ceo@example.org\r\n",
        b"From: =?utf-8?q?alice=40example.org?= <ceo@example.org>\r\n",
    ):
        inside = forged + b"Subject: x\r\nReply-To: ceo@example.org\r\n"
        result = smime.peel(sealed(people, entity(b"hp=cipher", inside)), keys=[people.bob])
        clear = clear_of(result)
        assert clear.values("from") == ["Alice <alice@example.org>"]
        # Nor is anything else of the header that may be somebody else's.
        assert clear.values("subject") == ["[...]"] and not clear.all("reply-to")
        assert codes(result) & {"protected-from-differs", "protected-header-repeated"}
        # Signed by Alice, who signs for nobody else: what stands inside is not shown as protected.
        signed = smime.sign(OUTER + b"Content-Type: text/plain\r\n\r\nhello\r\n", people.alice)
        assert smime.judge(signed, people.ca).trusted


def test_fields_are_shown_as_protected_only_if_their_author_signed_them(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    head = b"From: alice@example.org\r\nSubject: the plan\r\n"

    def judged(outer: bytes, key: Any) -> Any:
        signed = smime.sign(outer + b"Content-Type: message/rfc822; forwarded=no\r\n\r\n" + head + b"\r\nhello\r\n", key)
        return smime.judge(signed, people.ca)

    assert judged(head, people.alice).protected_headers["subject"] == "the plan"
    # By somebody else; by a stranger who says she is Alice; by Bob, who quotes Alice.
    for outer, key in ((head, people.bob), (head, people.mallory), (head.replace(b"alice", b"bob"), people.bob)):
        assert not judged(outer, key).protected_headers
    # Encrypted, and signed by nobody.
    assert not smime.judge(sealed(people, entity(b"hp=cipher")), people.ca, keys=[people.bob]).protected_headers


def test_what_differs_outside_is_named_and_not_quoted(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    changed = OUTER.replace(b"[...]", b"forged")
    result = smime.peel(sealed(people, entity(b"hp=cipher"), changed), keys=[people.bob])
    (reason,) = (one for one in result.reasons if one.code == "header-differs")
    assert reason.message.endswith(": subject") and "plan" not in reason.message
    twice = OUTER + b"Subject: the plan\r\n"
    assert "header-differs" in codes(smime.peel(sealed(people, entity(b"hp=cipher"), twice), keys=[people.bob]))


def test_no_other_field_passes_though_the_header_is_protected(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    header = (
        INNER + b"Cc: c@example.org\r\nReply-To: r@example.org\r\nMessage-ID: <1@x>\r\nIn-Reply-To: <2@x>\r\nReferences: <2@x>\r\n"
        b"Bcc: hidden@example.org\r\nSender: s@example.org\r\nReceived: from x\r\nAuthentication-Results: gw; smime=pass\r\n"
        b"DKIM-Signature: x\r\nReturn-Path: <x@y>\r\nX-Spam: no\r\nResent-From: z@example.org\r\nList-Id: x\r\n"
    )
    clear = clear_of(smime.peel(sealed(people, entity(b"hp=cipher", header)), keys=[people.bob]))
    assert {field.name for field in clear.fields} == {
        "from", "to", "subject", "date", "cc", "reply-to", "message-id", "in-reply-to", "references", "mime-version", "content-type"
    }  # fmt: skip


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\x00"])
def test_a_protected_field_begins_no_field_of_its_own(people: SimpleNamespace, smime: SimpleNamespace, end: bytes) -> None:
    header = INNER.replace(b"the plan", b"the plan" + end + b"Bcc: x@example.org" + end + b" folded")
    clear = clear_of(smime.peel(sealed(people, entity(b"hp=cipher", header)), keys=[people.bob]))
    data = b"".join(clear.octets.blocks())
    assert not clear.all("bcc") and b"\x00" not in data and data.count(b"\r") == data.count(b"\n") == data.count(b"\r\n")
    assert len(clear.all("subject")) == 1


def test_a_field_that_stands_twice_inside_is_left_out(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    result = smime.peel(sealed(people, entity(b"hp=cipher", INNER + b"Subject: another\r\n")), keys=[people.bob])
    assert clear_of(result).values("subject") == ["[...]"] and "protected-header-repeated" in codes(result)


def test_signed_mail_is_delivered_as_it_came(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    signed = smime.sign(OUTER + b"Content-Type: text/plain\r\n\r\nhello\r\n", people.alice)
    assert smime.peel(signed).clear is None
    assert isinstance(index_message(BytesOctets(signed)).octets, BytesOctets)


@pytest.mark.parametrize(
    ("parameters", "body", "text"),
    [
        (b'hp="cipher"; hp-legacy-display="1"', b"Subject: the plan\r\nKeywords: a,\r\n b\r\n\r\nhello\r\n", "hello"),
        (b'hp="cipher"', b"Subject: the plan\r\n\r\nhello\r\n", "Subject: the plan\n\nhello"),
        (b'hp-legacy-display="1"', b"Subject: the plan\r\n\r\nhello\r\n", "Subject: the plan\n\nhello"),
        # What is no copy of fields is text, whatever the label says.
        (b'hp="cipher"; hp-legacy-display="1"', b"pay nobody\r\n\r\nhello\r\n", "pay nobody\n\nhello"),
        (b'hp="cipher"; hp-legacy-display="1"', b"Subject: the plan\r\n", "Subject: the plan"),
        (b'hp="cipher"; hp-legacy-display="1"', b"A:\r\n" * 20_000 + b"b\r\n\r\nhello\r\n", "A:\n" * 20_000 + "b\n\nhello"),
    ],
)
def test_the_copy_of_hidden_fields_for_older_readers_is_not_shown(
    people: SimpleNamespace, smime: SimpleNamespace, parameters: bytes, body: bytes, text: str
) -> None:
    assert smime.peel(sealed(people, entity(parameters, body=body)), keys=[people.bob]).text == text
