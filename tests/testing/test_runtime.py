"""FakeRuntime does what it says: time jumps, nothing hangs, cancellation and errors go where they belong."""

from __future__ import annotations

import pytest

from mailsec.errors import LocalProtocolError, Unavailable
from mailsec.interfaces import DnsAnswer
from mailsec.testing.memory import MemoryScratch
from mailsec.testing.runtime import CancelledError, FakeRuntime


def test_sleep_moves_both_clocks_and_nothing_else():
    runtime = FakeRuntime()
    before = runtime.now()
    runtime.run(runtime.sleep(90))
    assert runtime.monotonic() == 90 and (runtime.now() - before).total_seconds() == 90
    assert runtime.slept == [90]


def test_tasks_run_side_by_side():
    runtime = FakeRuntime()
    order = []

    async def work(name, seconds):
        await runtime.sleep(seconds)
        order.append(name)
        return name

    assert runtime.run(runtime.gather([work("slow", 3), work("quick", 1)])) == ["slow", "quick"]
    assert order == ["quick", "slow"] and runtime.monotonic() == 3


def test_gather_raises_the_first_error_after_all_have_ended():
    runtime = FakeRuntime()
    done = []

    async def fails():
        raise ValueError("first")

    async def works():
        await runtime.sleep(5)
        done.append(True)

    with pytest.raises(ValueError, match="first"):
        runtime.run(runtime.gather([fails(), works()]))
    assert done == [True]


def test_within_cancels_what_is_late():
    runtime = FakeRuntime()
    seen = []

    async def late():
        try:
            await runtime.sleep(10)
        except CancelledError:
            seen.append("cancelled")
            raise

    with pytest.raises(TimeoutError):
        runtime.run(runtime.within(1, late()))
    runtime.run(runtime.sleep(0))
    assert seen == ["cancelled"] and runtime.monotonic() == 1


def test_signal_gives_its_value_before_and_after():
    runtime = FakeRuntime()
    signal = runtime.signal()
    task = runtime.start(signal.wait(), "waits")
    signal.fire(7)
    signal.fire(8)
    assert runtime.run(task) == 7 and runtime.run(signal.wait()) == 7


def test_what_nothing_can_wake_fails_at_once():
    runtime = FakeRuntime()
    with pytest.raises(LocalProtocolError):
        runtime.run(runtime.signal().wait())


def test_randomness_repeats_by_seed():
    assert FakeRuntime().random(16) == FakeRuntime().random(16) != FakeRuntime(seed=b"other").random(16)
    assert FakeRuntime(seed=None).random(16) != FakeRuntime(seed=None).random(16)


def test_network_is_what_the_test_says():
    runtime = FakeRuntime(records={("example.org", "MX"): [(10, "mx.example.org")], ("down.example", "MX"): Unavailable("no answer")})
    assert runtime.run(runtime.resolve("example.org", "MX")) == [(10, "mx.example.org")]
    assert runtime.run(runtime.resolve("other.example", "MX")) == ()
    for ask in (runtime.resolve, runtime.look_up):
        with pytest.raises(Unavailable):
            runtime.run(ask("down.example", "MX"))
    runtime.records |= {("s.example", "TXT"): DnsAnswer((b"x",), True), ("s.example", "A"): ["10.0.0.1", "8.8.8.8"], ("t.example", "A"): []}
    assert runtime.run(runtime.look_up("s.example", "TXT")).authentic and runtime.run(runtime.resolve("s.example", "TXT")) == (b"x",)
    assert not runtime.run(runtime.look_up("example.org", "MX")).authentic
    assert runtime.run(runtime.public_addresses("s.example")) == ("8.8.8.8",)
    with pytest.raises(Unavailable):
        runtime.run(runtime.public_addresses("t.example"))
    with pytest.raises(Unavailable):
        runtime.run(runtime.fetch("http://example.org/"))


def test_scratch_is_read_only_after_it_is_sealed():
    scratch = MemoryScratch()
    scratch.append(b"one ")
    scratch.append(memoryview(b"two"))
    octets = scratch.seal()
    assert bytes(octets.view(0, 7)) == b"one two" and len(scratch) == 7
    with pytest.raises(LocalProtocolError):
        scratch.append(b"more")
    scratch.discard()
    scratch.discard()
    with pytest.raises(LocalProtocolError):
        scratch.seal()
