"""Letters to the postmaster: what somebody should know before people notice. Committed and delivered like every report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from mailsec.app.files import write_file
from mailsec.errors import MailsecError
from mailsec.gateway.bounce import postmaster_letter
from mailsec.interfaces import Runtime, Spool
from mailsec.model.settings import GatewaySettings

__all__ = ["Letters", "Told"]

_log = structlog.get_logger("mailsec.letters")


class Letters:
    """Writes them to `[gateway] postmaster`."""

    def __init__(self, spool: Spool, runtime: Runtime, settings: GatewaySettings) -> None:
        self._spool = spool
        self._runtime = runtime
        self._settings = settings

    async def send(self, subject: str, lines: Sequence[str]) -> None:
        """One letter. Raise StoreError where it cannot be kept."""
        now, settings = self._runtime.now(), self._settings
        letter = postmaster_letter(
            subject,
            [f"This is the mail gateway at {settings.hostname}.", "", *lines],
            id=f"{int(now.timestamp() * 1_000_000):x}{self._runtime.random(5).hex()}",
            at=now,
            hostname=settings.hostname,
            postmaster=settings.postmaster,
            random=self._runtime.random,
        )
        await self._spool.commit([letter])


class Told:
    """What was told already, in a file of the state directory, so that a restart or a reload tells nothing twice. Blocks for a moment."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._values: dict[str, int] = {}
        try:
            read = json.loads(Path(path).read_bytes())
            self._values = {str(name): int(value) for name, value in read.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            pass  # nothing was told, or nobody knows: it is told once more

    def get(self, name: str, default: int) -> int:
        """What was kept under `name`."""
        return self._values.get(name, default)

    def keep(self, values: Mapping[str, int], known: Sequence[str]) -> None:
        """Keep `values` too, and forget what is about nothing in `known`."""
        before, names = self._values, frozenset(known)
        self._values = {name: value for name, value in {**before, **values}.items() if name in names}
        if self._values == before:
            return
        try:
            Path(self._path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(self._path, json.dumps(self._values).encode(), private=True)
        except (MailsecError, OSError) as error:
            _log.warning("what was told to the postmaster cannot be kept; it is told again after a restart", error=str(error))
