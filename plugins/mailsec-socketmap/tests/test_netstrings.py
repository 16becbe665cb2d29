"""The socketmap protocol: requests in any pieces, answers in order, and clients that speak something else."""

from __future__ import annotations

import pytest

from mailsec.errors import Reply
from mailsec.model.requests import Ask, Close, Send
from mailsec_socketmap.netstrings import MOST, LookUp, SocketmapServer


def asked(requests) -> list[object]:
    return [request.question for request in requests if isinstance(request, Ask)]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_a_request_in_pieces_of_any_size_is_one_question(size):
    server, found = SocketmapServer(), []
    octets = b"27:certificate bob@example.net,"
    for start in range(0, len(octets), size):
        found += asked(server.receive_data(octets[start : start + size]))
    assert found == [LookUp("certificate", "bob@example.net")]


def test_pipelined_requests_are_asked_one_after_the_other():
    server = SocketmapServer()
    assert asked(server.receive_data(b"3:a 1,3:a 2,")) == [LookUp("a", "1")]
    first = list(server.answer("OK yes"))
    assert first[0] == Send(b"6:OK yes,")
    assert asked(first) == [LookUp("a", "2")]
    assert asked(server.answer("NOTFOUND ")) == []


@pytest.mark.parametrize(
    "octets", [b"GET / HTTP/1.1\r\n", b"03:a b,", b"3:a bX", b"99999:", b"9999999999", b"-1:,", b"\0", b":,", b"3;a b,", b"\xff"]
)
def test_a_client_that_speaks_something_else_is_cut_off(octets):
    assert list(SocketmapServer().receive_data(octets)) == [Close()]


def test_attack_a_request_without_end_costs_no_more_than_the_limit():
    server = SocketmapServer()
    assert list(server.receive_data(b"%d:" % MOST + b"x" * MOST)) == []
    assert list(SocketmapServer().receive_data(b"%d:" % (MOST + 1))) == [Close()]


def test_an_error_is_told_as_one_that_passes_or_one_that_does_not():
    assert next(iter(SocketmapServer().answer(Reply(550, "5.1.1", "no")))) == Send(b"7:PERM no,")
    for value in (Reply(451, "4.3.0", "later"), None, object()):
        assert next(iter(SocketmapServer().answer(value))) == Send(b"20:TEMP try again later,")


def test_a_silent_client_is_sent_away():
    assert list(SocketmapServer().deadline_passed()) == [Close()]
