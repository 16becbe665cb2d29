"""Lines of the log that wait for each other: what a token host tells of uses of keys."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from mailsec.app.config.models import Log
from mailsec.app.logs import HeldLines, configure_logs_with


@pytest.fixture
def held(tmp_path: Path) -> Iterator[HeldLines]:
    configure_logs_with(Log(file=str(tmp_path / "log"), format="json"), b"", lasting=False, module="soft")
    yield HeldLines()
    structlog.reset_defaults()


def lines(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "log").read_text().splitlines()]


def test_lines_are_written_when_they_are_to_be_and_together(held: HeldLines, tmp_path: Path):
    writes = []
    write, held._write = held._write, lambda octets: (writes.append(octets), write(octets))
    for number in range(100):
        held.record("key used", key=f"HSM 1:{number}", operation="CKM_ECDSA")
    assert not lines(tmp_path)
    held.flush()
    assert [one["key"] for one in lines(tmp_path)] == [f"HSM 1:{number}" for number in range(100)]
    assert {one["module"] for one in lines(tmp_path)} == {"soft"} and {one["level"] for one in lines(tmp_path)} == {"info"}
    # What several processes write into one pipe is mixed up only beyond 4096 octets.
    assert 1 < len(writes) < 20 and all(len(octets) <= 4096 and octets.endswith(b"\n") for octets in writes)
    held.flush()
    assert len(lines(tmp_path)) == 100


def test_a_line_that_is_longer_is_written_alone(held: HeldLines, tmp_path: Path):
    for address in ("a", "b" * 5000, "c"):
        held.record("key used", address=address)
    held.flush()
    assert [one["address"][0] for one in lines(tmp_path)] == ["a", "b", "c"]


def test_another_configuration_counts_from_then_on(held: HeldLines, tmp_path: Path):
    held.record("key used", address="alice@example.org")
    settings = Log(file=str(tmp_path / "log"), format="json", privacy="pseudonym")
    configure_logs_with(settings, b"k" * 32, lasting=False, module="soft")
    held.configured()
    held.record("key used", address="alice@example.org")
    held.flush()
    first, second = lines(tmp_path)
    assert first["address"] == "alice@example.org" and "alice" not in second["address"]
