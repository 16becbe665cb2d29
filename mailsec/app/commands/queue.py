"""`mailsec queue list|show|hold|release|flush|delete`: mail that waits, and what people want done with it.

The spools are read as they are, whether mailsec runs or not. A wish is written into the row and carried out by the worker that owns
it, at once or within a second; where nothing runs it is carried out here.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

from mailsec.app.options import config_option
from mailsec.app.output import Output, json_option, plural
from mailsec.errors import MailsecError, UsageError
from mailsec.model.queue import QueueEntry, RecipientState, State
from mailsec.store.spool_queue import list_queue, make_wish

__all__ = ["delete", "flush", "hold", "list_entries", "release", "show"]

F = TypeVar("F", bound=Callable[..., Any])

_AGE = re.compile(r"([0-9]+)([smhd])\Z")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def _selection(command: F) -> F:
    """Options that choose rows: all that are given must fit."""
    for option in reversed(
        [
            config_option,
            click.option("--spool", "spool", metavar="DIR", default="", help="The spool's directory, instead of the configuration's."),
            click.option(
                "--state", type=click.Choice(["raw", "ready", "held", "paused", "waiting"]), help="Only these; waiting: tried before."
            ),
            click.option("--recipient", metavar="TEXT", default="", help="Part of a recipient's address."),
            click.option("--sender", metavar="TEXT", default="", help="Part of the sender's address; <> is the null sender."),
            click.option("--older", metavar="AGE", default="", help="Received longer ago than 90s, 30m, 4h, 2d."),
            json_option,
        ]
    ):
        command = option(command)
    return command


def _entries(configuration: str, spool: str) -> tuple[str, list[QueueEntry]]:
    if not spool:
        from mailsec.app.config import load_configuration

        spool = load_configuration(configuration).spool.directory
    return spool, list_queue(spool)


def _chosen(
    entries: Sequence[QueueEntry], ids: Sequence[str], state: str | None, recipient: str, sender: str, older: str
) -> list[QueueEntry]:
    """The entries that every filter lets through; an id may be that of the transaction, for all its rows."""
    before = datetime.now(UTC) - _age(older) if older else None
    chosen = []
    for entry in entries:
        if ids and not any(entry.id == id or entry.id.startswith(id + ".") for id in ids):
            continue
        if state is not None and not _is(entry, state):
            continue
        if recipient and not any(recipient.lower() in address.lower() for address, _, _ in entry.recipients):
            continue
        if sender and not (entry.reverse_path == "" if sender == "<>" else sender.lower() in entry.reverse_path.lower()):
            continue
        if before is not None and entry.received_at > before:
            continue
        chosen.append(entry)
    return chosen


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


@click.command()
@_selection
@click.pass_obj
def list_entries(output: Output, configuration: str, spool: str, state: str | None, recipient: str, sender: str, older: str) -> None:
    """List the mail that waits, oldest first."""
    _, entries = _entries(configuration, spool)
    chosen = _chosen(entries, (), state, recipient, sender, older)
    now = datetime.now(UTC)

    def draw() -> None:
        output.table(
            ("id", "state", "age", "size", "sender", "recipients", "why"),
            [
                (
                    entry.id,
                    _state(entry),
                    _span(now - entry.received_at),
                    _size(entry.size),
                    entry.reverse_path or "<>",
                    _several([address for address, progress, _ in entry.recipients if progress is not RecipientState.DELIVERED]),
                    _why(entry, now),
                )
                for entry in chosen
            ],
            empty="the queue is empty" if not entries else "nothing in the queue is like that",
        )
        if chosen:
            output.text(plural(len(chosen), "message"))

    output.result({"entries": [_json(entry) for entry in chosen]}, draw)


@click.command()
@click.argument("id")
@config_option
@click.option("--spool", "spool", metavar="DIR", default="", help="The spool's directory, instead of the configuration's.")
@json_option
@click.pass_obj
def show(output: Output, id: str, configuration: str, spool: str) -> None:
    """Show all that is known of a message; ID may be a transaction's, for all its rows."""
    _, entries = _entries(configuration, spool)
    chosen = _chosen(entries, (id,), None, "", "", "")
    if not chosen:
        raise MailsecError(f"there is no message {id} in the queue", hint="it may be delivered already: see the log")
    now = datetime.now(UTC)

    def draw() -> None:
        for entry in chosen:
            rows = [
                ("id", entry.id),
                ("state", _state(entry)),
                ("received", f"{entry.received_at:%Y-%m-%d %H:%M:%S} UTC, {_span(now - entry.received_at)} ago"),
                ("from", entry.reverse_path or "<>"),
                ("message-id", entry.message_id),
                ("size", f"{entry.size} octets"),
                ("listener", f"{entry.listener} ({entry.origin.value})"),
                ("rule", entry.rule),
                ("attempts", str(entry.attempts)),
                ("waits", _why(entry, now)),
            ]
            for name, value in rows:
                if value:
                    output.text(f"{name + ':':<12} {value}")
            for address, state, reply in entry.recipients:
                output.text(f"{'to:':<12} {address}: {state.value}{' (' + reply + ')' if reply else ''}")
            output.text()

    output.result({"entries": [_json(entry) for entry in chosen]}, draw)


def _wisher(word: str, done: str, help: str, *, everything: bool = False) -> click.Command:
    """The command that writes the wish `word`."""

    def command(
        output: Output,
        ids: tuple[str, ...],
        configuration: str,
        spool: str,
        state: str | None,
        recipient: str,
        sender: str,
        older: str,
        all: bool,
    ) -> int | None:
        if not (ids or state or recipient or sender or older or all or everything):
            raise UsageError(f"{word} what?", hint="name ids, choose with --state, --recipient, --sender, --older, or say --all")
        directory, entries = _entries(configuration, spool)
        chosen = _chosen(entries, ids, state, recipient, sender, older)
        missing = [id for id in ids if not any(entry.id == id or entry.id.startswith(id + ".") for entry in entries)]
        if missing:
            raise MailsecError(f"there is no message {missing[0]} in the queue", hint="it may be delivered already: see the log")
        written, owned = make_wish(directory, chosen, word, now=time.time)
        output.result(
            {"messages": [entry.id for entry in chosen], "count": written, "carried_out": not owned},
            f"{plural(written, 'message')} {done}{' in a moment' if owned and written else ''}",
        )
        return None

    command.__doc__ = help
    wrapped = click.pass_obj(command)
    wrapped = click.option("--all", is_flag=True, help="Every message in the queue.")(wrapped)
    return click.command(word)(click.argument("ids", nargs=-1, metavar="[ID]...")(_selection(wrapped)))


hold = _wisher("hold", "held", "Keep messages from going on until they are released.")
release = _wisher(
    "release", "released", "Let held messages go on: those held before they were processed are processed by the rules of now."
)
flush = _wisher("flush", "tried", "Try messages that wait for their next attempt now.", everything=True)
delete = _wisher("delete", "deleted", "Throw messages away; their senders are not told.")


def _state(entry: QueueEntry) -> str:
    return f"{entry.state.value}, paused" if entry.paused else entry.state.value


def _why(entry: QueueEntry, now: datetime) -> str:
    """Why it is still here, and when it is tried again."""
    reason = entry.reason or next(
        (reply for _, state, reply in entry.recipients if reply and state is RecipientState.WAITING),
        f"needs {entry.need}" if entry.need else "",
    )
    if entry.state is State.HELD or entry.paused:
        return reason
    if entry.next_attempt is None:
        return reason or "under way"
    wait = entry.next_attempt - now
    again = f"again in {_span(wait)}" if wait > timedelta(0) else "due"
    return f"{again}: {reason}" if reason else again


def _span(span: timedelta) -> str:
    seconds = max(0, int(span.total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _size(octets: int) -> str:
    return f"{octets}" if octets < 10_000 else f"{octets // 1024}K" if octets < 10_000_000 else f"{octets // 1_048_576}M"


def _several(addresses: Sequence[str]) -> str:
    return ", ".join(addresses[:2]) + (f" and {len(addresses) - 2} more" if len(addresses) > 2 else "")


def _json(entry: QueueEntry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "state": entry.state.value,
        "paused": entry.paused,
        "sender": entry.reverse_path,
        "recipients": [{"address": address, "state": state.value, "reply": reply} for address, state, reply in entry.recipients],
        "size": entry.size,
        "received_at": entry.received_at,
        "next_attempt": entry.next_attempt,
        "attempts": entry.attempts,
        "origin": entry.origin.value,
        "listener": entry.listener,
        "need": entry.need,
        "reason": entry.reason,
        "message_id": entry.message_id,
        "rule": entry.rule,
        "worker": entry.worker,
    }
