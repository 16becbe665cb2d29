"""Which rows of the queue a command is about: ids and filters, all of which must fit; and how ages are written."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, TypeVar

import click

from mailsec.app.output import Output, plural
from mailsec.errors import MailsecError, UsageError
from mailsec.model.queue import QueueEntry, RecipientState, State

__all__ = ["Selection", "missing", "read_queue", "selection_options", "why"]

F = TypeVar("F", bound=Callable[..., Any])

_AGE = re.compile(r"([0-9]+)([smhd])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True, slots=True)
class Selection:
    """Filters as they were given; an empty one lets everything through."""

    state: str = ""
    recipient: str = ""
    sender: str = ""
    message_id: str = ""
    listener: str = ""
    origin: str = ""
    reason: str = ""
    older: str = ""
    newer: str = ""

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))

    def of(self, entries: Sequence[QueueEntry], ids: Sequence[str] = ()) -> list[QueueEntry]:
        """The entries that every filter lets through; an id may be that of the transaction, for all its rows. Raise UsageError."""
        now = datetime.now(UTC)
        before = now - _age(self.older) if self.older else None
        since = now - _age(self.newer) if self.newer else None
        wanted = frozenset(ids)
        return [
            entry
            for entry in entries
            if (not wanted or entry.id in wanted or any(entry.id.startswith(id + ".") for id in wanted))
            and (before is None or entry.received_at <= before)
            and (since is None or entry.received_at >= since)
            and self._fits(entry)
        ]

    def _fits(self, entry: QueueEntry) -> bool:
        return (
            (not self.state or _is(entry, self.state))
            and (not self.recipient or any(self.recipient.lower() in address.lower() for address, _, _ in entry.recipients))
            and (not self.sender or (not entry.reverse_path if self.sender == "<>" else self.sender.lower() in entry.reverse_path.lower()))
            and (not self.message_id or self.message_id.strip("<>") in entry.message_id)
            and (not self.listener or self.listener == entry.listener)
            and (not self.origin or self.origin == entry.origin.value)
            and (not self.reason or self.reason.lower() in why(entry).lower())
        )


def why(entry: QueueEntry) -> str:
    """Why it is still here, as the gateway or the next hop has said it."""
    return entry.reason or next(
        (reply for _, state, reply in entry.recipients if reply and state is RecipientState.WAITING),
        f"needs {entry.need}" if entry.need else "",
    )


def selection_options(command: F) -> F:
    """Options that choose rows; the command is given a `Selection`."""

    @wraps(command)
    def with_selection(*arguments: Any, **given: Any) -> Any:
        chosen = {field.name: given.pop(field.name) or "" for field in fields(Selection)}
        return command(*arguments, selection=Selection(**chosen), **given)

    wrapped: Any = with_selection
    for option in reversed(
        [
            click.option(
                "--state", type=click.Choice(["raw", "ready", "held", "paused", "waiting"]), help="Only these; waiting: tried before."
            ),
            click.option("--recipient", metavar="TEXT", default="", help="Part of a recipient's address."),
            click.option("--sender", metavar="TEXT", default="", help="Part of the sender's address; <> is the null sender."),
            click.option("--message-id", metavar="TEXT", default="", help="Part of the Message-ID."),
            click.option("--listener", metavar="NAME", default="", help="Came in by this listener."),
            click.option(
                "--origin", type=click.Choice(["submission", "trusted", "internet"]), help="Came in by a listener of this origin."
            ),
            click.option("--reason", metavar="TEXT", default="", help="Part of why it is still here, such as a reply of the next hop."),
            click.option("--older", metavar="AGE", default="", help="Received longer ago than 90s, 30m, 4h, 2d."),
            click.option("--newer", metavar="AGE", default="", help="Received less long ago than that."),
        ]
    ):
        wrapped = option(wrapped)
    result: F = wrapped
    return result


def read_queue(output: Output, configuration: str, spool: str) -> tuple[str, list[QueueEntry]]:
    """(directory, every row of every spool in it)."""
    from mailsec.app.progress import progressing
    from mailsec.store.spool_queue import list_queue

    if not spool:
        from mailsec.app.config import load_configuration

        spool = load_configuration(configuration).spool.directory
    with progressing(output, "reading the queue", 0) as show:
        return spool, list_queue(spool, lambda found: show(0, plural(found, "message")))


def missing(entries: Sequence[QueueEntry], ids: Sequence[str]) -> MailsecError | None:
    """What to say where an id is that of no row."""
    known = {entry.id for entry in entries} | {entry.id.partition(".")[0] for entry in entries}
    for id in ids:
        if id not in known and not any(entry.id.startswith(id + ".") for entry in entries):
            return MailsecError(f"there is no message {id} in the queue", hint="it may be delivered already: see the log")
    return None


def _is(entry: QueueEntry, state: str) -> bool:
    if state == "paused":
        return entry.paused
    if state == "waiting":
        return entry.attempts > 0 and entry.state is not State.HELD and not entry.paused
    return entry.state.value == state


def _age(text: str) -> timedelta:
    match = _AGE.match(text)
    if match is None:
        raise UsageError(f"not an age: {text!r}", hint="write a number and s, m, h or d: 30m")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})
