"""The driver with cores of a few lines: order, back-pressure, faults of the layer above, faults of a core."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from mailsec.errors import LocalProtocolError, Reply, StorageFull
from mailsec.model.requests import Ask, Body, Close, Deadline, EndOfBody, Request, Send, Stream
from mailsec.net.driver import WireProtocol


class Core:
    """A core that is told what to return."""

    def __init__(self, on_data: Callable[[bytes], Iterable[Request]] | None = None) -> None:
        self.on_data = on_data or (lambda data: [Send(data)])
        self.fed: list[bytes] = []
        self.answers: list[Any] = []
        self.events: list[str] = []

    def connection_made(self) -> Iterable[Request]:
        return []

    def receive_data(self, data: bytes) -> Iterable[Request]:
        self.fed.append(data)
        return self.on_data(data)

    def answer(self, value: Any) -> Iterable[Request]:
        self.answers.append(value)
        return [Send(b"answered")]

    def streamed(self) -> Iterable[Request]:
        self.events.append("streamed")
        return [Send(b"after")]

    def tls_started(self, info: Any) -> Iterable[Request]:
        return []

    def deadline_passed(self) -> Iterable[Request]:
        self.events.append("deadline")
        return [Close()]

    def connection_lost(self, reason: str) -> Iterable[Request]:
        self.events.append("lost")
        return [Ask("last")]


class Talk:
    def __init__(self, answer: Any = None) -> None:
        self.value = answer
        self.asked: list[object] = []
        self.bodies: list[bytes] = []
        self.ended = 0
        self.closed_times = 0
        self.fault: Exception | None = None

    def ask(self, question: object) -> Any:
        self.asked.append(question)
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

    def body(self, chunk: bytes | memoryview) -> None:
        if self.fault is not None:
            raise self.fault
        self.bodies.append(bytes(chunk))

    def end_of_body(self) -> None:
        self.ended += 1

    def closed(self) -> None:
        self.closed_times += 1


def connect(core: Core, talk: Talk | None = None, **settings: Any) -> tuple[WireProtocol, StringTransport, Clock]:
    clock = Clock()
    protocol = WireProtocol(core, talk or Talk(), clock=clock, **settings)
    transport = StringTransport()
    protocol.makeConnection(transport)
    return protocol, transport, clock


def lost(protocol: WireProtocol) -> None:
    from twisted.internet.error import ConnectionLost
    from twisted.python.failure import Failure

    protocol.connectionLost(Failure(ConnectionLost()))


def test_core_is_fed_nothing_while_a_question_is_open():
    waiting: Deferred[Any] = Deferred()
    core = Core(lambda data: [Send(b"1"), Ask("q")])
    protocol, transport, _ = connect(core, Talk(waiting))
    protocol.dataReceived(b"a")
    assert transport.value() == b"1"
    for _ in range(3):
        protocol.dataReceived(b"x" * 30_000)
    assert core.fed == [b"a"]
    assert transport.producerState == "paused"
    core.on_data = lambda data: []
    waiting.callback("yes")
    assert core.answers == ["yes"] and core.fed == [b"a", b"x" * 90_000]
    assert transport.producerState == "producing"
    assert transport.value() == b"1answered"


def test_answer_that_is_there_already_is_taken_at_once():
    core = Core(lambda data: [Ask("q")])
    protocol, transport, _ = connect(core, Talk(succeed("now")))
    protocol.dataReceived(b"a")

    async def coroutine() -> str:
        return "also now"

    protocol.conversation.value = coroutine()
    protocol.dataReceived(b"b")
    assert core.answers == ["now", "also now"]
    assert transport.value() == b"answeredanswered"


def test_thousands_of_answers_at_once_need_no_stack():
    core = Core(lambda data: [Ask(5000)])
    core.answer = lambda value: [Ask(value - 1)] if value else [Send(b"done")]
    talk = Talk()
    talk.ask = lambda question: succeed(question)
    protocol, transport, _ = connect(core, talk)
    protocol.dataReceived(b"a")
    assert transport.value() == b"done"


def test_errors_of_the_layer_above_become_replies():
    core = Core(lambda data: [Ask("q")])
    protocol, _, _ = connect(core, Talk(StorageFull("disk full")))
    protocol.dataReceived(b"a")

    async def fails() -> None:
        raise StorageFull("disk full")

    async def breaks() -> None:
        raise RuntimeError("secret")

    for value in (fails(), breaks()):
        protocol.conversation.value = value
        protocol.dataReceived(b"b")
    assert [answer.code for answer in core.answers] == [452, 452, 451]
    assert "secret" not in core.answers[2].text


def test_full_disk_in_the_middle_of_a_body_is_the_answer_at_its_end():
    core = Core(lambda data: [Body(b"1"), Body(b"2"), EndOfBody(), Ask("complete")])
    talk = Talk(Reply(250, "2.0.0", "kept"))
    talk.fault = StorageFull("disk full")
    protocol, _, _ = connect(core, talk)
    protocol.dataReceived(b"a")
    assert core.answers == [Reply(452, "4.3.1", "insufficient system storage")]
    assert talk.asked == [] and talk.ended == 0
    talk.fault = None
    protocol.dataReceived(b"b")
    assert core.answers[1].code == 250 and talk.bodies == [b"1", b"2"] and talk.ended == 1


def test_stream_waits_for_the_transport():
    core = Core(lambda data: [Send(b"<"), Stream([b"1", memoryview(b"2"), b"3"])])
    protocol, transport, _ = connect(core)
    original = transport.write

    def write(data: bytes) -> None:
        original(data)
        if transport.producer is not None:
            transport.producer.pauseProducing()

    transport.write = write
    protocol.dataReceived(b"a")
    assert transport.value() == b"<1"
    protocol.dataReceived(b"b")
    assert core.fed == [b"a"]
    core.on_data = lambda data: []
    transport.producer.resumeProducing()
    assert transport.value() == b"<12"
    transport.producer.resumeProducing()
    transport.producer.resumeProducing()
    assert transport.value() == b"<123after" and core.events == ["streamed"]
    assert transport.producer is None and core.fed == [b"a", b"b"]


def test_stream_that_must_not_go_on_resets_the_connection():
    def pieces() -> Iterable[bytes]:
        yield b"good"
        raise LocalProtocolError("bare line feed")

    protocol, transport, _ = connect(Core(lambda data: [Stream(pieces())]))
    protocol.dataReceived(b"a")
    assert transport.value() == b"good" and transport.disconnected
    assert transport.producer is None


def test_timer_is_moved_only_when_it_rings():
    core = Core(lambda data: [Deadline(10)])
    protocol, _, clock = connect(core)
    for _ in range(20):
        protocol.dataReceived(b"a")
        clock.advance(1)
        assert len(clock.getDelayedCalls()) == 1
    clock.advance(8.5)
    assert core.events == []
    clock.advance(1)
    assert core.events == ["deadline"]
    core = Core(lambda data: [Deadline(None)])
    protocol, _, clock = connect(core)
    protocol._run(lambda: [Deadline(10)])
    protocol.dataReceived(b"a")
    clock.advance(100)
    assert core.events == [] and clock.getDelayedCalls() == []


def test_no_deadline_passes_while_we_think():
    core = Core(lambda data: [Deadline(1), Ask("q")])
    waiting: Deferred[Any] = Deferred()
    protocol, _, clock = connect(core, Talk(waiting))
    protocol.dataReceived(b"a")
    clock.pump([1.0] * 10)
    assert core.events == []
    lost(protocol)
    assert clock.getDelayedCalls() == []


def test_session_that_never_completes_a_message_ends():
    core = Core(lambda data: [Deadline(10)] if data == b"a" else [EndOfBody()])
    protocol, transport, clock = connect(core, session_timeout=30)
    for _ in range(5):
        protocol.dataReceived(b"a")
        clock.advance(5)
    protocol.dataReceived(b"e")
    for _ in range(5):
        protocol.dataReceived(b"a")
        clock.advance(5)
    assert core.events == []
    for _ in range(2):
        protocol.dataReceived(b"a")
        clock.advance(5)
    assert core.events == ["deadline"] and transport.disconnecting


def test_peer_that_does_not_take_our_last_words_is_reset():
    protocol, transport, clock = connect(Core(lambda data: [Send(b"bye"), Close()]))
    protocol.dataReceived(b"a")
    assert transport.disconnecting and not transport.disconnected
    clock.advance(11)
    assert transport.disconnected


@pytest.mark.parametrize("cancel", [True, False])
def test_peer_that_goes_while_a_question_is_open(cancel):
    cancelled: list[bool] = []
    waiting: Deferred[Any] = Deferred(lambda _: cancelled.append(True))
    core = Core(lambda data: [Ask("q")])
    talk = Talk(waiting)
    protocol, _, _ = connect(core, talk, cancel=cancel)
    protocol.dataReceived(b"a")
    talk.value = None
    lost(protocol)
    lost(protocol)
    assert core.events == ["lost"] and talk.asked == ["q", "last"] and talk.closed_times == 1
    assert cancelled == ([True] if cancel else [])
    if not cancel:
        waiting.callback("too late")
    assert core.answers == []


def test_core_that_breaks_costs_its_connection_only():
    def breaks(data: bytes) -> Iterable[Request]:
        raise KeyError("bug")

    protocol, transport, _ = connect(Core(breaks))
    protocol.dataReceived(b"a")
    assert transport.disconnected


def test_nothing_is_fed_after_a_close():
    core = Core(lambda data: [Close()])
    protocol, _, _ = connect(core)
    protocol.dataReceived(b"a")
    protocol.dataReceived(b"b")
    assert core.fed == [b"a"]


def test_counts():
    protocol, _, _ = connect(Core())
    protocol.dataReceived(b"abc")
    assert (protocol.received, protocol.sent) == (3, 3)
