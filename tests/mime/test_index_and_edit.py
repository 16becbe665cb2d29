"""Header index and edits: octet-exact for any octets, limits by name, and what an attacker puts into a header."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import LimitExceeded, MimeError
from mailsec.mime.edit import with_fields
from mailsec.mime.fields import decode_words, encode_field
from mailsec.mime.index import index_message
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.octets import BytesOctets

pieces = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b" ", b"\t", b":", b"From", b"Subject", b"a", b"\x00", b"\xff", b"--b", b"--", b"x" * 70]),
    max_size=60,
).map(b"".join)


def index(data: bytes):
    return index_message(BytesOctets(data))


def names(data: bytes) -> list[str]:
    return [field.name for field in index(data).fields]


@given(pieces)
def test_any_octets_index_to_touching_spans(data: bytes) -> None:
    message = index(data)
    at = 0
    for field in message.fields:
        assert field.start == at and field.start <= field.value_start <= field.end
        at = field.end
    assert at == message.header_end
    assert data[message.header_end : message.body_start] in (b"", b"\r\n")


@given(pieces)
def test_no_edit_changes_no_octet(data: bytes) -> None:
    assert with_fields(index(data)).join() == data


@given(pieces, st.integers(0, 5))
def test_added_and_removed_fields_touch_nothing_else(data: bytes, which: int) -> None:
    message = index(data)
    removed = list(message.fields[which : which + 2])
    expected = data[: removed[0].start] + data[removed[-1].end :] if removed else data
    assert with_fields(message, remove=removed).join() == expected
    added = with_fields(message, add=[("X-A", "1"), ("X-B", "2")], remove=removed).join()
    assert added.replace(b"X-A: 1\r\nX-B: 2\r\n", b"", 1) in (expected, b"\r\n" + expected)
    again = index(added)
    assert again.values("x-a") == ["1"] and again.values("x-b") == ["2"]


def test_fields_in_order_with_folding_and_odd_lines() -> None:
    data = b"Received: by\r\n\tmx\r\nno colon here\r\nSubject : a\r\n b\r\nTo:\r\n\r\nbody: no field\r\n"
    message = index(data)
    assert names(data) == ["received", "", "subject", "to"]
    assert message.first("subject") == "a b" and message.first("received") == "by\tmx" and message.first("to") == ""
    assert data[message.body_start :] == b"body: no field\r\n"


def test_a_from_field_hidden_behind_a_blank_before_the_colon_is_found() -> None:
    assert names(b"From : a@b.example\r\nFROM\t:c@d.example\r\n\r\n") == ["from", "from"]


def test_a_name_with_nul_or_blank_inside_is_no_field() -> None:
    assert names(b"Fr\x00om: a\r\nFr om: b\r\nF\xc3\xbcr: c\r\n\r\n") == ["", "", ""]


def test_message_without_header_and_message_without_body() -> None:
    assert index(b"\r\nFrom: x\r\n").fields == ()
    assert index(b"\r\nFrom: x\r\n").body_start == 2
    assert names(b"Subject: x") == ["subject"]
    assert index(b"").body_start == 0
    blank = index(b"A: b\r\n \r\n\r\nbody")
    assert len(blank.fields) == 1 and blank.octets.view(blank.body_start, 99) == b"body"


@pytest.mark.parametrize(
    ("data", "limit"),
    [
        (b"A: " + b"b" * 3_000_000, "header_octets"),
        (b"A: b\r\n" * 300_000 + b"\r\n", "header_octets"),
        (b"A: b\r\n" * 3_000 + b"\r\n", "header_fields"),
        (b"A: " + b"b" * 300_000 + b"\r\n\r\n", "header_field_octets"),
        (b"A: b\r\n" + b" c\r\n" * 100_000 + b"\r\n", "header_field_octets"),
    ],
)
def test_endless_headers_are_over_a_limit_that_is_named(data: bytes, limit: str) -> None:
    with pytest.raises(LimitExceeded) as error:
        index(data)
    assert error.value.limit == limit and error.value.stage == "parse"


def test_limits_are_arguments() -> None:
    with pytest.raises(LimitExceeded):
        index_message(BytesOctets(b"A: b\r\nC: d\r\n\r\n"), dataclasses.replace(DEFAULT_LIMITS, header_fields=1))


def test_a_first_line_of_blanks_does_not_become_folding_of_our_field() -> None:
    for body in (b"\r\n\r\nx", b"", b"\r\n"):
        message = index(b" smime=pass" + body)
        edited = with_fields(message, add=[("Authentication-Results", "gw.example; smime=none")])
        found = index_message(BytesOctets(edited.join()))
        assert found.first("authentication-results") == "gw.example; smime=none"


@pytest.mark.parametrize("value", ["a\r\nBcc: x", "a\nBcc: x", "a\rb", "a\x00b", "a\r\n b", "\x7f"])
def test_header_injection_through_a_value_is_refused(value: str) -> None:
    with pytest.raises(MimeError):
        encode_field("X-Note", value)


@pytest.mark.parametrize("name", ["", "A B", "A:", "Ä", "A\r\nB", "a" * 100])
def test_header_injection_through_a_name_is_refused(name: str) -> None:
    with pytest.raises(MimeError):
        encode_field(name, "x")


printable = st.text(st.characters(min_codepoint=0x20, exclude_categories=("Cs", "Cc")), max_size=300).filter(lambda text: "=?" not in text)


@given(printable)
def test_a_written_field_reads_back_as_it_was(value: str) -> None:
    try:
        line = encode_field("Subject", value)
    except MimeError:
        assert max(map(len, value.split())) > 900
        return
    message = index(line + b"\r\n")
    assert len(message.fields) == 1
    assert decode_words(message.first("subject") or "") == value.strip(" ")
    for one in line[:-2].split(b"\r\n"):
        assert one.strip() and len(one) <= 998 and one.isascii()


def test_long_values_fold_at_78() -> None:
    line = encode_field("X-Long", " ".join(["word"] * 100))
    assert all(len(one) <= 78 for one in line.split(b"\r\n")) and line.count(b"\r\n") > 5


def test_a_field_of_another_message_is_not_removed() -> None:
    other = index(b"A: b\r\n" * 20 + b"\r\n")
    with pytest.raises(MimeError):
        with_fields(index(b"A: b\r\n\r\n"), remove=[other.fields[7]])
