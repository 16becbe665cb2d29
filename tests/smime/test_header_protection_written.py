"""Header protection as we write it (RFC 9788 §3, §5.2): what is inside, what is outside, and what a reader makes of it."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.errors import Refused
from mailsec.mime.index import index_message
from mailsec.model.message import Message
from mailsec.model.octets import BytesOctets
from mailsec.model.protection import ProtectionPlan

HEADER = (
    b"Received: from desk by mail\r\nFrom: Alice A. <alice@example.org>\r\nTo: Bob <bob@example.org>,\r\n carol@example.org\r\n"
    b"Bcc: hidden@example.org\r\nSubject: =?utf-8?Q?the_pl=C3=A4n?=\r\nDate: Sun, 22 Nov 2026 07:00:00 +0100\r\n"
    b"Message-ID: <1@example.org>\r\nKeywords: merger\r\nComments: soon\r\nX-Mailer: pen\r\nDKIM-Signature: v=1\r\n"
    b"HP-Outer: Subject: forged\r\nMIME-Version: 1.0\r\n"
)
DATA = HEADER + b"Content-Type: text/plain; charset=us-ascii\r\n\r\nthe body\r\n"


def plan(words: str, *, encrypt: bool = True, sign: bool = True, **more: Any) -> ProtectionPlan:
    return ProtectionPlan(sign=sign, encrypt=encrypt, header_protection=words, **more)


def indexed(data: bytes) -> Message:
    return index_message(BytesOctets(data))


def inside(people: SimpleNamespace, smime: SimpleNamespace, data: bytes) -> Message:
    """The innermost entity of a message for Bob."""
    content = smime.peel(data, keys=[people.bob]).content
    return indexed(b"".join(bytes(block) for block in content.blocks()))


def outer_names(message: Message) -> list[str]:
    return [field.name for field in message.fields]


def test_a_signature_alone_covers_the_header_and_hides_nothing(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    for words in ("sign", "baseline", "shy"):
        data = smime.protect(DATA, plan(words, encrypt=False), signers=[people.alice])
        # Promise 3: outside, not an octet is another.
        assert data.startswith(HEADER)
        found = inside(people, smime, data)
        assert found.first("content-type") == 'text/plain; charset=us-ascii; hp="clear"' and not found.all("hp-outer")
        assert found.values("subject") == ["=?utf-8?Q?the_pl=C3=A4n?="] and found.values("keywords") == ["merger"]
        verdict = smime.judge(data, people.ca)
        assert verdict.trusted and verdict.protected_headers["subject"] == "=?utf-8?Q?the_pl=C3=A4n?="


@pytest.mark.parametrize("words", ["sign", "baseline", "shy"])
def test_attack_bcc_and_what_transports_wrote_never_pass_inside(people: SimpleNamespace, smime: SimpleNamespace, words: str) -> None:
    more = b"Resent-Bcc: x@y\r\nReceived-SPF: pass\r\nARC-Seal: i=1\r\nAuthentication-Results: gw; smime=pass\r\nReturn-Path: <a@b>\r\n"
    data = smime.protect(more + DATA, plan(words), people.bob, signers=[people.alice])
    found = inside(people, smime, data)
    assert {field.name for field in found.fields} == {
        "from", "to", "subject", "date", "message-id", "keywords", "comments", "x-mailer", "hp-outer", "content-type"
    }  # fmt: skip
    assert b"hidden@" not in b"".join(found.octets.blocks())


def test_hcp_no_confidentiality_hides_nothing_and_says_so(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    data = smime.protect(DATA, plan("sign"), people.bob, signers=[people.alice])
    found, outside = inside(people, smime, data), indexed(data)
    assert 'hp="cipher"' in found.first("content-type")
    assert outside.values("subject") == ["=?utf-8?Q?the_pl=C3=A4n?="] and not outside.all("hp-outer")
    assert [value.partition(":")[0] for value in found.values("hp-outer")] == [
        "From", "To", "Subject", "Date", "Message-ID", "Keywords", "Comments", "X-Mailer"
    ]  # fmt: skip


def test_hcp_baseline_obscures_the_subject_and_removes_what_informs(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    data = smime.protect(DATA, plan("baseline"), people.bob, signers=[people.alice])
    outside = indexed(data)
    assert outside.values("subject") == ["[...]"] and not outside.all("keywords") and not outside.all("comments")
    assert outside.values("from") == ["Alice A. <alice@example.org>"] and outside.values("date") == ["Sun, 22 Nov 2026 07:00:00 +0100"]
    assert b"merger" not in data and b"pl=C3" not in data
    found = inside(people, smime, data)
    assert "Subject: [...]" in found.values("hp-outer")
    assert not any(value.lower().startswith(("keywords", "comments")) for value in found.values("hp-outer"))


@pytest.mark.parametrize("words", ["baseline", "shy"])
def test_attack_the_subject_stands_once_more_where_outlook_writes_it(people: SimpleNamespace, smime: SimpleNamespace, words: str) -> None:
    data = b"From: alice@example.org\r\nSubject: the merger\r\nThread-Topic: the merger\r\nThread-Index: AdX=\r\n\r\nx\r\n"
    made = smime.protect(data, plan(words, sign=False), people.bob)
    assert b"merger" not in made and b"Thread-Index" in made
    assert inside(people, smime, made).values("thread-topic") == ["the merger"]


def test_hcp_shy_hides_display_names_and_the_time_zone_besides(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    outside = indexed(smime.protect(DATA, plan("shy"), people.bob, signers=[people.alice]))
    assert outside.values("from") == ["alice@example.org"] and outside.values("to") == ["bob@example.org, carol@example.org"]
    assert outside.values("date") == ["Sun, 22 Nov 2026 06:00:00 +0000"] and outside.values("subject") == ["[...]"]


@pytest.mark.parametrize("value", [b"yesterday", b"", b"undisclosed-recipients:;", b"<", b"\xff"])
def test_hcp_shy_leaves_what_it_cannot_read(people: SimpleNamespace, smime: SimpleNamespace, value: bytes) -> None:
    data = b"From: alice@example.org\r\nTo: " + value + b"\r\nDate: " + value + b"\r\n\r\nx\r\n"
    outside = smime.protect(data, plan("shy", sign=False), people.bob)
    assert outside.startswith(data[: data.index(b"\r\n\r\n") + 2])


@pytest.mark.parametrize("words", ["sign", "baseline", "shy"])
@pytest.mark.parametrize("sign", [True, False])
def test_a_reader_gets_the_header_back(people: SimpleNamespace, smime: SimpleNamespace, words: str, *, sign: bool) -> None:
    data = smime.protect(DATA, plan(words, sign=sign), people.bob, signers=[people.alice] if sign else ())
    result = smime.peel(data, keys=[people.bob])
    assert not {reason.code for reason in result.reasons}
    clear = index_message(result.clear)
    for name in ("subject", "from", "to", "date", "message-id"):
        assert clear.values(name) == indexed(DATA).values(name)
    assert result.text == "the body" and not clear.all("hp-outer")
    verdict = smime.judge(data, people.ca, keys=[people.bob])
    # Shown as protected only where its author signed.
    assert verdict.trusted is sign and bool(verdict.protected_headers) is sign


def test_what_was_altered_outside_on_the_way_is_told(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    data = smime.protect(DATA, plan("baseline"), people.bob, signers=[people.alice])
    result = smime.peel(data.replace(b"Subject: [...]", b"Subject: lunch"), keys=[people.bob])
    assert [reason.code for reason in result.reasons] == ["header-differs"]


def test_what_is_signed_already_keeps_its_own_header(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    signed = smime.sign(DATA, people.alice)
    data = smime.protect(signed, plan("baseline", sign=False), people.bob)
    assert b"".join(smime.peel(data, keys=[people.bob]).clear.blocks()) == signed


@pytest.mark.parametrize(
    "label", [b'text/plain; hp="clear"', b'text/plain; charset="us-ascii', b"nothing", b"text/plain; hp=cipher; hp=clear"]
)
def test_a_label_that_cannot_carry_the_mark_is_refused(people: SimpleNamespace, smime: SimpleNamespace, label: bytes) -> None:
    data = b"From: alice@example.org\r\nTo: alice@example.org\r\nSubject: x\r\nContent-Type: " + label + b"\r\n\r\nx\r\n"
    with pytest.raises(Refused, match="Content-Type") as caught:
        smime.protect(data, plan("baseline"), people.bob, signers=[people.alice])
    assert caught.value.stage == "canonical"
    # Where nothing is to be hidden, the message is protected without it.
    for words, encrypt in (("sign", True), ("sign", False), ("baseline", False)):
        written = smime.protect(data, plan(words, encrypt=encrypt), people.bob, signers=[people.alice])
        assert smime.peel(written, keys=[people.bob]).layers[-1].signers[0].intact
        assert inside(people, smime, written).first("content-type") == label.decode()


def test_a_header_that_no_transport_carries_is_signed_opaque(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    data = "From: alice@example.org\r\nSubject: plän\r\n\r\nx\r\n".encode()
    signed = smime.protect(data, plan("sign", encrypt=False), signers=[people.alice])
    assert b"smime-type=signed-data" in signed and smime.judge(signed, people.ca).trusted


def test_words_that_are_none_are_refused(people: SimpleNamespace, smime: SimpleNamespace) -> None:
    with pytest.raises(Refused, match="no header protection is called"):
        smime.protect(DATA, plan("total"), people.bob, signers=[people.alice])


_NAMES = st.sampled_from([b"Subject", b"Keywords", b"Comments", b"To", b"Cc", b"Date", b"X-Any", b"Bcc", b"HP-Outer"])
_VALUES = st.binary(max_size=40).map(lambda value: re.sub(rb"[\r\n\0]", b" ", value)) | st.sampled_from([b"a@b", b"A <a@b>,\r\n c@d"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(_NAMES, _VALUES), max_size=6))
def test_whatever_the_header_is_hp_outer_says_what_stands_outside(
    people: SimpleNamespace, smime: SimpleNamespace, fields: list[tuple[bytes, bytes]]
) -> None:
    data = b"From: alice@example.org\r\n" + b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\nx\r\n"
    for words in ("baseline", "shy"):
        written = smime.protect(data, plan(words, sign=False), people.bob)
        found, outside = inside(people, smime, written), indexed(written)
        said = sorted(value.partition(":")[0].lower() + ":" + value.partition(":")[2].strip(" \t") for value in found.values("hp-outer"))
        stands = sorted(
            f"{field.name}:{outside.value(field)}"
            for field in outside.fields
            if field.name not in ("mime-version", "bcc") and not field.name.startswith("content-")
        )
        assert said == stands and not outside.all("hp-outer") and not found.all("bcc")
