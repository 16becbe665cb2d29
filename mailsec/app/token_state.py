"""What `mailsec check` says about tokens: asked of running hosts; otherwise marks that stand, and with `--login` a login of its own.

Invariant: without `--login` no library is loaded and no PIN is given to anything; with it each is loaded in a process of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mailsec.app.config import Configuration
from mailsec.app.config.models import Module
from mailsec.app.config.tokens import host_socket
from mailsec.app.library_child import in_child
from mailsec.app.modules import demand_sound_files, load_module
from mailsec.app.passphrase import pin_source
from mailsec.errors import MailsecError
from mailsec.tokens.remote import RemoteModule
from mailsec.tokens.state import StateDirectory

__all__ = ["token_doubts"]

Doubt = tuple[str, str]


def token_doubts(configuration: Configuration, modules: Sequence[Module], *, login: bool = False) -> list[Doubt]:
    """(Message, hint) of everything that is not as it should be."""
    found: list[Doubt] = []
    state = StateDirectory(configuration.gateway.state_directory)
    for module in modules:
        rows = _running(configuration, module)
        if rows is not None:
            found += rows
        elif login:
            found += _try(configuration, module)
        else:
            found += _files(module)
    for mark in state.marks():
        why = f"failed ({mark.verdict})" if mark.verdict else "was cut off"
        text = f"token {mark.label!r} is out of service: an earlier login {why}"
        if not any(f"{mark.label!r}" in message for message, _ in found):
            found.append((text, f'mailsec token login "{mark.label}"'))
    return found


def _running(configuration: Configuration, module: Module) -> list[Doubt] | None:
    """What the host of a module says; None where none runs."""
    path = host_socket(module, configuration.gateway.run_directory)
    if not Path(path).exists():
        return None
    host = RemoteModule(module.name, path, seconds=5)
    try:
        rows = host.listing()
    except MailsecError:
        return None
    finally:
        host.close()
    found = [
        (f"token {row['label']!r} is out of service: {row['problem']}", f'mailsec token login "{row["label"]}"')
        for row in rows
        if row["problem"]
    ]
    found += [(f"token {row['label']!r} is out", "is the card in its reader?") for row in rows if not row["usable"] and not row["problem"]]
    return found + _missing(module, [str(row["label"]) for row in rows])


def _files(module: Module) -> list[Doubt]:
    try:
        demand_sound_files(module.nss)
    except MailsecError as error:
        return [(f"module {module.name!r}: {error.message}", error.hint)]
    return []


def _missing(module: Module, labels: Sequence[str]) -> list[Doubt]:
    return [
        (f"module {module.name!r} has no token {name!r}", "is the card in its reader? `mailsec token list` shows what is there")
        for name in module.tokens
        if not name.startswith("pkcs11:") and name not in labels
    ]


def _try(configuration: Configuration, module: Module) -> list[Doubt]:
    """Load a module in a process of its own, and log in to its tokens as `serve` would."""

    def try_it() -> list[Doubt]:
        found: list[Doubt] = []
        with load_module(module, configuration.gateway.state_directory, read_only=True) as loaded:
            infos = [info for info in loaded.tokens() if info.initialised]
            for info in infos:
                if not info.login_required or (module.tokens and info.label not in module.tokens):
                    continue
                try:
                    pin = None if info.pin_pad else pin_source(configuration.passphrase, info.label)
                    if pin is not None or info.pin_pad:
                        loaded.login(info.label, pin)
                except MailsecError as error:
                    found.append((error.message, error.hint))
            return found + _missing(module, [info.label for info in infos])

    try:
        return [(message, hint) for message, hint in in_child(try_it)]
    except MailsecError as error:
        return [(error.message, error.hint)]
