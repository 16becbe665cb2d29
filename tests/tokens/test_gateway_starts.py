"""How a gateway with tokens starts: wrong PINs, cards that are out, libraries that are none, hosts of systemd; and what it then recovers from."""

from __future__ import annotations

import json
import os
import signal
import smtplib
import subprocess
import sys

import pytest

from tests.peers.gateway import PROJECT, alive, until
from tests.peers.token_world import PIN, PULLED, World, is_signed_by


def mailsec(world: World, *arguments: str, text: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "mailsec", *arguments, "-c", str(world.gateway.configuration)],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=False,
    )
    return done.stdout + done.stderr


def test_a_wrong_pin_takes_that_token_out_the_rest_starts_and_a_person_brings_it_back(make):
    world = make(pin="wrong").start()
    until(lambda: world.ready("HSM 10") and world.gateway._events("token is out of service"), what="two logins")
    assert world.shim.calls("C_Login") == 2
    world.send("alice@example.org", "of alice")
    world.arrived("of alice")
    world.send("dave@example.org", "of dave")
    until(lambda: world.waiting() == 1, what="one that waits")
    # No restart of anything tries the PIN again; that of the other token was right, and is given again.
    os.kill(world.host(), signal.SIGKILL)
    until(lambda: world.ready("HSM 10") == 2, what="the next host")
    assert world.shim.calls("C_Login") == 3
    assert "refuses the PIN" in mailsec(world, "token", "list") or "an earlier login failed" in mailsec(world, "token", "list")
    assert "token 'HSM 1' is out of service" in mailsec(world, "check")
    # A person types it; mail goes on, and so it does after the next crash.
    assert "mailsec uses the token" in mailsec(world, "token", "login", "HSM 1", "--pin-file", "-", text=PIN + "\n")
    assert is_signed_by(world, world.arrived("of dave", 10), "dave")
    os.kill(world.host(), signal.SIGKILL)
    until(lambda: world.ready("HSM 1") == 2, what="the login after the crash")
    world.send("dave@example.org", "after the crash")
    world.arrived("after the crash")


def test_a_card_that_is_out_at_the_start_is_known_from_before(make):
    world = make().start()
    until(lambda: world.ready(), what="the token")
    world.gateway.gateway.terminate()
    assert world.gateway.gateway.wait(20) == 0
    world.shim.say(*PULLED)
    world.start()
    world.send("dave@example.org", "from the start")
    world.deliver("erin", world.encrypted_to("erin", "sealed from the start"))
    world.send("alice@example.org", "not hers")
    world.arrived("not hers")
    until(lambda: world.waiting() == 2, what="two that wait")
    world.shim.say()
    assert is_signed_by(world, world.arrived("from the start", 20), "dave")
    world.arrived("sealed from the start", 20)


def test_a_library_that_crashes_in_every_call_from_the_start_takes_no_other_mail_with_it(make):
    world = make()
    world.shim.say("* crash")
    world.start()
    until(lambda: world.shim.calls("C_Initialize") >= 1, what="the first call")
    world.deliver("nobody", b"From: bob@elsewhere.example\r\nTo: nobody@example.org\r\nSubject: passes by\r\n\r\nhello\r\n")
    world.arrived("passes by")
    world.shim.say()
    until(lambda: world.ready(), 30, what="the token")
    world.send("dave@example.org", "of dave")
    assert is_signed_by(world, world.arrived("of dave", 20), "dave")


def test_too_much_that_waits_for_a_token_is_refused_for_now(make):
    world = make(gateway={"limits": {"waiting_for_token": 2}}).start()
    until(lambda: world.ready(), what="the token")
    world.shim.say(*PULLED)
    for number in range(2):
        world.send("dave@example.org", f"number {number}")
    until(lambda: world.waiting() == 2, what="two that wait")
    with pytest.raises(smtplib.SMTPDataError) as caught:
        world.send("dave@example.org", "one more")
    assert caught.value.smtp_code == 451 and caught.value.smtp_error.startswith(b"4.3.2")
    world.send("alice@example.org", "of alice")
    world.arrived("of alice")
    world.shim.say()
    world.arrived("number 0", 20)


def test_a_library_that_is_none_keeps_nobody_else_from_starting(make, tmp_path):
    (tmp_path / "broken.so").write_text("no library")
    world = make(modules=[{"name": "broken", "library": str(tmp_path / "broken.so")}]).start()
    until(lambda: world.ready(), what="the token of the other module")
    world.send("dave@example.org", "of dave")
    assert is_signed_by(world, world.arrived("of dave"), "dave")
    assert "cannot be loaded" in world.gateway.log.read_text()


def test_a_host_that_systemd_starts_gets_its_pins_and_may_be_started_again(make, tmp_path):
    directory = tmp_path / "shared"
    directory.mkdir(mode=0o750)
    world = make(module={"host": f"unix:{directory}/token.sock"})
    command = [sys.executable, "-m", "mailsec.app.token_host", "-c", str(world.gateway.configuration), "soft"]

    def start() -> subprocess.Popen:
        with world.gateway.log.open("ab") as log:
            return subprocess.Popen(command, stderr=log, env={**os.environ, "PYTHONPATH": str(PROJECT)})

    host = start()
    try:
        world.start()
        until(lambda: world.ready(), what="the token")
        world.send("dave@example.org", "through systemd's host")
        assert is_signed_by(world, world.arrived("through systemd's host"), "dave")
        host.kill()
        host.wait(10)
        host = start()
        until(lambda: world.ready() == 2, what="the token again")
        world.send("dave@example.org", "through the next one")
        assert is_signed_by(world, world.arrived("through the next one"), "dave")
        # Its own user's process outlives mailsec.
        world.gateway.gateway.terminate()
        assert world.gateway.gateway.wait(20) == 0
        assert alive(host.pid)
        host.terminate()
        assert host.wait(10) == 0
    finally:
        host.kill()
        host.wait(10)


def test_an_nss_database_is_a_token_of_a_module(make, tmp_path, need):
    """A key that exists there only signs through the gateway; `module add` puts another library beside it."""
    certutil = need("certutil", "libnss3-tools")
    nss = tmp_path / "nss"
    nss.mkdir()
    (nss / "password").write_text("of nss\n")
    run = [certutil, "-d", f"sql:{nss}", "-f", str(nss / "password")]
    subprocess.run([*run, "-N"], check=True, timeout=60)
    (nss / "noise").write_bytes(os.urandom(64))
    self_signed = ["-x", "-t", ",,", "-k", "rsa", "-g", "2048", "-v", "12", "-7", "frank@example.org", "-z", str(nss / "noise")]
    subprocess.run(
        [*run, "-S", "-n", "frank", "-s", "E=frank@example.org,CN=Frank", *self_signed], check=True, capture_output=True, timeout=60
    )
    world = make(modules=[{"name": "nss", "nss": [str(nss)]}])
    with (world.gateway.directory / "passphrase").open("a") as file:
        file.write("NSS Certificate DB:of nss\n")
    world.start()
    until(lambda: world.ready("NSS Certificate DB"), what="the database")
    world.send("frank@example.org", "of frank")
    octets = world.arrived("of frank")
    (tmp_path / "message").write_bytes(octets)
    verified = subprocess.run(
        ["openssl", "cms", "-verify", "-noverify", "-in", "message"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert verified.returncode == 0, verified.stderr
    assert [one for one in world.gateway._events("key used") if one["key"] == "NSS Certificate DB:frank"]


# The supervisor takes its time over what it does once it has seen a card.
SLOWLY = """
import os, time
from mailsec.app import {module}
real = {module}.{what}
def slowly(self, *arguments):
    while self.{when} and not os.path.exists({go!r}):
        time.sleep(0.05)
    return real(self, *arguments)
{module}.{what} = slowly
"""


@pytest.mark.parametrize(
    "what",
    [
        {"module": "modules", "what": "Assignments.refresh", "when": "_all_listed()"},
        {"module": "pins", "what": "Pins.obtain", "when": "settings"},
    ],
    ids=["its certificates are looked up", "its PIN is asked for"],
)
def test_mail_waits_for_a_card_that_is_seen_for_the_first_time_until_it_is_known_whose_keys_it_has(make, tmp_path, what):
    go = tmp_path / "go"
    world = make().start(SLOWLY.format(go=str(go), **what))
    if what["module"] == "modules":
        until(world.ready, what="the login")
    until(lambda: unsettled(world), what="the card")
    for who in ("judith", "frank"):
        world.send(f"{who}@example.org", f"of {who}")
    until(lambda: len([one for one in world.gateway.waiting() if one.need.startswith("token:")]) == 2, what="mail that waits for the card")
    world.send("alice@example.org", "of alice")
    world.arrived("of alice")
    go.touch()
    assert is_signed_by(world, world.arrived("of judith", 60), "judith")
    # Frank has no key there either: his mail goes the way of mail without one.
    until(lambda: not world.gateway.waiting(), what="an answer for the other")
    with pytest.raises(smtplib.SMTPDataError) as caught:
        world.send("frank@example.org", "once more")
    assert caught.value.smtp_code == 550


def test_mail_without_a_key_does_not_wait_for_a_token_that_nobody_logs_in_to(make):
    world = make(module={"tokens": ["HSM 10"]}).start()
    until(lambda: world.ready("HSM 10"), what="the token that is wanted")

    def refused() -> bool:
        try:
            world.send("frank@example.org", "of frank")
        except smtplib.SMTPDataError as error:
            return error.smtp_code == 550
        return False

    until(refused, what="a refusal")


def unsettled(world: World) -> bool:
    """Whether the host has listed the card and does not know yet whose keys are on it."""
    for file in world.gateway.directory.glob("**/listing-soft.json"):
        rows = json.loads(file.read_bytes())["tokens"]
        return any(row["name"] == "HSM 1" and not row["settled"] for row in rows)
    return False
