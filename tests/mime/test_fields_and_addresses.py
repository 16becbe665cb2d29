"""Media types, encoded words and addresses: what is read, and what is told to be wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import LimitExceeded
from mailsec.mime.addresses import mailboxes
from mailsec.mime.charsets import decode_text
from mailsec.mime.fields import content_type, decode_words, read_content_type, read_parameterised
from mailsec.model.limits import DEFAULT_LIMITS


def parameters(value: str) -> dict[str, str]:
    return dict(content_type(value).parameters)


@pytest.mark.parametrize(
    ("value", "name", "expected"),
    [
        ("text/plain", "text/plain", {}),
        ("Text/HTML; Charset=UTF-8", "text/html", {"charset": "UTF-8"}),
        ('multipart/signed; boundary="a b; c"; micalg=sha-256', "multipart/signed", {"boundary": "a b; c", "micalg": "sha-256"}),
        ("multipart/mixed; boundary=a/b=c;", "multipart/mixed", {"boundary": "a/b=c"}),
        ('text/plain (a (nested; "comment) here) ; charset="us-ascii" (x)', "text/plain", {"charset": "us-ascii"}),
        (r'a/b; name="q\"uo\\te"', "a/b", {"name": 'q"uo\\te'}),
        ("a/b; name*=utf-8'de'J%C3%B6rg.txt", "a/b", {"name": "Jörg.txt"}),
        ("a/b; n*1=two; n*0=one", "a/b", {"n": "onetwo"}),
        ("a/b; n*0*=iso-8859-1''%E4; n*1=%E4; n*2*=%E4", "a/b", {"n": "ä%E4ä"}),
        ("a/b ; x = y ; z", "a/b", {"x": "y"}),
    ],
)
def test_media_types(value: str, name: str, expected: dict[str, str]) -> None:
    found = content_type(value)
    assert found.name == name and dict(found.parameters) == expected


@pytest.mark.parametrize("value", ["", "text", "; charset=x", "/plain", "\x00", "(", '"', "text plain/x"])
def test_an_unreadable_media_type_is_plain_text_with_a_problem(value: str) -> None:
    found, problems = read_content_type(value)
    assert found.name == "text/plain" and problems


def test_duplicate_parameters_are_told_and_the_first_counts() -> None:
    found, problems = read_content_type("multipart/mixed; boundary=a; BOUNDARY=b")
    assert found.parameters["boundary"] == "a" and problems == ("duplicate-parameter",)
    assert "duplicate-parameter" in read_content_type("multipart/mixed; boundary=a; boundary*=utf-8''b")[1]


@given(st.text(max_size=200))
def test_any_text_is_a_media_type_addresses_and_words(text: str) -> None:
    read_content_type(text)
    read_parameterised(text)
    decode_words(text)
    mailboxes(text)


@pytest.mark.parametrize(
    "text",
    [
        "text/plain" + ";a=" * 40_000,
        "text/plain" + ';a="' * 40_000,
        "text/plain;" + " " * 100_000 + "x",
        "a/b;" + '"\\' * 60_000,
        "(" * 100_000,
        '"' * 100_001,
        "=?utf-8?q?" * 20_000,
        "=?a" * 40_000,
        "=" * 100_000,
        "a@b," * 30_000,
        "a." * 60_000 + "@x",
        "a/b;" + ";".join(f"n*{i}=x" for i in range(9000)),
        "<" * 100_000,
    ],
)
def test_hostile_values_cost_linear_time(text: str) -> None:
    began = time.process_time()
    read_content_type(text)
    decode_words(text)
    with contextlib.suppress(LimitExceeded):
        mailboxes(text)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("=?utf-8?Q?J=C3=B6rg?= x", "Jörg x"),
        ("=?iso-8859-1?q?a_b?= =?ISO-8859-1?B?5A==?=", "a bä"),
        ("=?utf-8?B?w?= =?utf-8?Q?=C3?=\r\n =?utf-8?Q?=B6?=", "=?utf-8?B?w?= ö"),
        ("=?utf-8*de?Q?a?=", "a"),
        ("=?x-none?Q?=E4?=", "ä"),
        ("=?utf-8?X?a?= plain", "=?utf-8?X?a?= plain"),
    ],
)
def test_encoded_words(value: str, expected: str) -> None:
    assert decode_words(value) == expected


@pytest.mark.parametrize("charset", ["punycode", "idna", "unicode_escape", "rot13", "hex", "zlib", "undefined", "\x00", "", "x" * 9999])
def test_codecs_that_are_no_charsets_are_not_used(charset: str) -> None:
    assert decode_text(b"\\x41 abc-", charset) == "\\x41 abc-"


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        ("Alice <alice@x.example>", ["alice@x.example"]),
        ("alice@x.example (Alice)", ["alice@x.example"]),
        ('"Alice, (Bob) <c@d.example>" <alice@x.example>', ["alice@x.example"]),
        ("a@x.example, B <b@y.example>,,", ["a@x.example", "b@y.example"]),
        ('"odd local"@x.example', ['"odd local"@x.example']),
        ("a . b @ x . example", ["a.b@x.example"]),
        ("Jörg <jörg@exämple.example>", ["jörg@exämple.example"]),
        ("J. R. Doe <j@x.example>", ["j@x.example"]),
        ("a@x.example <A@x.example>", ["A@x.example"]),
        ("a@[192.0.2.1]", ["a@[192.0.2.1]"]),
        ("(one (two) three)a@x.example", ["a@x.example"]),
    ],
)
def test_well_formed_addresses(value: str, addresses: list[str]) -> None:
    found = mailboxes(value)
    assert [str(address) for address in found.addresses] == addresses and found.problems == ()


@pytest.mark.parametrize(
    ("value", "addresses", "problem"),
    [
        ("", [], "empty"),
        ("undisclosed-recipients:;", [], "group"),
        ("Bank: alice@x.example;", ["alice@x.example"], "group"),
        ("bank@x.example <mallory@evil.example>", ["mallory@evil.example"], "bad-syntax"),
        ("<a@x.example> <b@y.example>", [], "bad-syntax"),
        ("<a@x.example> b@y.example", [], "bad-syntax"),
        ("<a@x.example", [], "bad-syntax"),
        ("a@x.example>", [], "bad-syntax"),
        ("a@x.example@y.example", [], "bad-syntax"),
        ("a b@x.example", [], "bad-syntax"),
        ("a@x.example (unfinished", [], "bad-syntax"),
        ('a@x.example "unfinished', [], "bad-syntax"),
        ("a@x.example\x00", [], "bad-syntax"),
        ("a@x.example;", ["a@x.example"], "bad-syntax"),
        ("<@r.example:a@x.example>", ["a@x.example"], "route"),
        ("=?utf-8?q?alice?=@x.example", ["=?utf-8?q?alice?=@x.example"], "encoded-word"),
        ("a..b@x.example", [], "bad-address"),
        ("a@x.example\nb@y.example", [], "bad-syntax"),
    ],
)
def test_doubtful_addresses_carry_a_problem(value: str, addresses: list[str], problem: str) -> None:
    found = mailboxes(value)
    assert [str(address) for address in found.addresses] == addresses and problem in found.problems


@pytest.mark.parametrize(
    "value",
    [
        '"bank@x.example" <mallory@evil.example>',
        "=?utf-8?Q?bank=40x=2Eexample?= <mallory@evil.example>",
        "(bank@x.example) mallory@evil.example",
        "mallory@evil.example (<bank@x.example>)",
        '"<bank@x.example>," <mallory@evil.example>',
        "=?utf-8?Q?=3Cbank=40x=2Eexample=3E?= <mallory@evil.example>",
        '"\\"" <mallory@evil.example>',
    ],
)
def test_an_address_hidden_in_a_display_name_or_comment_is_no_address(value: str) -> None:
    assert [str(address) for address in mailboxes(value).addresses] == ["mallory@evil.example"]


def test_display_names_are_decoded() -> None:
    assert mailboxes("=?utf-8?Q?J=C3=B6rg?= <j@x.example>").display_names == ("Jörg",)


def test_ten_thousand_addresses_are_over_a_limit() -> None:
    with pytest.raises(LimitExceeded) as error:
        mailboxes("a@b.example, " * 10_000)
    assert error.value.limit == "addresses"
    with pytest.raises(LimitExceeded):
        mailboxes("a@b.example, c@d.example", dataclasses.replace(DEFAULT_LIMITS, addresses=1))
