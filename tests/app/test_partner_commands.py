"""`mailsec partner` as a person uses it: answers, levels, and one sentence and a hint for each mistake."""

from __future__ import annotations

import json
import sqlite3

import pytest


def answer(result: tuple[int, str, str]) -> dict:
    code, out, err = result
    assert code == 0, err
    return json.loads(out)


def test_what_is_set_is_shown_with_its_level_listed_and_removed(mailsec, database):
    assert mailsec("partner", "list", "-d", database)[1].startswith("Nothing is agreed with anybody yet")
    for partner, settings in (
        ("default", ["sign=required"]),
        ("Example.NET", ["encrypt=required", "profile=edi-energy", "Header_Protection=baseline"]),
        ("bob@example.net", ["profile=pss"]),
    ):
        answer(mailsec("partner", "set", partner, *settings, "-d", database, "--json"))
    shown = answer(mailsec("partner", "show", "BOB@example.net", "-d", database, "--json"))
    assert shown["settings"] == {
        "sign": {"value": "required", "level": "default"},
        "encrypt": {"value": "required", "level": "@example.net"},
        "header-protection": {"value": "baseline", "level": "@example.net"},
        "profile": {"value": "pss", "level": "bob@example.net"},
    }
    domain = answer(mailsec("partner", "show", "@example.net", "-d", database, "--json"))
    assert {name: one["level"] for name, one in domain["settings"].items()} == {
        "sign": "default",
        "encrypt": "@example.net",
        "header-protection": "@example.net",
        "profile": "@example.net",
    }
    listed = answer(mailsec("partner", "list", "-d", database, "--json"))["partners"]
    assert [one["partner"] for one in listed] == ["bob@example.net", "@example.net", "default"]
    _, table, _ = mailsec("partner", "list", "-d", database)
    assert "encrypt=required" in table and "edi-energy" in table
    assert answer(mailsec("partner", "set", "example.net", "profile=", "-d", database, "--json"))["settings"] == {
        "encrypt": "required",
        "header-protection": "baseline",
    }
    assert answer(mailsec("partner", "remove", "example.net", "-d", database, "--json"))["removed"] == 2
    code, _, err = mailsec("partner", "remove", "example.net", "-d", database)
    assert code == 1 and "nothing is agreed with @example.net" in err and "mailsec partner list" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["example.net", "encrpyt=required"], ["there is no setting 'encrpyt'", "did you mean encrypt?"]),
        (["example.net", "encrypt=requird"], ["encrypt cannot be 'requird'", "did you mean required?", "never"]),
        (["example.net", "profile=edi"], ["profile cannot be 'edi'", "edi-energy"]),
        (["example.net", "profile=legacy"], ["profile cannot be 'legacy'"]),
        (["example.net", "encrypt"], ["not a setting: 'encrypt'", "NAME=VALUE"]),
        (["a b@example.net", "encrypt=never"], ["not a partner"]),
        (["example.net"], ["NAME=VALUE"]),
    ],
)
def test_mistakes(mailsec, database, arguments, words):
    code, out, err = mailsec("partner", "set", *arguments, "-d", database)
    assert code == 2 and not out
    for word in words:
        assert word in err
    assert answer(mailsec("partner", "list", "-d", database, "--json"))["partners"] == []


def test_attack_an_edited_setting_is_not_shown_as_if_it_were_agreed(mailsec, database):
    answer(mailsec("partner", "set", "example.net", "encrypt=required", "-d", database, "--json"))
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE partner_settings SET value = 'never'")
    code, _, err = mailsec("partner", "show", "bob@example.net", "-d", database)
    assert code == 1 and "was changed by something else" in err and "mailsec db check" in err
