"""Which recipients exist, by a file: an address or a pattern on each line ("name@domain", "@domain", "@.domain"). A `RecipientDirectory`.

The file is read again when it changes. The one invariant: where it cannot be read nobody is refused and nobody is accepted.
"""

from __future__ import annotations

from pathlib import Path

from mailsec.errors import AddressError, ConfigurationError, MailsecError, Unavailable
from mailsec.interfaces import Runtime
from mailsec.model.address import Address
from mailsec.rules.conditions import Addresses

__all__ = ["RecipientsFile", "read_recipients"]

_OCTETS = 64 * 1024 * 1024


def read_recipients(text: str) -> Addresses:
    """The patterns in `text`. Raise ConfigurationError for a line that is none."""
    patterns = []
    for number, line in enumerate(text.splitlines(), 1):
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        try:
            # "@domain" and "@.domain" with a name in front are addresses, too.
            Address.parse("x@" + pattern[1:].removeprefix(".") if pattern.startswith("@") else pattern)
        except AddressError:
            raise ConfigurationError(f"line {number} is no address", hint='write "name@domain", "@domain" or "@.domain"') from None
        patterns.append(pattern)
    return Addresses(tuple(patterns))


class RecipientsFile:
    """A `RecipientDirectory` over the file at `path`: who does not stand in it does not exist."""

    def __init__(self, path: str, runtime: Runtime) -> None:
        self.name = f"file {path}"
        self._path = Path(path)
        self._runtime = runtime
        self._seen: tuple[int, int, int] | None = None
        self._addresses = Addresses(())
        self._checked = float("-inf")

    async def exists(self, address: Address) -> bool | None:
        """True or False; raise Unavailable where the file cannot be read."""
        now = self._runtime.monotonic()
        if now >= self._checked + 1.0:
            await self._runtime.in_thread(self._refresh)
            self._checked = now
        return self._addresses.match(address)

    def _refresh(self) -> None:
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen == self._seen:
                return
            with self._path.open("rb") as file:
                data = file.read(_OCTETS + 1)
            if len(data) > _OCTETS:
                raise ConfigurationError(f"is larger than {_OCTETS} octets")
            self._addresses = read_recipients(data.decode("utf-8"))
            self._seen = seen
        except (OSError, UnicodeDecodeError, MailsecError) as error:
            why = (
                error.message if isinstance(error, MailsecError) else "it is not UTF-8" if isinstance(error, ValueError) else error.strerror
            )
            raise Unavailable(f"{self._path} cannot be used: {why}", stage="recipient") from error
