"""When a connection has waited long enough."""

from __future__ import annotations

from twisted.internet.task import Clock

from mailsec.net.alarm import Alarm


class Rung:
    def __init__(self, session: float | None = None) -> None:
        self.clock, self.at, self.busy = Clock(), [], False
        self.alarm = Alarm(self.clock, lambda: self.at.append(self.clock.seconds()), lambda: self.busy, session)

    def pass_seconds(self, seconds: int) -> list[float]:
        self.clock.pump([1.0] * seconds)
        return self.at


def test_it_rings_when_the_deadline_has_passed_however_far_away_it_was():
    for seconds in (3, 10, 11, 300):
        rung = Rung()
        rung.alarm.set(seconds)
        assert rung.pass_seconds(400) == [seconds]


def test_a_deadline_that_is_set_again_counts_from_then():
    rung = Rung()
    rung.alarm.set(20)
    rung.pass_seconds(15)
    rung.alarm.set(20)
    assert rung.pass_seconds(100) == [35]


def test_a_nearer_deadline_than_the_timers_rings_in_time():
    rung = Rung(session=3600)
    rung.alarm.begin_session()
    rung.alarm.set(300)
    rung.alarm.set(2)
    assert rung.pass_seconds(400) == [2]


def test_a_session_ends_although_its_deadline_is_moved_again_and_again():
    rung = Rung(session=60)
    rung.alarm.begin_session()
    for _ in range(30):
        rung.alarm.set(30)
        rung.pass_seconds(5)
    assert rung.at == [60]


def test_a_session_that_was_begun_anew_lasts_its_seconds_from_then():
    rung = Rung(session=60)
    rung.alarm.begin_session()
    rung.pass_seconds(50)
    rung.alarm.begin_session()
    assert rung.pass_seconds(100) == [110]


def test_who_is_busy_is_not_disturbed_and_nothing_is_forgotten_meanwhile():
    rung = Rung(session=60)
    rung.alarm.begin_session()
    rung.busy = True
    assert rung.pass_seconds(70) == []
    # What the answer brings moves the deadline, and not the end of the session.
    rung.alarm.set(300)
    rung.busy = False
    assert rung.pass_seconds(5) == [71]


def test_nothing_rings_after_it_was_stopped():
    rung = Rung(session=60)
    rung.alarm.begin_session()
    rung.alarm.set(5)
    rung.alarm.stop()
    assert rung.pass_seconds(100) == [] and not rung.clock.getDelayedCalls()
