"""A gateway whose dave and erin have their keys on a token only, behind a module that fails on demand; alice has hers in the database."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.index import index_message
from mailsec.model.octets import BytesOctets
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.smime.protect import protect_message
from mailsec.store.certdb import CertDb
from mailsec.testing.authority import Authority
from mailsec.tokens.module import Module
from mailsec.tokens.state import StateDirectory
from tests.peers.gateway import PROJECT, Gateway, until
from tests.peers.inbox import Inbox
from tests.peers.lattice import Lattice
from tests.peers.softhsm import Shim, SoftHsm

__all__ = ["PIN", "PULLED", "World", "is_signed_by"]

PIN = " 12 34 "
PEOPLE: Mapping[str, str] = {"dave": "rsa-2048", "erin": "p256"}
PULLED = (
    "C_GetSlotList empty",
    "C_GetTokenInfo 0xE0",
    "C_OpenSession 0xE0",
    "C_GetSessionInfo 0xB3",
    "C_SignInit 0x32",
    "C_DecryptInit 0x32",
)
HASTY = (
    "import functools, sys; from mailsec.app import supervisor, cli, token_hosts\n"
    "supervisor.Timing = functools.partial(supervisor.Timing, ping=0.2)\n"
    "token_hosts.HostTiming = functools.partial(token_hosts.HostTiming, silence=2.0, start=20.0, given_again=0.5)\n"
    "{changed}cli.main(sys.argv[1:])\n"
)


class World:
    """The gateway, its token and its shim."""

    def __init__(
        self,
        directory: Path,
        inbox: Inbox,
        *,
        pin: str = PIN,
        module: Mapping[str, Any] | None = None,
        people: Mapping[str, str] = PEOPLE,
        lattice: bool = False,
        **changes: Any,
    ) -> None:
        """`pin` is what stands in the pass phrase file; `module` are settings of the module; `people` have keys of these kinds on the token;
        `lattice`: it has ML-DSA and ML-KEM; `changes` are sections of the configuration.
        """
        self.hsm = SoftHsm(directory / "hsm")
        self.hsm.add("HSM 1", PIN)
        self.hsm.add("HSM 10", "other")
        front = Lattice(directory / "lattice") if lattice else self.hsm
        self.shim = Shim(directory / "shim", front.library)
        self.authority = Authority("token CA", at=datetime.now(UTC) - timedelta(days=1))
        self.inbox = inbox
        self.certificates: dict[str, bytes] = {}
        os.environ.update(self.hsm.environment | front.environment | self.shim.environment)
        with Module("make", front.library, state=StateDirectory(directory / "making")) as making:
            making.login("HSM 1", PIN.encode())
            for name, kind in people.items():
                key = making.generate_key("HSM 1", kind, f"{name}-2026")
                self.certificates[name] = self.authority.certify(key.public_key, f"{name}@example.org")
                making.import_certificate("HSM 1", self.certificates[name], f"{name}-2026")
            # As on most cards: a key, and nothing that says whose it is.
            bare = making.generate_key("HSM 1", "rsa-2048", "judith's")
            self.certificates["judith"] = self.authority.certify(bare.public_key, "judith@example.org")
        rules = [
            {"name": "by name", "match": {"subject": "^by name"}, "sign": "required", "signer": "HSM 1:dave-2026"},
            {"name": "by URI", "match": {"subject": "^by URI"}, "sign": "required", "signer": "pkcs11:token=HSM%201;object=dave-2026"},
            {"name": "by nickname", "match": {"subject": "^by nickname"}, "sign": "required", "signer": "dave-2026"},
            {"name": "everybody signs", "sign": "required"},
        ]
        modules = [{"name": "soft", "library": self.shim.library, "call_timeout": 2.0, **(module or {})}, *changes.pop("modules", ())]
        self.gateway = Gateway(directory / "gateway", inbox.port, workers=1, module=modules, rule=rules, **changes)
        secret = directory / "gateway" / "passphrase"
        own = secret.read_text().removesuffix("\n").removeprefix("internal:")
        with CertDb.open(str(directory / "gateway" / "mailsec.db"), password=own.encode()) as database:
            database.add(self.certificates["judith"], "judith of the database", at=datetime.now(UTC))
        secret.write_text(f"internal:{own}\nHSM 10:other\nHSM 1:{pin}\n")

    def start(self, changed: str = "") -> World:
        """`changed` is Python that the supervisor runs first."""
        gateway = self.gateway
        began = len(gateway._events("ready"))
        with gateway.log.open("ab") as log:
            gateway.gateway = subprocess.Popen(
                [sys.executable, "-c", HASTY.format(changed=changed), "serve", "-c", str(gateway.configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(PROJECT)},
                cwd=gateway.directory,
                start_new_session=True,
            )
        until(lambda: gateway.gateway.poll() is not None or len(gateway._events("ready")) > began, what="ready")
        assert gateway.gateway.poll() is None, gateway.log.read_text()[-3000:]
        return self

    def ready(self, token: str = "HSM 1") -> int:
        """How often a token has become ready."""
        return len([one for one in self.gateway._events("token is ready") if one["token"] == token])

    def host(self) -> int:
        """The process of the token host that lives now."""
        return next(one["pid"] for one in reversed(self.gateway._events("token host is starting")))

    def send(self, sender: str, subject: str) -> None:
        with self.gateway.client("trusted") as client:
            text = f"From: {sender}\r\nTo: x@elsewhere.example\r\nSubject: {subject}\r\n\r\nbody\r\n"
            client.sendmail(sender, ["x@elsewhere.example"], text.encode())

    def arrived(self, subject: str, seconds: float = 30) -> bytes:
        """The message with this subject, when it has come through."""
        line = f"\nSubject: {subject}\r\n".encode()
        return until(lambda: next((one.octets for one in self.inbox.messages if line in one.octets), None), seconds, subject)

    def encrypted_to(self, name: str, subject: str) -> bytes:
        """Mail from outside, encrypted to a key on the token."""
        text = (
            f"From: stranger@elsewhere.example\r\nTo: {name}@example.org\r\nSubject: {subject}\r\n\r\nthe secret of {subject}\r\n".encode()
        )
        plan = ProtectionPlan(encrypt=True, recipients=("one",))
        recipients = [EncryptionRecipient(self.certificates[name])]
        message = index_message(BytesOctets(text))

        async def work(_cost, function, *args):
            return function(*args)

        return b"".join(
            bytes(piece)
            for piece in run_now(
                protect_message(
                    message,
                    plan,
                    signers=(),
                    recipients=recipients,
                    backend=SoftwareBackend(),
                    random=os.urandom,
                    work=work,
                    at=datetime.now(UTC),
                )
            )
        )

    def deliver(self, name: str, message: bytes) -> None:
        with self.gateway.client("internet") as client:
            client.sendmail("stranger@elsewhere.example", [f"{name}@example.org"], message)

    def waiting(self, need: str = "token:HSM 1") -> int:
        return len([one for one in self.gateway.waiting() if one.need == need])


def is_signed_by(world: World, octets: bytes, name: str) -> bool:
    """As openssl sees it."""
    directory = world.gateway.directory
    pem = "-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(world.authority.certificate).decode() + "-----END CERTIFICATE-----\n"
    (directory / "token-ca.pem").write_text(pem)
    (directory / "message").write_bytes(octets)
    signer = directory / "signer.pem"
    done = subprocess.run(
        ["openssl", "cms", "-verify", "-in", "message", "-CAfile", "token-ca.pem", "-signer", str(signer), "-out", "/dev/null"],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return base64.b64decode("".join(signer.read_text().splitlines()[1:-1])) == world.certificates[name]
