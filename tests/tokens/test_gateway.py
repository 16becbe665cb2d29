"""Keys that exist on a token only, through the running gateway: what leaves is signed with them, what arrives is opened with them."""

from __future__ import annotations

import io
import os
import signal
import smtplib
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mailsec.app import cli
from mailsec.app.config import load_configuration
from mailsec.app.output import Output
from mailsec.app.token_keys import module_of
from mailsec.errors import KeyUnavailable
from mailsec.store.certdb import CertDb
from tests.peers.gateway import alive, until
from tests.peers.inbox import Inbox
from tests.peers.postfix import free_port
from tests.peers.token_world import PULLED, World, is_signed_by


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Iterator[World]:
    before = dict(os.environ)
    with Inbox() as inbox:
        made = World(tmp_path_factory.mktemp("tokens"), inbox, metrics={"listen": f"127.0.0.1:{free_port()}"})
        try:
            made.start()
            until(lambda: made.ready() and made.ready("HSM 10"), what="the tokens")
            yield made
        finally:
            made.gateway.close()
            os.environ.clear()
            os.environ.update(before)


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


def test_a_key_alone_on_a_card_signs_for_whom_its_certificate_in_the_database_names(world: World):
    world.send("judith@example.org", "of judith")
    assert is_signed_by(world, world.arrived("of judith"), "judith")
    used = [one for one in world.gateway._events("key used") if one["address"] == "judith@example.org"]
    assert used and used[0]["key"] == "HSM 1:judith of the database"


@pytest.mark.parametrize("signer", ["HSM 1:dave-2026", "dave-2026", "from"])
def test_a_command_signs_and_opens_with_keys_that_the_running_gateway_holds(world: World, tmp_path, signer: str):
    """Without a PIN: the host is logged in, and says in its log that the key was used."""

    def mailsec(*arguments: str) -> None:
        err = io.StringIO()
        assert cli.run([*arguments, "-c", str(world.gateway.configuration)], Output(io.StringIO(), err)) == 0, err.getvalue()

    plain, signed, sealed, clear = (str(tmp_path / name) for name in ("plain", "signed", "sealed", "clear"))
    Path(plain).write_bytes(b"From: dave@example.org\r\nTo: dave@example.org\r\nSubject: x\r\n\r\nby command\r\n")
    before = len(world.gateway._events("key used"))
    mailsec("smime", "sign", plain, "--signer", signer, "-o", signed)
    assert is_signed_by(world, Path(signed).read_bytes(), "dave")
    if signer == "from":
        Path(sealed).write_bytes(world.encrypted_to("dave", "sealed for a command"))
        mailsec("smime", "decrypt", sealed, "-o", clear)
        assert b"the secret of sealed for a command" in Path(clear).read_bytes()
    until(lambda: len(world.gateway._events("key used")) > before, what="the audit line")


@pytest.mark.parametrize("name", ["dave", "erin", "judith"])
def test_mail_that_is_encrypted_to_a_key_on_a_token_is_opened(world: World, name: str):
    world.deliver(name, world.encrypted_to(name, f"sealed for {name}"))
    assert f"the secret of sealed for {name}".encode() in world.arrived(f"sealed for {name}")
    assert [one for one in world.gateway._events("key used") if one["usage"] == "decrypt" and one["address"] == f"{name}@example.org"]


def test_a_plugin_is_given_the_module_of_a_name(world: World):
    """`Gateway.token` of a plugin in a worker: the host's module, over a connection of its own."""
    configuration = load_configuration(str(world.gateway.configuration))
    lines = Path(configuration.passphrase.file).read_bytes().splitlines()
    password = next(line.removeprefix(b"internal:") for line in lines if line.startswith(b"internal:"))
    with CertDb.open(configuration.database.location, password=password) as database:
        find = module_of(configuration, database)
    host = find("soft")
    assert {"HSM 1", "HSM 10"} <= {token.label for token in host.tokens()} and host.mechanisms("HSM 1")
    with pytest.raises(KeyUnavailable) as caught:
        find("softer")
    assert "soft" in caught.value.hint


def test_metrics_say_which_tokens_can_be_used(world: World):
    address = load_configuration(str(world.gateway.configuration)).metrics.listen

    def shown(*lines: str) -> bool:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=20) as answer:
            return set(lines) <= set(answer.read().decode().splitlines())

    all_well = [f'mailsec_tokens{{module="soft",token="{token}"}} 1.0' for token in ("HSM 1", "HSM 10")] + [
        'mailsec_token_hosts{module="soft"} 1.0'
    ]
    until(lambda: shown(*all_well), what="tokens that can be used")


def test_promise_8_a_rule_cannot_sign_with_the_key_of_somebody_else(world: World):
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
