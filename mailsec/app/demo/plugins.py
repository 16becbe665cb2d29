"""`mailsec demo --plugins`: protocols that plugins bring, at work in the gateway that the story has started.

What is not installed is left out by name; the story goes on without it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mailsec.app.demo.letters import ALICE, BOB, CAROL, letter
from mailsec.app.demo.mail_server import ask_map, ask_milter
from mailsec.app.demo.show import Show, StepFailed
from mailsec.app.demo.world import HOSTNAME, World, until
from mailsec.plugins import ENTRY_POINT_GROUP

__all__ = ["PLUGINS", "Part", "installed", "show_plugins"]

STRANGER = "somebody@elsewhere.example"
Verify = Callable[[Path], dict[str, Any]]


class Part(NamedTuple):
    """What one plugin needs, and what is shown of it."""

    services: tuple[str, ...]
    """A listener for each."""
    show: Callable[[Show, World, Verify], None]
    settings: Mapping[str, Any] = MappingProxyType({})
    """What stands in its table."""


def installed() -> dict[str, Part]:
    """The plugins of the demonstration that are installed, by name."""
    there = {point.name for point in entry_points(group=ENTRY_POINT_GROUP)}
    return {name: part for name, part in PLUGINS.items() if name in there}


def show_plugins(show: Show, world: World, verify: Verify) -> None:
    """One after the other; raise StepFailed. `verify` is `mailsec smime verify` of a file."""
    parts = installed()
    for name, part in PLUGINS.items():
        if name in parts:
            part.show(show, world, verify)
        else:
            show.note(f"mailsec-{name} is not installed: it is left out")


# -- milter -----------------------------------------------------------------------------------------------------------------------


def _milter(show: Show, world: World, verify: Verify) -> None:
    port = world.ports["milter"]
    show.ok(f"mailsec-milter on 127.0.0.1:{port}: a mail server shows it what passes there", "in Postfix: smtpd_milters")
    octets, _ = letter(ALICE, STRANGER, "By another way", "Dear somebody,\n\nhello.\n\nAlice\n", "milter")
    asked = ask_milter(port, octets, ALICE, [STRANGER], login="alice")
    path = _kept(world, "milter.eml", asked.octets)
    verdict = verify(path)
    if verdict.get("trusted") is not True:
        raise StepFailed("what the milter made of Alice's mail", "signed and trusted", asked.refusal or str(verdict.get("reasons")))
    show.ok("Alice's mail, who has logged in at that server, is signed there: trusted", _listed(asked.changes))

    lie = f"Authentication-Results: {HOSTNAME}; smime=pass\r\n".encode()
    octets, _ = letter(CAROL, BOB, "Trust me", "Everything is in order.\n", "milter-forged")
    asked = ask_milter(port, lie + octets, CAROL, [BOB])
    if b"smime=pass" in asked.octets or b"smime=none" not in asked.octets:
        raise StepFailed("mail from outside by the milter", "the forged result gone, smime=none", asked.octets[:300].decode("latin-1"))
    show.ok("mail from outside with a forged smime=pass: smime=none", _listed(asked.changes))

    octets, _ = letter(ALICE, STRANGER, "[confidential] The price", "four hundred\n", "milter-refused")
    asked = ask_milter(port, octets, ALICE, [STRANGER], login="alice")
    if not asked.refusal.startswith("550 "):
        raise StepFailed("confidential mail to somebody without a certificate", "a refusal", _listed(asked.changes))
    show.ok("confidential mail to somebody without a certificate is refused there, too", asked.refusal)


def _kept(world: World, name: str, octets: bytes) -> Path:
    path = world.directory / name
    path.write_bytes(octets)
    return path


def _listed(changes: Sequence[str]) -> str:
    return ", ".join(changes) or "nothing was changed"


# -- socketmap --------------------------------------------------------------------------------------------------------------------


def _socketmap(show: Show, world: World, verify: Verify) -> None:
    port = world.ports["socketmap"]
    show.ok(f"mailsec-socketmap on 127.0.0.1:{port}: Postfix asks whom mail can be encrypted for", "in Postfix: check_recipient_access")
    for address, expected in ((CAROL, "OK"), (STRANGER, "NOTFOUND")):
        said = ask_map(port, "certificate", address)
        if not said.startswith(expected):
            raise StepFailed(f"the map certificate about {address}", expected, said)
        show.ok(f"{address}: {'there is a certificate' if expected == 'OK' else 'there is none'}", f"answered {said.strip()}")


# -- ocsp -------------------------------------------------------------------------------------------------------------------------


def _ocsp(show: Show, world: World, verify: Verify) -> None:
    url = f"http://127.0.0.1:{world.ports['ocsp']}/"
    show.ok(f"mailsec-ocsp on {url}: everybody asks it about certificates of the Demonstration CA", "certificates name it by --ocsp-url")
    _mailsec(world, "cert", "issue", "--ca", "Demonstration-CA", "--address", "dave@example.org", "--nickname", "dave")
    _status(world, url, "good")
    show.ok("Dave's new certificate: good")
    _mailsec(world, "cert", "revoke", "dave", "--reason", "keyCompromise")
    until("the responder tells that Dave's certificate is revoked", 10, lambda: _asked(world, url) == "revoked" or None, "revoked")
    show.ok("Dave's certificate is revoked: so it says, too, a moment later", "mailsec cert revoke dave --reason keyCompromise")


def _status(world: World, url: str, expected: str) -> None:
    said = _asked(world, url)
    if said != expected:
        raise StepFailed("mailsec ocsp check dave", expected, said)


def _asked(world: World, url: str) -> str:
    done = _mailsec(world, "ocsp", "check", "dave", "--url", url, "--fresh", "--json", passes=(0, 1))
    return str(json.loads(done).get("status"))


def _mailsec(world: World, *words: str, passes: Sequence[int] = (0,)) -> str:
    command = [sys.executable, "-m", "mailsec", *words, "-c", str(world.configuration)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)  # noqa: S603 - our own interpreter
    if done.returncode not in passes:
        raise StepFailed(f"mailsec {' '.join(words)}", "no error", done.stderr.strip() or done.stdout.strip())
    return done.stdout


PLUGINS = {
    "milter": Part(("milter",), _milter),
    "ocsp": Part(("ocsp",), _ocsp, {"authorities": ["Demonstration-CA"]}),
    "socketmap": Part(("socketmap",), _socketmap),
}
"""In the order in which they are shown."""
