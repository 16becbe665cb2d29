"""Who of a token host's threads reads, and who does operations: the reader itself while they are quick, and another one reads where it is held up."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from mailsec.keys.frames import Verb, frame, read_json
from mailsec.testing.authority import Authority
from mailsec.tokens import host
from mailsec.tokens.module import Module
from tests.peers.gateway import until
from tests.peers.softhsm import Shim
from tests.tokens.test_host import DATA, Served, answers


@pytest.fixture
def served(shimmed: Module, tmp_path) -> Iterator[Served]:
    """A host whose operations have been quick lately."""
    shimmed.login("HSM 1", b"1234")
    made = Served(shimmed, tmp_path)
    yield made
    made.close()


@pytest.fixture
def alone(shimmed: Module, tmp_path) -> Iterator[Served]:
    """A host with one thread for operations."""
    shimmed.login("HSM 1", b"1234")
    made = Served(shimmed, tmp_path, threads=1)
    yield made
    made.close()


@pytest.fixture
def key(shimmed: Module):
    shimmed.login("HSM 1", b"1234")
    made = shimmed.generate_key("HSM 1", "p256", "quick")
    shimmed.import_certificate("HSM 1", Authority().certify(made.public_key, "dave@example.org"), "quick")
    return made


def question(number: int, key, address: str = "dave@example.org") -> bytes:
    return frame(Verb.SIGN, number, b"HSM 1", key.id, b"CKM_ECDSA", address.encode(), DATA)


def grow_quick(served: Served, key) -> None:
    """Operations have been quick lately: the reader does them itself."""
    for _ in range(60):
        served.remote.sign("HSM 1", key.id, "CKM_ECDSA", DATA, "dave@example.org")


def test_every_question_of_many_at_once_is_answered_once(key, served: Served):
    grow_quick(served, key)
    connections = [served.connect() for _ in range(3)]
    for start, connection in enumerate(connections):
        connection.sendall(b"".join(question(1000 * start + number, key) for number in range(1, 201)))
        connection.sendall(frame(Verb.PING, 1000 * start + 999))
    for start, connection in enumerate(connections):
        numbers = []
        for one in answers(connection):
            if one.number:
                numbers.append(one.number - 1000 * start)
                assert one.number % 1000 == 999 or (one.verb == Verb.RESULT and len(one.fields[0]) == 64)
            if len(numbers) == 201:
                break
        assert sorted(numbers) == [*range(1, 201), 999]
        connection.close()


def test_a_reader_that_is_held_up_in_the_library_is_stood_in_for(key, served: Served, shim: Shim):
    """Otherwise a library that hangs would silence the host, and keep everybody from saying what hangs."""
    grow_quick(served, key)
    hanging, other = served.connect(), served.connect()
    shim.say("C_SignInit hang")
    hanging.sendall(question(1, key))
    until(lambda: served.server.oldest() > 0.1, what="the operation that hangs")
    for number in (2, 3):
        other.sendall(frame(Verb.PING, number))
        said = next(read_json(one) for one in answers(other) if one.number == number)
        assert said["oldest"] > 0.1
    shim.say()
    # And the others go on: who is held up keeps nobody's question to himself.
    other.sendall(b"".join(question(number, key) for number in range(10, 30)))
    done = []
    for one in answers(other):
        done += [one.number] if one.number else []
        if len(done) == 20:
            break
    assert sorted(done) == list(range(10, 30))
    hanging.close()
    other.close()


def test_no_result_leaves_before_the_line_about_it_is_written_and_several_lines_are_written_at_once(key, served: Served):
    """A host that is killed in between has given nothing away that its log does not tell of."""
    grow_quick(served, key)
    until(lambda: not served.held, what="a quiet host")
    written, flushes = len(served.written), served.flushes
    before = []

    def flush() -> None:
        before.append(len(received()))
        Served.flush(served)

    served.server._flush = flush
    with served.connect() as connection:

        def received() -> bytes:
            try:
                return connection.recv(262_144, socket.MSG_PEEK)
            except BlockingIOError:
                return b""

        connection.setblocking(False)
        connection.sendall(b"".join(question(number, key) for number in range(1, 41)))
        size = len(frame(Verb.RESULT, 1, bytes(64)))
        until(lambda: len(received()) >= 40 * size, what="40 answers")
    assert len(served.written) == written + 40 and all(one[0] == "key used" for one in served.written[written:])
    # What had been received when lines were written was known by then.
    assert before[0] == 0 and all(octets < 40 * size for octets in before)
    assert served.flushes - flushes < 40


def test_what_was_done_before_the_library_hung_is_answered(key, alone: Served, monkeypatch):
    """By the reader who stands in, where no other thread does anything."""
    served = alone
    grow_quick(served, key)
    # However slow this machine is: all three are done one after the other, and would be answered together.
    monkeypatch.setattr(host, "_READ_SECONDS", 20.0)
    perform, hanging = served.desk.perform, threading.Event()

    def hangs_at_the_third(verb: int, fields):
        if fields[4] == b"3" * 32:
            hanging.wait(20)
        return perform(verb, fields)

    monkeypatch.setattr(served.desk, "perform", hangs_at_the_third)
    with served.connect() as connection:
        fields = (b"HSM 1", key.id, b"CKM_ECDSA", b"dave@example.org")
        connection.sendall(b"".join(frame(Verb.SIGN, number, *fields, str(number).encode() * 32) for number in (1, 2, 3)))
        told = (one.number for one in answers(connection) if one.number)
        assert sorted((next(told), next(told))) == [1, 2]
        hanging.set()
        assert next(told) == 3
