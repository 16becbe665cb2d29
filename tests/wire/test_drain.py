"""A server that is told to stop says so as soon as it may, and never in the middle of a message."""

from __future__ import annotations

from mailsec.errors import Reply
from mailsec.model.requests import Ask, Close, Send
from mailsec.wire.smtp.server import ServerSettings, SmtpServer


def greeted() -> SmtpServer:
    server = SmtpServer(ServerSettings("gw.example"))
    server.connection_made()
    server.answer(None)
    server.receive_data(b"EHLO client\r\n")
    return server


def said(requests) -> bytes:
    return b"".join(request.data for request in requests if isinstance(request, Send))


def test_an_idle_session_is_told_at_once():
    requests = greeted().drain()
    assert said(requests).startswith(b"421 4.3.2") and isinstance(requests[-1], Close)


def test_a_message_that_is_being_received_is_finished_first():
    server = greeted()
    server.receive_data(b"MAIL FROM:<a@example.org>\r\n")
    server.answer(None)
    server.receive_data(b"RCPT TO:<b@example.org>\r\n")
    server.answer(None)
    server.receive_data(b"DATA\r\nSubject: x\r\n")
    assert server.drain() == []
    requests = server.receive_data(b"\r\nbody\r\n.\r\n")
    assert any(isinstance(request, Ask) for request in requests)
    assert server.drain() == []
    requests = server.answer(Reply(250, "2.0.0", "kept"))
    assert said(requests).startswith(b"250 2.0.0 kept\r\n421 4.3.2") and isinstance(requests[-1], Close)
