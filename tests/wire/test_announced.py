"""XCLIENT and XFORWARD: who may speak for others, and what becomes of the session."""

from __future__ import annotations

import pytest

from mailsec.errors import Reply
from mailsec.model.session import Identity, TlsInfo
from mailsec.wire.smtp import questions
from mailsec.wire.smtp.offers import ServerSettings

from .play import Driver

BY_PEER = ServerSettings("gw.example.org", xclient=True)


class Front(Driver):
    """A server in front of us, where `trusted`."""

    def __init__(self, settings: ServerSettings = BY_PEER, *, trusted: bool = True, replies: dict | None = None) -> None:
        from mailsec.wire.smtp.server import SmtpServer

        super().__init__(settings, replies)
        self.core = SmtpServer(settings)
        if trusted:
            self.core.trust_peer()
        self.said = b""
        self._carry_out(self.core.connection_made())

    def answer(self, question: object) -> object:
        if isinstance(question, questions.Announced) and question.login:
            self.asked.append(question)
            return Identity(question.login, (question.login,), "PEER") if question.login != "nobody" else Reply(550, "5.7.1", "nobody")
        return super().answer(question)

    def say(self, *lines: bytes) -> bytes:
        self.said = b""
        for line in lines:
            self.feed(line + b"\r\n")
        return self.said

    def announced(self) -> questions.Announced:
        return [one for one in self.asked if isinstance(one, questions.Announced)][-1]


def test_client_is_who_the_server_in_front_says():
    front = Front()
    assert (
        b"250-XCLIENT NAME ADDR PORT PROTO HELO DESTADDR DESTPORT\r\n250 XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n"
        in front.say(b"EHLO mx")
    )
    said = front.say(b"XCLIENT NAME=client.example ADDR=IPV6:2001:db8::7 PORT=4711 HELO=evil+3E PROTO=ESMTP")
    assert said == b"220 gw.example.org ESMTP\r\n"
    assert front.announced() == questions.Announced("2001:db8::7", 4711, "evil?", "")
    assert front.say(b"MAIL FROM:<a@b.example>").startswith(b"503"), "the session begins anew"
    assert front.say(b"EHLO client", b"MAIL FROM:<a@b.example>").endswith(b"250 2.1.0 ok\r\n")
    assert front.say(b"XCLIENT ADDR=192.0.2.1").startswith(b"503"), "not within a transaction"


@pytest.mark.parametrize("written", [b"192.0.2.1", b"IPV6:::ffff:192.0.2.1", b"::ffff:c000:201"])
def test_attack_all_of_ipv4_as_one_client_that_one_guesser_locks_out(written):
    front = Front()
    front.say(b"EHLO mx", b"XCLIENT ADDR=" + written)
    assert front.announced().address == "192.0.2.1"


def test_what_is_not_known_is_nothing():
    front = Front()
    front.say(b"EHLO mx")
    assert front.say(b"XCLIENT NAME=[UNAVAILABLE] ADDR=[TEMPUNAVAIL] PORT=[UNAVAILABLE] HELO=[UNAVAILABLE]").startswith(b"220")
    assert front.announced() == questions.Announced("", 0, "", "")


@pytest.mark.parametrize("verb", [b"XCLIENT", b"XFORWARD"])
@pytest.mark.parametrize("settings", [BY_PEER, ServerSettings("gw.example.org", xclient=True, xclient_certificates=True, tls="starttls")])
def test_attack_xclient_from_a_stranger(verb, settings):
    stranger = Front(settings, trusted=False)
    assert b"XCLIENT" not in stranger.say(b"EHLO x") and b"XFORWARD" not in stranger.said
    assert stranger.say(verb + b" ADDR=127.0.0.1 LOGIN=alice").startswith(b"550 5.7.0")
    assert stranger.asked == [questions.Connected()] * 2
    switched_off = Front(ServerSettings("gw.example.org"))
    switched_off.say(b"EHLO x")
    assert switched_off.say(verb + b" ADDR=127.0.0.1").startswith(b"500")


@pytest.mark.parametrize("verified", [True, False])
def test_certificate_that_was_accepted_may_speak_for_others_and_another_may_not(verified):
    front = Front(
        ServerSettings("gw.example.org", xclient=True, xclient_certificates=True, tls="starttls", authenticate=True), trusted=False
    )
    front.say(b"EHLO mx", b"STARTTLS")
    who = Identity("mx.example.org", ("mx@example.org",), "certificate")
    front._carry_out(front.core.tls_started(TlsInfo("TLSv1.3", "x", 256, peer_verified=verified, peer_identity=who if verified else None)))
    assert (b"XCLIENT" in front.say(b"EHLO mx")) is verified
    said = front.say(b"XCLIENT ADDR=192.0.2.1")
    if verified:
        assert said.startswith(b"220 ")
        # Attack: whoever comes by way of it is not the holder of its certificate.
        assert front.core.client.identity is None
        assert front.say(b"EHLO x", b"MAIL FROM:<a@b.example>").endswith(b"530 5.7.0 authentication required\r\n")
        assert b"EXTERNAL" not in front.say(b"EHLO x") and front.say(b"AUTH EXTERNAL =").startswith(b"504")
    else:
        assert said.startswith(b"550")


def test_login_is_believed_only_where_a_listener_says_so():
    without = Front()
    without.say(b"EHLO mx")
    assert without.say(b"XCLIENT ADDR=192.0.2.1 LOGIN=alice").startswith(b"501")
    front = Front(ServerSettings("gw.example.org", xclient=True, xclient_login=True, authenticate=True, tls="starttls"))
    assert b"DESTPORT LOGIN\r\n" in front.say(b"EHLO mx")
    front.say(b"XCLIENT ADDR=192.0.2.1 LOGIN=alice")
    assert front.core.client.identity.name == "alice"
    assert front.say(b"EHLO x", b"MAIL FROM:<a@b.example>").endswith(b"250 2.1.0 ok\r\n")
    front.say(b"RSET")
    front.say(b"XCLIENT ADDR=192.0.2.2 LOGIN=[UNAVAILABLE]")
    assert front.core.client.identity is None, "the next client is somebody else"
    front.say(b"EHLO mx")
    assert front.say(b"XCLIENT ADDR=192.0.2.2 LOGIN=nobody").startswith(b"550") and front.closed


@pytest.mark.parametrize(
    "argument",
    [b"", b"ADDR", b"ADDR=", b"ADDR=x", b"ADDR=192.0.2.1 ADDR=192.0.2.2", b"PORT=65536", b"PORT=-1", b"PORT=x", b"EVIL=1", b"HELO=a+0D+0Ab",
     b"HELO=+FF", b"ADDR=192.0.2.1+0A", b"NAME=" + b"x" * 500, b"ADDR=IPV6:192.0.2.1x"],
)  # fmt: skip
def test_attribute_that_cannot_be_read_is_refused_whole(argument):
    front = Front()
    front.say(b"EHLO mx")
    assert front.say(b"XCLIENT " + argument).startswith(b"501 5.5.4")
    assert not any(isinstance(one, questions.Announced) for one in front.asked)


def test_forwarded_is_told_and_changes_nothing():
    front = Front()
    front.say(b"EHLO mx")
    before = front.core.client
    assert front.say(b"XFORWARD NAME=c ADDR=192.0.2.1 PORT=[UNAVAILABLE] PROTO=SMTP HELO=h IDENT=4abc SOURCE=REMOTE") == b"250 2.0.0 ok\r\n"
    assert front.asked[-1] == questions.Forwarded("192.0.2.1")
    # Postfix says the rest in a second command.
    front.say(b"XFORWARD PROTO=ESMTP HELO=h IDENT=1 SOURCE=LOCAL")
    assert front.asked[-1] == questions.Forwarded(None)
    assert front.core.client is before
