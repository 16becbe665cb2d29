"""The POP3 client core against scripted servers, and against our own server."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import Refused, RemoteProtocolError, StorageFull
from mailsec.model.requests import Ask, Close, Deadline, Send, StartTls
from mailsec.testing.memory import MemoryScratch
from mailsec.wire.pop3.client import PopClient, PopClientSettings
from mailsec.wire.pop3.questions import Ended, NextRequests, Request, Response
from mailsec.wire.pop3.server import PopSettings

from .play import TLS, octet_by_octet
from .pop3_play import Driver

CAPA = "+OK\r\nSASL PLAIN\r\nPIPELINING\r\nUTF8\r\n.\r\n"


class Server:
    """Carries out what a client core asks for; the test plays the server."""

    def __init__(self, *batches: list[Request], **settings: Any) -> None:
        settings = {"tls": "none", "login": "alice", "password": b"secret", **settings}
        self.core = PopClient(PopClientSettings(**settings))
        self.batches = list(batches)
        self.said = b""
        self.responses: list[tuple[Response, ...]] = []
        self.ended: Ended | None = None
        self.closed: Close | None = None
        self.tls: StartTls | None = None
        self.clear = b""
        self._do(self.core.connection_made())

    def _do(self, requests: Iterable[Any]) -> None:
        while requests:
            following: Iterable[Any] = ()
            for request in requests:
                assert not following and self.closed is None
                if isinstance(request, Send):
                    self.said += request.data
                elif isinstance(request, Ask):
                    following = self._answer(request.question)
                elif isinstance(request, Close):
                    self.closed = request
                elif isinstance(request, StartTls):
                    self.tls = request
                    self.clear, self.said = self.clear + self.said, b""
                else:
                    assert isinstance(request, Deadline)
            requests = following
        if self.closed is not None and self.ended is None:
            self.lose("closed by us")

    def _answer(self, question: object) -> Iterable[Any]:
        if isinstance(question, Ended):
            self.ended = question
            return ()
        assert isinstance(question, NextRequests)
        self.responses.append(question.responses)
        if not self.batches:
            return ()
        return self.core.answer(self.batches.pop(0))

    def hear(self, octets: str | bytes) -> Server:
        if self.closed is None:
            self._do(self.core.receive_data(octets.encode() if isinstance(octets, str) else octets))
        return self

    def handshake(self) -> Server:
        self._do(self.core.tls_started(TLS))
        return self

    def lose(self, why: str) -> Server:
        for request in self.core.connection_lost(why):
            self._answer(request.question)
        return self

    def wait(self) -> Server:
        self._do(self.core.deadline_passed())
        return self

    def logged_in(self, capa: str = CAPA) -> Server:
        return self.hear("+OK ready\r\n").hear(capa).hear("+OK\r\n")


def retr(number: int = 1, **more: Any) -> Request:
    return Request("RETR", number, **{"into": MemoryScratch(), **more})


# -- to a session -----------------------------------------------------------------------------------------------------------------


def test_login_by_auth_plain_where_it_is_offered():
    server = Server().logged_in()
    assert server.said == b"CAPA\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"
    assert server.responses == [()]


def test_login_by_user_and_pass():
    server = Server().hear("+OK\r\n").hear("-ERR what\r\n").hear("+OK\r\n").hear("+OK\r\n")
    assert server.said == b"CAPA\r\nUSER alice\r\nPASS secret\r\n"
    assert server.responses == [()]


def test_long_response_is_sent_when_it_is_asked_for():
    server = Server(password=b"x" * 300).hear("+OK\r\n").hear(CAPA)
    assert server.said.endswith(b"AUTH PLAIN\r\n")
    server.hear("+ \r\n").hear("+OK\r\n")
    assert server.responses == [()] and server.said.endswith(b"\r\n") and len(server.said) > 400


def test_utf8_is_said_before_the_login():
    server = Server(utf8=True).hear("+OK\r\n").hear(CAPA).hear("+OK\r\n").hear("+OK\r\n")
    assert server.said == b"CAPA\r\nUTF8\r\nAUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n" and server.responses == [()]


def test_a_login_with_a_line_end_in_it_says_nothing():
    for login, password in (("alice\r\nDELE 1", b"x"), ("alice", b"x\r\nDELE 1")):
        server = Server(login=login, password=password).hear("+OK\r\n").hear("-ERR\r\n")
        assert server.said == b"CAPA\r\n" and server.ended.login_refused


@pytest.mark.parametrize(("said", "temporary"), [("[AUTH] no", False), ("[IN-USE] busy", True), ("[SYS/TEMP] later", True), ("no", False)])
def test_refused_login_tells_whether_trying_again_helps(said, temporary):
    server = Server().logged_in().core
    server = Server().hear("+OK\r\n").hear(CAPA).hear(f"-ERR {said}\r\n")
    assert server.ended.login_refused and server.ended.error.temporary is temporary
    assert isinstance(server.ended.error, Refused) is not temporary


def test_stls_first_where_tls_is_wanted():
    server = Server(tls="verified", server_name="pop.example.org").hear("+OK\r\n").hear("+OK\r\nSTLS\r\nSASL PLAIN\r\n.\r\n")
    server.hear("+OK go\r\n")
    assert server.tls == StartTls("pop.example.org", "verified") and server.clear == b"CAPA\r\nSTLS\r\n"
    server.handshake()
    assert server.core.capabilities == {} and server.said == b"CAPA\r\n"
    server.hear("+OK\r\nSASL PLAIN\r\n.\r\n")
    assert b"AUTH PLAIN" in server.said


def test_implicit_tls_begins_with_the_handshake():
    server = Server(tls="verified", server_name="pop.example.org", implicit_tls=True)
    assert server.tls is not None and server.said == b""
    server.handshake().logged_in()
    assert server.responses == [()]


# -- NO STARTTLS, the client's side ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["B_1", "B_2", "O_1", "O_2", "O_3", "O_4"])
@pytest.mark.parametrize("mode", ["required", "verified"])
def test_fake_server_of_no_starttls(vectors: Path, name: str, mode: str):
    """NO STARTTLS (USENIX Security 2021): with TLS required no login leaves in clear, and it ends."""
    (path,) = (vectors / "starttls-fake-server" / "pop3").rglob(f"{name}.ron")
    text = path.read_text()
    greeting = re.search(r'greeting: "(.*?)"', text)[1].encode().decode("unicode_escape")
    listed = re.findall(r'"(.*?)"', re.search(r"^\s*capa: \[(.*?)\]", text, re.MULTILINE)[1])
    reply = re.search(r'^\s*(?://)?\s*stls_response: "(.*?)"', text, re.MULTILINE)
    server = Server(tls=mode).hear(greeting)
    if 'hide_commands: ["capa"]' in text:
        server.hear("-ERR command not known\r\n")
    else:
        server.hear("+OK\r\n" + "".join(f"{line}\r\n" for line in listed) + ".\r\n")
    if reply is not None:
        server.hear(reply[1].encode("utf-8").replace(b"\\r\\n", b"\r\n"))
    assert server.ended is not None and server.ended.error is not None
    assert not re.search(rb"USER|PASS|AUTH", server.clear + server.said), server.clear + server.said
    assert server.tls is None


def test_capabilities_injected_behind_the_response_to_stls_are_not_believed():
    server = Server(tls="required").hear("+OK\r\n").hear("+OK\r\nSTLS\r\n.\r\n")
    server.hear("+OK go\r\n+OK\r\nSASL PLAIN\r\n.\r\n")
    assert isinstance(server.ended.error, RemoteProtocolError) and server.tls is None


def test_octets_in_clear_before_the_handshake_end_it():
    server = Server(tls="required").hear("+OK\r\n").hear("+OK\r\nSTLS\r\n.\r\n").hear("+OK go\r\n")
    server.hear("+OK injected\r\n")
    assert isinstance(server.ended.error, RemoteProtocolError) and server.responses == []


def test_a_greeting_that_says_that_we_are_logged_in_already_changes_nothing():
    server = Server(tls="required").hear("+OK maildrop locked and ready, 2 messages\r\n")
    assert server.said == b"CAPA\r\n" and server.responses == []


# -- requests -----------------------------------------------------------------------------------------------------------------------


def test_message_is_received_with_transparency_undone_in_any_pieces():
    wire = b"+OK 20 octets\r\nSubject: x\r\n\r\n..dot\r\n...\r\nend\r\n.\r\n"
    for cut in (lambda octets: [octets], octet_by_octet):
        scratch = MemoryScratch()
        server = Server([retr(into=scratch)]).logged_in()
        for piece in cut(wire):
            server.hear(piece)
        assert scratch.seal().data == b"Subject: x\r\n\r\n.dot\r\n..\r\nend\r\n"
        assert server.responses[-1] == (Response(True, "20 octets"),)


def test_what_has_bare_line_ends_comes_as_it_is_and_says_so():
    scratch = MemoryScratch()
    server = Server([retr(into=scratch)]).logged_in().hear(b"+OK\r\na\nb\rc\0\n.\nd\r\n.\r\n")
    assert scratch.seal().data == b"a\nb\rc\0\n.\nd\r\n"
    assert server.responses[-1] == (Response(True, "", loose=True),)


def test_message_over_the_limit_is_no_answer_and_leaves_the_session_in_step():
    scratch = MemoryScratch()
    server = Server([retr(into=scratch, limit=100)], [Request("NOOP")]).logged_in()
    server.hear(b"+OK\r\n" + b"x" * 70 + b"\r\n" + b"y" * 70).hear(b"\r\n.\r\n")
    (response,) = server.responses[-1]
    assert not response.ok and response.error.limit == "message_size" and len(scratch) <= 100
    assert server.said.endswith(b"NOOP\r\n")


def test_a_full_disk_leaves_the_session_in_step():
    class Full(MemoryScratch):
        def append(self, chunk):
            raise StorageFull("no room")

    server = Server([retr(into=Full())], [Request("NOOP")]).logged_in().hear(b"+OK\r\nx\r\n.\r\n")
    (response,) = server.responses[-1]
    assert not response.ok and isinstance(response.error, StorageFull) and server.said.endswith(b"NOOP\r\n")


def test_message_without_end_ends_the_session():
    server = Server([retr(limit=1000)]).logged_in().hear(b"+OK\r\n")
    for _ in range(300):
        server.hear(b"x" * 10_000)
    assert isinstance(server.ended.error, RemoteProtocolError)


def test_requests_go_together_where_the_server_pipelines():
    batch = [Request("DELE", 1), Request("DELE", 2), Request("STAT")]
    server = Server(batch).logged_in()
    assert server.said.endswith(b"DELE 1\r\nDELE 2\r\nSTAT\r\n")
    server.hear("+OK a\r\n-ERR b\r\n+OK 1 2\r\n")
    assert server.responses[-1] == (Response(True, "a"), Response(False, "b"), Response(True, "1 2"))


def test_requests_go_one_by_one_elsewhere():
    server = Server([Request("DELE", 1), Request("DELE", 2)]).logged_in("+OK\r\nSASL PLAIN\r\n.\r\n")
    assert server.said.endswith(b"DELE 1\r\n")
    server.hear("+OK\r\n")
    assert server.said.endswith(b"DELE 2\r\n")
    server.hear("+OK\r\n")
    assert len(server.responses[-1]) == 2


def test_pipelined_messages_are_kept_apart():
    one, two = MemoryScratch(), MemoryScratch()
    server = Server([retr(1, into=one), retr(2, into=two)]).logged_in().hear(b"+OK\r\nfirst\r\n.\r\n+OK\r\nsecond\r\n.\r\n")
    assert (one.seal().data, two.seal().data) == (b"first\r\n", b"second\r\n")
    assert len(server.responses[-1]) == 2


@pytest.mark.parametrize("octets", [b"x" * 3000, b"hello\r\n", b"+OKAY\r\n", b"250 x\r\n", b"+OK x\n", b"\r\n", b"+OK\t\r\n", b"+ \r\n"])
def test_what_is_no_response_ends_the_session(octets):
    server = Server([Request("STAT")]).logged_in().hear(octets)
    assert isinstance(server.ended.error, RemoteProtocolError) and server.closed.abort


def test_a_response_that_nobody_awaits_ends_the_session():
    server = Server([Request("STAT")]).logged_in().hear("+OK 1 2\r\n+OK forged\r\n")
    assert isinstance(server.ended.error, RemoteProtocolError)


def test_a_failure_says_no_quit_so_that_nothing_is_deleted():
    server = Server([Request("DELE", 1)], [retr()]).logged_in().hear("+OK\r\n").hear("garbage\r\n")
    assert b"QUIT" not in server.said and server.closed.abort
    server = Server([Request("DELE", 1)], [retr()]).logged_in().hear("+OK\r\n").wait()
    assert b"QUIT" not in server.said and "timeout" in server.ended.error.message


def test_quit_tells_what_the_server_said():
    server = Server([Request("QUIT")]).logged_in().hear("-ERR some deleted messages not removed\r\n")
    assert server.ended.error is None and server.ended.response == Response(False, "some deleted messages not removed")
    server = Server([Request("QUIT")]).logged_in().lose("reset")
    assert server.ended.error.temporary


def test_secret_is_in_no_repr():
    assert "secret" not in repr(PopClientSettings("alice", b"secret"))


@given(
    st.lists(
        st.sampled_from(["+OK\r\n", CAPA, "-ERR no\r\n", "+OK\r\nx\r\n.\r\n", "+ \r\n", ".\r\n", "+OK\r\nSTLS\r\n.\r\n"])
        | st.text(max_size=9),
        max_size=14,
    ),
    st.sampled_from(["none", "required", "verified"]),
)
def test_any_server_ends_in_a_value(heard, tls):
    server = Server([Request("STAT")], [retr(limit=50)], [Request("QUIT")], tls=tls)
    for octets in heard:
        server.hear(octets)
    if tls != "none":
        assert not re.search(rb"USER|PASS|AUTH", server.said)
    if server.ended is None:
        server.lose("reset")
        assert server.ended is not None


def test_our_client_reads_from_our_server():
    """Both cores, octets handed over; the capabilities of one are what the other knows."""
    scratch, lists = MemoryScratch(), MemoryScratch()
    messages = retr(1, into=scratch), Request("UIDL", into=lists)
    batches = [[Request("STAT")], list(messages), [Request("DELE", 2), Request("RETR", 3)], [Request("QUIT")]]
    ours = Driver(PopSettings("gw.example.org"))
    client = Server(*batches, tls="required")
    secured = False
    for _ in range(50):
        said, ours.said = ours.said, b""
        client.hear(said)
        if client.tls is not None and not secured:
            secured = True
            ours.handshake()
            client.handshake()
        said, client.said = client.said, b""
        ours.feed(said)
    assert client.ended is not None and client.ended.error is None and ours.handshakes == 1
    assert ours.updated and ours.deleted == {2}
    assert scratch.seal().data == ours.messages[0] and lists.seal().data == b"1 x1\r\n2 x2\r\n"
    assert [one.ok for one in client.responses[3]] == [True, False]
