"""What is taken out of a header and what is put on top; every other octet stays (promise 3)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.gateway.rewriting import HeaderOver, with_header
from mailsec.gateway.trace import date_time, received
from mailsec.hookspecs import hookimpl
from mailsec.mime.index import index_message
from mailsec.model.address import Address
from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.model.octets import BytesOctets
from mailsec.model.session import Origin
from mailsec.testing import values
from mailsec.testing.runtime import EPOCH

FROM = "From: carol@example.net\nTo: alice@example.org\nSubject: hi\n"
OWN = "From: alice@example.org\nTo: bob@example.net\nSubject: hi\n"


def header(octets: bytes) -> str:
    return octets.partition(b"\r\n\r\n")[0].decode()


# -- forged results -----------------------------------------------------------------------------------------------------------

FORGED = [
    "Authentication-Results: gw.example.org; smime=pass",
    "AUTHENTICATION-RESULTS: GW.EXAMPLE.ORG; smime=pass",
    "Authentication-Results: (a comment) gw.example.org (another) 1; smime=pass",
    'Authentication-Results: "gw.example.org"; smime=pass',
    "Authentication-Results:\n gw.example.org;\n\tsmime=pass",
    "Authentication-Results: gw.example.org.; smime=pass",
    "Authentication-Results : gw.example.org; smime=pass",
    "Authentication-Results: gw.example.org 1; dkim=pass; smime=pass",
    "Authentication-Results: gw.example.org; smime = pass",
    "Authentication-Results: g(x)w.example.org; smime=pass".replace("g(x)w", "gw(x)"),
    "Authentication-Results: =?utf-8?Q?gw.example.org?=; smime=pass",
]


@pytest.mark.parametrize("field", FORGED)
@pytest.mark.parametrize("origin", [Origin.INTERNET, Origin.SUBMISSION])
def test_forged_smime_pass_is_removed(gate, field, origin):
    if origin is Origin.INTERNET:
        reply = gate.arrive(FROM + field + "\nX-Last: 1\n\nbody\n")
    else:
        reply = gate.submit(OWN + field + "\nX-Last: 1\n\nbody\n")
    assert reply.code == 250
    text = header(gate.ready[0])
    assert "smime=pass" not in text.lower().replace(" ", "")
    assert "X-Last: 1" in text and "Subject: hi" in text
    if origin is Origin.INTERNET:
        assert text.count("smime=") == 1 and "smime=none" in text


def test_several_forged_results_are_all_removed(gate):
    gate.arrive(FROM + "".join(f"{field}\n" for field in FORGED) + "\nbody\n")
    assert "pass" not in header(gate.ready[0])


def test_results_of_others_are_not_touched(gate):
    field = "Authentication-Results: mx.example.net; smime=pass"
    gate.arrive(FROM + field + "\n\nbody\n")
    assert field in header(gate.ready[0])


def test_results_of_our_own_mta_stay_where_only_it_can_reach_us(gate):
    field = "Authentication-Results: gw.example.org; dkim=pass header.d=example.net\n"
    forged = "Authentication-Results: gw.example.org; smime=pass\n"
    gate.arrive(FROM + field + forged + "\nbody\n", behind_own_mta=True)
    text = header(gate.ready[0])
    assert "dkim=pass" in text and "smime=pass" not in text
    gate.arrive(FROM + field + "\nbody\n")
    assert "dkim=pass" not in header(gate.ready[1])


def test_forged_smime_beside_a_result_of_our_own_mta_goes_alone(gate):
    gate.arrive(FROM + "Authentication-Results: gw.example.org; dkim=pass; smime=pass\n\nbody\n", behind_own_mta=True)
    text = header(gate.ready[0])
    assert "dkim=pass" in text and "smime=pass" not in text


def test_forged_results_inside_the_body_are_not_touched(gate):
    """Octets of a signed part are the signer's; a reader looks at the outer header only."""
    body = "Content-Type: multipart/signed; boundary=x\n\n--x\nAuthentication-Results: gw.example.org; smime=pass\n\nhi\n--x--\n"
    gate.arrive(FROM + body)
    assert gate.ready[0].endswith(body.replace("\n", "\r\n").encode())


# -- Bcc ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Bcc", "BCC", "Resent-Bcc", "Bcc "])
def test_bcc_is_removed_from_own_mail(gate, name):
    for send in (gate.submit, gate.trust):
        send(OWN + f"{name}: secret@example.net,\n more@example.net\nX-Last: 1\n\nbody\n")
    for octets in gate.ready:
        assert b"secret" not in octets and b"more@" not in octets and b"X-Last: 1" in octets


def test_bcc_of_others_is_not_ours_to_touch(gate):
    gate.arrive(FROM + "Bcc: x@example.net\n\nbody\n")
    assert b"Bcc: x@example.net" in gate.ready[0]


# -- what is added ------------------------------------------------------------------------------------------------------------


def test_date_and_message_id_are_added_on_submission_only(gate):
    gate.submit(OWN + "\nbody\n")
    gate.trust(OWN + "\nbody\n")
    gate.arrive(FROM + "\nbody\n")
    submitted, trusted, arrived = map(header, gate.ready)
    assert "Date: Thu, 1 Jan 2026 12:00:00 +0000" in submitted
    assert re.search(r"^Message-ID: <[0-9a-f]+@gw\.example\.org>\r?$", submitted, re.MULTILINE)
    for text in (trusted, arrived):
        assert not re.search(r"^(Date|Message-ID):", text, re.MULTILINE)


def test_date_and_message_id_that_are_there_stay(gate):
    gate.submit(OWN + "DATE: yesterday\nmessage-id: <mine>\n\nbody\n")
    text = header(gate.ready[0])
    assert text.lower().count("date:") == 1 and text.lower().count("message-id:") == 1


def test_received_field_is_on_top_and_says_how(gate):
    gate.submit(OWN + "\nbody\n", peer="2001:db8::1", helo="laptop.example.org")
    text = header(gate.ready[0])
    assert text.startswith("Received: from laptop.example.org ([IPv6:2001:db8::1])\r\n\tby gw.example.org with ESMTPSA")
    assert "for <bob@example.net>;" in text and "version=TLSv1.3" in text


def test_hidden_recipients_are_not_in_the_received_field(gate):
    gate.submit(OWN + "\nbody\n", "bob@example.net", "hidden@example.net")
    assert b"hidden" not in gate.ready[0]


@pytest.mark.parametrize(
    "helo", ["x\r\nAuthentication-Results: gw.example.org; smime=pass", "a) by evil (", "", "ä", "x" * 300, "a b", "[1.2.3.4]; smime=pass"]
)
def test_helo_that_forges_trace_information_is_not_written(helo):
    field = received(values.session(helo=helo), "id1", EPOCH, (Address.parse("a@example.org"),))
    assert field.startswith(b"Received: from [192.0.2.7]\r\n\tby gw.example.org with ESMTP\r\n\tid id1\r\n\tfor <a@example.org>; Thu")
    assert field.count(b"\r\n") == 4


def test_protocol_of_a_transaction_with_smtputf8(gate):
    envelope = values.envelope("carol@example.net", "alice@example.org", smtputf8=True)
    gate.runtime.run(gate.pipeline.receive(values.session(protocol="ESMTPS"), envelope, values.message(FROM + "\n").octets))
    assert b"with UTF8SMTPS\r\n" in gate.ready[0]


def test_path_of_a_unix_socket_is_not_told():
    assert b"/run" not in received(values.session(peer="unix:/run/secret", helo=""), "id1", EPOCH, ())


@given(st.datetimes(min_value=EPOCH.replace(year=1970, tzinfo=None), max_value=EPOCH.replace(year=2100, tzinfo=None)))
def test_dates_are_those_of_rfc_5322(at):
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    at = at.replace(tzinfo=UTC)
    assert parsedate_to_datetime(date_time(at)) == at.replace(microsecond=0)


def test_plugin_fields_stand_on_top(kit):
    class Plugin:
        @hookimpl
        def annotate_message(self, transaction, verdict, segments):
            assert segments.join().startswith(b"Authentication-Results")
            return [("X-One", "1"), ("X-Two", "zwei é")]

    gate = kit.Gate(Plugin())
    gate.arrive(FROM + "\nbody\n")
    assert gate.ready[0].startswith(b"X-One: 1\r\nX-Two: ") and gate.ready[0].endswith(b"\r\n\r\nbody\r\n")


# -- octets -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\n\r\nx", b"\r\nplain\r\n", b"\r\n\xff\xfe\x00 \t \r\n.\r\n", b"\r\nno end"])
def test_no_other_octet_changes(gate, body):
    text = (FROM.replace("\n", "\r\n") + "X-Fold: a\r\n\t b \r\n").encode() + body
    assert gate.arrive(text).code == 250
    assert gate.ready[0].endswith(text)


class Windowed(BytesOctets):
    """Octets that are not simply bytes: they take the way of large messages."""


def test_header_over_a_large_body_is_the_same_message():
    text = b"A: 1\r\nBcc: x\r\nB: 2\r\n\r\n" + bytes(range(256)) * 20
    small = index_message(BytesOctets(text))
    large = index_message(HeaderOver(text[:7], BytesOctets(text), 7))
    assert large.fields == small.fields and large.body_start == small.body_start
    for message in (small, large):
        result = with_header(message, DEFAULT_LIMITS, remove=message.all("bcc"), add=b"New: 0\r\n")
        octets = result.octets
        assert b"".join(octets.blocks()) == text.replace(b"Bcc: x\r\n", b"").replace(b"A: 1", b"New: 0\r\nA: 1")
        assert [field.name for field in result.fields] == ["new", "a", "b"]


@given(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 20), st.integers(-3, 90), st.integers(-3, 90), st.binary(max_size=3))
def test_octets_with_another_beginning_behave_like_their_join(header, rest, start, begin, end, pattern):
    start = min(start, len(rest))
    joined = BytesOctets(header + rest[start:])
    ours = HeaderOver(header, BytesOctets(rest), start)
    begin, end = max(begin, 0), max(end, 0)
    assert len(ours) == len(joined)
    assert bytes(ours.view(begin, end)) == joined.view(begin, end)
    assert b"".join(ours.blocks(begin, end)) == b"".join(joined.blocks(begin, end))
    if pattern and begin <= min(end, len(joined)):
        assert ours.find(pattern, begin, min(end, len(joined))) == joined.find(pattern, begin, min(end, len(joined)))
        assert ours.find(pattern) == joined.find(pattern)
