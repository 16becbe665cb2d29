"""Keys that exist on a token only, through the running gateway: what leaves is signed with them, what arrives is opened with them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.index import index_message
from mailsec.model.octets import BytesOctets
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.smime.protect import protect_message
from mailsec.testing.authority import Authority
from mailsec.tokens.module import Module
from mailsec.tokens.state import StateDirectory
from tests.peers.gateway import Gateway, alive, until
from tests.peers.inbox import Inbox
from tests.peers.softhsm import Shim, SoftHsm

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
    "cli.main(sys.argv[1:])\n"
)


class World:
    """A gateway whose dave and erin have their keys on "HSM 1" only; alice has hers in the database."""

    def __init__(self, directory: Path, inbox: Inbox) -> None:
        self.hsm = SoftHsm(directory / "hsm")
        self.hsm.add("HSM 1", " 12 34 ")
        self.hsm.add("HSM 10", "other")
        self.shim = Shim(directory / "shim")
        self.authority = Authority("token CA", at=datetime.now(UTC) - timedelta(days=1))
        self.inbox = inbox
        self.certificates: dict[str, bytes] = {}
        os.environ.update(self.hsm.environment | self.shim.environment)
        with Module("make", self.hsm.library, state=StateDirectory(directory / "making")) as module:
            module.login("HSM 1", b" 12 34 ")
            for name, kind in (("dave", "rsa-2048"), ("erin", "p256")):
                key = module.generate_key("HSM 1", kind, f"{name}-2026")
                self.certificates[name] = self.authority.certify(key.public_key, f"{name}@example.org")
                module.import_certificate("HSM 1", self.certificates[name], f"{name}-2026")
        rules = [
            {"name": "by name", "match": {"subject": "^by name"}, "sign": "required", "signer": "HSM 1:dave-2026"},
            {"name": "by URI", "match": {"subject": "^by URI"}, "sign": "required", "signer": "pkcs11:token=HSM%201;object=dave-2026"},
            {"name": "by nickname", "match": {"subject": "^by nickname"}, "sign": "required", "signer": "dave-2026"},
            {"name": "everybody signs", "sign": "required"},
        ]
        module_settings = {"name": "soft", "library": self.shim.library, "call_timeout": 2.0}
        self.gateway = Gateway(directory / "gateway", inbox.port, workers=1, module=[module_settings], rule=rules)
        secret = directory / "gateway" / "passphrase"
        own = secret.read_text().removesuffix("\n").removeprefix("internal:")
        secret.write_text(f"internal:{own}\nHSM 10:other\nHSM 1: 12 34 \n")

    def start(self) -> World:
        gateway = self.gateway
        with gateway.log.open("ab") as log:
            gateway.gateway = subprocess.Popen(
                [sys.executable, "-c", HASTY, "serve", "-c", str(gateway.configuration)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
                cwd=gateway.directory,
                start_new_session=True,
            )
        until(lambda: gateway.gateway.poll() is not None or gateway._events("ready"), what="ready")
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


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    before = dict(os.environ)
    with Inbox() as inbox:
        made = World(tmp_path_factory.mktemp("tokens"), inbox)
        try:
            made.start()
            until(lambda: made.ready() and made.ready("HSM 10"), what="the tokens")
            yield made
        finally:
            made.gateway.close()
            os.environ.clear()
            os.environ.update(before)


def is_signed_by(world: World, octets: bytes, name: str) -> bool:
    """As openssl sees it."""
    directory = world.gateway.directory
    import base64

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


@pytest.mark.parametrize("subject", ["from the sender", "by name", "by URI", "by nickname"])
def test_a_key_that_only_exists_on_a_token_signs_mail(world: World, subject: str):
    world.send("dave@example.org", subject)
    assert is_signed_by(world, world.arrived(subject), "dave")
    assert [one for one in world.gateway._events("key used") if one["address"] == "dave@example.org" and one["usage"] == "sign"]


def test_the_key_whose_certificate_names_the_sender_is_found_among_database_and_tokens(world: World):
    world.send("erin@example.org", "of erin")
    assert is_signed_by(world, world.arrived("of erin"), "erin")
    world.send("alice@example.org", "of alice")
    assert b"multipart/signed" in world.arrived("of alice")


@pytest.mark.parametrize("name", ["dave", "erin"])
def test_mail_that_is_encrypted_to_a_key_on_a_token_is_opened(world: World, name: str):
    world.deliver(name, world.encrypted_to(name, f"sealed for {name}"))
    assert f"the secret of sealed for {name}".encode() in world.arrived(f"sealed for {name}")
    assert [one for one in world.gateway._events("key used") if one["usage"] == "decrypt" and one["address"] == f"{name}@example.org"]


def test_promise_8_a_rule_cannot_sign_with_the_key_of_somebody_else(world: World):
    import smtplib

    with pytest.raises(smtplib.SMTPDataError) as caught:
        world.send("erin@example.org", "by name, not mine")
    assert caught.value.smtp_code == 550


def test_promise_6_the_pin_is_nowhere(world: World):
    pids = [world.gateway.gateway.pid, *world.gateway.children()]
    assert world.host() in pids
    shown = b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes() for pid in pids)
    assert b"12 34" not in shown and b" 12 34 " not in world.gateway.log.read_bytes()
    kept = b"".join(one.read_bytes() for one in (world.gateway.directory / "state").iterdir())
    assert b"12 34" not in kept and not list((world.gateway.directory / "state").glob("*.mark"))


def test_a_card_that_is_pulled_makes_its_mail_wait_and_no_other(world: World):
    before = world.ready()
    world.shim.say(*PULLED)
    until(lambda: [one for one in world.gateway._events("token is out") if one["token"] == "HSM 1"], what="the loss")
    world.send("dave@example.org", "while it was out")
    world.deliver("erin", world.encrypted_to("erin", "sealed while it was out"))
    world.send("alice@example.org", "in the meantime")
    world.arrived("in the meantime")
    until(lambda: world.waiting() == 2, what="two that wait")
    assert not any(b"while it was out" in one.octets for one in world.inbox.messages)
    world.shim.say()
    assert is_signed_by(world, world.arrived("while it was out", 10), "dave")
    world.arrived("sealed while it was out", 10)
    assert world.ready() == before + 1


def test_a_host_that_is_killed_is_replaced_and_mail_goes_on(world: World):
    host = world.host()
    os.kill(host, signal.SIGKILL)
    world.send("dave@example.org", "after the kill")
    assert is_signed_by(world, world.arrived("after the kill"), "dave")
    assert world.host() != host


def test_a_host_that_is_stopped_is_killed_and_mail_goes_on(world: World):
    """SIGSTOP is as silent as a library that holds every lock."""
    until(lambda: world.ready() and alive(world.host()), what="a host")
    host = world.host()
    os.kill(host, signal.SIGSTOP)
    world.send("dave@example.org", "while it was stopped")
    world.send("alice@example.org", "not stopped")
    world.arrived("not stopped")
    assert is_signed_by(world, world.arrived("while it was stopped", 40), "dave")
    assert not alive(host)
    assert world.gateway._events("token host is silent; killing it")


@pytest.mark.parametrize("action", ["crash", "hang"])
def test_a_library_that_crashes_or_hangs_takes_no_worker_along(world: World, action: str):
    workers = world.gateway.pids()
    world.shim.say(f"C_SignInit {action}")
    world.send("dave@example.org", f"{action} in the library")
    world.send("alice@example.org", f"no {action} here")
    world.arrived(f"no {action} here")
    assert not any(f"{action} in the library".encode() in one.octets for one in world.inbox.messages)
    world.shim.say()
    assert is_signed_by(world, world.arrived(f"{action} in the library", 60), "dave")
    assert world.gateway.pids() == workers


def test_the_supervisor_takes_its_hosts_along(world: World):
    until(lambda: world.ready() and alive(world.host()), what="a host")
    children = world.gateway.children()
    assert world.host() in children
    world.gateway.gateway.terminate()
    assert world.gateway.gateway.wait(20) == 0
    assert not any(alive(pid) for pid in children)
