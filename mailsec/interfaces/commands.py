"""What a command of a plugin is given to answer with (`register_commands`): click's `@click.pass_obj` hands it over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

__all__ = ["CommandOutput"]


class CommandOutput(Protocol):
    """Where an answer goes: one JSON object where `json` is true, else text; warnings to standard error, control characters escaped.

    The command returns its exit code (None: 0), or raises a MailsecError, which is printed with its hint.
    """

    json: bool
    """True where `--json` was given: a command with that option sets it."""

    def result(self, value: Mapping[str, Any], text: str | Callable[[], object] = "") -> None:
        """The answer, once: `value` as JSON, else `text` (or what it prints when it is called)."""
        ...

    def text(self, text: str = "") -> None:
        """A line for people; nothing where `json` is true."""
        ...

    def table(
        self, columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str = "", title: str = "", headings: bool = True
    ) -> None:
        """Rows under headings; `empty` where there are none."""
        ...

    def warning(self, message: str, hint: str = "") -> None:
        """Something that works, and should be different."""
        ...
