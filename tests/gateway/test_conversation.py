"""The SMTP conversation with the real server core: what a client says, what it hears, and that nothing is left behind."""

from __future__ import annotations

import base64

import pytest

from mailsec.errors import MailsecError, Reply, StorageFull, Unavailable
from mailsec.gateway.conversation import SmtpConversation
from mailsec.hookspecs import hookimpl
from mailsec.interfaces import Conversation
from mailsec.model.requests import Ask, Body, Close, EndOfBody, Send, StartTls
from mailsec.model.session import Identity, Origin, TlsInfo
from mailsec.model.verdict import Decision
from mailsec.testing import values
from mailsec.wire.smtp.questions import MessageAbandoned
from mailsec.wire.smtp.server import ServerSettings, SmtpServer

MESSAGE = "From: carol@example.net\r\nTo: alice@example.org\r\nSubject: hi\r\n\r\nbody\r\n"


class Client:
    """Speaks to a server core and its conversation as the driver of `net` does."""

    def __init__(self, gate, origin: Origin = Origin.INTERNET, offers=(), **changes) -> None:
        self.gate = gate
        who = {"helo": "", "protocol": "SMTP", "identity": None, "tls": None}
        self.conversation = SmtpConversation(gate.pipeline, values.session(origin, **who | changes))
        settings = {"hostname": "gw.example.org"}
        if origin is Origin.SUBMISSION:
            settings |= {"tls": "starttls-required", "authenticate": True}
        self.core = SmtpServer(ServerSettings(**settings, **dict.fromkeys(offers, True)))
        self.heard = ""
        self.closed = False
        self.carry_out(self.core.connection_made())

    def carry_out(self, requests) -> None:
        error = None
        for request in requests:
            if isinstance(request, Send):
                self.heard += request.data.decode()
            elif isinstance(request, Ask):
                try:
                    answer = self.conversation.ask(request.question)
                    if hasattr(answer, "__await__"):
                        answer = self.gate.runtime.run(answer)
                except MailsecError as unavailable:
                    answer = unavailable.reply
                if error is not None:
                    answer, error = error, None
                self.carry_out(self.core.answer(answer))
            elif isinstance(request, Body):
                try:
                    self.conversation.body(request.chunk)
                except StorageFull as full:
                    error = full.reply
            elif isinstance(request, EndOfBody):
                self.conversation.end_of_body()
            elif isinstance(request, StartTls):
                self.carry_out(self.core.tls_started(TlsInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256)))
            elif isinstance(request, Close):
                self.closed = True

    def say(self, *lines: str) -> list[str]:
        """Send lines; return what was heard since."""
        self.heard = ""
        for line in lines:
            self.carry_out(self.core.receive_data(line.encode() + b"\r\n"))
        return self.heard.splitlines()

    def message(self, text: str = MESSAGE) -> str:
        self.say("DATA")
        return self.say(text.removesuffix("\r\n"), ".")[-1]


def test_conversation_is_the_interface(gate):
    conversation: Conversation = SmtpConversation(gate.pipeline, values.session())
    conversation.closed()


def test_message_from_the_internet(gate):
    client = Client(gate)
    client.say("EHLO client.example.net", "MAIL FROM:<carol@example.net>")
    assert client.say("RCPT TO:<alice@example.org>")[0].startswith("250")
    assert client.say("RCPT TO:<x@example.com>")[0].startswith("550 5.7.1 relaying denied")
    reply = client.message()
    assert reply.startswith("250 2.0.0 accepted as ")
    assert gate.rows[0].id in reply
    assert b"from client.example.net ([192.0.2.7])\r\n\tby gw.example.org with ESMTP\r\n" in gate.ready[0]
    assert gate.ready[0].endswith(MESSAGE.encode())
    assert [scratch.discarded for scratch in gate.spool.scratches] == [True]


def test_several_messages_on_one_connection(gate):
    client = Client(gate)
    client.say("EHLO x")
    for _ in range(3):
        client.say("MAIL FROM:<carol@example.net>", "RCPT TO:<alice@example.org>")
        assert client.message().startswith("250")
    assert len(gate.rows) == 3 and len({row.id for row in gate.rows}) == 3


class Users:
    name = "users"
    mechanisms = frozenset({"PLAIN"})

    def __init__(self) -> None:
        self.away = False

    @hookimpl
    def register_authenticators(self):
        return [self]

    async def authenticate(self, credentials, session):
        if self.away:
            raise Unavailable("the database is away")
        if (credentials.login, credentials.secret) == ("alice", b"secret"):
            return Identity("alice", ("alice@example.org",), credentials.mechanism)
        return None


def plain(login: str, secret: str) -> str:
    return "AUTH PLAIN " + base64.b64encode(f"\0{login}\0{secret}".encode()).decode()


@pytest.fixture
def users() -> Users:
    return Users()


def test_submission_needs_a_login_and_gets_a_signature(kit, users):
    gate = kit.Gate(users)
    client = Client(gate, Origin.SUBMISSION)
    client.say("EHLO x", "STARTTLS", "EHLO x")
    assert client.say("MAIL FROM:<alice@example.org>")[0].startswith("530")
    assert client.say(plain("alice", "wrong"))[0].startswith("535")
    assert client.say(plain("alice", "secret"))[0].startswith("235")
    assert client.say("MAIL FROM:<bob@example.org>")[0].startswith("550 5.7.1")
    client.say("MAIL FROM:<alice@example.org>", "RCPT TO:<bob@example.net>")
    assert client.message(MESSAGE.replace("carol@example.net", "alice@example.org")).startswith("250")
    assert len(gate.engine.signed) == 1 and b"with ESMTPSA" in gate.ready[0]
    assert gate.rows[0].identity == "alice"


def test_failed_login_is_an_event_without_what_was_typed(kit, users):
    gate = kit.Gate(users)
    client = Client(gate, Origin.SUBMISSION)
    client.say("EHLO x", "STARTTLS", "EHLO x", plain("my-password", "alice"))
    (event,) = gate.events
    assert event.name == "login refused" and event.fields["peer"] == "192.0.2.7" and "my-password" not in str(event)


def test_authenticator_that_is_away_says_come_back(kit, users):
    users.away = True
    client = Client(kit.Gate(users), Origin.SUBMISSION)
    client.say("EHLO x", "STARTTLS", "EHLO x")
    assert client.say(plain("alice", "secret"))[0].startswith("454")


def test_second_authenticator_is_asked_where_the_first_is_away(kit):
    first, second = Users(), Users()
    first.away = True
    client = Client(kit.Gate(first, second), Origin.SUBMISSION)
    client.say("EHLO x", "STARTTLS", "EHLO x")
    assert client.say(plain("alice", "secret"))[0].startswith("235")


def test_peer_that_may_not_connect_hears_so(gate):
    client = Client(gate, Origin.TRUSTED, peer="192.0.2.1")
    assert client.heard.startswith("554") and client.closed


def test_connection_that_closes_in_mid_message_leaves_nothing(gate):
    client = Client(gate)
    client.say("EHLO x", "MAIL FROM:<carol@example.net>", "RCPT TO:<alice@example.org>", "DATA", "half a message")
    client.conversation.closed()
    assert gate.rows == [] and all(scratch.discarded for scratch in gate.spool.scratches)


def test_message_that_the_core_abandons_leaves_nothing(gate):
    conversation = SmtpConversation(gate.pipeline, values.session())
    conversation.body(b"half")
    assert conversation.ask(MessageAbandoned(StorageFull("x").reply)) is None
    assert gate.spool.scratches[0].discarded


def test_empty_message_is_a_message(gate):
    client = Client(gate)
    client.say("EHLO x", "MAIL FROM:<>", "RCPT TO:<alice@example.org>", "DATA")
    assert client.say(".")[-1].startswith("250")
    assert len(gate.rows) == 1


def test_smuggled_second_message_is_not_a_message(gate):
    client = Client(gate)
    client.say("EHLO x", "MAIL FROM:<carol@example.net>", "RCPT TO:<alice@example.org>", "DATA")
    smuggled = "x\n.\nMAIL FROM:<mallory@example.org>\r\nRCPT TO:<bob@example.org>\r\nDATA\r\nFrom: alice@example.org\r\n\r\nsign me"
    assert client.say(smuggled, ".")[-1].startswith("554")
    assert gate.rows == [] and gate.engine.signed == []


def test_full_disk_is_said_at_mail_before_the_octets_are_sent(gate):
    client = Client(gate)
    client.say("EHLO c")
    gate.spool.fail_with = StorageFull("no room")
    assert client.say("MAIL FROM:<carol@example.net> SIZE=5000")[-1].startswith("452 4.3.1")
    assert client.say("RCPT TO:<alice@example.org>")[-1].startswith("503")
    gate.spool.fail_with = None
    assert client.say("MAIL FROM:<carol@example.net> SIZE=5000")[-1].startswith("250")


def test_size_that_was_declared_is_asked_room_for(gate, monkeypatch):
    asked = []
    monkeypatch.setattr(gate.spool, "check_room", asked.append)
    client = Client(gate)
    client.say("EHLO c", "MAIL FROM:<carol@example.net> SIZE=5000000", "RSET", "MAIL FROM:<carol@example.net>")
    assert asked == [5_000_000, 0]


class Refuses:
    """Whoever is called bob gets nothing."""

    @hookimpl
    def decide_message(self, transaction):
        if any(one.address.local_part == "bob" for one in transaction.envelope.recipients):
            return Decision("refuse", Reply(550, "5.7.1", "not for bob"), "not for bob")
        return None


def test_lmtp_client_hears_of_each_recipient(kit):
    gate = kit.Gate(Refuses())
    client = Client(gate, offers=("lmtp", "chunking"))
    client.say("LHLO mta.example.net", "MAIL FROM:<carol@example.net>", "RCPT TO:<bob@example.org>", "RCPT TO:<alice@example.org>", "DATA")
    replies = client.say(MESSAGE.removesuffix("\r\n"), ".")
    assert [reply.split()[0] for reply in replies] == ["550", "250"]
    (row,) = gate.rows
    assert [str(one.address) for one in row.envelope.recipients] == ["alice@example.org"]
    assert b"with LMTP\r\n" in gate.ready[0]
    client.say("MAIL FROM:<carol@example.net>", "RCPT TO:<bob@example.org>", "RCPT TO:<alice@example.org>")
    replies = client.say(f"BDAT {len(MESSAGE)} LAST\r\n{MESSAGE.removesuffix(chr(13) + chr(10))}")
    assert [reply.split()[0] for reply in replies] == ["550", "250"]


def test_message_in_chunks_is_the_same_as_by_data(gate):
    client = Client(gate, offers=("chunking",))
    first, rest = MESSAGE[:25], MESSAGE[25:]
    client.say("EHLO x", "MAIL FROM:<carol@example.net>", "RCPT TO:<alice@example.org>", "BDAT 25\r\n" + first[:-2])
    assert client.say(f"BDAT {len(rest)} LAST\r\n{rest[:-2]}")[-1].startswith("250 2.0.0 accepted")
    assert gate.ready[0].endswith(MESSAGE.encode())


@pytest.mark.parametrize("words", ["RSET", "EHLO again", "MAIL FROM:<x@y.example>"])
def test_chunks_of_a_message_that_is_given_up_leave_nothing(gate, words):
    client = Client(gate, offers=("chunking",))
    client.say("EHLO x", "MAIL FROM:<carol@example.net>", "RCPT TO:<alice@example.org>", "BDAT 6\r\nA: b", words)
    client.conversation.closed()
    assert gate.rows == [] and all(scratch.discarded for scratch in gate.spool.scratches)


def test_chunk_that_is_refused_leaves_nothing_and_what_follows_is_no_message(gate):
    client = Client(gate, offers=("chunking",))
    client.say("EHLO x", "MAIL FROM:<carol@example.net>", "RCPT TO:<alice@example.org>", "BDAT 6\r\nA: b")
    assert client.say("BDAT 4\r\nx\n")[-1].startswith("554 5.6.0")
    assert client.say("BDAT 4 LAST\r\nx\r")[-1].startswith("503")
    assert gate.rows == [] and all(scratch.discarded for scratch in gate.spool.scratches)
