"""Dialogs of chasquid's own tests: the class of each reply, and the octets that are kept."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .play import Driver

NAMES = [
    "t-05-null_address/sendmail",
    "t-12-minor_dialogs/bad_data_dot",
    "t-12-minor_dialogs/data_dot_stuffing",
    "t-12-minor_dialogs/empty_helo",
    "t-12-minor_dialogs/helo",
    "t-12-minor_dialogs/sendmail",
    "t-12-minor_dialogs/unknown_command",
]


@pytest.mark.parametrize("name", NAMES)
def test_reply_classes(vectors: Path, name):
    path = vectors / "smtp-dialogs-chasquid" / f"{name}.cmy"
    driver = Driver()
    said: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        if match := re.match(r"c -> ?(.*)", line):
            driver.feed(match[1].encode() + b"\r\n")
        elif match := re.match(r"c ~> '(.*)'", line):
            driver.feed(match[1].encode().decode("unicode_escape").encode("latin-1"))
        elif match := re.match(r"c <(?:~|-|\.\.\.) ?(\d)", line):
            said += [reply for reply in driver.said.decode().split("\r\n") if reply[3:4] == " "]
            driver.said = b""
            assert said.pop(0)[0] == match[1], f"{line}: {said}"
    assert said == []
    expected = path.with_suffix(".cmy.verify")
    if expected.exists():
        kept = driver.messages[0].replace(b"\r\n", b"\n").decode()
        assert kept.strip() == expected.read_text("utf-8").strip()
