"""HTTP under the responder: requests in any pieces, in order, and clients that want to cost something."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from mailsec.model.requests import Ask, Close, Deadline, Send
from mailsec_ocsp.http import HttpRequest, HttpResponse, HttpServer

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: Application/OCSP-Request; x=y\r\nContent-Length: 5\r\n\r\nhello"
GET = b"GET /abc HTTP/1.1\r\nHost: a\r\n\r\n"


def server() -> HttpServer:
    core = HttpServer(lambda: NOW, most=100)
    assert list(core.connection_made()) == [Deadline(20.0)]
    return core


def asked(requests) -> list[HttpRequest]:
    return [request.question for request in requests if isinstance(request, Ask)]


def said(requests) -> bytes:
    return b"".join(request.data for request in requests if isinstance(request, Send))


def closes(requests) -> bool:
    return any(isinstance(request, Close) for request in requests)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_request_in_pieces_of_any_size_is_one_question(size):
    core, found = server(), []
    for start in range(0, len(POST), size):
        found += asked(core.receive_data(POST[start : start + size]))
    assert found == [HttpRequest("POST", b"/", "application/ocsp-request", "", b"hello")]


def test_chunks_are_put_together():
    chunked = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    assert asked(server().receive_data(chunked))[0].body == b"hello"


def test_an_answer_says_when_and_how_long_and_the_next_request_follows():
    core = server()
    assert len(asked(core.receive_data(GET + POST))) == 1
    requests = list(core.answer(HttpResponse(200, (("Content-Type", "text/plain"),), b"yes")))
    assert said(requests) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Thu, 01 Jan 2026 12:00:00 GMT\r\nContent-Length: 3\r\n\r\nyes"
    )
    assert asked(requests)[0].body == b"hello" and Deadline(20.0) in requests


@pytest.mark.parametrize("head", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"])
def test_a_client_that_asks_once_is_closed_after_the_answer(head):
    core = server()
    assert asked(core.receive_data(head))
    assert closes(core.answer(HttpResponse(200, (), b"yes")))


def test_head_is_answered_without_content():
    core = server()
    core.receive_data(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert said(core.answer(HttpResponse(200, (), b"yes"))).endswith(b"Content-Length: 3\r\n\r\n")


def test_not_modified_has_no_content():
    core = server()
    core.receive_data(GET)
    answered = said(core.answer(HttpResponse(304, (("ETag", '"x"'),), b"")))
    assert answered.startswith(b"HTTP/1.1 304 Not Modified\r\n") and b"Content-Length" not in answered


def test_a_client_that_waits_to_be_asked_is_told_to_go_on():
    core = server()
    head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
    assert said(core.receive_data(head)).startswith(b"HTTP/1.1 100 ")
    assert asked(core.receive_data(b"hello"))[0].body == b"hello"


def test_what_fails_above_is_503():
    core = server()
    core.receive_data(GET)
    assert said(core.answer(object())).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(
    "octets",
    [b"EHLO x\r\n\r\n", b"\0\r\n\r\n", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"],
)
def test_a_client_that_speaks_something_else_is_cut_off(octets):
    requests = list(server().receive_data(octets))
    assert said(requests).startswith(b"HTTP/1.1 400 ") and closes(requests)


def test_attack_a_post_of_ten_gigabytes_is_refused_by_its_header():
    requests = list(server().receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10737418240\r\n\r\n"))
    assert said(requests).startswith(b"HTTP/1.1 413 ") and closes(requests) and not asked(requests)


def test_attack_chunks_without_end_are_refused_at_the_limit():
    core = server()
    core.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(200):
        requests = list(core.receive_data(b"1\r\nx\r\n"))
        if closes(requests):
            break
    assert said(requests).startswith(b"HTTP/1.1 413 ")
    assert len(core._body) == 101


@pytest.mark.parametrize("piece", [b"X: " + b"y" * 100 + b"\r\n", b"y" * 100])
def test_attack_a_header_flood_is_refused_at_the_limit(piece):
    core, sent = server(), 0
    requests = list(core.receive_data(b"GET / HTTP/1.1\r\n"))
    while not closes(requests):
        assert sent < 20_000
        requests = list(core.receive_data(piece))
        sent += len(piece)
    assert said(requests).startswith((b"HTTP/1.1 431 ", b"HTTP/1.1 400 "))


def test_attack_a_slow_client_does_not_move_its_deadline():
    core = server()
    for octet in POST[:-1]:
        assert not any(isinstance(request, Deadline) for request in core.receive_data(bytes((octet,))))
    requests = list(core.deadline_passed())
    assert said(requests).startswith(b"HTTP/1.1 408 ") and closes(requests)
    assert list(server().deadline_passed()) == [Close()]


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 5\r\n\tContent-Length: 6\r\n",
        b"Transfer-Encoding: identity, chunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
    ],
)
def test_attack_request_smuggling_with_two_lengths_ends_the_connection(fields):
    hidden = b"GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n"
    requests = list(server().receive_data(b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n0\r\n\r\n" + hidden))
    assert said(requests).startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 ")) and closes(requests) and not asked(requests)
