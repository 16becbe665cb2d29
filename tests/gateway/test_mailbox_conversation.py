"""A reader's session with the gateway over an upstream in memory: our own POP3 server, and ones that say odd things."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import pytest

from mailsec.builtin.mailbox import MailboxPlugin
from mailsec.errors import Refused, Unavailable
from mailsec.gateway.mailbox_conversation import MailboxConversation
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Credentials
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.requests import Ask, Close, Deadline, Send
from mailsec.model.session import Origin, TlsInfo
from mailsec.model.settings import ListenerSettings, MailboxSettings, Upstream
from mailsec.testing import values
from mailsec.testing.gateway import MemoryGateway
from mailsec.testing.runtime import FakeRuntime
from mailsec.wire.pop3.questions import Login, Request, Response

from ..wire.pop3_play import Driver
from ..wire.pop3_play import PopSettings as Offers

# What a server was about to be asked when the test ended.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")

TLS = TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)
SETTINGS = MailboxSettings(Upstream("mail.example.org", tls="none", implicit_tls=False))


class Upstreamed(FakeRuntime):
    """`connect` leads to `server(octets) -> octets`, at once."""

    made: ClassVar[list[Upstreamed]] = []

    def __init__(self, server: Any) -> None:
        super().__init__()
        self.made.append(self)
        self.server = server
        self.said = b""
        self.aborted = False
        self.connections = 0
        self.lanes: list[str] = []

    async def connect(self, address, core, ask, *, timeout, verify="none"):
        self.connections += 1
        self.core, self.ask, self.over = core, ask, False
        self._do(core.connection_made())
        self.hear(self.server(b""))
        return self

    def in_thread(self, function, *args, lane="default"):
        self.lanes.append(lane)
        return super().in_thread(function, *args, lane=lane)

    def abort(self) -> None:
        self.aborted = True
        self.lose()

    def lose(self) -> None:
        if not self.over:
            self.over = True
            for request in self.core.connection_lost("gone"):
                self.ask(request.question)

    def hear(self, octets: bytes) -> None:
        if octets and not self.over:
            self._do(self.core.receive_data(octets))

    def _do(self, requests: Iterable[Any]) -> None:
        for request in requests:
            if isinstance(request, Send):
                self.said += request.data
                self.hear(self.server(request.data))
            elif isinstance(request, Ask):
                self.start(self._answered(self.ask(request.question)), "ask")
            elif isinstance(request, Close):
                self.lose()
            else:
                assert isinstance(request, Deadline)

    async def _answered(self, value: Any) -> None:
        if hasattr(value, "__await__"):
            value = await value
        if not self.over:
            self._do(self.core.answer(value))


def our_server(messages: list[bytes]) -> tuple[Driver, Any]:
    driver = Driver(Offers("mail.example.org", tls="implicit"), messages=messages).handshake()

    def server(octets: bytes) -> bytes:
        driver.feed(octets)
        said, driver.said = driver.said, b""
        return said

    return driver, server


def scripted(**answers: bytes) -> Any:
    """A server without CAPA that takes any login, and answers each command as told."""

    def server(octets: bytes) -> bytes:
        if not octets:
            return b"+OK\r\n"
        return b"".join(answers.get(line.split(b" ")[0].decode(), b"+OK\r\n") for line in octets.split(b"\r\n")[:-1])

    return lambda octets: b"-ERR\r\n" if octets == b"CAPA\r\n" else server(octets)


@pytest.fixture(autouse=True)
def _nothing_goes_on_waiting():
    yield
    for runtime in Upstreamed.made:
        for task in runtime.tasks:
            task._coroutine.close()
    Upstreamed.made.clear()


class Session:
    def __init__(self, server: Any, *plugins: object, limits: Limits = DEFAULT_LIMITS, **listener: Any) -> None:
        self.runtime = Upstreamed(server)
        mailbox = ListenerSettings("mailbox", "127.0.0.1:995", "pop3", Origin.MAILBOX, mailbox=SETTINGS, **listener)
        self.gate = MemoryGateway(*plugins, built_in=[MailboxPlugin()], runtime=self.runtime, listeners=(mailbox,), limits=limits)
        self.conversation = MailboxConversation(self.gate.pipeline, values.session(Origin.MAILBOX), SETTINGS)

    def ask(self, question: object) -> Any:
        value = self.conversation.ask(question)
        return self.runtime.run(value) if hasattr(value, "__await__") else value

    def log_in(self) -> Any:
        return self.ask(Login(Credentials("USER", "alice", b"secret"), TLS))

    def do(self, verb: str, number: int = 0, lines: int = 0) -> Response:
        response = self.ask(Request(verb, number, lines))
        assert isinstance(response, Response)
        return response


MESSAGES = [b"Subject: %d\r\n\r\nbody %d\r\n" % (number, number) for number in range(1, 4)]


def test_a_whole_session():
    driver, server = our_server(MESSAGES)
    session = Session(server)
    assert session.log_in().ok
    assert session.do("STAT").text == f"3 {sum(map(len, MESSAGES))}"
    shown = session.do("RETR", 2)
    assert shown.ok and shown.body.join().endswith(MESSAGES[1])
    assert session.do("DELE", 2).ok and not driver.deleted
    assert session.do("STAT").text.startswith("2 ")
    assert session.do("UIDL").body.join() == b"1 x1\r\n3 x3\r\n"
    assert not session.do("RETR", 2).ok and not session.do("RETR", 4).ok and not session.do("DELE", 4).ok
    assert session.do("QUIT").ok
    assert driver.deleted == {2} and driver.updated


def test_top_and_retr_of_one_message_ask_the_upstream_once():
    _, server = our_server(MESSAGES)
    session = Session(server)
    session.log_in()
    session.do("TOP", 1, 0)
    session.do("RETR", 1)
    assert session.runtime.said.count(b"RETR 1\r\n") == 1 and b"TOP" not in session.runtime.said


def test_reader_that_goes_away_deletes_nothing():
    driver, server = our_server(MESSAGES)
    session = Session(server)
    session.log_in()
    session.do("DELE", 1)
    session.conversation.closed()
    assert session.runtime.aborted and not driver.updated and b"QUIT" not in session.runtime.said and b"DELE" not in session.runtime.said


def test_upstream_that_goes_away_deletes_nothing_and_ends_the_session():
    driver, server = our_server(MESSAGES)
    session = Session(server)
    session.log_in()
    session.do("DELE", 1)
    session.runtime.lose()
    for verb in ("STAT", "QUIT"):
        response = session.do(verb)
        assert not response.ok and response.closing and response.code == "SYS/TEMP"
    assert not driver.updated


def test_wrong_password_and_then_the_right_one():
    _, server = our_server(MESSAGES)
    session = Session(server)
    refused = session.ask(Login(Credentials("USER", "alice", b"wrong"), TLS))
    assert (refused.ok, refused.code) == (False, "AUTH")
    assert session.gate.events[-1].name == "login refused" and "wrong" not in str(session.gate.events[-1])


def test_acting_as_somebody_else_is_refused_without_asking_anybody():
    session = Session(our_server(MESSAGES)[1])
    assert session.ask(Login(Credentials("PLAIN", "alice", b"secret", "bob"), TLS)) is None
    assert session.runtime.connections == 0
    assert [event.name for event in session.gate.events] == ["login refused"]


def test_handshake_that_fails_says_in_the_log_what_a_certificate_must_be():
    session = Session(our_server([])[1])

    async def connect(address, core, ask, *, timeout, verify="none"):
        core.connection_made()
        session.runtime.start(_told(core, ask), "lost")
        return session.runtime

    async def _told(core, ask):
        for request in core.connection_lost("TLS: certificate verify failed"):
            ask(request.question)

    session.runtime.connect = connect
    settings = MailboxSettings(Upstream("mail.example.org"))
    session.conversation = MailboxConversation(session.gate.pipeline, values.session(Origin.MAILBOX), settings)
    assert session.log_in().code == "SYS/TEMP"
    (event,) = session.gate.events
    assert "certificate verify failed" in event.fields["reason"] and "ca_file" in event.fields["hint"]


@pytest.mark.parametrize("server", ["evil.example", "127.0.0.1:25", "pop.example.com:110", "pop.example.com#pop.example.com", "a\r\nb"])
def test_looking_for_servers_is_told_in_the_log_and_no_connection_is_made(server):
    session = Session(our_server([])[1])
    settings = MailboxSettings(Upstream("mail.example.org"), allowed=(Upstream("pop.example.com"),))
    session.conversation = MailboxConversation(session.gate.pipeline, values.session(Origin.MAILBOX), settings)
    with pytest.raises(Refused):
        session.ask(Login(Credentials("USER", f"alice#{server}", b"secret"), TLS))
    (event,) = session.gate.events
    assert event.name == "login refused" and event.fields["peer"] and event.fields["reason"]
    assert session.runtime.connections == 0 and "secret" not in str(event.fields)


def test_without_the_certificate_that_the_listener_demands_no_password_leaves():
    session = Session(our_server(MESSAGES)[1], client_certificates="required")
    refused = session.log_in()
    assert (refused.ok, refused.code) == (False, "SYS/PERM") and session.runtime.connections == 0


@pytest.mark.parametrize(("require", "ok"), [('%{SSL_PROTOCOL} == "TLSv1.3"', True), ('%{SSL_PROTOCOL} == "TLSv1.2"', False)])
def test_what_the_listener_requires_of_a_session_is_required_of_readers(require, ok):
    session = Session(our_server(MESSAGES)[1], require=require)
    assert session.log_in().ok is ok
    assert session.runtime.aborted is not ok


def test_nobody_who_can_say_whose_mailbox_it_is_costs_the_session_and_nothing_else():
    class Away:
        name = "away"
        mechanisms = frozenset({"UPSTREAM"})

        @hookimpl
        def register_authenticators(self):
            return [self]

        async def authenticate(self, credentials, session):
            assert credentials.secret == b""
            raise Unavailable("the directory is away")

    session = Session(our_server(MESSAGES)[1], Away())
    refused = session.log_in()
    assert (refused.ok, refused.code) == (False, "SYS/TEMP") and session.runtime.aborted


@pytest.mark.parametrize(
    ("answers", "verb", "ok"),
    [
        ({"STAT": b"+OK many\r\n"}, "STAT", True),  # theirs, until something is deleted
        ({"LIST": b"+OK 7 100\r\n"}, "DELE", False),
        ({"LIST": b"+OK\r\n"}, "DELE", False),
        ({"LIST": b"-ERR [SYS/TEMP] no\r\n"}, "DELE", False),
        ({"RETR": b"-ERR no such message\r\n"}, "RETR", False),
        ({"NOOP": b"-ERR no\r\n"}, "NOOP", False),
    ],
)
def test_what_an_upstream_says(answers, verb, ok):
    session = Session(scripted(**answers))
    assert session.log_in().ok
    assert session.do(verb, 1 if verb in ("DELE", "RETR") else 0).ok is ok


def test_upstream_that_breaks_the_protocol_ends_the_session_without_quit():
    session = Session(scripted(RETR=b"250 ok\r\n"))
    session.log_in()
    response = session.do("RETR", 1)
    assert response.closing and not response.ok and b"QUIT" not in session.runtime.said


def test_server_with_messages_without_end_fills_no_memory():
    session = Session(scripted(LIST=b"+OK 1 120\r\n"), limits=Limits(mailbox_deletes=1))
    session.log_in()
    assert session.do("DELE", 1).ok
    refused = session.do("DELE", 2)
    assert not refused.ok and refused.code == "SYS/TEMP" and "QUIT" in refused.text
    assert session.do("QUIT").ok and session.runtime.said.count(b"DELE") == 1


def test_long_list_without_what_is_deleted_is_made_in_a_thread():
    lines = b"".join(b"%d 120\r\n" % number for number in range(1, 301))
    session = Session(scripted(), limits=Limits(bulk_threshold=1000))
    session.log_in()
    session.runtime.server = scripted(LIST=b"+OK 7 120\r\n")
    assert session.do("DELE", 7).ok
    session.runtime.server = scripted(LIST=b"+OK\r\n" + lines + b".\r\n")
    listed = session.do("LIST").body
    assert listed is not None and listed.join() == lines.replace(b"\r\n7 120\r\n", b"\r\n")
    assert session.runtime.lanes == ["bulk"]


def test_deletes_that_the_upstream_refuses_are_told():
    session = Session(scripted(LIST=b"+OK 1 10\r\n", DELE=b"-ERR read only\r\n"))
    session.log_in()
    assert session.do("DELE", 1).ok
    response = session.do("QUIT")
    assert not response.ok and "not removed" in response.text


def test_upstream_that_forges_a_response_cannot_reach_the_reader_with_it():
    session = Session(scripted(NOOP=b"+OK fine\x07\x1b[31m\r\n"))
    session.log_in()
    from mailsec.wire.pop3.replies import encode_response

    assert encode_response(session.do("NOOP")) == b"+OK fine??[31m\r\n"


def test_message_over_the_limit_of_mailboxes_is_refused_and_the_session_goes_on():
    letter = b"Subject: x\r\n\r\n" + b"line\r\n" * 1000
    session = Session(scripted(RETR=b"+OK\r\n" + letter + b".\r\n"), limits=Limits(mailbox_message_size=1000))
    session.log_in()
    response = session.do("RETR", 1)
    assert not response.ok and response.code == "SYS/PERM" and not response.closing
    assert session.do("NOOP").ok and session.do("QUIT").ok


def test_message_over_the_limit_of_mail_is_shown_and_its_top_keeps_nothing():
    letter = b"Subject: x\r\n\r\n" + b"line\r\n" * 1000
    session = Session(scripted(RETR=b"+OK\r\n" + letter + b".\r\n"), limits=Limits(message_size=1000))
    session.log_in()
    top = session.do("TOP", 1)
    assert top.body is not None and b"smime=permerror" in top.body.join() and b"line" not in top.body.join()
    response = session.do("RETR", 1)
    assert response.body is not None and response.body.join().endswith(letter)
    assert session.runtime.said.count(b"RETR") == 2
