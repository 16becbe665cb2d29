"""What help and lists look like: one way to write a default, and lines that fit a terminal of 80 columns."""

from __future__ import annotations

import io
import os
import pwd
import re
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest

from mailsec.app import cli
from mailsec.app.cli import COMMANDS
from mailsec.app.config import load_configuration
from mailsec.app.config.render import render
from mailsec.app.config.surroundings import find_surrounding_problems
from mailsec.app.options import DEFAULT_CONFIGURATION
from mailsec.app.output import Output


def call(*arguments: str) -> tuple[int, str]:
    out = io.StringIO()
    return cli.run(arguments, Output(out, io.StringIO())), out.getvalue()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_writes_every_default_in_one_way(name):
    code, text = call(*name.split(), "--help")
    assert code == 0
    text = " ".join(click.unstyle(text).split())
    options = text.partition(" Options: ")[2]
    assert not re.search(r"\[(?!default: |required|x>=|\d)[a-z./]", re.sub(r"\[[^\]]*\|[^\]]*\]", "", options)), options
    if " --config CONFIG" in options:
        assert f"[default: {DEFAULT_CONFIGURATION}]" in options


def test_settings_of_plugins_are_shown_as_they_are_configured_in_80_columns(tmp_path):
    values = {
        "gateway": {"hostname": "gw.example.org", "domains": ["example.org"]},
        "listener": [{"address": "127.0.0.1:2525", "origin": "internet"}],
        "relay": {"next_hop": "smtp://[127.0.0.1]:2526"},
        "plugins": {"enabled": ["dkim", "ldap", "milter"]},
    }
    path = Path(tmp_path / "mailsec.toml")
    path.write_text(render(values))
    code, text = call("plugins", "-c", str(path))
    assert code == 0
    shown = text[text.index("[plugin.dkim]") : text.index("Plugins are trusted code")]
    assert max(map(len, shown.splitlines())) < 80
    tables = tomllib.loads(shown)["plugin"]
    assert tables["dkim"]["headers"][0] == "From" and len(tables["dkim"]["headers"]) > 15
    assert tables["milter"]["peers"] == ["127.0.0.0/8", "::1"] and tables["ldap"]["connections"] == 4
    assert "# Whether what was found is added as Authentication-Results, too.\nresults = true\n" in shown


def test_a_spool_that_is_no_database_and_one_of_somebody_else_are_told_with_what_to_do(tmp_path):
    (tmp_path / "spool-0.sqlite").write_bytes(b"garbage\n" * 100)
    for words in (("list",), ("flush",)):
        err = io.StringIO()
        assert cli.run(("queue", *words, "--spool", str(tmp_path)), Output(io.StringIO(), err)) == 1
        assert "file is not a database" in err.getvalue() and "hint: stop mailsec and put the file aside" in err.getvalue()


def test_a_directory_of_somebody_else_is_told_with_whose_it_is(tmp_path, monkeypatch):
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    spool = tmp_path / "spool"
    spool.mkdir(mode=0o700)
    os.chown(spool, 1, 1)
    values = {
        "gateway": {"hostname": "gw.example.org", "domains": ["example.org"]},
        "listener": [{"address": "127.0.0.1:2525", "origin": "internet"}],
        "relay": {"next_hop": "smtp://[127.0.0.1]:2526"},
    }
    (tmp_path / "mailsec.toml").write_text(render(values))
    # As for anybody but root, and its owner: root may enter every directory.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    problems = find_surrounding_problems(load_configuration(str(tmp_path / "mailsec.toml")), None, datetime.now(UTC))
    (hint,) = [one.hint for one in problems if one.path == ("spool", "directory")]
    assert hint == f"it belongs to {pwd.getpwuid(1).pw_name}: run this as that user (sudo -u), or chown 0 {spool}"
