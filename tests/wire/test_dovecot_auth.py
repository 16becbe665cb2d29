"""The client of Dovecot's auth socket against scripted servers: what is a yes, and what is none."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailsec.errors import RemoteProtocolError, Unavailable
from mailsec.model.requests import Ask, Close, Send
from mailsec.wire.dovecot import Answered, AuthClient, Question

GREETING = b"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\nSPID\t12\nCUID\t1\nCOOKIE\tabc\nDONE\n"


class Played:
    def __init__(self, *heard: bytes, remote: str = "192.0.2.1") -> None:
        self.core = AuthClient(Question("alice", b"se\tcret", remote), 7)
        self.said = b""
        self.answers: list[Answered] = []
        self.closed = False
        self._do(self.core.connection_made())
        for octets in heard:
            self.hear(octets)

    def hear(self, octets: bytes) -> Played:
        self._do(self.core.receive_data(octets))
        return self

    def _do(self, requests) -> None:
        for request in requests:
            if isinstance(request, Send):
                self.said += request.data
            elif isinstance(request, Ask):
                self.answers.append(request.question)
                self._do(self.core.answer(None))
            elif isinstance(request, Close):
                self.closed = True


@pytest.mark.parametrize("cut", [1, 7, 10_000])
def test_right_password(cut):
    octets = GREETING + b"OK\t1\tuser=alice\tnologin\n"
    played = Played(*(octets[i : i + cut] for i in range(0, len(octets), cut)))
    assert played.said.startswith(b"VERSION\t1\t1\nCPID\t7\nAUTH\t1\tPLAIN\tservice=smtp\tsecured\trip=192.0.2.1\tresp=")
    assert base64.b64decode(played.said.split(b"resp=")[1]) == b"\0alice\0se\tcret"
    assert played.answers == [Answered("alice")] and played.closed


def test_wrong_password_is_nobody():
    assert Played(GREETING, b"FAIL\t1\tuser=alice\n").answers == [Answered(None)]


@pytest.mark.parametrize("word", [b"temp", b"code=temp_fail"])
def test_dovecot_that_cannot_say_is_no_no(word):
    (answer,) = Played(GREETING, b"FAIL\t1\tuser=alice\t" + word + b"\n").answers
    assert isinstance(answer.error, Unavailable)


@pytest.mark.parametrize(
    "octets",
    [b"OK\t1\tuser=alice\n", b"VERSION\t2\t0\n", GREETING + b"OK\t2\tuser=alice\n", GREETING + b"OK\t1\n", GREETING + b"OK\t1\tuser=\n",
     b"VERSION\t1\t1\nDONE\n", GREETING + GREETING, b"x" * 10_000, b"MECH\tX\n" * 300, b"FAIL\t1\n"],
)  # fmt: skip
def test_attack_socket_that_says_yes_to_nothing(octets):
    (answer,) = Played(octets).answers
    assert answer.user is None and isinstance(answer.error, (RemoteProtocolError, Unavailable))


def test_socket_that_is_silent_or_closed_is_no_answer():
    silent = Played(GREETING)
    silent._do(silent.core.deadline_passed())
    closed = Played(GREETING)
    closed._do(closed.core.connection_lost("gone"))
    for played in (silent, closed):
        (answer,) = played.answers
        assert isinstance(answer.error, Unavailable)
        played.hear(b"OK\t1\tuser=alice\n")
        assert len(played.answers) == 1


@given(st.lists(st.binary(max_size=30), max_size=5))
def test_any_octets_are_no_yes(pieces):
    played = Played(*pieces)
    assert all(answer.user is None for answer in played.answers)


def test_password_is_in_no_repr():
    assert "cret" not in repr(Question("alice", b"se\tcret"))
