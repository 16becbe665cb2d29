"""A configuration with a mistake in every section: `serve` tells all of them at once, with file, line and hint, and starts nothing."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest

from tests.peers.gateway import PROJECT
from tests.peers.postfix import free_port

WRONG = """\
[gateway]
hostname = "gw.example.org"
domains = ["example.org"]
worker = 2

[database]
location = "nowhere.db"

[passphrase]
method = "fiel"

[[listener]]
name = "in"
address = "127.0.0.1:{port}"
origin = "internt"

[[listener]]
name = "out"
address = "127.0.0.1:99999"
origin = "submission"

[[rule]]
name = "all"
sign = "always"
match = {{ subject = "(" }}

[relay]
next_hop = "smtp//127.0.0.1"
retry_first = -1

[spol]
directory = "spool"
"""

MISTAKES = {
    4: 'did you mean "workers"',
    10: 'did you mean "file"',
    15: 'did you mean "internet"',
    19: "99999",
    24: "always",
    25: "regular expression",
    28: "no next hop",
    29: "retry_first",
    31: 'did you mean "spool"',
}


@pytest.mark.parametrize("command", ["serve", "check"])
def test_every_mistake_is_told_at_once_with_file_line_and_hint_and_nothing_is_started(tmp_path, command):
    port = free_port()
    configuration = tmp_path / "mailsec.toml"
    configuration.write_text(WRONG.format(port=port))
    done = subprocess.run(
        [sys.executable, "-m", "mailsec", command, "-c", str(configuration)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        timeout=60,
        check=False,
    )
    assert done.returncode == 78, done.stderr
    for line, words in MISTAKES.items():
        told = re.findall(rf"mailsec\.toml:{line}: .*(?:\n.*hint: .*)?", done.stderr)
        assert told and any(words in one for one in told), (line, words, done.stderr)
    assert "Traceback" not in done.stderr and "bug" not in done.stderr
    assert re.search(r"\d+ errors; nothing was (started|changed)|\d+ errors", done.stderr.splitlines()[-1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mailsec.toml"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))  # nobody listens
