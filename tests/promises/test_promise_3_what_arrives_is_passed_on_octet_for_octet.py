"""Promise 3: below the fields that we add, what arrived leaves octet for octet, whatever it is; and no forged verdict of ours is in its header."""

from __future__ import annotations

import re

from hypothesis import example, given, settings
from hypothesis import strategies as st

from mailsec.mime.index import index_message
from mailsec.mime.results import read_results, same_authserv_id
from mailsec.model.octets import BytesOctets
from mailsec.testing import values
from mailsec.testing.gateway import MemoryGateway

GATE = MemoryGateway()
PIECES = st.sampled_from(
    [
        b"From: a@example.net\r\n",
        b"Subject: x\r\n", b"Subject:\r\n folded\r\n", b"\r\n", b"\xff\x00\r", b"\n", b"--x\r\n", b"--x--\r\n", b" ", b"\t",
        b"Content-Type: multipart/signed; boundary=x; protocol=\"application/pkcs7-signature\"\r\n", b"Content-Type: multipart/mixed; boundary=x\r\n",
        b"Content-Type: application/pkcs7-mime; smime-type=signed-data\r\n", b"Content-Transfer-Encoding: base64\r\n", b"MIAGCSqGSIb3DQEHAqCA\r\n",
        b"Authentication-Results: mx.example.net; dkim=pass\r\n", b"Bcc: x@example.net\r\n", b"no field\r\n",
    ]
)  # fmt: skip
MESSAGES = st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=14).map(b"".join))


@settings(max_examples=150, deadline=None)
@given(MESSAGES)
@example(b"")
def test_octets_below_our_fields_are_those_that_came(octets):
    GATE.spool.rows.clear()
    message = BytesOctets(octets)
    reply = GATE.runtime.run(GATE.pipeline.receive(values.session(), values.envelope("c@example.net", "alice@example.org"), message))
    if octets[:1] in (b" ", b"\t") and not octets.startswith(b"\r\n"):
        assert reply.code == 554  # its first line would be read as the rest of a field of ours
        return
    assert reply.code == 250
    (row,) = GATE.spool.rows
    if not row.octets.endswith(octets):
        # the only octets that may go: a line that some reader takes for our results, though it is no field to us
        assert b"authentication-results:" in re.sub(rb"[^A-Za-z:-]", b"", octets).lower()
        return
    assert row.octets.startswith((b"Authentication-Results: gw.example.org; smime=", octets))


FORGERS = st.tuples(
    st.sampled_from(["Authentication-Results", "authentication-results", "AUTHENTICATION-RESULTS ", "Authentication-Results\t"]),
    st.sampled_from(["", " ", "\r\n ", "(c)", "(c(d))", "\t"]),
    st.sampled_from(
        ["gw.example.org", '"gw.example.org"', "GW.Example.Org", "gw.example.org.", "=?utf-8?q?gw.example.org?=", '"gw\\.example.org"']
    ),
    st.sampled_from(["", " 1", "(x)", " (x) 1 "]),
    st.sampled_from(["; smime=pass", ";smime = pass", "; dkim=pass; smime=pass", "; smime=(c)pass", ";\r\n\tsmime=pass", "; SMIME/1=pass"]),
)


@settings(max_examples=100, deadline=None)
@given(st.lists(FORGERS, min_size=1, max_size=3))
def test_no_forged_verdict_of_ours_is_left(forgers):
    GATE.spool.rows.clear()
    header = "".join(f"{name}:{''.join(rest)}\r\n" for name, *rest in forgers)
    GATE.arrive((header + "From: c@example.net\r\n\r\nbody\r\n").encode())
    (row,) = GATE.spool.rows
    found = index_message(BytesOctets(row.octets)).values("authentication-results")
    ours = [read_results(value) for value in found if same_authserv_id(read_results(value).authserv_id, "gw.example.org")]
    assert [[(method, word) for method, word, _ in one.results] for one in ours] == [[("smime", "none")]]
