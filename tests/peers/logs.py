"""What servers of a test have logged, shown where the test fails: a reason that lies in a server is to be seen nowhere else.

A conftest.py brings it to its tests by importing `pytest_runtest_makereport`.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

__all__ = ["began", "ended", "pytest_runtest_makereport"]

LAST = 20_000
_running: set[Path] = set()
_ended: set[Path] = set()


def began(log: Path) -> None:
    """Show `log` with whatever fails from now on."""
    _running.add(log)


def ended(log: Path) -> None:
    """Show it with the test that is under way, and with none after it."""
    if log in _running:
        _running.remove(log)
        _ended.add(log)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for log in sorted(_running | _ended):
            if log.exists():
                report.sections.append((f"the end of {log}", log.read_bytes()[-LAST:].decode(errors="replace")))
    if call.when == "teardown":
        _ended.clear()
    return report
