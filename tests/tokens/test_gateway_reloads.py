"""Modules and logins change while the gateway runs: a reload adds, changes and removes `[[module]]`s, and a PIN is typed."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mailsec.app.control_socket import ask
from tests.peers.gateway import PROJECT, alive, until
from tests.peers.softhsm import SoftHsm
from tests.peers.token_world import PIN, World, is_signed_by

SECOND = f'\n[[module]]\nname = "second"\nlibrary = "{SoftHsm.library}"\ntokens = ["HSM 10"]\n'


def control(world: World, **question: object) -> dict[str, Any]:
    return ask(str(world.gateway.directory / "run"), question, seconds=60)


def hosts(world: World) -> dict[str, int]:
    """The processes of the modules that the supervisor has, by name."""
    return {one["module"]: one["pid"] for one in control(world, do="status")["token_hosts"]}


def change(world: World, edit: Callable[[str], str]) -> None:
    """Bring another text of the configuration into force."""
    before = world.gateway.configuration.read_text()
    after = edit(before)
    assert after != before
    world.gateway.configuration.write_text(after)
    answer = control(world, do="reload")
    assert answer["ok"], answer


def gone(pid: int) -> bool:
    return not alive(pid)


def is_worker(pid: int) -> bool:
    try:
        return b"mailsec.app.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def signed(world: World, subject: str) -> bool:
    world.send("dave@example.org", subject)
    return is_signed_by(world, world.arrived(subject, 60), "dave")


def test_modules_come_change_and_go_at_reloads(make):
    world = make().start()
    until(lambda: world.ready(), what="the token")
    assert signed(world, "at first")
    first = hosts(world)["soft"]

    # One more: the first one's process goes on.
    change(world, lambda text: text + SECOND)
    until(lambda: hosts(world).get("second"), what="the second host")
    assert hosts(world)["soft"] == first and alive(first)
    assert signed(world, "beside another")

    # Other settings: another process, which gets the PIN that is known, and nothing is lost between the two.
    world.send("dave@example.org", "just before")
    change(world, lambda text: text.replace("call_timeout = 2\n", "call_timeout = 3\nthreads = 1\n"))
    assert is_signed_by(world, world.arrived("just before", 60), "dave")
    until(lambda: gone(first), what="the end of the host before")
    changed = hosts(world)["soft"]
    assert changed != first
    assert signed(world, "with other settings")

    # A session of the generation before has its key until it ends, though the module is not in the configuration any more.
    with world.gateway.client("trusted") as old:
        old.ehlo()
        kept: list[str] = []

        def without(text: str) -> str:
            head, rest = text.split('[[module]]\nname = "soft"', 1)
            module, found, tail = rest.partition("\n[")
            kept.append('\n[[module]]\nname = "soft"' + module + "\n")
            return head + found.removeprefix("\n") + tail

        change(world, without)
        assert alive(changed), "somebody uses it"
        text = "From: dave@example.org\r\nTo: x@elsewhere.example\r\nSubject: in an old session\r\n\r\nbody\r\n"
        old.sendmail("dave@example.org", ["x@elsewhere.example"], text.encode())
        assert is_signed_by(world, world.arrived("in an old session", 60), "dave")
    until(lambda: gone(changed), what="the end of a host that nobody needs")
    assert list(hosts(world)) == ["second"]
    # The other module sees the token, too, and nobody has logged in there: mail waits, and goes when the module comes back with its PIN.
    world.send("dave@example.org", "meanwhile")
    until(lambda: world.waiting() == 1, what="mail that waits for its key")
    change(world, lambda text: text + kept[0])
    assert is_signed_by(world, world.arrived("meanwhile", 60), "dave")
    assert hosts(world).keys() == {"second", "soft"}


def test_a_reload_that_comes_to_nothing_leaves_the_hosts_as_they_were(make):
    world = make().start()
    until(lambda: world.ready(), what="the token")
    before = hosts(world)
    good = world.gateway.configuration.read_text()
    world.gateway.configuration.write_text(good + SECOND)
    known = set(world.gateway.children())
    answers: list[dict[str, Any]] = []
    asking = threading.Thread(target=lambda: answers.append(control(world, do="reload")))
    asking.start()
    # Its worker dies before it is ready: then everything is as it was.
    started = until(lambda: [pid for pid in world.gateway.children() if pid not in known and is_worker(pid)], what="the new worker")
    second = hosts(world)["second"]
    os.kill(started[0], signal.SIGKILL)
    asking.join(60)
    assert answers and not answers[0]["ok"]
    until(lambda: gone(second), what="the end of the host that nobody needs")
    assert hosts(world) == before
    assert signed(world, "as before")


def typed(world: World, pin: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "mailsec", "token", *words, "-c", str(world.gateway.configuration)],
        input=pin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=False,
    )


def test_a_pin_is_typed_while_the_gateway_uses_the_module(make):
    world = make()
    secret = world.gateway.directory / "passphrase"
    secret.write_text(secret.read_text().replace(f"HSM 1:{PIN}\n", ""))
    world.start()
    until(lambda: world.ready("HSM 10"), what="the token whose PIN is known")
    world.send("dave@example.org", "before the PIN")
    until(lambda: world.waiting() == 1, what="mail that waits for its key")
    host = world.host()
    logins = world.shim.calls("C_Login")

    done = typed(world, PIN + "\n", "login", "HSM 1", "--pin-file", "-")
    assert done.returncode == 0, done.stderr
    assert is_signed_by(world, world.arrived("before the PIN", 60), "dave")
    assert world.host() == host and world.shim.calls("C_Login") == logins + 1

    # In use: nothing is tried a second time, by the command or by whoever asks over the control socket, with any PIN.
    again = typed(world, "9999\n", "login", "HSM 1", "--pin-file", "-")
    assert again.returncode != 0 and "logged in already" in again.stderr
    answer = control(world, do="token-login", token="HSM 1", pin=base64.b64encode(b"9999").decode())
    assert not answer["ok"] and "logged in already" in str(answer)
    assert world.shim.calls("C_Login") == logins + 1
    assert signed(world, "behind it")

    # It is in memory: a reload, and another process, go on with it.
    change(world, lambda text: text.replace("call_timeout = 2\n", "call_timeout = 3\n"))
    until(lambda: not alive(host), what="the end of the host before")
    assert signed(world, "after a reload")


def test_lines_of_a_host_with_a_user_of_its_own_have_the_pseudonyms_of_the_workers(make, tmp_path):
    directory = tmp_path / "shared"
    directory.mkdir(mode=0o750)
    world = make(module={"host": f"unix:{directory}/token.sock"}, log={"privacy": "pseudonym"})
    log = tmp_path / "host.log"
    with log.open("ab") as file:
        host = subprocess.Popen(
            [sys.executable, "-m", "mailsec.app.token_host", "-c", str(world.gateway.configuration), "soft"],
            stderr=file,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )
    try:
        world.start()
        until(lambda: '"token is ready"' in log.read_text() and "HSM 1" in log.read_text(), what="the token")
        assert signed(world, "of whom")
        found = typed_log(world, "dave@example.org", str(log))
        used = [line for line in found.splitlines() if '"key used"' in line]
        assert used and "dave@" not in log.read_text()
    finally:
        host.kill()
        host.wait(10)


def typed_log(world: World, address: str, file: str) -> str:
    """What `mailsec log find` says."""
    done = subprocess.run(
        [sys.executable, "-m", "mailsec", "log", "find", address, file, "-c", str(world.gateway.configuration)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        check=False,
    )
    return done.stdout
