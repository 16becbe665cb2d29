"""Authentication-Results: forged ones are found in every spelling, others are never touched."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.mime.edit import with_fields
from mailsec.mime.fields import encode_field
from mailsec.mime.index import index_message
from mailsec.mime.results import forged_results, read_results, result_value, same_authserv_id
from mailsec.model.octets import BytesOctets

OURS = "gw.example.org"


def message(*lines: bytes):
    return index_message(BytesOctets(b"".join(line + b"\r\n" for line in lines) + b"From: a@b.example\r\n\r\nbody"))


FORGERIES = {
    "plain": b"Authentication-Results: gw.example.org; smime=pass",
    "upper case": b"AUTHENTICATION-RESULTS: GW.Example.ORG; SMIME=pass",
    "quoted": b'Authentication-Results: "gw.example.org"; smime=pass',
    "quoted with quoted pairs": b'Authentication-Results: "gw\\.example.org"; smime=pass',
    "comment before": b"Authentication-Results: (me) gw.example.org; smime=pass",
    "comment behind": b"Authentication-Results: gw.example.org (me (too)); smime=pass",
    "semicolon in a comment": b"Authentication-Results: (a; b) gw.example.org; smime=pass",
    "folded": b"Authentication-Results:\r\n\tgw.example.org;\r\n smime=pass",
    "last dot": b"Authentication-Results: gw.example.org.; smime=pass",
    "version": b"Authentication-Results: gw.example.org 1; smime=pass",
    "no blank": b"Authentication-Results:gw.example.org;smime=pass",
    "blank before the colon": b"Authentication-Results : gw.example.org; smime=pass",
    "encoded word": b"Authentication-Results: =?utf-8?Q?gw=2Eexample=2Eorg?=; smime=pass",
    "all in an encoded word": b"Authentication-Results: =?us-ascii?B?Z3cuZXhhbXBsZS5vcmc7IHNtaW1lPXBhc3M=?=",
    "wide letters": "Authentication-Results: ｇｗ.example.org; smime=pass".encode(),
    "zero width": "Authentication-Results: gw\u200b.example.org; smime=pass".encode(),
    "method with version": b"Authentication-Results: gw.example.org; smime/1 = pass",
    "comments in the method": b"Authentication-Results: gw.example.org; smime (x) = (y) pass",
    "behind another result": b"Authentication-Results: gw.example.org; spf=pass; smime=pass",
    "no semicolon": b"Authentication-Results: gw.example.org smime=pass",
    "comma": b"Authentication-Results: gw.example.org, smime=pass",
    "unfinished comment": b"Authentication-Results: gw.example.org; smime=pass (",
    "unfinished quoted string": b'Authentication-Results: "gw.example.org; smime=pass',
    "nul in the name": b"Authentication\x00-Results: gw.example.org; smime=pass",
    "two of them": b"Authentication-Results: gw.example.org; smime=pass\r\nAuthentication-Results: gw.example.org; smime=pass",
}


@pytest.mark.parametrize("line", FORGERIES.values(), ids=FORGERIES.keys())
@pytest.mark.parametrize("method", [None, "smime"])
def test_forged_smime_pass_is_removed(line: bytes, method: str | None) -> None:
    found = message(b"Subject: x", line, b"To: y@z.example")
    forged = forged_results(found, OURS, method=method)
    left = with_fields(found, add=forged.add, remove=forged.remove).join()
    assert b"pass" not in left.replace(b"spf=pass", b"") and b"smime" not in left.lower()
    assert left.endswith(b"From: a@b.example\r\n\r\nbody") and b"Subject: x\r\n" in left


@pytest.mark.parametrize(
    "line",
    [
        b"Authentication-Results: mx.example.net; smime=pass",
        b"Authentication-Results: evil.gw.example.org; smime=pass",
        b"Authentication-Results: mx.example.net (gw.example.org); smime=pass",
        b'Authentication-Results: mx.example.net; smime=pass reason="gw.example.org"',
        b"X-Authentication-Results: gw.example.org; smime=pass",
        b"ARC-Authentication-Results: i=1; gw.example.org; smime=pass",
        b"Subject: Authentication-Results: gw.example.org; smime=pass",
    ],
)
@pytest.mark.parametrize("method", [None, "smime"])
def test_another_authserv_id_is_never_touched(line: bytes, method: str | None) -> None:
    assert forged_results(message(line), OURS, method=method) == ((), ())


def test_only_smime_results_go_where_the_others_are_our_own_mta_s() -> None:
    found = message(b'Authentication-Results: gw.example.org; spf=pass smtp.mailfrom="a;b"@x.example;\r\n smime=pass; dkim=none (c)')
    forged = forged_results(found, OURS, method="smime")
    assert len(forged.remove) == 1
    assert forged.add == (("Authentication-Results", 'gw.example.org; spf=pass smtp.mailfrom="a;b"@x.example; dkim=none'),)
    untouched = message(b"Authentication-Results: gw.example.org; spf=pass; dkim=none")
    assert forged_results(untouched, OURS, method="smime") == ((), ())
    assert forged_results(message(b"Authentication-Results: gw.example.org; none"), OURS, method="smime") == ((), ())


def test_results_are_read() -> None:
    read = read_results('gw.example.org 1 (c); smime/1=fail reason="a; smime=pass" body.smime-part=2; dkim=pass')
    assert read.authserv_id == OURS and read.readable and read.methods == {"smime", "dkim"}
    assert [result[:2] for result in read.results] == [("smime", "fail"), ("dkim", "pass")]


def test_identifiers_are_compared_as_domain_names() -> None:
    assert same_authserv_id("GW.Example.org.", OURS)
    assert same_authserv_id("bücher.example", "xn--bcher-kva.example")
    assert not same_authserv_id("gw.example.com", OURS)


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=40))
def test_what_we_write_reads_back_as_one_result_whatever_it_says(reason: str, comment: str, issuer: str) -> None:
    value = result_value(OURS, "smime", "policy", reason=reason, comment=comment, properties=[("body.smime-issuer", issuer)])
    line = encode_field("Authentication-Results", value)
    read = read_results(index_message(BytesOctets(line + b"\r\n")).first("authentication-results") or "")
    if "=?" not in value:
        assert read.authserv_id == OURS and [result[:2] for result in read.results] == [("smime", "policy")] and read.readable


@given(st.text(max_size=100))
def test_any_text_can_be_read(text: str) -> None:
    read_results(text)


@pytest.mark.parametrize(
    "text", ["(" * 100_000, ";" * 100_000, '"' * 100_001, '"\\' * 50_000, "a=b;" * 30_000, " " * 100_000 + "x", "=?" * 50_000]
)
def test_hostile_results_cost_linear_time(text: str) -> None:
    began = time.process_time()
    forged_results(message(b"Authentication-Results: " + text.encode()), OURS, method="smime")
    assert time.process_time() - began < 2
