"""Commands with a PKCS#11 library that crashes or hangs in every call: one sentence with a hint, an exit code, and no end without a word."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from mailsec.app import cli, library_child
from mailsec.app.commands.init import set_up_database
from mailsec.app.config.render import render
from tests.peers.gateway import PROJECT
from tests.peers.softhsm import SO_PIN, Shim, SoftHsm


class Place:
    """A token behind a module that fails on demand, and a directory for commands."""

    def __init__(self, directory: Path) -> None:
        directory.chmod(0o700)
        self.directory = directory
        self.hsm = SoftHsm(directory / "hsm")
        self.hsm.add("HSM 1", "1234")
        self.shim = Shim(directory / "shim")
        for name, text in {"pin": "1234\n", "new": "4321\n", "so": SO_PIN + "\n"}.items():
            (directory / name).write_text(text)
        set_up_database(directory, "gw.example.org", ["example.org"])
        values = {
            "gateway": {"hostname": "gw.example.org", "domains": ["example.org"], "state_directory": str(directory / "state")},
            "listener": [{"address": "127.0.0.1:2525", "origin": "internet"}],
            "passphrase": {"method": "file", "file": "passphrase"},
            "relay": {"next_hop": "smtp://[127.0.0.1]:2526"},
            "module": [{"name": "shim", "library": self.shim.library}],
        }
        (directory / "mailsec.toml").write_text(render(values))
        with (directory / "passphrase").open("a") as file:
            file.write("HSM 1:1234\n")

    @property
    def environment(self) -> dict[str, str]:
        state = {"XDG_STATE_HOME": str(self.directory / "state-home"), "PYTHONPATH": str(PROJECT)}
        return self.hsm.environment | self.shim.environment | state

    def start(self, *arguments: str) -> subprocess.Popen:
        """`mailsec` as a process."""
        return subprocess.Popen(
            [sys.executable, "-m", "mailsec", *(each.format(library=self.shim.library) for each in arguments)],
            cwd=self.directory,
            env=os.environ | self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def run(self, *arguments: str, seconds: float = 30.0) -> tuple[int, str, str]:
        """The same, without the time that it takes to import: exit code, standard output and error."""
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            self._be(arguments, seconds)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status), (self.directory / "out").read_text(), (self.directory / "err").read_text()

    def _be(self, arguments: Sequence[str], seconds: float) -> NoReturn:
        code = 99
        try:
            os.chdir(self.directory)
            os.environ |= self.environment
            for number, path in enumerate((os.devnull, "out", "err")):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), number)
            # pytest has put its own in their places.
            sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, "w" if number else "r") for number in range(3))
            library_child.SECONDS = library_child.PATIENT_SECONDS = seconds
            cli.main([each.format(library=self.shim.library) for each in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Place:
    return Place(tmp_path_factory.mktemp("faults"))


@pytest.fixture
def place(made: Place) -> Place:
    made.shim.say()
    return made


LIBRARY = ("--library", "{library}")
COMMANDS = {
    "list": ("token", "list", *LIBRARY),
    "login": ("token", "login", "HSM 1", "--pin-file", "pin", *LIBRARY),
    "pin": ("token", "pin", "HSM 1", "--pin-file", "pin", "--new-pin-file", "new", *LIBRARY),
    "init": ("token", "init", "new one", "--so-pin-file", "so", "--pin-file", "pin", *LIBRARY),
    "mechanisms": ("token", "mechanisms", "HSM 1", *LIBRARY),
    "selftest": ("token", "selftest", "HSM 1", "--pin-file", "pin", *LIBRARY),
    "add": ("module", "add", "another", "{library}", "-c", "mailsec.toml", "--passphrase-file", "passphrase"),
    "check": ("check", "--login", "-c", "mailsec.toml"),
    "generate": ("key", "generate", "--token", "HSM 1", "--pin-file", "pin", "-c", "mailsec.toml", "--passphrase-file", "passphrase"),
}
GOES_ON = ("list", "check")
"""Commands about several modules: one of them is a problem among others."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_library_that_crashes_in_every_call(place: Place, command: str):
    place.shim.say("* crash")
    code, _, err = place.run(*COMMANDS[command])
    assert f"{place.shim.library} crashed in C_Initialize (SIGSEGV)" in err and "hint:" in err, err
    assert code == (0 if command in GOES_ON else 1)
    assert err.count("mailsec: ") == 2 or command == "check"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_library_that_hangs_in_every_call(place: Place, command: str):
    place.shim.say("* hang")
    code, _, err = place.run(*COMMANDS[command], seconds=0.5)
    assert f"{place.shim.library} does not come back from C_Initialize" in err and "hint:" in err, err
    assert code == (0 if command in GOES_ON else 75)


def test_a_crash_in_the_middle_names_the_call_and_leaves_the_mark(place: Place):
    place.shim.say("C_Login crash")
    code, out, err = place.run(*COMMANDS["login"], "--json")
    assert code == 1 and "crashed in C_Login" in err
    assert json.loads(out)["error"]["class"] == "TokenError"
    place.shim.say()
    code, out, err = place.run("token", "list", *LIBRARY)
    assert "cut off" in out
    assert place.run(*COMMANDS["login"])[0] == 0


def test_what_was_done_before_a_crash_at_the_end_is_not_told_as_done(place: Place):
    place.shim.say("C_Finalize crash")
    code, _, err = place.run(*COMMANDS["mechanisms"])
    assert code == 1 and "crashed in C_Finalize" in err


def test_a_command_that_works_is_as_it_was(place: Place):
    assert place.run(*COMMANDS["login"]) == (0, "HSM 1: the PIN is right\n", "")
    code, out, _ = place.run("token", "mechanisms", "HSM 2", *LIBRARY, "--json")
    assert code == 1 and json.loads(out)["error"]["class"] == "KeyUnavailable"
    assert place.run("token", "login", *LIBRARY)[0] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_ends_a_command_ends_it_also_in_a_library_that_hangs(place: Place, number: int):
    place.shim.say("C_GetSlotList hang")
    process = place.start(*COMMANDS["mechanisms"])
    try:
        _hangs(place, "C_GetSlotList")
        process.send_signal(number)
        assert process.wait(20) == 128 + number
    finally:
        process.kill()


def test_a_child_does_not_outlive_its_command(place: Place):
    place.shim.say("C_GetSlotList hang")
    process = place.start(*COMMANDS["mechanisms"])
    _hangs(place, "C_GetSlotList")
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.wait(20)
    deadline = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _hangs(place: Place, function: str) -> None:
    log = Path(f"{place.shim.control}.calls")
    log.unlink(missing_ok=True)
    deadline = time.monotonic() + 60
    while place.shim.calls(function) == 0:
        assert time.monotonic() < deadline
        time.sleep(0.02)
