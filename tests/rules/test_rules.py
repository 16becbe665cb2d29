"""Rules: what each condition means, first match per concern, and patterns that cannot take long."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import ConfigurationError
from mailsec.model.address import Address
from mailsec.model.session import Origin, matches_pattern
from mailsec.rules.conditions import Addresses, Facts, compile_condition
from mailsec.rules.patterns import TEXT, compile_pattern, found_in
from mailsec.rules.ruleset import RuleSet, compile_rule

FIELDS = {"subject": ["[EDI] order 7"], "x-tag": ["no", "contract"]}
FACTS = Facts(
    "submission",
    Origin.SUBMISSION,
    "Alice",
    Address.parse("alice@example.org"),
    Address.parse("bob@mail.netz.example"),
    lambda name: FIELDS.get(name, ()),
)


@pytest.mark.parametrize(
    ("match", "holds"),
    [
        ({}, True),
        ({"listener": "submission"}, True),
        ({"listener": ["other"]}, False),
        ({"origin": ["submission", "trusted"]}, True),
        ({"origin": "internet"}, False),
        ({"user": "ALICE"}, True),
        ({"user": "bob"}, False),
        ({"sender": "Alice@EXAMPLE.org"}, True),
        ({"sender": "@example.org"}, True),
        ({"sender": "@.example.org"}, False),
        ({"sender": "*"}, True),
        ({"recipient": ["@netz.example"]}, False),
        ({"recipient": ["@.netz.example"]}, True),
        ({"recipient": ["carol@example.net", "bob@mail.netz.example"]}, True),
        ({"subject": r"^\[edi\]"}, True),
        ({"subject": "invoice"}, False),
        ({"header": {"X-Tag": "contract"}}, True),
        ({"header": {"X-Other": "."}}, False),
        ({"origin": "submission", "sender": "@example.org", "subject": "order"}, True),
        ({"origin": "submission", "sender": "@example.org", "subject": "invoice"}, False),
    ],
)
def test_condition(match, holds):
    assert compile_condition(match).holds(FACTS) is holds


@pytest.mark.parametrize("match", [{"sender": "*"}, {"recipient": "*"}, {"subject": ""}])
def test_absent_fact_matches_nothing(match):
    assert not compile_condition(match).holds(Facts("l", Origin.INTERNET))


@pytest.mark.parametrize(
    "match", [{"sendr": "a"}, {"origin": "inside"}, {"sender": []}, {"sender": 7}, {"sender": "not an address"}, {"subject": "("}]
)
def test_condition_that_means_nothing_is_refused(match):
    with pytest.raises(ConfigurationError):
        compile_condition(match)


@pytest.mark.parametrize("values", [{"sign": "always"}, {"failure": "drop"}, {"form": "clear"}, {"inbound": "never"}])
def test_word_that_means_nothing_is_refused(values):
    with pytest.raises(ConfigurationError) as error:
        compile_rule("r", **values)
    assert error.value.hint


def test_first_match_wins_for_each_concern():
    rules = RuleSet(
        [
            compile_rule("elsewhere", {"recipient": "@other.example"}, sign="never", encrypt="never"),
            compile_rule("tagged", {"subject": "edi"}, encrypt="required"),
            compile_rule("all", sign="required", encrypt="if-possible"),
        ]
    )
    assert rules.choose("sign", FACTS).name == "all"
    assert rules.choose("encrypt", FACTS).name == "tagged"
    assert rules.choose("inbound", FACTS).name == "default"
    assert not rules.has_opinion("inbound")


# -- patterns -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        r"(a+)+$", r"(a|a)*b", r"(a|ab)*c", r"(a?){20}b", r"(.*)\1x", r".*.*.*x", r"(\w*\s?){5}x", r"((a{0,16}){0,16})x",
        r"^(.*),(.*),(.*),(.*)$", "(?:a|b|ab)+",
    ],
)  # fmt: skip
def test_pattern_that_backtracks_for_ever_is_refused(text):
    with pytest.raises(ConfigurationError):
        compile_pattern(text)


@pytest.mark.parametrize(
    "text", [r"^\[edi\]", "invoice|order", r"^re: .*\d{4}", r".*urgent", r"(?:\d+)-(?:\d+)", r"(?:ab){3}", r"[a-z]++@", "", r"\bVS-NfD\b"]
)
def test_ordinary_pattern_is_accepted(text):
    compile_pattern(text)


def test_worst_accepted_pattern_on_a_megabyte_takes_no_time():
    hostile = "a" * 1_000_000
    pattern = compile_pattern(r"a*a*b")
    start = time.process_time()
    assert not found_in(pattern, [hostile])
    assert time.process_time() - start < 2


def test_text_is_cut():
    assert not found_in(compile_pattern("needle"), ["x" * TEXT + "needle"])


LABELS = st.sampled_from(["example", "org", "EXAMPLE", "müller", "a", "sub"])
DOMAINS = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
ADDRESSES = st.builds(Address, st.sampled_from(["a", "A", "b.c", '"a"']), DOMAINS)
PATTERNS = st.one_of(ADDRESSES.map(str), DOMAINS.map("@{}".format), DOMAINS.map("@.{}".format), st.just("*"))


@given(st.lists(PATTERNS, max_size=4), ADDRESSES)
def test_compiled_patterns_mean_what_matches_pattern_means(patterns, address):
    assert Addresses(patterns).match(address) == any(matches_pattern(one, address) for one in patterns)
