"""PINs in the supervisor's memory: asked for once, given to a host when it starts, and forgotten where a token has refused them.

The one invariant: they are nowhere else; no file, no `repr`, no line of a log.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

import structlog

from mailsec.app.config.models import Passphrase
from mailsec.app.passphrase import pin_source
from mailsec.errors import MailsecError
from mailsec.net.token_client import ListedToken

__all__ = ["Pins"]

_log = structlog.get_logger("mailsec.supervisor")


@dataclass(slots=True)
class Pins:
    """PINs in memory, by module and token. Its `repr` shows none."""

    settings: Passphrase
    known: dict[tuple[str, str], bytes | None] = field(default_factory=dict, repr=False)
    proven: set[tuple[str, str]] = field(default_factory=set)
    refused: set[tuple[str, str]] = field(default_factory=set)
    asked: set[tuple[str, str]] = field(default_factory=set)

    def of(self, module: str) -> dict[str, str | None]:
        """As a host is told them."""
        return {
            token: None if pin is None else base64.b64encode(pin).decode("ascii")
            for (name, token), pin in self.known.items()
            if name == module
        }

    def forget(self, module: str, token: str) -> None:
        """The token refuses it, or a mark stands."""
        self.known.pop((module, token), None)
        self.proven.discard((module, token))
        self.refused.add((module, token))

    def keep(self, module: str, token: str, pin: bytes | None) -> None:
        """Somebody has typed it, and it was right."""
        self.known[module, token] = pin
        self.proven.add((module, token))
        self.refused.discard((module, token))

    def obtain(self, module: str, token: ListedToken) -> bool:
        """Ask the configured place for the PIN of a token; may take its time. True where there is one now."""
        self.asked.add((module, token.name))
        if token.pin_pad:
            self.known[module, token.name] = None
            return True
        try:
            pin = pin_source(self.settings, token.name)
        except MailsecError as problem:
            _log.error("no PIN for a token", module=module, token=token.name, error=problem.message, hint=problem.hint)
            return False
        if pin is not None:
            self.known[module, token.name] = pin
        return pin is not None
