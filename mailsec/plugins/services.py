"""The services of a plugin that is switched off: their listeners are open, and close every connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from mailsec.errors import Unavailable
from mailsec.model.session import Session

__all__ = ["switched_off"]


class _Off:
    """Stands for one `TcpService` or `ReactorService`."""

    def __init__(self, name: str, why: str) -> None:
        self.name = name
        self._why = why

    def open(self, session: Session) -> NoReturn:
        """Raise Unavailable."""
        raise Unavailable(f"the service {self.name} is off: {self._why}", hint="`mailsec plugins` shows it")


def switched_off(services: Sequence[Any], why: str) -> list[_Off]:
    """What stands for the services that a plugin brings."""
    return [_Off(service.name, why) for service in services]
