"""Questions that are answered by coroutines: at once, later, with an error, cancelled; and what Twisted does not know."""

from __future__ import annotations

import asyncio

import pytest
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure

from mailsec.net.asked import Asked, deferred_of


def ask(coroutine):
    told = []
    asked = Asked(coroutine, deferred_of(coroutine.send(None)), lambda value, question: told.append((value, question)), "question")
    return asked, told


def test_the_value_is_told_once_when_all_that_is_awaited_has_come():
    first, second = Deferred(), Deferred()

    async def answer():
        return await first + await succeed(1) + await second

    _, told = ask(answer())
    first.callback(10)
    assert told == []
    second.callback(100)
    assert told == [(111, "question")]


def test_an_error_is_told_as_a_failure():
    waits = Deferred()

    async def answer():
        await waits

    _, told = ask(answer())
    waits.errback(ValueError("no"))
    assert isinstance(told[0][0], Failure) and told[0][0].check(ValueError)


def test_cancelling_cancels_what_is_awaited():
    cancelled = []

    async def answer():
        try:
            await Deferred(cancelled.append)
        except CancelledError:
            return "cancelled"

    asked, told = ask(answer())
    asked.cancel()
    assert len(cancelled) == 1 and told == [("cancelled", "question")]


def test_a_future_of_another_loop_is_an_error_and_no_wait_for_ever():
    loop = asyncio.new_event_loop()
    waits = Deferred()

    async def answer():
        await waits
        await loop.create_future()

    _, told = ask(answer())
    waits.callback(None)
    assert told[0][0].check(TypeError)
    with pytest.raises(TypeError):
        deferred_of(loop.create_future())
    loop.close()
