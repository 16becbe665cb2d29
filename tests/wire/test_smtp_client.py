"""The SMTP client core against scripted next hops, and against our own server."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailsec.errors import LocalProtocolError, MailsecError, RemoteProtocolError, Reply
from mailsec.model.address import Address
from mailsec.model.limits import Limits
from mailsec.model.octets import Segments
from mailsec.model.requests import Ask, Close, Deadline, Send, StartTls, Stream
from mailsec.model.session import Recipient
from mailsec.wire.smtp.client import ClientSettings, SmtpClient
from mailsec.wire.smtp.offers import ServerSettings
from mailsec.wire.smtp.questions import Ended, NextMessage, OutgoingMessage, Quit

from .play import TLS, Driver, octet_by_octet

HELLO = "250-mx.example\r\n250-PIPELINING\r\n250-SIZE 1000000\r\n250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n"


def outgoing(*recipients: str, body: bytes = b"Subject: x\r\n\r\nhello\r\n", sender: str | None = "a@b.example", **more: Any):
    to = recipients or ("bob@example.org",)
    return OutgoingMessage(
        Address.parse(sender) if sender else None, tuple(Recipient(Address.parse(r)) for r in to), Segments.of(body), **more
    )


class Hop:
    """Carries out what a client core asks for; the test plays the next hop."""

    def __init__(self, messages: Iterable[OutgoingMessage] = (), **settings: Any) -> None:
        settings = {"tls": "none", **settings}
        self.core = SmtpClient(ClientSettings("gw.example.org", **settings))
        self.queue = list(messages)
        self.said = b""
        self.results: list[Any] = []
        self.ended: Ended | None = None
        self.closed: Close | None = None
        self.tls: StartTls | None = None
        self.deadline: float | None = None
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
                elif isinstance(request, Deadline):
                    self.deadline = request.seconds
                elif isinstance(request, StartTls):
                    self.tls = request
                    self.clear, self.said = self.clear + self.said, b""
                else:
                    assert isinstance(request, Stream)
                    try:
                        for piece in request.segments:
                            self.said += piece
                        following = self.core.streamed()
                    except MailsecError:
                        self.closed = Close(abort=True)
            requests = following
        if self.closed is not None and self.ended is None:
            self.lose("closed by us")

    def _answer(self, question: object) -> Iterable[Any]:
        if isinstance(question, Ended):
            assert self.ended is None, "asked twice"
            self.ended = question
            return ()
        assert isinstance(question, NextMessage)
        if question.result is not None:
            self.results.append(question.result)
        return self.core.answer(self.queue.pop(0) if self.queue else Quit())

    def hear(self, text: str | bytes) -> Hop:
        if self.closed is None:
            self._do(self.core.receive_data(text.encode() if isinstance(text, str) else text))
        return self

    def handshake(self) -> Hop:
        self._do(self.core.tls_started(TLS))
        return self

    def wait(self) -> Hop:
        self._do(self.core.deadline_passed())
        return self

    def lose(self, reason: str = "connection lost") -> Hop:
        self.closed = self.closed or Close()
        for request in self.core.connection_lost(reason):
            assert isinstance(request, Ask)
            self._answer(request.question)
        return self


def test_message_is_pipelined_in_one_write_and_the_session_reused():
    hop = Hop([outgoing("bob@example.org", "carol@example.org"), outgoing(sender=None)])
    hop.hear("220 mx.example ESMTP\r\n")
    assert hop.said == b"EHLO gw.example.org\r\n"
    hop.said = b""
    hop.hear(HELLO)
    assert hop.said == (b"MAIL FROM:<a@b.example> SIZE=21\r\nRCPT TO:<bob@example.org>\r\nRCPT TO:<carol@example.org>\r\nDATA\r\n")
    hop.said = b""
    hop.hear("250 2.1.0 ok\r\n250 2.1.5 ok\r\n550 5.1.1 no such user\r\n354 go\r\n")
    assert hop.said == b"Subject: x\r\n\r\nhello\r\n.\r\n"
    hop.said = b""
    hop.hear("250 2.0.0 queued as 1\r\n")
    (result,) = hop.results
    assert result.replies == (Reply(250, "2.0.0", "queued as 1"), Reply(550, "5.1.1", "no such user"))
    assert not result.local and not result.handed_over
    assert hop.said.startswith(b"MAIL FROM:<> SIZE=21\r\n")
    hop.hear("250 ok\r\n250 ok\r\n354 go\r\n").hear("250 ok\r\n")
    assert hop.said.endswith(b"QUIT\r\n")
    hop.hear("221 bye\r\n")
    assert hop.ended == Ended(None)


def test_without_pipelining_commands_go_one_by_one():
    hop = Hop([outgoing("bob@example.org", "carol@example.org")]).hear("220 x\r\n").hear("250 x\r\n")
    for said, heard in (
        (b"MAIL FROM:<a@b.example>\r\n", "250 ok\r\n"),
        (b"RCPT TO:<bob@example.org>\r\n", "451 later\r\n"),
        (b"RCPT TO:<carol@example.org>\r\n", "250 ok\r\n"),
        (b"DATA\r\n", "354 go\r\n"),
    ):
        assert hop.said.endswith(said) and hop.said.count(b"\r\n", -len(said)) == 1
        hop.hear(heard)
    hop.hear("250 done\r\n")
    assert [r.code for r in hop.results[0].replies] == [451, 250]


def test_refused_transaction_is_reset_before_the_next():
    for pipelining in (True, False):
        hop = Hop([outgoing(), outgoing()]).hear("220 x\r\n").hear(HELLO if pipelining else "250 x\r\n")
        if pipelining:
            hop.hear("250 ok\r\n550 5.7.1 no\r\n554 no valid recipients\r\n")
            assert b"RSET\r\nMAIL FROM" in hop.said
        else:
            hop.hear("250 ok\r\n").hear("550 5.7.1 no\r\n")
            assert b"DATA" not in hop.said
            assert hop.said.endswith(b"RSET\r\n")
        assert hop.results[0].replies == (Reply(550, "5.7.1", "no"),)


def test_354_for_nobody_is_answered_with_an_empty_message():
    hop = Hop([outgoing()]).hear("220 x\r\n").hear(HELLO).hear("250 ok\r\n550 no\r\n354 go\r\n")
    assert hop.said.endswith(b"DATA\r\n.\r\n")
    hop.hear("554 no recipients\r\n")
    assert hop.results[0].replies[0].code == 550


def test_mail_refused_counts_for_all_recipients():
    hop = Hop([outgoing("bob@example.org", "carol@example.org")]).hear("220 x\r\n").hear(HELLO)
    hop.hear("452 4.3.1 full\r\n503 no\r\n503 no\r\n503 no\r\n")
    assert [r.code for r in hop.results[0].replies] == [452, 452]


def test_lmtp_answers_for_each_recipient():
    hop = Hop([outgoing("bob@example.org", "no@example.org", "carol@example.org")], lmtp=True).hear("220 x\r\n")
    assert hop.said == b"LHLO gw.example.org\r\n"
    hop.hear(HELLO).hear("250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n".replace("250 ok\r\n250 ok\r\n550", "250 ok\r\n250 ok\r\n550"))
    hop.hear("250 2.0.0 stored\r\n")
    assert hop.results == []
    hop.hear("452 4.2.2 full\r\n")
    assert [r.code for r in hop.results[0].replies] == [250, 550, 452]


def test_next_hop_that_knows_no_ehlo_is_asked_with_helo():
    hop = Hop([outgoing()], tls="opportunistic").hear("220 x\r\n").hear("502 what\r\n")
    assert hop.said.endswith(b"HELO gw.example.org\r\n")
    hop.hear("250 x\r\n")
    assert hop.said.endswith(b"MAIL FROM:<a@b.example>\r\n")


@pytest.mark.parametrize(
    ("message", "code", "status"),
    [
        (outgoing(eight_bit=True), 554, "5.6.3"),
        (outgoing(smtputf8=True), 553, "5.6.7"),
        (outgoing("ä@example.org"), 553, "5.6.7"),
        (outgoing(body=b"x" * 101), 552, "5.3.4"),
        (outgoing(body=b"a\nb\r\n"), 554, "5.6.0"),
        (outgoing(body=b"a\r\n\0.\r\n"), 554, "5.6.0"),
    ],
)
def test_what_the_next_hop_cannot_carry_fails_here_and_is_never_converted(message, code, status):
    hop = Hop([message]).hear("220 x\r\n").hear("250-x\r\n250-PIPELINING\r\n250 SIZE 100\r\n")
    assert b"MAIL" not in hop.said
    (result,) = hop.results
    assert result.local and result.replies[0][:2] == (code, status)
    assert hop.said.endswith(b"QUIT\r\n")


@pytest.mark.parametrize("limit", ["\u00b2", "\u0663", "x", "-1", "9" * 400, ""])
def test_size_that_is_no_number_is_no_limit_and_no_error_of_ours(limit):
    hop = Hop([outgoing()]).hear("220 x\r\n").hear(f"250-x\r\n250-PIPELINING\r\n250 SIZE {limit}\r\n")
    assert b"MAIL FROM:<a@b.example>" in hop.said


def test_large_message_with_a_bare_line_feed_is_cut_off_without_an_end_of_data():
    body = b"x" * 100_000 + b"\n.\nMAIL FROM"
    message = OutgoingMessage(None, (Recipient(Address.parse("b@example.org")),), Segments([b"first\r\n", body, b"last\r\n"]))
    hop = Hop([message]).hear("220 x\r\n").hear(HELLO).hear("250 ok\r\n250 ok\r\n354 go\r\n")
    assert hop.closed == Close(abort=True)
    assert not hop.said.endswith(b"\r\n.\r\n") and b"MAIL FROM:" not in hop.said[60:]
    assert hop.ended is not None and hop.ended.result is not None
    assert hop.ended.result.replies[0][:2] == (554, "5.6.0")
    assert not hop.ended.result.handed_over


def test_smuggling_sequences_never_leave(vectors):
    import json

    for text in json.loads((vectors / "smtp-smuggling" / "unique_sequences.json").read_text()):
        body = b"Subject: x\r\n\r\nbody" + text.encode("latin-1") + b"MAIL FROM:<evil@example.org>\r\n"
        for pad in (b"", b"y" * 70_000 + b"\r\n"):
            hop = Hop([outgoing(body=pad + body)], limits=Limits()).hear("220 x\r\n").hear(HELLO).hear("250 ok\r\n250 ok\r\n354 go\r\n")
            sent = hop.said.partition(b"DATA\r\n")[2]
            assert b"evil" not in sent, text


def test_large_message_is_streamed_and_stuffed():
    pieces = [b"a\r", b"\n", b".b\r\n.", b"c\r\n", b"x" * 100_000, b"\r\n.end"]
    message = OutgoingMessage(None, (Recipient(Address.parse("b@example.org")),), Segments(pieces))
    hop = Hop([message]).hear("220 x\r\n").hear(HELLO).hear("250 ok\r\n250 ok\r\n354 go\r\n")
    assert hop.said.partition(b"DATA\r\n")[2] == b"a\r\n..b\r\n..c\r\n" + b"x" * 100_000 + b"\r\n..end\r\n.\r\n"
    hop.hear("250 ok\r\n")
    assert hop.results[0].replies[0].code == 250


# -- TLS ----------------------------------------------------------------------------------------------------------------------------

STARTTLS = "250-mx.example\r\n250-AUTH PLAIN\r\n250 STARTTLS\r\n"


def test_starttls_forgets_what_was_offered_before():
    hop = Hop([outgoing()], tls="verified", server_name="mx.example").hear("220 x\r\n").hear(STARTTLS)
    assert hop.said.endswith(b"STARTTLS\r\n")
    hop.hear("220 go\r\n")
    assert hop.tls == StartTls("mx.example", "verified")
    hop.handshake()
    assert hop.core.capabilities == {}
    assert hop.said == b"EHLO gw.example.org\r\n"
    hop.hear("250 x\r\n")
    assert hop.core.capabilities == {}


@pytest.mark.parametrize("mode", ["opportunistic", "required", "verified"])
def test_replies_in_clear_behind_starttls_are_an_attack(mode):
    hop = Hop([outgoing()], tls=mode).hear("220 x\r\n").hear(STARTTLS)
    hop.hear("220 go\r\n250-evil\r\n250 AUTH PLAIN\r\n")
    assert hop.tls is None
    assert hop.closed == Close(abort=True)
    assert isinstance(hop.ended.error, RemoteProtocolError) and hop.ended.error.stage == "starttls"


def test_octets_in_clear_before_the_handshake_is_done_are_an_attack():
    hop = Hop([outgoing()], tls="required").hear("220 x\r\n").hear(STARTTLS).hear("220 go\r\n").hear("250 evil\r\n")
    assert hop.closed == Close(abort=True) and hop.ended.error.stage == "starttls"


@pytest.mark.parametrize("mode", ["required", "verified"])
@pytest.mark.parametrize("reply", ["250 x\r\n", "502 no\r\n"])
def test_stripped_starttls_sends_nothing(mode, reply):
    hop = Hop([outgoing()], tls=mode, username="u", password=b"p").hear("220 x\r\n").hear(reply)
    assert b"MAIL" not in hop.said and b"AUTH" not in hop.said and b"HELO " not in hop.said
    assert hop.ended.error is not None
    assert hop.ended.error.temporary or reply[0] == "5"


def test_failed_handshake_is_told_to_the_caller():
    hop = Hop([outgoing()], tls="opportunistic").hear("220 x\r\n").hear(STARTTLS).hear("220 go\r\n").lose("TLS: bad certificate")
    assert hop.ended.tls_failed and hop.ended.result is None and hop.ended.error.temporary


def test_password_never_goes_in_clear():
    hop = Hop([outgoing()], tls="opportunistic", username="u", password=b"secret").hear("220 x\r\n").hear("250-x\r\n250 AUTH PLAIN\r\n")
    assert b"AUTH" not in hop.said
    assert hop.ended.error.stage == "auth"
    assert "secret" not in repr(hop.core.settings)


def test_login_at_a_smart_host_under_tls():
    hop = (
        Hop([outgoing()], tls="required", username="u", password=b"secret").hear("220 x\r\n").hear(STARTTLS).hear("220 go\r\n").handshake()
    )
    hop.hear("250-x\r\n250 AUTH LOGIN PLAIN\r\n")
    assert hop.said.endswith(b"AUTH PLAIN AHUAc2VjcmV0\r\n")
    assert Hop([], tls="none").core.settings.password == b""
    refused = hop.hear("535 no\r\n")
    assert refused.ended.error.temporary and refused.ended.reply.code == 535


def starttls_cases() -> list[Any]:
    return ["B_1", "D_1", "O_1", "O_2", "O_3", "O_4"]


@pytest.mark.parametrize("name", starttls_cases())
@pytest.mark.parametrize("mode", ["required", "verified"])
def test_fake_server_of_no_starttls(vectors: Path, name, mode):
    """NO STARTTLS (USENIX Security 2021): with TLS required nothing leaves in clear, and it ends."""
    (path,) = (vectors / "starttls-fake-server" / "smtp").rglob(f"{name}.ron")
    text = path.read_text()
    offers = re.search(r"^\s*capabilities: \[(.*?)\]", text, re.MULTILINE)
    reply = re.search(r'^\s*(?://)?\s*stls_response: "(.*?)"', text, re.MULTILINE)
    hidden = 'hide_commands: ["ehlo"' in text
    hop = Hop([outgoing()], tls=mode, username="u", password=b"secret").hear("220 fake\r\n")
    if hidden:
        hop.hear("502 command not implemented\r\n")
    else:
        words = [w for w, sign in (("STARTTLS", "StartTLS"), ("AUTH PLAIN LOGIN", "Auth(")) if sign in (offers[1] if offers else "")]
        lines = ["example.org", *words]
        hop.hear("".join(f"250-{line}\r\n" for line in lines[:-1]) + f"250 {lines[-1]}\r\n")
    if reply is not None:
        hop.hear(reply[1].encode().decode("unicode_escape"))
    assert hop.ended is not None and hop.ended.error is not None
    clear = hop.clear + hop.said
    assert not re.search(rb"MAIL|AUTH|RCPT|DATA", clear), clear
    assert hop.tls is None


# -- hostile and failing next hops ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "octets",
    [
        b"x" * 3000,
        b"250-" + b"x\r\n250-" * 300,
        b"hello\r\n",
        b"999 x\r\n",
        b"22\r\n",
        b"220-a\r\n221 b\r\n",
        b"220 x\n",
        b"\r\n",
        b"220\t\r\n",
    ],
)
def test_what_is_no_reply_ends_the_session(octets):
    hop = Hop([outgoing()]).hear(octets)
    assert isinstance(hop.ended.error, RemoteProtocolError)


def test_reply_line_of_10_mb_takes_no_memory():
    hop = Hop([outgoing()])
    for _ in range(10_000):
        hop.hear(b"220 " + b"x" * 1020)
        if hop.closed:
            break
    assert isinstance(hop.ended.error, RemoteProtocolError)


def test_acceptance_before_the_message_was_sent_is_not_believed():
    hop = Hop([outgoing()]).hear("220 x\r\n").hear(HELLO).hear("250 ok\r\n250 ok\r\n354 go\r\n250 accepted\r\n")
    assert isinstance(hop.ended.error, RemoteProtocolError)
    assert hop.ended.result.replies[0].temporary and hop.ended.result.local and not hop.ended.result.handed_over
    assert b"hello" not in hop.said


@pytest.mark.parametrize(
    ("heard", "handed_over"),
    [("", False), ("250 ok\r\n250 ok\r\n", False), ("250 ok\r\n250 ok\r\n354 go\r\n", True)],
)
def test_next_hop_that_goes_away_leaves_the_message_with_us(heard, handed_over):
    hop = Hop([outgoing()]).hear("220 x\r\n").hear(HELLO).hear(heard).lose("reset")
    assert hop.ended.result.replies[0].temporary
    assert hop.ended.result.handed_over is handed_over
    assert hop.ended.error.temporary


def test_timeout_leaves_the_message_with_us():
    hop = Hop([outgoing()]).hear("220 x\r\n").hear(HELLO).wait()
    assert "timeout" in hop.ended.error.message and hop.closed == Close(abort=True)
    assert hop.ended.result.replies[0].temporary


def test_421_ends_the_session_and_is_a_temporary_failure():
    hop = Hop([outgoing(), outgoing()]).hear("220 x\r\n").hear(HELLO).hear("421 4.3.2 shutting down\r\n503 x\r\n503 x\r\n")
    assert hop.closed is not None
    assert hop.ended.result.replies[0].code == 421
    assert len(hop.queue) == 1


def test_early_refusal_in_mid_message_is_kept():
    hop = Hop([outgoing(body=b"x" * 70_000)])
    core = hop.core
    hop.hear("220 x\r\n").hear(HELLO)
    requests = core.receive_data(b"250 ok\r\n250 ok\r\n354 go\r\n")
    assert isinstance(requests[-1], Stream)
    core.receive_data(b"552 5.3.4 too big\r\n")
    (ask,) = core.connection_lost("reset")
    assert ask.question.result.replies == (Reply(552, "5.3.4", "too big"),)


@pytest.mark.parametrize(
    ("offer", "lmtp", "mail", "rcpt"),
    [
        ("250-DSN\r\n", False, b"MAIL FROM:<a@b.example> RET=HDRS\r\n", b"RCPT TO:<bob@example.org> NOTIFY=NEVER\r\n"),
        ("", False, b"MAIL FROM:<>\r\n", b"RCPT TO:<bob@example.org>\r\n"),
        ("", True, b"MAIL FROM:<a@b.example>\r\n", b"RCPT TO:<bob@example.org>\r\n"),
    ],
)
def test_attack_the_next_hop_returns_what_was_opened_to_whoever_recorded_it(offer, lmtp, mail, rcpt):
    hop = Hop([outgoing(quiet=True)], lmtp=lmtp).hear("220 x\r\n").hear(f"250-mx.example\r\n{offer}250 PIPELINING\r\n")
    assert mail + rcpt in hop.said
    other = Hop([outgoing()], lmtp=lmtp).hear("220 x\r\n").hear(f"250-mx.example\r\n{offer}250 PIPELINING\r\n")
    assert b"MAIL FROM:<a@b.example>\r\nRCPT TO:<bob@example.org>\r\n" in other.said


CHUNKING = HELLO.replace("250 ", "250-CHUNKING\r\n250 ")


def test_message_goes_in_one_chunk_where_that_is_offered():
    hop = Hop([outgoing("bob@example.org", "carol@example.org", body=b".x\r\n"), outgoing(body=b"")]).hear("220 x\r\n").hear(CHUNKING)
    assert hop.said.endswith(b"RCPT TO:<carol@example.org>\r\n"), "nothing is sent before somebody wants it"
    hop.said = b""
    hop.hear("250 ok\r\n250 ok\r\n550 5.1.1 no\r\n")
    assert hop.said == b"BDAT 4 LAST\r\n.x\r\n"
    hop.hear("250 2.0.0 taken\r\n")
    assert [reply.code for reply in hop.results[0].replies] == [250, 550]
    hop.hear("250 ok\r\n250 ok\r\n")
    assert hop.said.endswith(b"BDAT 0 LAST\r\n")


def test_message_for_nobody_is_no_chunk():
    hop = Hop([outgoing(), outgoing()]).hear("220 x\r\n").hear(CHUNKING).hear("250 ok\r\n550 5.1.1 no\r\n")
    assert b"BDAT" not in hop.said and b"DATA" not in hop.said
    assert b"RSET\r\nMAIL FROM" in hop.said
    one_by_one = Hop([outgoing()]).hear("220 x\r\n").hear("250-x\r\n250 CHUNKING\r\n").hear("250 ok\r\n").hear("450 4.2.0 later\r\n")
    assert one_by_one.results[0].replies[0].code == 450 and b"BDAT" not in one_by_one.said


def test_chunks_can_be_switched_off():
    hop = Hop([outgoing()], chunking=False).hear("220 x\r\n").hear(CHUNKING)
    assert hop.said.endswith(b"DATA\r\n")


def test_large_chunk_with_a_bare_line_feed_is_cut_off_before_it_is_whole():
    body = b"x" * 100_000 + b"\n"
    hop = Hop([outgoing(body=body)]).hear("220 x\r\n").hear(CHUNKING).hear("250 ok\r\n250 ok\r\n")
    assert hop.closed == Close(abort=True)
    assert len(hop.said.partition(b"LAST\r\n")[2]) < len(body)
    assert hop.ended is not None and hop.ended.result.replies[0].enhanced == "5.6.0"


def test_large_message_goes_in_one_chunk():
    body = b".line\r\n" * 50_000
    hop = Hop([outgoing(body=body)]).hear("220 x\r\n").hear(CHUNKING).hear("250 ok\r\n250 ok\r\n")
    assert hop.said.endswith(b"BDAT %d LAST\r\n%b" % (len(body), body))
    hop.hear("250 ok\r\n")
    assert hop.results[0].replies[0].code == 250


def test_reply_before_the_chunk_was_sent_is_not_believed():
    hop = Hop([outgoing()]).hear("220 x\r\n").hear(CHUNKING).hear("250 ok\r\n250 ok\r\n250 taken already\r\n")
    assert isinstance(hop.ended.error, RemoteProtocolError)
    assert b"BDAT" not in hop.said and not hop.ended.result.replies[0].positive


def test_lmtp_answers_a_chunk_for_each_recipient():
    hop = Hop([outgoing("bob@example.org", "carol@example.org")], lmtp=True).hear("220 x\r\n").hear(CHUNKING)
    hop.hear("250 ok\r\n250 ok\r\n250 ok\r\n").hear("250 ok\r\n452 4.2.2 full\r\n")
    assert [reply.code for reply in hop.results[0].replies] == [250, 452]


@pytest.mark.parametrize("hello", [HELLO, CHUNKING, "250 x\r\n"], ids=["pipelined", "chunking", "one by one"])
def test_message_that_only_asks_sends_nothing_and_gives_the_reply_of_each(hello):
    hop = Hop([outgoing("bob@example.org", "carol@example.org", body=b"", sender=None, only_asks=True), outgoing()])
    hop.hear("220 x\r\n").hear(hello)
    for reply in ("250 ok\r\n", "250 2.1.5 here\r\n", "550 5.1.1 nobody\r\n"):
        hop.hear(reply)
    (result,) = hop.results
    assert result.replies == (Reply(250, "2.1.5", "here"), Reply(550, "5.1.1", "nobody")) and not result.local
    assert b"DATA" not in hop.said.partition(b"RSET")[0] and b"BDAT" not in hop.said
    assert b"RSET\r\n" in hop.said, "the transaction is given up before the next"


@pytest.mark.parametrize("refusal", ["550 5.1.8 sender has no such domain", "550 go away", "501 5.1.7 no null sender"])
def test_attack_next_hop_that_takes_nothing_from_us_says_that_nobody_exists(refusal):
    """What it says to MAIL is about us: mail would bounce for people who are there."""
    hop = Hop([outgoing("bob@example.org", "carol@example.org", body=b"", sender=None, only_asks=True)])
    hop.hear("220 x\r\n").hear(HELLO).hear(f"{refusal}\r\n503 first MAIL\r\n503 first MAIL\r\n")
    assert [reply.code for reply in hop.results[0].replies] == [451, 451]


def to_dsn(*to: Recipient, offer: str = "250-DSN\r\n", **more: Any) -> Hop:
    message = OutgoingMessage(Address.parse("a@b.example"), to, Segments.of(b"Subject: x\r\n\r\n"), **more)
    return Hop([message]).hear("220 x\r\n").hear(HELLO.replace("250 ", offer + "250 "))


def test_what_the_sender_asks_to_be_told_is_passed_on():
    bob = Recipient(Address.parse("bob@example.org"), "SUCCESS,DELAY", "rfc822;robert+2Bx@example.net")
    carol = Recipient(Address.parse("carol@example.org"))
    hop = to_dsn(bob, carol, ret="FULL", envid="QQ+3D1")
    assert b"MAIL FROM:<a@b.example> SIZE=14 RET=FULL ENVID=QQ+3D1\r\n" in hop.said
    assert b"RCPT TO:<bob@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;robert+2Bx@example.net\r\n" in hop.said
    assert b"RCPT TO:<carol@example.org>\r\n" in hop.said
    hop.hear("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n").hear("250 ok\r\n")
    assert hop.results[0].dsn


def test_next_hop_without_dsn_is_told_nothing_of_it_and_the_caller_knows():
    hop = to_dsn(Recipient(Address.parse("bob@example.org"), "SUCCESS", "rfc822;x@y.example"), offer="", ret="FULL", envid="1")
    assert b"MAIL FROM:<a@b.example> SIZE=14\r\nRCPT TO:<bob@example.org>\r\nDATA" in hop.said
    hop.hear("250 ok\r\n250 ok\r\n354 go\r\n").hear("250 ok\r\n")
    assert not hop.results[0].dsn


@pytest.mark.parametrize("utf8", [True, False])
def test_original_recipient_that_is_not_ascii_travels_under_smtputf8_only(utf8):
    bob = Recipient(Address.parse("bob@example.org"), "", "utf-8;jürgen@example.org")
    hop = to_dsn(bob, offer="250-DSN\r\n250-SMTPUTF8\r\n", smtputf8=utf8)
    assert ("ORCPT=utf-8;jürgen@example.org".encode() in hop.said) is utf8


def test_address_with_a_line_end_is_never_sent():
    evil = OutgoingMessage(None, (Recipient(Address("a", "b\r\nRSET")),), Segments.of(b"x\r\n"))
    hop = Hop([evil]).hear("220 x\r\n").hear(HELLO)
    assert b"RSET" not in hop.said
    assert hop.results[0].local


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["220 x\r\n", HELLO, "250 ok\r\n", "354 go\r\n", "550 no\r\n", "421 x\r\n", "250-a\r\n", "\r\n"]), max_size=14),
    st.sampled_from(["none", "opportunistic", "required"]),
    st.binary(max_size=30),
)  # fmt: skip
def test_any_replies_in_any_pieces_end_in_the_same_way(texts, mode, noise):
    octets = "".join(texts).encode() + noise

    def run(pieces):
        hop = Hop([outgoing(), outgoing()], tls=mode)
        for piece in pieces:
            if hop.closed is None and hop.tls is None:
                hop.hear(piece)
        hop.lose()
        assert hop.ended is not None
        done = [[r.code for r in result.replies] for result in hop.results]
        return done, len(hop.queue)

    # Whatever comes: no exception, one end, and one octet at a time nothing more is believed than at once.
    done, left = run([octets])
    done_slowly, left_slowly = run(octet_by_octet(octets))
    assert len(done_slowly) >= len(done) and left_slowly <= left


@pytest.mark.parametrize("chunking", [True, False])
def test_our_client_and_our_server_understand_each_other(chunking):
    server = Driver(ServerSettings("mx.example", chunking=chunking))
    hop = Hop([outgoing(body=b".\r\n..\r\nx\r\n", eight_bit=True), outgoing(body=b"y\r\n" * 50_000)])
    for _ in range(20):
        heard, server.said = server.said, b""
        if heard:
            hop.hear(heard)
        said, hop.said = hop.said, b""
        if said:
            server.feed(said)
    assert server.messages == [b".\r\n..\r\nx\r\n", b"y\r\n" * 50_000]
    assert [r.replies[0].code for r in hop.results] == [250, 250]
    assert server.envelopes[0].body == "8BITMIME"
    assert hop.ended == Ended(None)


def test_local_errors_are_local():
    from mailsec.wire.smtp.data import stuffed, stuffed_whole

    for bad in (b"a\nb", b"a\rb", b"a\r", b"\r\r\n", b"a\0"):
        with pytest.raises(LocalProtocolError):
            stuffed_whole(bad)
        with pytest.raises(LocalProtocolError):
            b"".join(stuffed([bad[i : i + 1] for i in range(len(bad))]))


def test_one_large_piece_leaves_in_blocks():
    from mailsec.model.octets import BLOCK
    from mailsec.wire.smtp.data import stuffed, stuffed_whole

    body = b".line\r\n" * (BLOCK // 2)
    pieces = list(stuffed([body]))
    assert b"".join(pieces) == stuffed_whole(body)
    assert max(map(len, pieces)) <= 2 * BLOCK
