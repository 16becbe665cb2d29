"""`mailsec demo --plugins`: protocols that plugins bring, at work in the gateway that the story has started.

What is not installed is left out by name; the story goes on without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from mailsec.app.demo.letters import ALICE, BOB, CAROL, letter
from mailsec.app.demo.mail_server import ask_map, ask_milter
from mailsec.app.demo.show import Show, StepFailed
from mailsec.app.demo.world import HOSTNAME, World
from mailsec.plugins import ENTRY_POINT_GROUP

__all__ = ["PLUGINS", "Part", "installed", "show_plugins"]

STRANGER = "somebody@elsewhere.example"
Verify = Callable[[Path], dict[str, Any]]


class Part(NamedTuple):
    """What one plugin needs, and what is shown of it."""

    services: tuple[str, ...]
    """A listener for each."""
    show: Callable[[Show, World, Verify], None]


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


PLUGINS = {
    "milter": Part(("milter",), _milter),
    "socketmap": Part(("socketmap",), _socketmap),
}
"""In the order in which they are shown."""
