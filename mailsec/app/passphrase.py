"""Where pass phrases come from when nobody types them: `[passphrase]`. That of the database is called "internal", others by the token.

Names match exactly ("HSM 1" is not "HSM 10"), and only the end of the line is removed: a PIN may begin and end with blanks. The one
invariant: where the place that is configured has none, there is none; nothing is guessed, and nothing is asked elsewhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from mailsec.app.config import Configuration
from mailsec.app.config.models import Module, Passphrase
from mailsec.app.options import ask_passphrase, passphrase_from_file, read_passphrase_file
from mailsec.errors import ConfigurationError, InputError

__all__ = ["CREDENTIAL", "passphrase_source", "pin_source", "typed_pins"]

CREDENTIAL = "mailsec-passphrase"
"""The name of the systemd credential (LoadCredential=mailsec-passphrase:…)."""

_COMMAND_SECONDS = 30.0
_PIN_OCTETS = 4096


def passphrase_source(settings: Passphrase) -> str | None:
    """The pass phrase of the database, or None where somebody must be asked; raise where the configured place has none."""
    if settings.method in ("file", "defer"):
        return passphrase_from_file(settings.file)
    if settings.method == "systemd":
        return passphrase_from_file(_credential())
    if settings.method == "exec":
        try:
            return _ask(settings.command, "internal").decode()
        except UnicodeDecodeError:
            raise ConfigurationError(f"{settings.command} wrote a pass phrase that is not UTF-8", stage="passphrase") from None
    return None


def pin_source(settings: Passphrase, token: str) -> bytes | None:
    """The PIN of a token (a label, or a PKCS#11 URI), or None where there is none to be had without asking somebody.

    Raise ConfigurationError or InputError where there should be one: "defer" and "builtin" leave alone what they do not know.
    """
    if settings.method == "builtin":
        return None
    if settings.method == "exec":
        return _ask(settings.command, token)
    path = _credential() if settings.method == "systemd" else settings.file
    found = read_passphrase_file(path).get(token.encode())
    if found is None and settings.method != "defer":
        raise ConfigurationError(
            f'{path} has no line "{token}:…"', hint='add it, or set method = "defer" to leave such tokens alone', stage="passphrase"
        )
    return found


def typed_pins(configuration: Configuration, modules: Sequence[Module]) -> dict[tuple[str, str], bytes | None]:
    """With "builtin": PINs of the tokens that need one, asked for on the terminal, by module and token. Elsewhere none."""
    if configuration.passphrase.method != "builtin" or not sys.stdin.isatty():
        return {}
    pins: dict[tuple[str, str], bytes | None] = {}
    for module in modules:
        for token in module.tokens or _tokens_of(configuration, module):
            pins[module.name, token] = ask_passphrase(f'PIN of token "{token}" (module {module.name})').encode()
    return pins


def _tokens_of(configuration: Configuration, module: Module) -> list[str]:
    """Names of tokens that need a PIN: asked of a process of its own, as this one goes on to start others."""
    command = [sys.executable, "-m", "mailsec", "token", "list", "--json", "-c", configuration.path, "--module", module.name]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603 - ourselves
    try:
        rows = json.loads(done.stdout)["tokens"]
    except (ValueError, KeyError):
        return []
    return [row["token"] for row in rows if row["initialised"] and row["login_required"] and not row["pin_pad"]]


def _credential() -> str:
    # systemd.exec(5): credentials are files below $CREDENTIALS_DIRECTORY that only this unit can read.
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        raise ConfigurationError(
            "systemd gave no credentials",
            hint=f"add LoadCredential={CREDENTIAL}:FILE to the unit, or set another method in [passphrase]",
            stage="passphrase",
        )
    return str(Path(directory) / CREDENTIAL)


def _ask(command: str, name: str) -> bytes:
    """What a helper writes. mod_nss ignores how it ended; a helper that fails has not meant what it wrote."""
    try:
        done = subprocess.run(  # noqa: S603 - the program that the administrator named, without a shell
            [command, name, "mailsec"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        why = "gave no answer in time" if isinstance(error, subprocess.TimeoutExpired) else f"cannot be run: {error.strerror}"
        raise ConfigurationError(f"{command} {why}", hint="it is asked for the pass phrase of " + name, stage="passphrase") from None
    pin = done.stdout.removesuffix(b"\n").removesuffix(b"\r")
    if done.returncode != 0 or not pin or len(pin) > _PIN_OCTETS:
        why = f"ended with {done.returncode}" if done.returncode else "wrote nothing" if not pin else "wrote too much"
        raise ConfigurationError(
            f'{command} gave no pass phrase for "{name}": it {why}', hint="run it by hand with that name", stage="passphrase"
        )
    if b"\n" in pin:
        raise InputError(f'{command} wrote more than one line for "{name}"', stage="passphrase")
    return pin
