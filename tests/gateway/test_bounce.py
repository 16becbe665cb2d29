"""Reports about mail that did not arrive: readable by people and programs, and telling nothing that they must not."""

from __future__ import annotations

import email
import email.policy
import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.gateway.bounce import (
    About,
    ReportedRecipient,
    delay_report,
    failure_report,
    postmaster_report,
    success_report,
    wants_report,
)
from mailsec.model.address import Address
from mailsec.model.session import Origin, Recipient

AT = datetime(2026, 11, 22, 5, 0, tzinfo=UTC)
HEADER = b"From: alice@example.org\r\nSubject: the quarterly numbers\r\n"


def failed(address="bob@example.net", reply="550 5.1.1 no such user", **more):
    return ReportedRecipient(Recipient(Address.parse(address), **more), "5.1.1", "the address does not exist", reply, "mx.example.net")


def about(reverse_path="alice@example.org", header=HEADER, envelope_id=""):
    return About(
        reverse_path=reverse_path and Address.parse(reverse_path),
        header=header,
        received_at=AT,
        origin=Origin.SUBMISSION,
        listener="submission",
        hostname="gw.example.org",
        postmaster="postmaster@example.org",
        envelope_id=envelope_id,
    )


def report(*recipients, quiet=False, **message):
    return failure_report(id="abc.dsn", about=about(**message), failed=recipients or (failed(),), at=AT, random=os.urandom, quiet=quiet)


def parsed(entry):
    octets = entry.segments.join()
    assert octets.isascii()
    assert octets.count(b"\r") == octets.count(b"\n") == octets.count(b"\r\n")
    return email.message_from_bytes(octets, policy=email.policy.default)


def test_a_report_is_what_the_rfcs_ask_for():
    entry = report(envelope_id="QQ+2B1")
    assert entry.envelope.reverse_path is None
    assert [str(recipient.address) for recipient in entry.envelope.recipients] == ["alice@example.org"]
    message = parsed(entry)
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    assert message["auto-submitted"] == "auto-replied"
    text, status, header = message.iter_parts()
    assert "bob@example.net" in text.get_content()
    assert "no such user" in text.get_content()
    per_message, per_recipient = status.get_payload()
    assert per_message["original-envelope-id"] == "QQ+1"
    assert per_message["reporting-mta"] == "dns; gw.example.org"
    assert per_recipient["final-recipient"] == "rfc822; bob@example.net"
    assert per_recipient["action"] == "failed"
    assert per_recipient["status"] == "5.1.1"
    assert per_recipient["diagnostic-code"] == "smtp; 550 5.1.1 no such user"
    assert header.get_content_type() == "text/rfc822-headers"
    assert header.get_payload(decode=True).strip() == HEADER.strip()


def test_no_report_about_the_null_reverse_path():
    assert report(reverse_path=None) is None


def test_a_delay_is_told_with_the_instant_until_which_it_is_tried():
    until = datetime(2026, 11, 27, 5, 0, tzinfo=UTC)
    entry = delay_report(id="abc.w1", about=about(), delayed=[failed(reply="450 4.2.1 busy")], until=until, at=AT, random=os.urandom)
    text, status, header = parsed(entry).iter_parts()
    assert "tried again until 2026-11-27" in text.get_content() and "did not arrive" not in entry.segments.join().decode()
    _, per_recipient = status.get_payload()
    assert per_recipient["action"] == "delayed"
    assert per_recipient["will-retry-until"] == "Fri, 27 Nov 2026 05:00:00 +0000"
    assert header.get_payload(decode=True).strip() == HEADER.strip()
    never = failed(notify="SUCCESS,FAILURE")
    assert delay_report(id="abc.w1", about=about(), delayed=[never], until=until, at=AT, random=os.urandom) is None


@pytest.mark.parametrize(("final", "action"), [(False, "relayed"), (True, "delivered")])
def test_success_is_told_to_who_asked_for_it_and_to_nobody_else(final, action):
    served = [failed("bob@example.net", "250 2.0.0 ok", notify="SUCCESS", original="rfc822;Bob@example.net"), failed("dave@example.net")]
    entry = success_report(id="abc.s1", about=about(), served=served, final=final, at=AT, random=os.urandom)
    octets = entry.segments.join()
    assert b"dave" not in octets
    _, status, _ = parsed(entry).iter_parts()
    _, per_recipient = status.get_payload()
    assert per_recipient["action"] == action and per_recipient["original-recipient"] == "rfc822;Bob@example.net"
    assert success_report(id="abc.s1", about=about(), served=served[1:], final=final, at=AT, random=os.urandom) is None


@pytest.mark.parametrize(
    ("notify", "wanted"), [("", True), ("NEVER", False), ("SUCCESS", False), ("SUCCESS,FAILURE", True), ("delay", False)]
)
def test_notify_is_honoured(notify, wanted):
    assert wants_report(Recipient(Address.parse("a@b.example"), notify)) is wanted
    assert (report(failed(notify=notify)) is not None) is wanted


def test_only_those_who_failed_and_want_it_are_named():
    octets = report(failed("a@x.example"), failed("b@x.example", notify="NEVER")).segments.join()
    assert b"a@x.example" in octets
    assert b"b@x.example" not in octets


def test_a_quiet_report_quotes_nothing_and_is_the_same_for_every_cause():
    one = report(failed(reply="550 5.7.1 malware inside"), quiet=True).segments.join()
    other = report(failed(reply="552 5.2.2 over quota"), quiet=True).segments.join()
    assert b"malware" not in one
    assert b"does not exist" not in one
    assert b"mx.example.net" not in one

    def blank(octets):
        message = email.message_from_bytes(octets)
        return octets.replace(message.get_boundary().encode(), b"").replace(message["message-id"].encode(), b"")

    assert blank(one) == blank(other)


def test_a_next_hop_cannot_forge_fields_of_the_report():
    entry = report(failed(reply="550 no\r\nStatus: 2.0.0\r\n\r\nAction: delivered\r\n--x\r\n" + "z" * 100_000))
    _, status, _ = parsed(entry).iter_parts()
    assert status.get_payload()[1].get_all("status") == ["5.1.1"]
    assert len(entry.segments) < 10_000


@given(st.binary(max_size=400))
def test_any_header_is_returned_safely(header):
    message = parsed(report(header=header))
    assert len(list(message.iter_parts())) == 3


def test_a_header_that_closes_our_boundary_or_is_endless_is_carried_safely():
    long = b"X: y\r\n" * 100_000
    entry = report(header=long)
    assert len(entry.segments) < 70_000
    assert len(list(parsed(report(header=b"--report-\r\nX: 1\r\n--\r\n")).iter_parts())) == 3


def test_addresses_that_are_not_ascii():
    entry = report(failed("bücher@exämple.net"))
    _, status, _ = parsed(entry).iter_parts()
    assert status.get_payload()[1]["final-recipient"] == r"utf-8; b\x{00FC}cher@ex\x{00E4}mple.net"


def test_a_report_to_the_postmaster_says_what_can_be_done():
    entry = postmaster_report(
        id="abc.post",
        about="abc.1",
        reason="a report about mail that did not arrive cannot be delivered itself",
        header=HEADER,
        at=AT,
        hostname="gw.example.org",
        postmaster="postmaster@example.org",
        random=os.urandom,
        origin=Origin.INTERNET,
        listener="in",
    )
    assert entry.envelope.reverse_path is None
    assert "mailsec queue release abc.1" in next(parsed(entry).iter_parts()).get_content()
