"""The player of dialogs, and the contracts of services, sources, engines and authenticators: what they catch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from mailsec.errors import Unavailable
from mailsec.interfaces import Credentials, Evidence, EvidenceRequest
from mailsec.keys.software import SoftwareBackend
from mailsec.model.requests import Ask, Body, Close, Deadline, EndOfBody, Send, StartTls, Stream
from mailsec.model.session import Identity
from mailsec.testing.dialog import Player, play
from mailsec.testing.runtime import EPOCH, FakeRuntime
from mailsec.testing.service_contracts import check_authenticator, check_crypto_backend, check_revocation_source, check_tcp_service

FIRST = (Deadline(5.0),)


class Core:
    """Says what `script` gives for each line."""

    def __init__(self, script=lambda line: [Ask(line)], first=FIRST) -> None:
        self.script, self.first, self.rest = script, first, b""

    def connection_made(self):
        return self.first

    def receive_data(self, data):
        self.rest += data
        return self._next()

    def _next(self):
        line, end, rest = self.rest.partition(b"\n")
        if not end:
            return [Close()] if len(line) > 1000 else []
        self.rest = rest
        requests = list(self.script(line.rstrip(b"\r")))
        return requests if requests and isinstance(requests[-1], (Ask, Close, StartTls, Stream)) else [*requests, *self._next()]

    def answer(self, value):
        return [Send(f"{value}\r\n".encode()), *self._next()]

    def streamed(self):
        return [Send(b".\r\n"), *self._next()]

    def tls_started(self, info):
        return [Send(info.version.encode() + b"\r\n")]

    def deadline_passed(self):
        return [Close()]

    def connection_lost(self, reason):
        return []


class Talk:
    def __init__(self) -> None:
        self.heard = b""

    def ask(self, question):
        async def later():
            if question == b"fail":
                raise Unavailable("out")
            return question.decode("latin-1")

        return question.decode("latin-1") if question.startswith(b"now") else later()

    def body(self, chunk):
        self.heard += bytes(chunk)

    def end_of_body(self):
        self.heard += b"."

    def closed(self):
        self.heard += b"!"


def script(line):
    return {
        b"tls": [StartTls()],
        b"body": [Body(b"abc"), EndOfBody(), Send(b"taken\r\n")],
        b"stream": [Stream([b"one ", memoryview(b"two")])],
        b"quit": [Send(b"bye\r\n"), Close()],
        b"behind": [Close(), Send(b"x")],
        b"none": ["nothing"],
    }.get(line, [Ask(line)])


def played(transcript: str, core=script) -> None:
    play(transcript, lambda: (Core(core), Talk()), FakeRuntime().run)


def test_a_transcript_is_played_with_everything_that_a_core_may_ask_for():
    played("# a comment\nC: now\nS: now\nC: later\nS: la…\nC: body\nS: taken")
    played("C: stream\nR: one two.\\r\\n\nC: tls\nT:\nS: TLSv1.3\nC: quit\nS: bye\nX:")
    played("C: hello\nS: hello\nD:\nX:")
    played("B: a\\nb\\n\nS: a\nS: b")
    played("C: fail\nS: Reply(code=451, …")


@pytest.mark.parametrize(
    ("transcript", "complaint"),
    [
        ("C: a\nS: b", "the core says 'a', and not 'b'"),
        ("C: a", "the core says more"),
        ("C: a\nS: a\nS: a", "and not 'a'"),
        ("C: a\nR: b\\r\\n", "and not"),
        ("C: a\nS: a\nX:", "does not close"),
        ("T:", "has not asked for TLS"),
        ("C: tls\nC: x", "before the handshake"),
        ("C: behind", "something stands behind Close"),
        ("C: none", "a str is no request"),
        ("?: x", "no line of a transcript"),
    ],
)
def test_a_core_that_does_something_else_is_caught(transcript, complaint):
    with pytest.raises(AssertionError) as caught:
        played(transcript)
    assert complaint in str(caught.value)


def test_a_player_shows_what_was_asked_and_releases_the_conversation():
    talk = Talk()
    player = Player(Core(script), talk, FakeRuntime().run)
    player.feed(b"body\nnow\n")
    player.lose()
    assert player.asked == [b"now"] and player.deadline == 5.0 and talk.heard == b"abc.!"


def service(open_) -> SimpleNamespace:
    return SimpleNamespace(name="x", open=open_)


def test_a_service_that_does_what_it_must_passes():
    check_tcp_service(service(lambda session: (Core(), Talk())), FakeRuntime().run)


SHARED = Core()


@pytest.mark.parametrize(
    ("open_", "complaint"),
    [
        (lambda session: (Core(first=()), Talk()), "sets a Deadline"),
        (lambda session: (SHARED, Talk()), "a core of its own"),
        (lambda session: (Core(lambda line: [Send(b"x" * 10_000)]), Talk()), "amplifier"),
        (lambda session: (Core(lambda line: ["x"]), Talk()), "no request"),
    ],
)
def test_a_service_that_does_not_is_caught(open_, complaint):
    with pytest.raises(AssertionError, match=complaint):
        check_tcp_service(service(open_), FakeRuntime().run)


KNOWN, UNKNOWN = EvidenceRequest("crl", b"known"), EvidenceRequest("crl", b"unknown")


def source(answer) -> SimpleNamespace:
    async def evidence(request):
        return answer(request)

    return SimpleNamespace(name="x", evidence=evidence)


def brought(request):
    return [Evidence("crl", b"octets", "here", EPOCH)] if request.certificate == b"known" and request.kind == "crl" else []


def test_the_contract_of_sources():
    check_revocation_source(source(brought), FakeRuntime().run, KNOWN, UNKNOWN)
    for wrong in (lambda request: [], lambda request: [Evidence("crl", b"octets", "here", EPOCH)], lambda request: ["octets"]):
        with pytest.raises(AssertionError):
            check_revocation_source(source(wrong), FakeRuntime().run, KNOWN, UNKNOWN)


def test_the_contract_of_engines():
    check_crypto_backend(SoftwareBackend(), FakeRuntime().run)

    class Yes(SoftwareBackend):
        def verify(self, *arguments):
            return True

    class No(SoftwareBackend):
        def verify(self, *arguments):
            return False

    for wrong in (Yes, No):
        with pytest.raises(AssertionError):
            check_crypto_backend(wrong(), FakeRuntime().run)


def test_the_contract_of_authenticators():
    def authenticator(answer) -> SimpleNamespace:
        async def authenticate(credentials, session):
            return answer(credentials)

        return SimpleNamespace(name="x", mechanisms=frozenset({"PLAIN"}), authenticate=authenticate)

    alice = Identity("alice", ("alice@example.org",))
    right, wrong = Credentials("PLAIN", "alice", b"secret"), Credentials("PLAIN", "alice", b"wrong")
    run = FakeRuntime().run
    check_authenticator(
        authenticator(lambda one: alice if (one.mechanism, one.secret) == ("PLAIN", b"secret") else None), run, right, wrong
    )
    for answer in (lambda one: alice, lambda one: None, lambda one: alice if one.secret == b"secret" else None):
        with pytest.raises(AssertionError):
            check_authenticator(authenticator(answer), run, right, wrong)
