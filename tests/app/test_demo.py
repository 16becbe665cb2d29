"""`mailsec demo`: the first thing that a new user sees. It checks itself; here its exit code, its words and its end are checked."""

from __future__ import annotations

import os
import re
import signal
import smtplib
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from mailsec.app.demo.show import Show, StepFailed

from .conftest import PROJECT, until


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(PROJECT), "TMPDIR": str(folder), "COLUMNS": "100"}


def processes_in(folder: Path) -> list[int]:
    """Processes whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                found.append(int(path.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def test_the_demonstration_gives_what_it_should_and_can_be_kept(tmp_path):
    began = time.monotonic()
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "mailsec", "demo", "--keep", "--plugins"], stdout=out, stderr=out, env=environment(tmp_path)
        )
    try:
        text = (tmp_path / "out").read_text
        until(lambda: "It goes on until" in text() or process.poll() is not None, 100)
        assert process.poll() is None, text()
        assert time.monotonic() - began < 100
        # It goes on: anybody can send it mail.
        port = int(re.search(r"Internet +127\.0\.0\.1 port (\d+)", text()).group(1))
        with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
            client.sendmail("x@elsewhere.example", ["bob@example.org"], b"Subject: x\r\n\r\nhi\r\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()
    for words in (
        "two workers",
        "arrived as multipart/signed",
        "mailsec smime verify: trusted",
        "signed, untouched: smime=pass",
        "one word changed: smime=fail",
        "stranger's CA: smime=policy",
        "not signed: smime=none",
        "the forged result is gone",
        "Carol's certificate was learnt",
        "its words are not in it",
        "mailsec smime decrypt with Carol's key: four hundred",
        "somebody who has no certificate is refused",
        "order for Bob arrives open: smime=pass",
        "kill -9",
        "every one of the 120 arrived",
        "was replaced by process",
        "Authentication-Results: gw.example.org; smime=pass",
        "Dave's certificate is revoked: so it says, too",
        "logged in by POP3 with STLS",
        "bears the same verdicts",
        "changed in the mailbox: smime=fail",
        "opened on its way to him, smime=pass",
        "who has logged in at that server, is signed there: trusted",
        "mail from outside with a forged smime=pass: smime=none",
        "carol@partner.example: there is a certificate",
        "Every step gave what it should",
    ):
        assert words in text(), words
    # Plain where nobody watches: no colours, no spinners.
    assert "\x1b" not in text() and "\r" not in text()
    (folder,) = tmp_path.glob("mailsec-demo-*")
    assert str(folder) in text()
    assert len(list((folder / "maildir" / "new").iterdir())) >= 128
    assert folder.stat().st_mode & 0o077 == 0
    assert processes_in(folder) == []


def test_a_failed_step_says_what_was_expected_and_what_came(capsys):
    show = Show()
    show.failed(StepFailed("signed, untouched", "smime=pass", "smime=fail \x1b[31m"))
    out = capsys.readouterr().out
    assert "signed, untouched" in out and "expected smime=pass" in out and "got      smime=fail \\x1b[31m" in out


@pytest.mark.parametrize("width", [40, 80, 140])
def test_the_table_fits_its_terminal(width):
    import io

    show = Show()
    show.console = Console(file=io.StringIO(), width=width, force_terminal=True, highlight=False)
    show.table("", ["what", "header"], [["signed, untouched", "gw.example.org; smime=pass body.smime-issuer=" + "x" * 90]])
    show.ok("a thing that was done and has a long description, which goes on and on", "with a detail " * 5)
    text = re.sub(r"\x1b\[[0-9;]*m", "", show.console.file.getvalue())
    assert max(map(len, text.splitlines())) <= width
    assert "smime=pass" in text.replace("\n", "")
