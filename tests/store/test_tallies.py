"""Counts that workers share: each writes into a part of its own, all read all."""

from __future__ import annotations

from pathlib import Path

import pytest

from mailsec.store.tallies import Gauges, Tally

KEY = b"k" * 32


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "counts")


def test_connections_to_all_workers_are_counted(path):
    first, second = (Gauges(path, index, 2, KEY) for index in range(2))
    first.change("192.0.2.1", 1)
    first.change("192.0.2.1", 1)
    second.change("192.0.2.1", 1)
    assert first.total("192.0.2.1") == second.total("192.0.2.1") == 3
    assert first.total("192.0.2.2") == 0
    second.change("192.0.2.1", -1)
    assert first.total("192.0.2.1") == 2


def test_worker_that_died_has_no_connections_any_more(path):
    first, dead = (Gauges(path, index, 2, KEY) for index in range(2))
    dead.change("192.0.2.1", 5)
    assert first.total("192.0.2.1") == 5
    successor = Gauges(path, 1, 2, KEY)
    assert first.total("192.0.2.1") == 0
    # The old one of a reload goes on for a while beside its successor.
    successor.change("192.0.2.1", 1)
    dead.change("192.0.2.1", -5)
    assert first.total("192.0.2.1") >= 0


def test_failures_are_remembered_for_a_period_and_fade(path):
    first, second = (Tally(path, index, 2, KEY, period=100.0) for index in range(2))
    for at in (1000.0, 1010.0, 1099.0):
        first.add("alice", at)
    second.add("alice", 1050.0, 2)
    assert first.recent("alice", 1099.0) == second.recent("alice", 1099.0) == (5.0, 1099.0)
    assert first.recent("alice", 1150.0)[0] == pytest.approx(2.5)
    assert first.recent("alice", 1201.0)[0] == 0
    assert first.recent("bob", 1099.0) == (0.0, 0.0)
    second.add("alice", 1210.0)
    assert first.recent("alice", 1210.0)[0] == pytest.approx(1.0)


def test_attack_failures_of_names_without_end_make_nobody_else_wait_and_wipe_out_no_count():
    """Somebody with an IPv6 /48 has 65,536 addresses, and names cost nothing."""
    tally = Tally(None, 0, 1, KEY, period=900.0)
    for _ in range(40):
        tally.add("login alice", 1000.0)
    for number in range(60_000):
        tally.add(f"login guess{number}", 1000.0 + number / 1000)
    assert max(tally.recent(f"address 192.0.2.{number}", 1100.0)[0] for number in range(256)) == 0
    assert tally.recent("login alice", 1100.0)[0] == 40


def test_name_says_nothing_of_its_place_without_the_key(path, tmp_path):
    """Attack: names that share a place with another's are made to keep that one out."""
    places = {Tally(str(tmp_path / str(number)), 0, 1, bytes([number]) * 32, period=1.0)._cells("alice")[0].start for number in range(5)}
    assert len(places) > 1


@pytest.mark.parametrize("path", ["/dev/null/counts", None, "/dev/full"])
def test_file_that_cannot_be_had_costs_the_sharing_only(path):
    tally = Tally(path, 1, 2, KEY, period=100.0)
    tally.add("alice", 1000.0)
    assert tally.recent("alice", 1000.0) == (1.0, 1000.0)


def test_more_workers_than_before_find_room(path):
    Gauges(path, 0, 1, KEY).change("a", 1)
    third = Gauges(path, 2, 3, KEY)
    third.change("a", 1)
    assert third.total("a") == 2


def test_attack_a_link_in_the_place_of_the_file_leads_nobody_to_what_is_not_ours(path, tmp_path):
    """Root forgets what a dead worker had: not in a file that a worker, which was broken into, has chosen."""
    precious = tmp_path / "precious"
    precious.write_bytes(b"x" * 1_000_000)
    Path(path).unlink(missing_ok=True)
    Path(path).symlink_to(precious)
    with pytest.raises(OSError, match="symbolic links"):
        Gauges.forget(str(path), 0)
    one = Gauges(str(path), 0, 2, b"key")
    assert not one.shared
    one.change("192.0.2.1", 1)
    one.close()
    assert precious.read_bytes() == b"x" * 1_000_000
