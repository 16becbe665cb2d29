"""The circuit breaker: what is down is not waited for twice."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mailsec.model.breaker import CLOSED, Breaker, BreakerPolicy, Breakers


def test_what_is_down_is_not_waited_for_twice():
    down = CLOSED.failed(100.0)
    assert down.state(100.0) == "open" and down.admit(129.9) is None


def test_one_question_is_let_through_when_the_time_has_come():
    down = CLOSED.failed(100.0)
    trial = down.admit(130.0)
    assert trial is not None and down.state(130.0) == "half-open"
    assert trial.admit(130.1) is None, "a second one waits for the same dead responder"
    assert trial.succeeded() == CLOSED
    assert trial.failed(131.0).admit(131.0 + 59.9) is None, "it stays open twice as long"
    assert trial.failed(131.0).admit(131.0 + 60.0) is not None


def test_a_trial_that_never_ends_does_not_close_it_for_ever():
    trial = CLOSED.failed(0.0).admit(30.0)
    assert trial is not None and trial.admit(60.0) is not None


def test_it_stays_closed_below_the_number_of_failures():
    breaker = Breaker(policy=BreakerPolicy(failures=3))
    breaker = breaker.failed(0.0).failed(0.0)
    assert breaker.admit(0.0) == breaker
    assert breaker.succeeded().failures == 0
    assert breaker.failed(0.0).admit(0.0) is None


@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), max_size=100))
def test_while_it_is_down_at_most_one_question_a_period_is_asked(steps):
    breaker, now, asked = CLOSED, 0.0, []
    for wait, _ in steps:
        now += wait
        admitted = breaker.admit(now)
        if admitted is not None:
            asked.append(now)
            breaker = admitted.failed(now)
    assert all(later - earlier >= breaker.policy.first for earlier, later in pairwise(asked))


@given(st.lists(st.tuples(st.floats(0, 1000), st.booleans()), max_size=100))
def test_it_always_opens_again(steps):
    breaker, now = CLOSED, 0.0
    for wait, good in steps:
        now += wait
        breaker = breaker.succeeded() if good else breaker.failed(now)
    assert breaker.admit(now + breaker.policy.longest) is not None


def test_each_name_has_its_own():
    many = Breakers()
    many.failed("ocsp.example", 0.0)
    assert not many.admit(1.0, "ocsp.example") and many.admit(1.0, "crl.example")
    assert many.state("ocsp.example", 1.0) == "open" and many.state("crl.example", 1.0) == "closed"
    many.succeeded("ocsp.example")
    assert many.admit(1.0, "ocsp.example")


def test_a_question_that_one_of_its_names_forbids_is_a_trial_for_none():
    many = Breakers()
    many.failed("host", 0.0)
    many.failed("page", 10.0)
    assert not many.admit(35.0, "host", "page"), "the page is down until 40"
    assert many.admit(35.0, "host"), "and that was no trial for the host"
    assert not many.admit(36.0, "host"), "this one is"


def test_the_policy_is_that_of_the_board():
    many = Breakers(BreakerPolicy(failures=2))
    many.failed("token", 0.0)
    assert many.admit(0.0, "token")
    many.failed("token", 0.0)
    assert not many.admit(0.0, "token")


def test_names_without_end_are_not_remembered():
    many = Breakers(most=3)
    for number in range(10):
        many.failed(str(number), 0.0)
    assert [many.admit(0.0, str(number)) for number in range(10)] == [True] * 7 + [False] * 3
