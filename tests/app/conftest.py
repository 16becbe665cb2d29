"""A gateway as its own process, for tests that talk to it as its users do."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsec.app import cli
from mailsec.app.commands.init import set_up_database
from mailsec.app.config.render import render
from mailsec.app.output import Output
from tests.peers.gateway import PROJECT, alive, until
from tests.peers.nss import NssDirectory
from tests.peers.postfix import free_port

__all__ = ["PROJECT", "Served", "alive", "until"]


class Served:
    """`mailsec serve` in a directory of its own."""

    def __init__(self, directory: Path, next_hop: int = 0, **gateway: object) -> None:
        self.directory = directory
        self.directory.chmod(0o700)
        self.port = free_port()
        self.log = directory / "log"
        set_up_database(directory, "gw.example.org", ["example.org"])
        values = {
            "gateway": {"hostname": "gw.example.org", "domains": ["example.org"], "workers": 2, "drain_timeout": 5, **gateway},
            "listener": [{"address": f"127.0.0.1:{self.port}", "origin": "internet"}],
            "passphrase": {"method": "file", "file": "passphrase"},
            "relay": {"next_hop": f"smtp://[127.0.0.1]:{next_hop or free_port()}", "retry_first": 0.5, "retry_longest": 2},
        }
        self.configuration = directory / "mailsec.toml"
        self.configuration.write_text(render(values))
        self.process: subprocess.Popen | None = None

    def start(self) -> Served:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mailsec", "serve", "-c", str(self.configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
            )
        return self

    def ready(self) -> Served:
        until(lambda: self.process.poll() is not None or self.has("ready"), what="ready")
        assert self.process.poll() is None, self.log.read_text()
        return self

    def events(self, name: str = "") -> list[dict]:
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict) and (not name or value.get("event") == name):
                found.append(value)
        return found

    def has(self, name: str) -> bool:
        return bool(self.events(name))

    def workers(self) -> dict[int, int]:
        """Place to pid of the workers that were ready last."""
        return {event["worker"]: event["pid"] for event in self.events("worker is ready")}

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=10)

    def kill(self) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)
        for pid in self.workers().values():
            until(lambda pid=pid: not alive(pid), 10, f"worker {pid} to end")


@pytest.fixture
def served(tmp_path) -> Iterator[Served]:
    """One of its own, not started."""
    gateway = Served(tmp_path, workers=1)
    yield gateway
    gateway.kill()


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Served]:
    """One that runs with two workers, for tests that leave it running."""
    gateway = Served(tmp_path_factory.mktemp("running"))
    gateway.start().ready()
    yield gateway
    gateway.kill()


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    tmp_path.chmod(0o700)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    (tmp_path / "password").write_text("pässword\n")
    (tmp_path / "other").write_text("other\n")
    return tmp_path


@pytest.fixture
def mailsec(folder):
    """mailsec("cert", "list", …) -> (exit code, standard output, standard error)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        code = cli.run(arguments, Output(out, err))
        assert "Traceback" not in out.getvalue() + err.getvalue()
        assert code != 70, err.getvalue()
        return code, out.getvalue(), err.getvalue()

    return run


@pytest.fixture
def database(mailsec) -> str:
    assert mailsec("db", "init", "--no-password", "-d", "x.db")[0] == 0
    return "x.db"


@pytest.fixture(scope="session")
def nss_template(tmp_path_factory, need) -> Path:
    """A CA of certutil's, and Alice with a certificate from it."""
    need("certutil", "libnss3-tools")
    made = NssDirectory(tmp_path_factory.mktemp("nss"))
    common = ("-z", str(made.noise), "-v", "24")
    made.run(
        *("certutil", "-S", "-n", "Mail CA", "-s", "CN=Mail CA,O=Example", "-x", "-t", "CT,C,C", "-k", "ec", "-q", "nistp256", "-m", "1"),
        *("--keyUsage", "certSigning,crlSigning,critical", "-2", *common),
        stdin="y\n-1\ny\n",
    )
    made.run(
        *("certutil", "-S", "-n", "alice", "-s", "E=alice@example.org,CN=Alice", "-c", "Mail CA", "-t", ",,", "-k", "rsa", "-g", "2048"),
        *("-m", "100", "-7", "alice@example.org", "--keyUsage", "digitalSignature,keyEncipherment,critical"),
        *("--extKeyUsage", "emailProtection", *common),
    )
    return made.path


@pytest.fixture
def nss(folder, nss_template, monkeypatch) -> NssDirectory:
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    made = NssDirectory(folder / "nss", nss_template)
    (folder / "nsspw").write_bytes(made.password_file.read_bytes())
    return made


@pytest.fixture
def on(mailsec, nss):
    """on("cert", "list"): the command on the NSS directory, with its password."""
    return lambda *arguments: mailsec(*arguments, "-d", "nss:nss", "--passphrase-file", "nsspw")
