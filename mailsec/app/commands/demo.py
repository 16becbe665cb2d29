"""`mailsec demo`: the main job end to end, as a story that checks itself."""

from __future__ import annotations

import signal
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mailsec.app.output import Output

if TYPE_CHECKING:
    from mailsec.app.demo.show import Show
    from mailsec.app.demo.world import World

__all__ = ["demo"]


@click.command()
@click.option("--keep", is_flag=True, help="Leave it running at the end, until ^C, and say how to send it mail.")
@click.option("--plugins", is_flag=True, help="Show the protocols of the plugins that are installed, too: milter, socketmap and others.")
@click.pass_obj
def demo(_output: Output, keep: bool, plugins: bool) -> int:
    """Show the main job on real sockets: mail is signed, encrypted, verified, decrypted, read, and none of it is lost."""
    from mailsec.app.demo.show import Show, StepFailed
    from mailsec.app.demo.story import tell
    from mailsec.app.demo.world import World

    show = Show()
    directory = Path(tempfile.mkdtemp(prefix="mailsec-demo-"))
    show.title(
        "mailsec: signs, encrypts, verifies and decrypts mail for people who do nothing special",
        f"Everything happens on 127.0.0.1, and in {directory}",
    )
    world = World(directory)
    # SIGTERM, and a terminal that is closed, end us as ^C does, and what we started with us.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        tell(show, world, plugins=plugins)
        show.console.print()
        _say_where(show, world)
        show.lines("", f"Every step gave what it should, in {show.elapsed()}.")
        if keep:
            _wait(show, world)
        code = world.stop_gateway()
        if code != 0:
            raise StepFailed("mailsec serve stops", "exit code 0", str(code))
    except StepFailed as failure:
        show.failed(failure)
        show.lines("", f"The log is {world.log}; its last lines:", world.last_log_lines(8))
        return 1
    finally:
        world.close()
    return 0


def _say_where(show: Show, world: World) -> None:
    show.files(
        world.directory,
        [
            ("maildir/new", "what was delivered"),
            ("mailsec.toml", "the configuration, every setting explained"),
            ("mailsec.db", "certificates, keys, users (its pass phrase is in the file passphrase)"),
            ("mailsec.log", "what the gateway did, one JSON object a line"),
            ("ca.pem", "the demonstration CA"),
            ("carol.key, carol.pem", "what Carol reads with"),
        ],
    )


def _wait(show: Show, world: World) -> None:
    from mailsec.app.demo.letters import ALICE, BOB
    from mailsec.app.demo.world import PASSWORD_FILE

    show.lines(
        "",
        "It goes on until ^C. Send it mail with any client:",
        "",
        f"  submission  127.0.0.1 port {world.ports['submission']}, STARTTLS, user alice, password {world.password} (in {PASSWORD_FILE})",
        f"              From: {ALICE}; it leaves signed, and encrypted where the subject begins with [confidential]",
        f"  Internet    127.0.0.1 port {world.ports['internet']}, any sender, recipients {BOB} or anybody@example.org",
        f"  POP3        127.0.0.1 port {world.ports['mailbox']}, STLS, user {BOB}, the same password",
        "",
        "for example:",
        "",
        f"  swaks --server 127.0.0.1:{world.ports['submission']} --tls --auth-user alice --auth-password {world.password} \\",
        f"        --from {ALICE} --to somebody@partner.example",
        f"  swaks --server 127.0.0.1:{world.ports['internet']} --from somebody@partner.example --to {BOB}",
        "",
        f"What is delivered is in {world.maildir / 'new'}.",
    )
    with suppress(KeyboardInterrupt):
        signal.pause()
