"""Sums of tables that remember what they have added up: always what adding up everything anew gives, whatever somebody wrote meanwhile."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine

from mailsec.store.ledger import Sums
from mailsec.store.schema import assignments
from mailsec.store.sealing import DataKey

KEY = DataKey(b"k" * 32, lambda octets: b"r" * octets)
MACS = [random.Random(number).randbytes(32) for number in range(1500)]
ENDING = b"\0" + b"e" * 31


@pytest.fixture(scope="module")
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        assignments.create(connection)
        yield connection
    engine.dispose()


def write(connection: Connection, macs: list[object]) -> None:
    connection.exec_driver_sql("DELETE FROM assignments")
    rows = [(number, b"k", str(number), "", mac) for number, mac in enumerate(macs)]
    if rows:
        connection.exec_driver_sql("INSERT INTO assignments (id, key_id, pattern, usage, mac) VALUES (?, ?, ?, ?, ?)", rows)


def anew(macs: list[object]) -> tuple[int, int]:
    return len(macs), sum(KEY.summand(mac) for mac in macs if isinstance(mac, bytes)) % 2**256


ANY = st.one_of(st.sampled_from([*MACS[:6], ENDING]), st.binary(max_size=70), st.text(max_size=3), st.integers(0, 9))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=st.lists(st.lists(ANY, max_size=12), min_size=2, max_size=5))
def test_what_is_remembered_changes_no_sum(connection, tables):
    sums = Sums()
    for macs in tables:
        write(connection, macs)
        assert sums.of(connection, KEY, "assignments") == anew(macs)


@pytest.mark.parametrize(
    "edit",
    [
        lambda macs: macs[:700] + macs[701:],
        lambda macs: [*macs[:5], macs[6], *macs[6:]],
        lambda macs: macs + macs[-1:],
        lambda macs: macs[::-1],
        lambda macs: [],
    ],
)
def test_a_row_that_went_or_came_back_among_many_shows(connection, edit):
    sums = Sums()
    for macs in (MACS, edit(MACS), MACS, [ENDING] * 5000, MACS):
        write(connection, macs)
        assert sums.of(connection, KEY, "assignments") == anew(macs)


def test_two_macs_that_were_parted_elsewhere_are_other_macs(connection):
    """The octets one after the other are those of before."""
    sums = Sums()
    both = MACS[0] + MACS[1]
    write(connection, [both[:32], both[32:]])
    before = sums.of(connection, KEY, "assignments")
    write(connection, [both[:31], both[31:]])
    assert sums.of(connection, KEY, "assignments") == anew([both[:31], both[31:]]) != before


def test_the_keyed_function_is_asked_only_for_what_is_new(connection):
    asked: list[bytes] = []

    class Counting(DataKey):
        def summand(self, mac: bytes) -> int:
            asked.append(mac)
            return super().summand(mac)

    key, sums = Counting(b"k" * 32, lambda octets: b"r" * octets), Sums()
    write(connection, MACS)
    assert sums.of(connection, key, "assignments") == anew(MACS)
    assert len(asked) == len(MACS)
    asked.clear()
    changed = [b"\1" * 32, *MACS[1:]]
    write(connection, changed)
    assert sums.of(connection, key, "assignments") == anew(changed)
    assert 0 < len(asked) < len(MACS)
