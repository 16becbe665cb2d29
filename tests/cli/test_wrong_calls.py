"""What people do wrong: each mistake is told in one sentence that names the thing, with a hint, and never with a traceback."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mailsec.app import cli
from mailsec.app.cli import COMMANDS, GROUPS
from mailsec.app.output import Output

PROJECT = Path(__file__).resolve().parent.parent.parent


def mailsec(*arguments: str, **kwargs: object) -> subprocess.CompletedProcess:
    """The program itself: what happens to its streams is half of it."""
    return subprocess.run(
        [sys.executable, "-m", "mailsec", *arguments],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        timeout=60,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kwargs},
    )


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("db") / "mailsec.db"
    assert mailsec("db", "init", "-d", str(path), "--no-password").returncode == 0
    return path


class Answer(NamedTuple):
    """What a call within this process gave."""

    code: int
    stdout: str
    stderr: bytes


def call(*arguments: str) -> Answer:
    out, err = io.StringIO(), io.StringIO()
    return Answer(cli.run(arguments, Output(out, err)), out.getvalue(), err.getvalue().encode())


def told(done: Any) -> str:
    text = done.stderr.decode()
    assert "Traceback" not in text and "unexpected error" not in text, text
    return text


@pytest.mark.parametrize("arguments", [[], *([group] for group in GROUPS)], ids=lambda arguments: "-".join(arguments) or "nothing")
def test_whoever_says_nothing_is_shown_what_can_be_said(arguments):
    done = mailsec(*arguments)
    assert done.returncode == 2 and done.stdout == b""
    assert told(done).startswith("Usage: mailsec") and "error" not in done.stderr.decode().splitlines()[0]


def test_the_configuration_before_the_command_is_told_where_it_stands():
    done = mailsec("-c", "mailsec.toml", "check")
    assert done.returncode == 2 and "stands behind the command, as in mailsec check -c FILE" in told(done)


def test_an_output_without_room_is_no_bug(database):
    with Path("/dev/full").open("wb") as full:
        for arguments in (["cert", "list", "-d", str(database)], ["cert", "list", "--json", "-d", str(database)], ["--help"]):
            done = mailsec(*arguments, stdout=full)
            assert done.returncode == 75, arguments
            assert "cannot write the answer: no space left on device" in told(done)


def test_an_output_that_was_closed_is_no_bug(database):
    command = f'"{sys.executable}" -m mailsec cert list -d "{database}"'
    for closed in (">&-", "2>&-", "<&-", ">&- 2>&-"):
        done = subprocess.run(["sh", "-c", f"{command} {closed}"], env={**os.environ, "PYTHONPATH": str(PROJECT)}, capture_output=True)
        assert done.returncode == 0, closed
        told(done)


@pytest.mark.parametrize("arguments", [["--help"], ["cert", "issue", "--help"], ["demo", "--help"]], ids=" ".join)
def test_a_reader_that_goes_away_hears_nothing_more(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    done = mailsec(*arguments, stdout=writing)
    os.close(writing)
    assert done.returncode in (0, 1) and done.stderr == b""


@pytest.mark.parametrize(
    "arguments",
    [
        ["cert", "import", "FILE", "-d", "DATABASE"],
        ["smime", "verify", "MESSAGE", "--anchor", "FILE"],
        ["smime", "verify", "MESSAGE", "--crl", "FILE"],
        ["smime", "sign", "MESSAGE", "--key", "FILE", "--cert", "FILE"],
        ["smime", "sign", "MESSAGE", "--p12", "FILE"],
        ["cert", "import", "FILE", "--key", "FILE", "-d", "DATABASE"],
        ["cert", "verify", "FILE"],
        ["p12", "list", "FILE"],
        ["p12", "import", "FILE", "-d", "DATABASE"],
        ["ocsp", "verify", "FILE"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]) + arguments[-2],
)
def test_a_file_that_is_not_what_was_asked_for_is_named(arguments, database, tmp_path):
    file, message = tmp_path / "shopping-list", tmp_path / "message"
    file.write_text("milk, bread, eggs\n")
    message.write_text("From: a@example.org\nTo: b@example.org\n\nHello.\n")
    real = {"FILE": str(file), "MESSAGE": str(message), "DATABASE": str(database)}
    out, err = io.StringIO(), io.StringIO()
    assert cli.run([real.get(word, word) for word in arguments], Output(out, err)) == 3
    assert "shopping-list" in err.getvalue().splitlines()[0]


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_that_ends_in_nothing_but_help(name):
    from click.testing import CliRunner

    from mailsec.app.cli import root
    from mailsec.app.output import Output

    result = CliRunner().invoke(root(), [*name.split(" "), "--help"], obj=Output())
    assert result.exit_code == 0
    lines = result.output.splitlines()
    assert lines[0].startswith(f"Usage: mailsec {name}") or lines[0].startswith(f"Usage: root {name}")
    # Each option says what it is for.
    for option in re.findall(r"^  (?:-\w, )?(--[a-z0-9-]+)[^\n]*?$", result.output, re.MULTILINE):
        assert re.search(rf"{option}\b[^\n]*(\s{{2,}}|\]\n\s+)\S", result.output), option


def test_help_shows_every_command_under_a_heading_of_its_own():
    answer = mailsec("--help")
    assert answer.returncode == 0
    text = answer.stdout.decode()
    assert [line for line in text.splitlines() if line.endswith(":")] == ["Options:", *(f"{title}:" for title in cli.SECTIONS)]
    for name in {name.split(" ")[0] for name in COMMANDS}:
        assert re.search(rf"^  {name} +\S", text, re.MULTILINE), name


def test_plugins_shows_who_answers_each_hook_and_imports_only_what_is_enabled():
    answer = call("plugins", "--order", "--json")
    value = json.loads(answer.stdout)
    assert answer.code == 0 and value["hooks"]["plan_protection"] == ["rules"] and value["hooks"]["shutdown"] == ["tokens", "refresh"]
    assert {one["name"] for one in value["plugins"] if one["state"] == "built-in"} == {
        "database",
        "tokens",
        "rules",
        "revocation",
        "refresh",
        "log",
        "software",
        "mailbox",
        "authenticators",
        "recipients",
        "metrics",
    }
    assert "trusted code" in call("plugins").stdout
    assert call("plugins", "-c", "nowhere.toml").code == 78


def test_a_database_without_its_driver_says_what_to_install():
    if __import__("importlib.util").util.find_spec("psycopg"):
        pytest.skip("psycopg is installed")
    done = call("cert", "list", "-d", "postgresql+psycopg://somebody@localhost/mailsec", "--json")
    assert done.code == 78 and "pip install" in told(done)
    assert json.loads(done.stdout)["error"]["class"] == "ConfigurationError"


def test_init_says_which_names_it_guessed(tmp_path):
    done = call("init", str(tmp_path / "guessed"))
    assert done.code == 0 and "is a guess" in told(done)
    done = call("init", str(tmp_path / "said"), "--domain", "firma.example")
    assert done.code == 0 and "guess" not in told(done)
    done = call("init", "")
    assert done.code == 2 and "mailsec init" in told(done)


def test_a_pass_phrase_that_nobody_can_be_asked_for_names_the_setting(tmp_path):
    directory = tmp_path / "etc"
    assert call("init", str(directory), "--domain", "example.org").code == 0
    configuration = directory / "mailsec.toml"
    configuration.write_text(configuration.read_text().replace('method = "file"', 'method = "builtin"').replace('file = "passphrase"', ""))
    done = call("check", "-c", str(configuration))
    assert done.code == 78
    assert "passphrase.method: the pass phrase of the database is asked for on a terminal" in told(done)


def test_a_missing_pass_phrase_file_is_told_once(tmp_path):
    directory = tmp_path / "etc"
    assert call("init", str(directory), "--domain", "example.org").code == 0
    (directory / "passphrase").unlink()
    done = call("check", "-c", str(directory / "mailsec.toml"))
    assert done.code == 78 and told(done).count("no such file") == 1


def test_check_says_that_nothing_was_changed_also_where_the_file_is_no_toml(tmp_path):
    file = tmp_path / "mailsec.toml"
    file.write_text("[gateway\n")
    assert "nothing was changed" in told(call("check", "-c", str(file)))
    assert "nothing was started" in told(call("serve", "-c", str(file)))


def test_explain_names_the_listener_that_there_is_not(tmp_path):
    directory, message = tmp_path / "etc", tmp_path / "message"
    assert call("init", str(directory), "--domain", "example.org").code == 0
    message.write_text("From: a@example.org\nTo: b@example.org\n\nHello.\n")
    done = call("explain", str(message), "-c", str(directory / "mailsec.toml"), "--origin", "internet", "--listener", "nope")
    assert done.code == 2 and 'no listener "nope"' in told(done)


@pytest.mark.parametrize("value", ["x", "", "1", "1.2.", "1.2.03", "1.2.-3", "3.1", "2.5.29.32.0 "])
@pytest.mark.parametrize("command", [("cert", "verify"), ("smime", "verify")])
def test_a_policy_that_is_no_identifier_is_a_wrong_call_and_not_a_policy_that_nobody_has(command, value):
    done = call(*command, "--policy", value, "absent.pem")
    assert done.code == 2 and "is no object identifier" in told(done) and "as in --policy" in told(done)


@pytest.mark.parametrize("url", ["ftp://x/", "ldap://ca.example/cn=ca", "ldaps://ca.example/", "file:///etc/passwd", "HTTP+UNIX://x/"])
def test_lists_are_fetched_over_http_and_the_sentence_says_so(url):
    done = call("crl", "fetch", url)
    assert done.code == 2 and "over HTTP and HTTPS" in told(done) and "no certificate" not in told(done)
