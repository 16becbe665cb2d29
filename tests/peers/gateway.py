"""The real thing for tests: `mailsec serve` as processes of its own, in the world of the demonstration, with a next hop of the test.

    submission   alice logs in (STARTTLS, PLAIN)
    trusted      our own MTA on loopback, for senders @example.org
    internet     anybody, for recipients in example.org

Ports are free loopback ports. `start` may put it into a mount namespace of its own, or arm a crash point.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mailsec.app.config.render import render, toml
from mailsec.app.demo.world import HOSTNAME, World
from mailsec.keys.files import pem
from mailsec.model.queue import QueueEntry
from mailsec.store.certdb import CertDb
from mailsec.store.spool_queue import list_queue
from tests.peers import logs
from tests.peers.postfix import free_ports

__all__ = ["PROJECT", "Gateway", "alive", "namespace_why_not", "server_certificate", "until"]

PROJECT = Path(__file__).resolve().parent.parent.parent
_template: World | None = None


def until(look: Callable[[], Any], seconds: float = 60, what: str = "") -> Any:
    """Look again and again until there is something true; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what or look}"
        time.sleep(0.02)
    return found


def alive(pid: int) -> bool:
    """True for a process that runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def namespace_why_not() -> str | None:
    """Why nothing can be mounted for one process only; None where it can."""
    if os.geteuid() != 0:
        return "mounting something for one process needs root"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        return "no mount namespaces here (unshare --mount)"
    return None


def _people() -> World:
    """A database with a CA, a server certificate, alice and bob: made once for each test process, and copied."""
    global _template
    if _template is None:
        directory = Path(tempfile.mkdtemp(prefix="mailsec-people-"))
        world = World(directory)
        world.make_database()
        world.make_people()
        world.carol, world.stranger = world.correspondents()  # type: ignore[attr-defined]
        _template = world
        import atexit

        atexit.register(shutil.rmtree, directory, True)
    return _template


def server_certificate() -> tuple[bytes, bytes]:
    """(certificate, private key) in PEM, for other servers on this machine, under the CA of every `Gateway`."""
    people = _people()
    password = (people.directory / "passphrase").read_text().strip().removeprefix("internal:")
    with CertDb.open(str(people.directory / "mailsec.db"), password=password.encode()) as database:
        entry = database.find("Server-Cert")[0]
        private_key = database.private_key(entry)
        assert private_key is not None
        return pem(entry.der, "CERTIFICATE"), pem(private_key, "PRIVATE KEY")


class Gateway(World):
    """`changes` are sections of the configuration (`plugin` holds those of plugins), laid over its own; `listeners` are more listeners."""

    def __init__(
        self, directory: Path, next_hop: str | int, *, workers: int = 2, listeners: Sequence[Mapping[str, Any]] = (), **changes: Any
    ):
        super().__init__(directory)
        directory.mkdir(exist_ok=True)
        directory.chmod(0o700)
        people = _people()
        for name in ("mailsec.db", "passphrase", "ca.pem"):
            shutil.copy2(people.directory / name, directory / name)
        self.password = people.password
        self.carol, self.stranger = people.carol, people.stranger  # type: ignore[attr-defined]
        names = ["submission", "trusted", "internet", *(str(one["name"]) for one in listeners)]
        self.ports |= dict(zip(names, free_ports(len(names)), strict=True))
        tls = {"tls": "starttls", "certificate": "Server-Cert"}
        own: list[dict[str, Any]] = [
            {"name": "submission", "origin": "submission", **tls, "tls": "starttls-required"},
            {"name": "trusted", "origin": "trusted", "senders": ["@example.org"]},
            {"name": "internet", "origin": "internet", **tls},
            *({"origin": "internet", **one} for one in listeners),
        ]
        for one in own:
            one["address"] = f"127.0.0.1:{self.ports[one['name']]}"
        values: dict[str, Any] = {
            "gateway": {"hostname": HOSTNAME, "domains": ["example.org"], "workers": workers, "drain_timeout": 5},
            "listener": own,
            "passphrase": {"method": "file", "file": "passphrase"},
            "rule": [{"name": "everybody signs", "sign": "required"}],
            "relay": {
                "next_hop": f"smtp://[127.0.0.1]:{next_hop}" if isinstance(next_hop, int) else next_hop,
                "retry_first": 0.5,
                "retry_longest": 1,
                "connect_timeout": 5,
            },
        }
        for section, settings in changes.items():
            values[section] = {**values.get(section, {}), **settings} if isinstance(settings, Mapping) else settings
        tables = "".join(
            f"\n[plugin.{name}]\n" + "".join(f"{setting} = {toml(value)}\n" for setting, value in table.items())
            for name, table in values.pop("plugin", {}).items()
        )
        self.configuration.write_text(render(values) + tables, encoding="utf-8")

    # -- processes -------------------------------------------------------------------------------------------------------------

    def start(self, *, crash: str = "", mount: str = "", ready: bool = True) -> Gateway:
        """Start it. `crash` arms a crash point in the workers; `mount` is shell text that runs first, in a mount namespace of its own."""
        command = [sys.executable, "-m", "mailsec", "serve", "-c", str(self.configuration)]
        if mount:
            command = ["unshare", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh", *command]
        began = len(self._events("ready"))
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        if crash:
            environment["MAILSEC_CRASH_POINT"] = crash
        logs.began(self.log)
        with self.log.open("ab") as log:
            self.gateway = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=self.directory, start_new_session=True
            )
        if ready:
            until(lambda: self.gateway.poll() is not None or len(self._events("ready")) > began, 60, "ready")
            assert self.gateway.poll() is None, self.log.read_text()[-3000:]
        return self

    def _events(self, name: str) -> list[Mapping[str, Any]]:
        return [event for event in self.events() if event.get("event") == name] if self.log.exists() else []

    def deaths(self) -> int:
        """How many workers have died."""
        return len(self._events("worker died; it is replaced"))

    def pids(self) -> list[int]:
        """The workers that live now."""
        return [pid for pid in self.worker_pids().values() if alive(pid)]

    def children(self) -> list[int]:
        """All that the supervisor has started, ready or not."""
        assert self.gateway is not None
        return [int(pid) for pid in Path(f"/proc/{self.gateway.pid}/task/{self.gateway.pid}/children").read_text().split()]

    def kill(self, *, supervisor: bool = True, workers: bool = True) -> None:
        """kill -9; where the supervisor is among them, return when all have ended (workers end with it)."""
        assert self.gateway is not None
        if self.gateway.poll() is not None:
            return
        children = self.children()
        if supervisor:
            self.gateway.send_signal(signal.SIGKILL)
        if workers:
            for pid in children:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        if supervisor:
            self.gateway.wait(10)
            until(lambda: not any(alive(pid) for pid in children), 20, "the workers to end")

    def close(self) -> None:
        logs.ended(self.log)
        if self.gateway is not None and self.gateway.poll() is None:
            self.kill()

    def inside(self, path: Path) -> Path:
        """`path` as the gateway sees it in its mount namespace."""
        assert self.gateway is not None
        return Path(f"/proc/{self.gateway.pid}/root{path}")

    # -- mail ------------------------------------------------------------------------------------------------------------------

    def client(self, listener: str = "internet", timeout: float = 30) -> smtplib.SMTP:
        """smtplib, connected; on `submission` alice has logged in."""
        client = smtplib.SMTP("127.0.0.1", self.ports[listener], local_hostname="client.example", timeout=timeout)
        if listener == "submission":
            client.starttls(context=ssl.create_default_context(cafile=str(self.ca_file)))
            client.login("alice", self.password)
        return client

    def connect(self, listener: str = "internet", timeout: float = 20) -> socket.socket:
        """A plain connection; nothing was read yet."""
        return socket.create_connection(("127.0.0.1", self.ports[listener]), timeout=timeout)

    def waiting(self) -> Sequence[QueueEntry]:
        """The same by the function beneath: for looking again and again."""
        return list_queue(str(self.directory / "spool"))

    def queue(self) -> list[Mapping[str, Any]]:
        """What `mailsec queue list --json` shows."""
        command = [sys.executable, "-m", "mailsec", "queue", "list", "--json", "-c", str(self.configuration)]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return list(json.loads(done.stdout)["entries"])
