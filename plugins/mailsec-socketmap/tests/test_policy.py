"""Policy delegation: requests in any pieces, answers of one line, and clients that speak something else."""

from __future__ import annotations

import pytest

from mailsec.errors import Reply
from mailsec.model.requests import Ask, Close, Send
from mailsec_socketmap.policy import MOST, PolicyRequest, PolicyServer

REQUEST = b"request=smtpd_access_policy\nprotocol_state=RCPT\nsender=a@b.example\nrecipient=x=y@c.example\nsasl_username=\n\n"


def asked(requests) -> list[PolicyRequest]:
    return [request.question for request in requests if isinstance(request, Ask)]


@pytest.mark.parametrize("size", [1, 2, 7, 500])
def test_a_request_in_pieces_of_any_size_is_one_question(size):
    server, found = PolicyServer(), []
    for start in range(0, len(REQUEST), size):
        found += asked(server.receive_data(REQUEST[start : start + size]))
    (request,) = found
    assert request.get("sender") == "a@b.example" and request.get("recipient") == "x=y@c.example"
    assert request.get("sasl_username") == "" and request.get("anything") == ""


def test_pipelined_requests_are_asked_one_after_the_other():
    server = PolicyServer()
    assert len(asked(server.receive_data(REQUEST + REQUEST))) == 1
    first = list(server.answer("DUNNO"))
    assert first[0] == Send(b"action=DUNNO\n\n") and len(asked(first)) == 1
    assert asked(server.answer("OK")) == []


@pytest.mark.parametrize(
    "octets",
    [
        b"GET / HTTP/1.1\n\n",
        b"sender=a\n\n",
        b"request=other\n\n",
        b"\n\n",
        b"request=smtpd_access_policy\nsender=a\nsender=b\n\n",
        b"request=smtpd_access_policy\nsender=\0\n\n",
        b"request=smtpd_access_policy\n=x\n\n",
        b"request=smtpd_access_policy\nx=" + b"x" * MOST,
    ],
)
def test_a_client_that_speaks_something_else_is_cut_off(octets):
    assert list(PolicyServer().receive_data(octets)) == [Close()]


def test_attack_an_answer_of_two_lines_is_one():
    assert next(iter(PolicyServer().answer("REJECT a\n\naction=OK"))) == Send(b"action=REJECT a  action=OK\n\n")


def test_what_fails_is_never_a_yes():
    for value in (Reply(451, "4.3.0", "later"), None, object()):
        assert next(iter(PolicyServer().answer(value))) == Send(b"action=DEFER_IF_PERMIT 4.3.0 try again later\n\n")
    assert next(iter(PolicyServer().answer(Reply(550, "5.7.1", "no")))) == Send(b"action=REJECT no\n\n")


def test_a_silent_client_is_sent_away():
    assert list(PolicyServer().deadline_passed()) == [Close()]
