"""kill -9 of workers and supervisor, at every named crash point and at any instant: whatever was answered 250 arrives, is reported, or is queued."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time

import pytest

from mailsec.store.crashpoints import CRASH_POINTS
from tests.faults.sender import Senders, check_promise, letter
from tests.peers.gateway import Gateway, until
from tests.peers.inbox import Inbox

ROUNDS = int(os.environ.get("MAILSEC_KILL_ROUNDS", "6"))
"""Kills at random instants: more of them with this variable."""

POINTS = [point for point in CRASH_POINTS if point not in ("adopt.copied", "spool.checkpoint.after")]


@pytest.fixture
def inbox():
    with Inbox() as inbox:
        yield inbox


@pytest.fixture
def gateway(tmp_path, inbox):
    made = []

    def make(**arguments):
        made.append(Gateway(tmp_path / "gateway", inbox.port, **arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("point", POINTS)
def test_kill_of_a_worker_at(gateway, inbox, point):
    one = gateway(workers=1).start(crash=f"{point}:3")
    senders = Senders(one, "p")
    try:
        until(lambda: one.deaths() >= 1, 60, f"a death at {point}")
    finally:
        acknowledged = senders.stop()
    one.kill()
    one.start()
    check_promise(one, inbox, acknowledged)


def test_a_message_that_takes_its_worker_down_again_and_again_is_held_and_keeps_no_other_waiting(gateway, inbox):
    """The delivery begins, and the worker dies, once more than often enough; what came before is in tests/store/test_spool_due.py."""
    one = gateway(workers=1).start()
    inbox.stop()
    octets = letter("carol@partner.example", "poison@example.org")
    with one.client() as client:
        assert client.sendmail("carol@partner.example", ["poison@example.org"], octets) == {}
    one.kill()
    inbox.start()
    with contextlib.closing(sqlite3.connect(one.directory / "spool" / "spool-0.sqlite")) as connection:
        # Wherever the kill met it: what is in hand would count once more at the start.
        connection.execute("UPDATE entry SET begun = 5, next_attempt = 0")
        connection.commit()
    one.start(crash="relay.delivery.before", ready=False)
    until(lambda: any(entry["paused"] for entry in one.queue()), 60, "the message on hold")
    (held,) = one.queue()
    assert "never ended" in held["reason"] and one.deaths() == 1
    one.kill()
    one.start()
    with one.client() as client:
        other = letter("carol@partner.example", "other@example.org")
        assert client.sendmail("carol@partner.example", ["other@example.org"], other) == {}
    until(lambda: any("other@example.org" in message.recipients for message in list(inbox.messages)))
    assert [entry["id"] for entry in one.queue()] == [held["id"]]


def test_kill_while_the_queue_of_a_worker_that_is_gone_is_adopted(gateway, inbox, tmp_path):
    inbox.stop()
    one = gateway(workers=2).start()
    # More connections than one worker may be ahead by, so that both have some.
    senders = Senders(one, "a", threads=8)
    until(lambda: len(senders.acknowledged) > 60 and len({entry.worker for entry in one.waiting()}) == 2, what="mail in both queues")
    acknowledged = senders.stop()
    one.kill()
    text = one.configuration.read_text()
    one.configuration.write_text(text.replace("workers = 2", "workers = 1"))
    inbox.start()
    one.start(crash="adopt.copied", ready=False)
    until(lambda: one.deaths() >= 1, 40, "a death while adopting")
    one.kill()
    one.start()
    check_promise(one, inbox, acknowledged)
    assert not (one.directory / "spool" / "spool-1.sqlite").exists()


def test_kill_of_worker_supervisor_and_both_at_random_instants(gateway, inbox):
    """Between MAIL and the last delivery; the next hop refuses some for now and some for ever, so that there are reports too."""
    one = gateway(workers=2).start()
    chance = random.Random()
    for number in range(0, 4000, 7):
        for thread in range(2):
            inbox.refuse[f"r-{thread}-{number}-0@example.org"] = "550 5.1.1 nobody" if number % 2 else "450 4.2.1 busy"
    senders = Senders(one, "r")
    try:
        for turn in range(ROUNDS):
            began = len(senders.acknowledged)
            until(lambda began=began: len(senders.acknowledged) > began + 3, 40, "mail between two kills")
            time.sleep(chance.random() * 0.3)  # any instant: this is the point of the test, and nothing waits for it
            what = ("worker", "supervisor", "both")[turn % 3]
            if what == "worker":
                os.kill(chance.choice(one.pids()), 9)
            else:
                one.kill(workers=what == "both")
                one.start()
    finally:
        acknowledged = senders.stop()
    inbox.refuse = {address: reply for address, reply in inbox.refuse.items() if reply.startswith("5")}
    assert len(acknowledged) > 3 * ROUNDS
    check_promise(one, inbox, acknowledged)
    assert inbox.reported() <= inbox.refuse.keys()
