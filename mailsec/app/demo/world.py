"""The world of the demonstration: a directory, a database, people, the gateway as its own process, and the mail server behind it."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from mailsec.app.config.render import render
from mailsec.app.demo.letters import ALICE, BOB, CAROL, Person
from mailsec.app.demo.show import StepFailed
from mailsec.keys.software import SoftwareKey
from mailsec.mime.index import index_message
from mailsec.model.address import Address
from mailsec.model.octets import BytesOctets
from mailsec.model.trust import TrustFlags
from mailsec.store.certdb import CertDb
from mailsec.x509.issue import IssuedBy, issue_mail, issue_server, make_ca, make_key, public_key_of

__all__ = ["PASSWORD_FILE", "World", "until"]

T = TypeVar("T")

HOSTNAME = "gw.example.org"
PASSWORD_FILE = "alice.password"  # noqa: S105 - the name of a file


def until(what: str, seconds: float, look: Callable[[], T | None], expected: str, got: Callable[[], str] = lambda: "nothing") -> T:
    """Look again and again until there is something; StepFailed after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise StepFailed(what, expected, got())
        time.sleep(0.05)


class World:
    """Everything that the demonstration made; `close` ends its processes and leaves its files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.maildir = directory / "maildir"
        self.log = directory / "mailsec.log"
        self.ca_file = directory / "ca.pem"
        self.configuration = directory / "mailsec.toml"
        self.password = secrets.token_urlsafe(12)
        self.ports: dict[str, int] = {}
        self.destination: subprocess.Popen[str] | None = None
        self.mailbox: subprocess.Popen[str] | None = None
        self.gateway: subprocess.Popen[bytes] | None = None
        self.certificates: dict[str, bytes] = {}
        """Certificates of our own people, by address."""
        self._ca: IssuedBy | None = None
        self._seen: dict[str, list[Path]] = {}
        self._read: set[str] = set()
        self._laid = 0

    # -- files -----------------------------------------------------------------------------------------------------------------

    def make_database(self) -> None:
        """The database, its pass phrase, the demonstration CA, and the server certificate."""
        at = datetime.now(UTC)
        passphrase = secrets.token_urlsafe(20)
        self._write("passphrase", f"internal:{passphrase}\n".encode(), private=True)
        ca_key, server_key = make_key("ec-p256"), make_key("ec-p256")
        ca = make_ca(common_name="Demonstration CA", key=ca_key, at=at, random=os.urandom, days=60)
        self._ca = IssuedBy(ca, ca_key)
        self.ca_file.write_bytes(_pem(ca))
        server = issue_server(
            self._ca, names=[HOSTNAME, "localhost", "127.0.0.1"], public_key=public_key_of(server_key), at=at, random=os.urandom, days=60
        )
        self.database = CertDb.create(str(self.directory / "mailsec.db"), passphrase.encode(), at=at)
        domains = ["example.org", "partner.example"]
        trust = TrustFlags.parse("C,C,")
        self.database.add(ca, "Demonstration-CA", trust=trust, domains=domains, source="issued", private_key=ca_key, at=at)
        self.database.add(server, "Server-Cert", source="issued", private_key=server_key, issuer=ca, at=at)

    def make_people(self) -> None:
        """Certificates and keys of Alice and Bob, who are ours, and a login for Alice."""
        assert self._ca is not None
        at, issuer = datetime.now(UTC), self._ca.certificate
        for address, kind in ((ALICE, "rsa-2048"), (BOB, "ec-p256")):
            person, key = self._person(address, kind, self._ca)
            self.certificates[address] = person.certificate
            self.database.add(person.certificate, address.partition("@")[0], source="issued", private_key=key, issuer=issuer, at=at)
        self.database.add_user("alice", self.password.encode(), [ALICE], at=at)
        self._write(PASSWORD_FILE, f"{self.password}\n".encode(), private=True)
        self.database.close()

    def correspondents(self) -> tuple[Person, Person]:
        """Carol, under our CA; and somebody who says that they are Carol, under a CA that nobody knows."""
        at = datetime.now(UTC)
        strange_key = make_key("ec-p256")
        strange_ca = IssuedBy(make_ca(common_name="Some Other CA", key=strange_key, at=at, random=os.urandom, days=60), strange_key)
        carol, key = self._person(CAROL, "rsa-2048", self._ca)
        self._write("carol.key", _pem(key, "PRIVATE KEY"), private=True)
        self._write("carol.pem", _pem(carol.certificate), private=False)
        return carol, self._person(CAROL, "rsa-2048", strange_ca)[0]

    def _person(self, address: str, kind: str, ca: IssuedBy | None) -> tuple[Person, bytes]:
        assert ca is not None
        key = make_key(kind)
        certificate = issue_mail(
            ca, addresses=[Address.parse(address)], public_key=public_key_of(key), at=datetime.now(UTC), random=os.urandom, days=60
        )
        return Person(address, certificate, SoftwareKey(address, key, certificate=certificate)), key

    def write_configuration(
        self, plugins: Mapping[str, Sequence[str]] | None = None, settings: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        """The configuration of the gateway, on free ports of the loopback.

        `plugins`: those that are enabled, and the services of each; `settings`: what stands in their tables.
        """
        plugins = plugins or {}
        services = [service for several in plugins.values() for service in several]
        names = ("submission", "internet", "mailbox", *services)
        self.ports |= dict(zip(names, _free_ports(len(names)), strict=True))
        values: dict[str, Any] = {
            "gateway": {"hostname": HOSTNAME, "domains": ["example.org"], "workers": 2, "drain_timeout": 10},
            "listener": [
                {
                    "name": "submission",
                    "address": f"127.0.0.1:{self.ports['submission']}",
                    "origin": "submission",
                    "tls": "starttls-required",
                    "certificate": "Server-Cert",
                },
                {
                    "name": "internet",
                    "address": f"127.0.0.1:{self.ports['internet']}",
                    "origin": "internet",
                    "tls": "starttls",
                    "certificate": "Server-Cert",
                },
                *self._mailbox_listener(),
                *({"name": one, "address": f"127.0.0.1:{self.ports[one]}", "service": one} for one in services),
            ],
            "plugins": {"enabled": list(plugins)},
            "passphrase": {"method": "file", "file": "passphrase"},
            "rule": [
                {"name": "confidential", "match": {"subject": r"^\[confidential\]"}, "encrypt": "required"},
                {"name": "everybody signs", "sign": "required"},
            ],
            "relay": {"next_hop": f"smtp://[127.0.0.1]:{self.ports['destination']}", "retry_first": 1, "retry_longest": 5},
        }
        # Strings and lists of strings are the same in TOML as in JSON.
        tables = "".join(
            f"\n[plugin.{name}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
            for name, table in (settings or {}).items()
            if table
        )
        self.configuration.write_text(render(values) + tables, encoding="utf-8")

    def _mailbox_listener(self) -> list[dict[str, Any]]:
        """Where mail is read, if there is a mailbox."""
        if "upstream" not in self.ports:
            return []
        return [
            {
                "name": "mailbox",
                "address": f"127.0.0.1:{self.ports['mailbox']}",
                "protocol": "pop3",
                "origin": "mailbox",
                "tls": "starttls-required",
                "certificate": "Server-Cert",
                "upstream": {"to": f"pop3://127.0.0.1:{self.ports['upstream']}", "tls": "none", "domains": ["example.org"]},
            }
        ]

    def _write(self, name: str, data: bytes, *, private: bool) -> None:
        descriptor = os.open(self.directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)

    # -- processes -------------------------------------------------------------------------------------------------------------

    def start_destination(self) -> None:
        """The mail server behind the gateway."""
        self.destination = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "mailsec.app.demo.destination", str(self.maildir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            # ^C is for the demonstration, which then ends them in order.
            start_new_session=True,
        )
        assert self.destination.stdout is not None
        port = self.destination.stdout.readline().strip()
        if not port.isdigit():
            raise StepFailed("the mail server behind the gateway", "a port", port or "it ended")
        self.ports["destination"] = int(port)

    def start_mailbox(self) -> None:
        """The mailbox: another mail server, over the Maildir."""
        self.mailbox = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "mailsec.app.demo.mailbox", str(self.maildir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self.mailbox.stdin is not None and self.mailbox.stdout is not None
        self.mailbox.stdin.write(f"{self.password}\n")
        self.mailbox.stdin.flush()
        port = self.mailbox.stdout.readline().strip()
        if not port.isdigit():
            raise StepFailed("the mailbox", "a port", port or "it ended")
        self.ports["upstream"] = int(port)

    def put(self, octets: bytes) -> None:
        """Lay a message into the Maildir that did not come by the gateway."""
        self._laid += 1
        name = f"900000.{self._laid}.laid"
        (self.maildir / "tmp" / name).write_bytes(octets)
        (self.maildir / "tmp" / name).rename(self.maildir / "new" / name)

    def certificate_of(self, nickname: str) -> bytes:
        """A certificate (DER) of the database."""
        password = (self.directory / "passphrase").read_text().strip().removeprefix("internal:")
        with CertDb.open(str(self.directory / "mailsec.db"), password=password.encode()) as database:
            return database.find(nickname)[0].der

    def start_gateway(self) -> None:
        """`mailsec serve`, as anybody would start it."""
        with self.log.open("ab") as log:
            self.gateway = subprocess.Popen(  # noqa: S603 - our own interpreter
                [sys.executable, "-m", "mailsec", "serve", "-c", str(self.configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        gateway = self.gateway

        def is_ready() -> bool | None:
            if gateway.poll() is not None:
                raise StepFailed("mailsec serve", "it runs", f"it ended with {gateway.returncode}: {self.last_log_lines(5)}")
            return True if any(event.get("event") == "ready" for event in self.events()) else None

        until("mailsec serve", 30, is_ready, "ready", lambda: self.last_log_lines(5))

    def stop_gateway(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.gateway is not None
        self.gateway.terminate()
        try:
            return self.gateway.wait(20)
        except subprocess.TimeoutExpired:
            raise StepFailed("mailsec serve stops", "it ends within 20 seconds", "it still runs") from None

    def close(self) -> None:
        """End what still runs."""
        for process in (self.gateway, self.mailbox, self.destination):
            if process is None or process.poll() is not None:
                continue
            if process.stdin is not None:
                process.stdin.close()
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()

    # -- what happened ---------------------------------------------------------------------------------------------------------

    def events(self) -> Iterator[Mapping[str, Any]]:
        """The lines of the gateway's log."""
        for line in self.log.read_text(errors="replace").splitlines():
            with suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    yield value

    def worker_pids(self) -> dict[int, int]:
        """Place to pid of the workers that were ready last."""
        return {int(event["worker"]): int(event["pid"]) for event in self.events() if event.get("event") == "worker is ready"}

    def kill_worker(self) -> tuple[int, int]:
        """kill -9 to a worker; its place and pid."""
        place, pid = next(iter(self.worker_pids().items()))
        os.kill(pid, signal.SIGKILL)
        return place, pid

    def last_log_lines(self, number: int) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-number:]) or "an empty log"

    def delivered(self) -> Mapping[str, list[Path]]:
        """Message-ID to the files with it in the Maildir."""
        with suppress(FileNotFoundError):
            for path in sorted((self.maildir / "new").iterdir()):
                if path.name not in self._read:
                    self._read.add(path.name)
                    message = index_message(BytesOctets(path.read_bytes()))
                    self._seen.setdefault(message.first("message-id") or "", []).append(path)
        return self._seen

    def arrived(self, message_id: str, seconds: float = 20) -> Path:
        """The file of a delivered message; StepFailed where it does not come."""
        return until(
            f"{message_id} arrives",
            seconds,
            lambda: self.delivered().get(message_id, [None])[0],
            "the message in the Maildir",
            lambda: f"no such message; last log line: {self.last_log_lines(1)}",
        )


def _free_ports(number: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def _pem(der: bytes, label: str = "CERTIFICATE") -> bytes:
    import base64

    text = base64.b64encode(der).decode("ascii")
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode("ascii")
