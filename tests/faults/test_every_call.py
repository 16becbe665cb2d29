"""The spool with each call of the operating system failing or killing in turn: what was promised is there, whole, and everything goes on by itself.

SQLite's own calls are among them. Here every few of them, beginning anywhere; every single one in `make interop`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]


@pytest.fixture(scope="module")
def interposer(need, tmp_path_factory):
    """The library that makes calls fail, compiled."""
    library = tmp_path_factory.mktemp("interposer") / "interposer.so"
    subprocess.run([need("cc", "gcc"), "-shared", "-fPIC", "-O2", "-o", library, HERE / "interposer.c", "-ldl"], check=True)
    return library


def play(interposer, directory, kind, error, step):
    environment = {**os.environ, "LD_PRELOAD": str(interposer), "PYTHONPATH": str(PROJECT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, HERE / "every_call.py", kind, error, directory / "spool", str(step)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    played, end = map(int, done.stdout.split())
    return played, end


CALLS = {"sync": 40, "name": 8, "remove": 8, "open": 15, "write": 100}
"""How many of each there are at least: a day in which nothing was done would pass."""
ROWS = [
    ("sync", "kill", 6),
    ("name", "kill", 2),
    ("remove", "kill", 2),
    ("write", "kill", 40),
    ("sync", "EIO", 8),
    ("name", "EIO", 4),
    ("remove", "EIO", 4),
    ("write", "EIO", 40),
    ("name", "ENOSPC", 3),
    ("write", "ENOSPC", 40),
    ("open", "ENOSPC", 5),
    ("open", "EIO", 8),
]


@pytest.mark.parametrize(("kind", "error", "step"), ROWS)
def test_promise_1_with_any_call_failing_or_killing(interposer, tmp_path, kind, error, step):
    played, end = play(interposer, tmp_path, kind, error, step)
    assert played >= 1 and end > CALLS[kind]


@pytest.mark.interop
@pytest.mark.timeout(0)
@pytest.mark.parametrize(("kind", "error"), [row[:2] for row in ROWS])
def test_promise_1_with_every_call_failing_or_killing(interposer, tmp_path, kind, error):
    played, _ = play(interposer, tmp_path, kind, error, 1)
    assert played > CALLS[kind]
