"""Settings of partners: levels, changes, and rows that somebody edited."""

from __future__ import annotations

import pytest

from mailsec.errors import Refused, Tampered, UsageError
from mailsec.model.address import Address
from mailsec.model.partner import NOTHING_AGREED
from mailsec.store.partners import Partners, partner_key

BOB = Address.parse("Bob@Example.NET")


@pytest.fixture
def partners(db) -> Partners:
    return Partners(db)


def test_an_address_comes_before_its_domain_and_that_before_the_default(partners):
    assert partners.settings(BOB) == NOTHING_AGREED
    partners.set("", {"encrypt": "if-possible", "profile": "pss", "form": "opaque"})
    partners.set("@example.net", {"encrypt": "never", "header-protection": "sign", "profile": "edi-energy"})
    partners.set("bob@example.net", {"encrypt": "required"})
    agreed = partners.settings(BOB)
    assert (agreed.encrypt, agreed.header_protection, agreed.profile, agreed.form, agreed.sign) == (
        "required",
        "sign",
        "edi-energy",
        "opaque",
        "",
    )
    assert agreed.levels == {
        "encrypt": "bob@example.net",
        "header-protection": "@example.net",
        "profile": "@example.net",
        "form": "default",
    }
    assert partners.settings(Address.parse("carol@example.com")).encrypt == "if-possible"
    # A domain means itself, not what is below it.
    assert partners.settings(Address.parse("x@mail.example.net")).encrypt == "if-possible"
    assert list(partners.all()) == ["bob@example.net", "@example.net", "default"]


def test_a_setting_is_changed_and_taken_back(partners):
    assert partners.set("@example.net", {"encrypt": "required", "hold": "yes"}) == {"encrypt": "required", "hold": "yes"}
    assert partners.set("@example.net", {"encrypt": "never", "hold": ""}) == {"encrypt": "never"}
    assert partners.remove("@example.net") == 1 and partners.settings(BOB) == NOTHING_AGREED
    with pytest.raises(Refused, match="nothing is agreed"):
        partners.remove("@example.net")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("Bob@Example.net", "bob@example.net"),
        ("example.NET", "@example.net"),
        ("@straße.example", "@xn--strae-oqa.example"),
        ("default", ""),
    ],
)
def test_names_of_partners(text, key):
    assert partner_key(text) == key


@pytest.mark.parametrize("text", ["", "a b@example.net", "@", "example net", "a@b@"])
def test_what_is_no_partner(text):
    with pytest.raises(UsageError, match="not a partner"):
        partner_key(text)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE partner_settings SET value = 'never'",
        "DELETE FROM partner_settings",
        "INSERT INTO partner_settings VALUES (99, 'bob@example.net', 'encrypt', 'never', x'00')",
    ],
)
def test_attack_a_partner_that_is_edited_to_never(partners, attack, statement):
    partners.set("@example.net", {"encrypt": "required"})
    attack(statement)
    with pytest.raises(Tampered):
        partners.settings(BOB)
