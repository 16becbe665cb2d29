"""References to keys: nicknames, tokens and PKCS#11 URIs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import MailsecError, UsageError
from mailsec.keys.reference import KeyReference, parse_reference


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail-2026", KeyReference("mail-2026")),
        ("Alice Dewey's key", KeyReference("Alice Dewey's key")),
        ("HSM 1:mail-2026", KeyReference("mail-2026", "HSM 1")),
        ("HSM:a:b", KeyReference("a:b", "HSM")),
        ("pkcs11:", KeyReference(uri=True)),
        ("pkcs11:token=HSM%201;object=mail;type=private", KeyReference("mail", "HSM 1", attributes={"type": "private"}, uri=True)),
        ("PKCS11:id=%69%95%3E;serial=0042", KeyReference(id=b"i\x95>", attributes={"serial": "0042"}, uri=True)),
        ("pkcs11:object=n%C3%A4me?module-name=softhsm", KeyReference("näme", module="softhsm", uri=True)),
        ("pkcs11:object=x?vendor-thing=1", KeyReference("x", uri=True)),
    ],
)
def test_references_are_read(text, expected):
    assert parse_reference(text) == expected
    assert parse_reference(str(expected)) == expected


@given(
    st.builds(
        KeyReference, nickname=st.text(min_size=1, max_size=20), token=st.text(max_size=20), id=st.binary(max_size=9), uri=st.just(True)
    )
)
def test_references_survive(reference):
    try:
        reference.nickname.encode()
        reference.token.encode()
    except UnicodeEncodeError:
        return
    assert parse_reference(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":nick",
        "token:",
        "a\nb",
        "pkcs11:unknown=1",
        "pkcs11:token=a;token=b",
        "pkcs11:token",
        "pkcs11:token=a b",
        "pkcs11:token=%zz",
        "pkcs11:type=everything",
        "pkcs11:slot-id=one",
        "pkcs11:object=%FF",
        "x" * 5000,
    ],
)
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(UsageError):
        parse_reference(text)


@pytest.mark.parametrize("query", ["pin-value=1234", "pin-source=file:/etc/pin", "module-path=/tmp/evil.so"])
def test_a_pin_or_a_module_in_a_uri_is_refused_and_not_repeated(query):
    with pytest.raises(UsageError) as caught:
        parse_reference(f"pkcs11:token=HSM?{query}")
    assert "1234" not in str(caught.value) + caught.value.hint
    assert "evil" not in str(caught.value) + caught.value.hint


@given(st.text(max_size=60))
def test_any_text_ends_in_a_reference_or_our_error(text):
    for candidate in (text, f"pkcs11:{text}", f"pkcs11:object={text}"):
        try:
            parse_reference(candidate)
        except MailsecError:
            pass


def test_tokens_match_exactly():
    reference = parse_reference("pkcs11:token=HSM%201;serial=42")
    assert reference.matches_token(label="HSM 1", serial="42", model="x")
    assert not reference.matches_token(label="HSM 10", serial="42")
    assert not reference.matches_token(label="HSM 1", serial="43")
    assert parse_reference("nick").matches_token(label="any")
