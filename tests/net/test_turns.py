"""Workers that share a listening socket share what comes in; none of them waits for ever for another."""

from __future__ import annotations

from pathlib import Path

from mailsec.net.turns import AHEAD, Turn, Turns


def test_a_burst_is_shared_by_the_workers(tmp_path: Path) -> None:
    workers = [Turns(str(tmp_path / "connections"), index, 2) for index in range(2)]
    first, second = Turn(workers[0]), Turn(workers[1])
    for _ in range(AHEAD):
        assert first.take() == 1
        workers[0].opened()
    assert first.take() == 0  # it gives way to the one that has none
    assert second.take() == 1
    workers[1].opened()
    assert first.take() == 1


def test_short_connections_wait_for_nobody(tmp_path: Path) -> None:
    workers = [Turns(str(tmp_path / "connections"), index, 2) for index in range(2)]
    turn = Turn(workers[0])
    for _ in range(100):  # one at a time, to whoever wakes first
        assert turn.take() == 1
        workers[0].opened()
        workers[0].ended()


def test_a_worker_that_has_fewest_never_waits(tmp_path: Path) -> None:
    busy, free = (Turns(str(tmp_path / "connections"), index, 2) for index in range(2))
    for _ in range(5):
        busy.opened()
    turn = Turn(free)
    for _ in range(5):
        assert turn.take() == 1
        free.opened()


def test_a_dead_worker_stops_nobody(tmp_path: Path) -> None:
    alive, _dead = (Turns(str(tmp_path / "connections"), index, 2) for index in range(2))
    turn = Turn(alive)
    taken = waits = 0
    while taken < 500:
        allowed = turn.take()
        if not allowed:
            waits += 1
        for _ in range(allowed):
            alive.opened()
        taken += allowed
    assert waits < 20


def test_nobody_gives_way_to_a_worker_that_drains(tmp_path: Path) -> None:
    staying, leaving = (Turns(str(tmp_path / "connections"), index, 2) for index in range(2))
    staying.opened()
    leaving.close()
    assert Turn(staying).take() == 1


def test_a_worker_that_starts_again_begins_with_none(tmp_path: Path) -> None:
    first, second = (Turns(str(tmp_path / "connections"), index, 2) for index in range(2))
    for turns in (first, second) * AHEAD:
        turns.opened()
    assert Turn(first).take() == 1
    Turns(str(tmp_path / "connections"), 1, 2)  # the successor of the second
    assert Turn(first).take() == 0


def test_without_the_file_everybody_takes(tmp_path: Path) -> None:
    turns = Turns(str(tmp_path / "nowhere" / "connections"), 0, 2)
    turns.opened()
    assert Turn(turns).take() == 1


def test_octets_of_somebody_else_in_the_file_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "connections"
    turns = Turns(str(path), 0, 4)
    path.write_bytes(b"\x00\x00\x00\x00\x01")
    turns.opened()
    assert Turn(turns).take() == 1
