"""A plugin that fails again and again is not asked for a while: mail is deferred at once, and goes on by itself when it works again."""

from __future__ import annotations

from typing import Any

import pytest

from mailsec.hookspecs import hookimpl
from mailsec.testing.gateway import MemoryGateway


def sick_plugin(hook: str, how) -> Any:
    """A plugin that fails in one hook while it is sick, and counts how often it is asked."""

    def ask(self):
        self.asked += 1
        return how() if self.sick else None

    return type("Sick", (), {hook: hookimpl(ask), "asked": 0, "sick": True})()


def fail():
    raise RuntimeError("out of order")


HOW = {"raise": fail, "exit": lambda: exit(1), "wrong type": lambda: 7, "endless": lambda: iter(int, 1)}
CASES = [(hook, how) for hook in ("check_message", "annotate_message") for how in HOW] + [
    ("decide_message", how) for how in ("raise", "exit")
]


@pytest.mark.parametrize(("hook", "how"), CASES)
def test_it_rests_after_five_failures_and_works_again_after_one_success(hook, how):
    sick = sick_plugin(hook, HOW[how])
    gateway = MemoryGateway(sick)

    def send() -> int:
        return gateway.trust("From: alice@example.org\n\nx\n").code

    def told() -> list[str]:
        return [event.name for event in gateway.events if event.name.startswith("plugin")]

    assert [send() for _ in range(5)] == [451] * 5
    assert sick.asked == 5
    assert send() == 451 and sick.asked == 5, "it is not asked while it rests"
    assert told() == ["plugin failed"] * 5 + ["plugin rests"]
    gateway.runtime.advance(11)
    assert send() == 451 and sick.asked == 6, "one message is the trial, and is deferred, too"
    assert send() == 451 and sick.asked == 6
    sick.sick = False
    gateway.runtime.advance(21)
    assert send() == 250 and send() == 250 and sick.asked == 8
    assert told()[-1] == "plugin works again"


def test_a_failure_now_and_then_is_none_in_a_row():
    sick = sick_plugin("check_message", fail)
    gateway = MemoryGateway(sick)
    for _ in range(10):
        for well in (False, False, False, False, True):
            sick.sick = not well
            assert gateway.trust("From: alice@example.org\n\nx\n").code == (250 if well else 451)
    assert not [event for event in gateway.events if event.name == "plugin rests"]
