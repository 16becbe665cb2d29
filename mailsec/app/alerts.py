"""What the postmaster is told of by letter, besides certificates that end: tokens that are out, and mail that waits for long.

The one invariant: the same thing is told once while it lasts (mail: once a day), also over restarts and reloads.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from mailsec.app.letters import Told
from mailsec.errors import MailsecError
from mailsec.interfaces import Runtime
from mailsec.model.queue import QueueEntry, RecipientState, State
from mailsec.net.token_client import TokenClient
from mailsec.store.spool_queue import list_queue

__all__ = ["OLD_SECONDS", "OUT_SECONDS", "Alerts"]

_log = structlog.get_logger("mailsec.letters")

OUT_SECONDS: Final = 900.0
"""A token that is out for so long is told of: a card that somebody changes is back before that."""
OLD_SECONDS: Final = 86_400.0
_EVERY: Final = 60.0
_QUEUE_EVERY: Final = 3600.0
_MOST_SHOWN: Final = 50
_DAY: Final = 86_400


class Alerts:
    """`look_at_tokens` and `look_at_mail`, each as often as it costs; `watch` does both for ever."""

    def __init__(
        self,
        write: Callable[[str, Sequence[str]], Awaitable[None]],
        clients: Sequence[TokenClient],
        spool_directory: str,
        runtime: Runtime,
        told: Told,
    ) -> None:
        self._write = write
        self._clients = clients
        self._directory = spool_directory
        self._runtime = runtime
        self._told = told
        self._out_since: dict[str, float] = {}

    async def watch(self) -> None:
        """Until the worker ends."""
        looked = self._runtime.monotonic()
        while True:
            await self._runtime.sleep(_EVERY)
            try:
                await self.look_at_tokens()
                if self._runtime.monotonic() >= looked + _QUEUE_EVERY:
                    looked = self._runtime.monotonic()
                    await self.look_at_mail()
            except MailsecError as error:
                _log.warning("the postmaster cannot be told", error=error.message, hint=error.hint)

    async def look_at_tokens(self) -> None:
        """Tell of tokens with keys that have been out for `OUT_SECONDS`."""
        now = self._runtime.monotonic()
        tokens = {f"{client.module}: {token.label}": token for client in self._clients for token in client.tokens if token.keys}
        self._out_since = {name: self._out_since.get(name, now) for name, token in tokens.items() if not token.usable}
        out = {name for name, since in self._out_since.items() if now >= since + OUT_SECONDS}
        new = sorted(name for name in out if not self._told.get(f"token {name}", 0))
        if new:
            lines = ["Mail that needs the keys on these tokens waits until they are back:", ""]
            for name in new:
                lines += [f"    {name}", f"        {tokens[name].problem or 'it is not there, or nobody is logged in'}"]
            lines += ["", "See them:       mailsec token list", "Log in again:   mailsec token login NAME"]
            await self._write(f"Token is out: {new[0]}" + (f", and {len(new) - 1} more" if len(new) > 1 else ""), lines)
        self._told.keep({f"token {name}": 1 for name in new}, [*(f"token {name}" for name in self._out_since), "mail"])

    async def look_at_mail(self) -> None:
        """Tell of mail that has waited for `OLD_SECONDS` to be processed or delivered, once a day."""
        today = int(self._runtime.now().timestamp()) // _DAY
        if self._told.get("mail", 0) >= today:
            return
        old = await self._runtime.in_thread(self._old, lane="database")
        if not old:
            return
        lines = [f"{len(old)} messages have waited for more than a day. They are tried again by themselves:", ""]
        for entry in old[:_MOST_SHOWN]:
            lines += [
                f"    {entry.id}, since {entry.received_at:%Y-%m-%d %H:%M} UTC, from <{entry.reverse_path}>",
                f"        {_why(entry)}",
            ]
        if len(old) > _MOST_SHOWN:
            lines.append(f"    and {len(old) - _MOST_SHOWN} more")
        lines += ["", "See them:       mailsec queue list --older 1d", "Try them now:   mailsec queue flush --older 1d"]
        await self._write(f"Mail waits for long: {len(old)}", lines)
        self._told.keep({"mail": today}, ["mail", *(f"token {name}" for name in self._out_since)])

    def _old(self) -> list[QueueEntry]:
        before = self._runtime.now().timestamp() - OLD_SECONDS
        # What is held has reminders of its own; a letter that the postmaster cannot get is not told to the postmaster.
        return [
            entry
            for entry in list_queue(self._directory)
            if entry.state is not State.HELD and not entry.paused and entry.received_at.timestamp() <= before and entry.rule != "report"
        ]


def _why(entry: QueueEntry) -> str:
    replies = (reply for _, state, reply in entry.recipients if reply and state is RecipientState.WAITING)
    return " ".join((entry.reason or next(replies, "") or (f"needs {entry.need}" if entry.need else "under way")).split())[:300]
