"""At a terminal: what is asked there and nowhere else, and the bar of what takes long."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest

from mailsec.keys.files import pem
from mailsec.store.certdb import CertDb
from mailsec.testing.authority import Authority

PROJECT = Path(__file__).resolve().parent.parent.parent
MAILSEC = [sys.executable, "-m", "mailsec"]


class Terminal:
    """A command on a terminal of its own, 80 columns wide."""

    def __init__(self, *arguments: object) -> None:
        self.seen = ""
        self._screen, inner = pty.openpty()
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "TERM": "xterm", "COLUMNS": "80"}
        command = [*MAILSEC, *map(str, arguments)]
        # A session of its own, whose terminal this is: a pass phrase is asked of /dev/tty.
        take = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        self.process = subprocess.Popen(
            [sys.executable, "-c", take, *command], stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True
        )
        os.close(inner)

    def until(self, pattern: str) -> str:
        """Read until `pattern` is seen in what came since the last time."""
        begin = len(self.seen)
        while not re.search(pattern, self.seen[begin:]):
            ready, _, _ = select.select([self._screen], [], [], 60)
            assert ready, f"{pattern!r} was not shown: {self.seen[begin:]!r}"
            try:
                self.seen += os.read(self._screen, 65536).decode("utf-8", "replace")
            except OSError:
                raise AssertionError(f"it ended before {pattern!r}: {self.seen[begin:]!r}") from None
        return self.seen[begin:]

    def type(self, text: str) -> None:
        os.write(self._screen, text.encode() + b"\n")

    def end(self) -> int:
        try:
            while data := os.read(self._screen, 65536):
                self.seen += data.decode("utf-8", "replace")
        except OSError:
            pass  # the other end is closed
        os.close(self._screen)
        return self.process.wait(30)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def test_db_init_asks_for_a_pass_phrase_twice_and_whom_to_trust(place: Path):
    if not list(Path("/usr/lib").rglob("libnssckbi.so")):
        pytest.skip("no libnssckbi.so: apt-get install libnss3")
    terminal = Terminal("db", "init", "-d", place / "x.db")
    terminal.until("New pass phrase")
    terminal.type("one phrase")
    terminal.until("Once more")
    terminal.type("one phrase")
    terminal.until(r"Mozilla trusts for e-mail\?.*\[y/N\]")
    # Whoever only presses Enter trusts nobody.
    terminal.type("")
    assert terminal.end() == 0, terminal.seen
    assert "one phrase" not in terminal.seen, "what is typed is not shown"
    database = CertDb.open(str(place / "x.db"), password=b"one phrase")
    assert database.entries() == []
    database.close()


def test_an_import_of_many_shows_how_far_it_has_come(place: Path):
    authority = Authority()
    with (place / "many.pem").open("wb") as file:
        for number in range(400):
            file.write(pem(authority.issue(f"user{number}@example.net").certificate, "CERTIFICATE"))
    subprocess.run([*MAILSEC, "db", "init", "--no-password", "-d", place / "x.db"], cwd=PROJECT, check=True, capture_output=True)
    terminal = Terminal("cert", "import", place / "many.pem", "-d", place / "x.db")
    assert terminal.end() == 0, terminal.seen
    shown = [int(one) for one in re.findall(r"(\d+)%", terminal.seen)]
    assert "importing" in terminal.seen and shown and shown == sorted(shown) and 0 < shown[-1] <= 100, terminal.seen[-500:]
    command = [*MAILSEC, "cert", "import", place / "many.pem", "-d", place / "x.db"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "%" not in done.stderr, "no bar where nobody looks"
