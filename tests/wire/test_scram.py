"""SCRAM-SHA-256, the server's side: the example of RFC 7677, and what a client must not get through."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import ProtocolError, Reply
from mailsec.interfaces import ScramVerifier
from mailsec.model.session import Identity
from mailsec.wire.scram import Exchange, read_first
from mailsec.wire.smtp import questions
from mailsec.wire.smtp.offers import ServerSettings

from .play import TLS, Driver

USER = Identity("user", ("user@example.org",))
SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
NONCE = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"


def keys(password: bytes, salt: bytes = SALT) -> tuple[bytes, bytes]:
    salted = hashlib.pbkdf2_hmac("sha256", password, salt, 4096)
    return hmac.digest(salted, b"Client Key", "sha256"), hmac.digest(salted, b"Server Key", "sha256")


def verifier(password: bytes = b"pencil", identity: Identity | None = USER) -> ScramVerifier:
    client, server = keys(password)
    return ScramVerifier(SALT, 4096, hashlib.sha256(client).digest(), server, identity)


FIRST = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"


def last(challenge: bytes, *, first: bytes = FIRST, header: bytes = b"n,,", password: bytes = b"pencil") -> bytes:
    """What a client says that saw `header` and knows `password`."""
    nonce = challenge.split(b",")[0]
    without = b"c=" + base64.b64encode(header) + b"," + nonce
    client, _ = keys(password)
    bare = first.split(b",", 2)[2]
    signature = hmac.digest(hashlib.sha256(client).digest(), bare + b"," + challenge + b"," + without, "sha256")
    return without + b",p=" + base64.b64encode(bytes(a ^ b for a, b in zip(client, signature, strict=True)))


def test_example_of_rfc_7677():
    exchange = Exchange(read_first(FIRST), verifier(), NONCE)
    assert exchange.challenge == b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    proof = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    assert last(exchange.challenge) == proof
    assert exchange.finish(proof) == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_wrong_password_is_no_proof():
    exchange = Exchange(read_first(FIRST), verifier(), NONCE)
    assert exchange.finish(last(exchange.challenge, password=b"pen")) is None


def test_verifier_of_nobody_takes_no_proof_not_even_the_right_one():
    exchange = Exchange(read_first(FIRST), verifier(identity=None), NONCE)
    assert exchange.finish(last(exchange.challenge)) is None


def test_attack_scram_downgrade_the_client_saw_channel_binding_that_somebody_took_away():
    exchange = Exchange(read_first(FIRST), verifier(), NONCE)
    assert exchange.finish(last(exchange.challenge, header=b"y,,")) is None
    with pytest.raises(ProtocolError):
        read_first(b"p=tls-unique,,n=user,r=abc")


BOUND = FIRST.replace(b"n,,", b"p=tls-exporter,,", 1)


def test_login_that_is_bound_to_the_tls_session():
    exchange = Exchange(read_first(BOUND, plus=True, offered=True), verifier(), NONCE, b"e" * 32)
    assert exchange.finish(last(exchange.challenge, header=b"p=tls-exporter,," + b"e" * 32)).startswith(b"v=")


def test_attack_somebody_in_the_middle_passes_a_bound_login_on():
    """They speak TLS with both ends, so the ends do not export the same."""
    exchange = Exchange(read_first(BOUND, plus=True, offered=True), verifier(), NONCE, b"e" * 32)
    assert exchange.finish(last(exchange.challenge, header=b"p=tls-exporter,," + b"x" * 32)) is None


def test_attack_scram_downgrade_somebody_took_plus_out_of_what_we_offered():
    with pytest.raises(ProtocolError):
        read_first(FIRST.replace(b"n,,", b"y,,", 1), offered=True)
    assert read_first(FIRST.replace(b"n,,", b"y,,", 1), offered=False).login == "user"


@pytest.mark.parametrize("first", [FIRST, FIRST.replace(b"n", b"y", 1), BOUND.replace(b"tls-exporter", b"tls-unique")])
def test_plus_binds_or_fails(first):
    with pytest.raises(ProtocolError):
        read_first(first, plus=True, offered=True)


def test_attack_proof_of_another_exchange():
    old = last(Exchange(read_first(FIRST), verifier(), "one").challenge)
    assert Exchange(read_first(FIRST), verifier(), "two").finish(old) is None


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"n,,",
        b"n,,n=,r=x",
        b"n,,n=user",
        b"n,,m=1,n=user,r=x",
        b"n,,n=us=er,r=x",
        b"n,,n=user,r=",
        b"\xff",
        b"x,,n=user,r=x",
        b"n,,n=\0,r=x",
    ],
)
def test_what_is_no_first_message_is_refused(message):
    with pytest.raises(ProtocolError):
        read_first(message)


def test_names_with_commas_and_equals_signs():
    assert read_first(b"n,a=x=2Cy,n=a=2Cb=3Dc,r=1,ext=2").login == "a,b=c"
    assert read_first(b"n,a=x=2Cy,n=a=2Cb=3Dc,r=1").authorisation == "x,y"


@given(st.binary(max_size=60))
def test_any_octets_end_in_a_value_or_an_error(octets):
    try:
        read_first(octets)
    except ProtocolError:
        pass
    try:
        assert Exchange(read_first(FIRST), verifier(), NONCE).finish(octets) is None
    except ProtocolError:
        pass


# -- in AUTH ----------------------------------------------------------------------------------------------------------------------


def encoded(message: bytes) -> bytes:
    return base64.b64encode(message) or b"="


class Session(Driver):
    """A client under TLS that has said EHLO."""

    found: ScramVerifier | None = None

    def __init__(self, mechanisms: tuple[str, ...] = ("SCRAM-SHA-256", "PLAIN", "LOGIN"), found: ScramVerifier | None = None) -> None:
        self.found = found or verifier()
        super().__init__(ServerSettings("gw.example.org", tls="starttls", authenticate=True, mechanisms=mechanisms))
        self.feed(b"EHLO x\r\nSTARTTLS\r\n")
        self.handshake()
        self.feed(b"EHLO x\r\n")

    def answer(self, question: object) -> object:
        if isinstance(question, questions.FindVerifier):
            self.asked.append(question)
            return questions.Verifying(self.found, "ours") if self.found else None
        if isinstance(question, questions.Authenticate) and question.credentials.mechanism == "SCRAM-SHA-256":
            self.asked.append(question)
            return question.proven
        return super().answer(question)

    def say(self, line: bytes) -> bytes:
        self.said = b""
        self.feed(line + b"\r\n")
        return self.said

    def challenge(self, line: bytes) -> bytes:
        said = self.say(line)
        assert said.startswith(b"334 "), said
        return base64.b64decode(said[4:])


@pytest.mark.parametrize("initial", [True, False])
def test_scram_login(initial):
    client = Session()
    assert b"250-AUTH SCRAM-SHA-256 PLAIN LOGIN\r\n" in client.said
    if initial:
        challenge = client.challenge(b"AUTH SCRAM-SHA-256 " + encoded(FIRST))
    else:
        assert client.challenge(b"AUTH SCRAM-SHA-256") == b""
        challenge = client.challenge(encoded(FIRST))
    assert client.challenge(encoded(last(challenge))).startswith(b"v=")
    assert client.say(b"").startswith(b"235 ")
    assert client.core.client.identity == USER
    assert client.say(b"MAIL FROM:<a@b.example>").startswith(b"250")


def test_scram_with_a_wrong_password_is_535_and_counts():
    client = Session()
    for _ in range(3):
        challenge = client.challenge(b"AUTH SCRAM-SHA-256 " + encoded(FIRST))
        assert client.say(encoded(last(challenge, password=b"x"))).startswith(b"535 5.7.8")
        assert client.asked[-1].proven is None
    assert client.closed


def test_attack_exchange_begun_in_reserve_confirms_no_password_while_the_account_has_to_wait():
    """RFC 5802 §5: our signature says that the proof was right, so who counts guesses is asked before."""

    class Waiting(Session):
        def answer(self, question: object) -> object:
            return Reply(454, "4.7.0", "wait") if isinstance(question, questions.Authenticate) else super().answer(question)

    for password in (b"pencil", b"x"):
        client = Waiting()
        challenge = client.challenge(b"AUTH SCRAM-SHA-256 " + encoded(FIRST))
        assert client.say(encoded(last(challenge, password=password))) == b"454 4.7.0 wait\r\n"
        assert client.say(b"").startswith(b"500") and client.core.client.identity is None


def test_attack_who_skips_the_proof_is_nobody():
    client = Session()
    client.challenge(b"AUTH SCRAM-SHA-256 " + encoded(FIRST))
    assert client.say(b"").startswith(b"501")
    assert client.say(b"MAIL FROM:<a@b.example>").startswith(b"530")
    client.challenge(b"AUTH SCRAM-SHA-256 " + encoded(FIRST))
    assert client.say(b"*").startswith(b"501 5.7.0")
    assert client.core.client.identity is None


def test_verifier_that_cannot_be_had_is_a_temporary_failure():
    client = Session()
    client.found = None
    assert client.say(b"AUTH SCRAM-SHA-256 " + encoded(FIRST)).startswith(b"454 4.7.0")
    assert client.say(b"NOOP").startswith(b"250")


def test_scram_that_was_not_offered_is_not_taken():
    client = Session(("PLAIN", "LOGIN"))
    assert client.say(b"AUTH SCRAM-SHA-256 " + encoded(FIRST)).startswith(b"504")


@pytest.mark.parametrize("mine", [True, False])
def test_plus_is_offered_where_the_session_can_be_bound_and_checked_against_it(mine):
    client = Session()
    client.core.client = replace(client.core.client, tls=replace(TLS, exporter=b"e" * 32))
    assert b"250-AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN\r\n" in client.say(b"EHLO x")
    challenge = client.challenge(b"AUTH SCRAM-SHA-256-PLUS " + encoded(BOUND))
    said = client.say(encoded(last(challenge, header=b"p=tls-exporter,," + (b"e" if mine else b"x") * 32)))
    assert said.startswith(b"334 dj" if mine else b"535 ")
    if mine:
        assert client.say(b"").startswith(b"235 ")
    else:
        assert client.say(b"AUTH SCRAM-SHA-256 " + encoded(FIRST.replace(b"n,,", b"y,,", 1))).startswith(b"501")


@pytest.mark.parametrize("initial", [True, False])
def test_login_of_outlook(initial):
    client = Session()
    if initial:
        assert client.challenge(b"AUTH LOGIN " + encoded("jürgen".encode())) == b"Password:"
    else:
        assert client.challenge(b"AUTH LOGIN") == b"Username:"
        assert client.challenge(encoded("jürgen".encode())) == b"Password:"
    assert client.say(encoded(b"secret")).startswith(b"235 ")
    assert client.core.client.identity.name == "jürgen"


@pytest.mark.parametrize(("name", "password"), [(b"=", encoded(b"x")), (encoded(b"x"), b""), (b"!", b"")])
def test_login_with_nothing_or_nonsense_is_refused(name, password):
    client = Session()
    client.challenge(b"AUTH LOGIN")
    said = client.say(name)
    if said.startswith(b"334"):
        said = client.say(password)
    assert said.startswith(b"501 5.5.2")
    assert not any(isinstance(one, questions.Authenticate) for one in client.asked)


def test_attack_password_in_clear_is_taken_by_no_mechanism():
    client = Driver(ServerSettings("gw.example.org", tls="starttls", authenticate=True, mechanisms=("SCRAM-SHA-256", "PLAIN", "LOGIN")))
    client.feed(b"EHLO x\r\n")
    assert b"AUTH" not in client.said
    for line in (b"AUTH LOGIN", b"AUTH LOGIN eA==", b"AUTH PLAIN AGEAYg==", b"AUTH SCRAM-SHA-256 " + encoded(FIRST)):
        client.said = b""
        client.feed(line + b"\r\n")
        assert client.said.startswith(b"538 5.7.11")


def test_secrets_are_in_no_repr():
    assert "pencil" not in repr(verifier()) and repr(SALT) not in repr(verifier())
    assert "ours" not in repr(questions.Verifying(verifier(), "ours"))
