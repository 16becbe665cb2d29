"""`mailsec queue list|show|hold|release|retry|flush|delete`: mail that waits, and what people want done with it.

The spools are read as they are, whether mailsec runs or not. A wish is written into the row and carried out by the worker that owns
it, at once or within a second; where nothing runs it is carried out here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from mailsec.app.options import config_option
from mailsec.app.output import Output, json_option, plural
from mailsec.app.queue_selection import Selection, missing, read_queue, selection_options, why
from mailsec.errors import UsageError
from mailsec.model.queue import QueueEntry, RecipientState, State

__all__ = ["delete", "flush", "hold", "list_entries", "release", "retry", "show"]

_spool_option = click.option("--spool", "spool", metavar="DIR", default="", help="The spool's directory, instead of the configuration's.")


@click.command()
@config_option
@_spool_option
@selection_options
@click.option("--summary", is_flag=True, help="Count them by state and by recipients' domain.")
@click.option("--limit", metavar="N", type=click.IntRange(min=1), default=None, help="Only the N oldest.")
@json_option
@click.pass_obj
def list_entries(output: Output, *, configuration: str, spool: str, selection: Selection, summary: bool, limit: int | None) -> None:
    """List the mail that waits, oldest first."""
    _, entries = read_queue(output, configuration, spool)
    chosen = selection.of(entries)
    now = datetime.now(UTC)
    empty = "the queue is empty" if not entries else "nothing in the queue is like that"
    if summary:
        _summarise(output, chosen, now, empty)
        return
    shown = chosen[:limit]

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
                for entry in shown
            ],
            empty=empty,
        )
        if chosen:
            output.text(plural(len(chosen), "message") + (f", {len(shown)} shown" if len(shown) < len(chosen) else ""))

    output.result({"entries": [_json(entry) for entry in shown], "count": len(chosen)}, draw)


def _summarise(output: Output, chosen: Sequence[QueueEntry], now: datetime, empty: str) -> None:
    domains: dict[str, list[QueueEntry]] = {}
    for entry in chosen:
        left = {address.rpartition("@")[2].lower() for address, state, _ in entry.recipients if state is not RecipientState.DELIVERED}
        for domain in left:
            domains.setdefault(domain, []).append(entry)
    states = Counter("paused" if entry.paused else entry.state.value for entry in chosen)
    rows: list[dict[str, Any]] = [
        {
            "domain": domain,
            "messages": len(found),
            "octets": sum(entry.size for entry in found),
            "oldest": min(entry.received_at for entry in found),
            "why": Counter(map(why, found)).most_common(1)[0][0],
        }
        for domain, found in sorted(domains.items(), key=lambda item: (-len(item[1]), item[0]))
    ]

    def draw() -> None:
        output.table(
            ("domain", "messages", "size", "oldest", "mostly why"),
            [(row["domain"], row["messages"], _size(row["octets"]), _span(now - row["oldest"]), row["why"]) for row in rows],
            empty=empty,
        )
        if chosen:
            output.text(f"{plural(len(chosen), 'message')}: " + ", ".join(f"{count} {state}" for state, count in sorted(states.items())))

    output.result({"domains": rows, "states": dict(states), "count": len(chosen)}, draw)


@click.command()
@click.argument("id")
@config_option
@_spool_option
@json_option
@click.pass_obj
def show(output: Output, *, id: str, configuration: str, spool: str) -> None:
    """Show all that is known of a message; ID may be a transaction's, for all its rows."""
    _, entries = read_queue(output, configuration, spool)
    if (error := missing(entries, (id,))) is not None:
        raise error
    chosen = Selection().of(entries, (id,))
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

    def command(output: Output, *, ids: tuple[str, ...], configuration: str, spool: str, selection: Selection, all: bool) -> int | None:
        from mailsec.app.progress import progressing
        from mailsec.store.spool_queue import make_wish

        if not (ids or selection or all or everything):
            raise UsageError(
                f"{word} what?",
                hint="name ids, choose with --recipient, --older or another filter (--help), or say --all",
            )
        directory, entries = read_queue(output, configuration, spool)
        chosen = selection.of(entries, ids)
        if (error := missing(entries, ids)) is not None:
            raise error
        with progressing(output, word, len(chosen)) as told:
            written, owned = make_wish(directory, chosen, word, now=time.time, told=lambda so_many: told(so_many, ""))
        output.result(
            {"messages": [entry.id for entry in chosen], "count": written, "carried_out": not owned},
            f"{plural(written, 'message')} {done}{' in a moment' if owned and written else ''}",
        )
        return None

    command.__doc__ = help
    wrapped = selection_options(json_option(click.pass_obj(command)))
    wrapped = click.option("--all", is_flag=True, help="Every message in the queue.")(wrapped)
    return click.command(word)(click.argument("ids", nargs=-1, metavar="[ID]...")(config_option(_spool_option(wrapped))))


hold = _wisher("hold", "held", "Keep messages from going on until they are released.")
release = _wisher(
    "release", "released", "Let held messages go on: those held before they were processed are processed by the rules of now."
)
retry = _wisher(
    "retry", "tried again", "Begin anew with messages: tried now, held ones too, and then as often as those that have just come in."
)
flush = _wisher("flush", "tried", "Try messages that wait for their next attempt now.", everything=True)
delete = _wisher("delete", "deleted", "Throw messages away; their senders are not told.")


def _state(entry: QueueEntry) -> str:
    return f"{entry.state.value}, paused" if entry.paused else entry.state.value


def _why(entry: QueueEntry, now: datetime) -> str:
    """Why it is still here, and when it is tried again."""
    reason = why(entry)
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
