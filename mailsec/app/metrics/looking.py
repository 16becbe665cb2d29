"""What a worker looks at when the supervisor asks how it is: queue, disk, certificates, tokens, plugins, itself."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from mailsec.app.assembly import Parts
from mailsec.errors import MailsecError, Reply
from mailsec.model.queue import SpooledEntry
from mailsec.model.session import TlsInfo
from mailsec.net.listeners import Listeners
from mailsec.net.token_client import TokenClient
from mailsec.store.spool_count import count_rows

__all__ = ["Looking"]

_log = structlog.get_logger("mailsec.metrics")

_QUEUE_SECONDS: Final = 5.0
"""The queue is counted this often at most: it may be long."""
_KEYS_SECONDS: Final = 600.0
_DAYS: Final = (1, 7, 14, 30)
_PAGE: Final = resource.getpagesize()


class Looking:
    """Fills `measures` from the parts of a worker."""

    def __init__(self, parts: Parts) -> None:
        self.measures = parts.measures
        self.listeners: Listeners | None = None
        self._parts = parts
        self._clients: Sequence[TokenClient] = parts.tokens
        self._queue_at = self._keys_at = float("-inf")
        parts.relay.observe = self.heard
        parts.relay.observe_connection = self.connected
        parts.relay.observe_tls_failure = lambda demanded: self.measures.count("mailsec_outgoing_tls_failures_total", demanded)
        parts.runtime.observe_look_ups(self.looked_up)

    def heard(self, row: SpooledEntry, reply: Reply) -> None:
        """What a next hop said to a recipient."""
        self.measures.count("mailsec_deliveries_total", "delivered" if reply.code < 300 else "deferred" if reply.temporary else "failed")
        if reply.code < 300:
            waited = (self._parts.runtime.now() - row.entry.received_at).total_seconds()
            self.measures.observe("mailsec_delivery_seconds", max(0.0, waited))

    def connected(self, tls: TlsInfo | None) -> None:
        """A connection to a next hop takes mail."""
        if tls is None:
            self.measures.count("mailsec_outgoing_sessions_total", "", "", "clear")
        else:
            peer = "verified" if tls.peer_verified else "unverified"
            self.measures.count("mailsec_outgoing_sessions_total", tls.version, tls.cipher, peer)

    def looked_up(self, result: str, seconds: float) -> None:
        """A question to a resolver has ended."""
        self.measures.count("mailsec_dns_questions_total", result)
        self.measures.observe("mailsec_dns_seconds", seconds)

    def look(self) -> None:
        """What is to be had without waiting; the rest comes with a later look."""
        parts, look = self._parts, self.measures.look
        if self.listeners is not None:
            look("mailsec_connections_total", {(): self.listeners.accepted})
            look("mailsec_connections", {(): len(self.listeners.connections)})
        look("mailsec_outgoing_connections", {(): parts.relay.outgoing})
        look("mailsec_tokens", {(one.module, token.label): float(token.usable) for one in self._clients for token in one.tokens})
        look("mailsec_plugins_resting", {(name,): 1.0 for name in parts.plugins.resting()})
        now = parts.runtime.now()
        look("mailsec_certificate_days_left", _days_left(parts, now))
        usage = resource.getrusage(resource.RUSAGE_SELF)
        look("mailsec_worker_cpu_seconds_total", {(): usage.ru_utime + usage.ru_stime})
        look("mailsec_worker_resident_octets", {(): float(int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE)})
        monotonic = parts.runtime.monotonic()
        if monotonic >= self._queue_at + _QUEUE_SECONDS:
            self._queue_at = monotonic
            parts.runtime.start(self._look_at_queue(), "metrics")
        if monotonic >= self._keys_at + _KEYS_SECONDS:
            self._keys_at = monotonic
            parts.runtime.start(self._look_at_keys(), "metrics")

    async def _look_at_queue(self) -> None:
        parts = self._parts
        try:
            counted = await parts.runtime.in_thread(count_rows, parts.spool.base + ".sqlite", lane="database")
            room = os.statvfs(parts.spool.directory)
        except (MailsecError, OSError) as error:
            _log.warning("the queue cannot be counted", error=str(error))
            return
        numbers = {
            "raw": counted.raw,
            "ready": counted.ready,
            "held": counted.held,
            "paused": counted.paused,
            "in-hand": parts.spool.in_hand,
        }
        self.measures.look("mailsec_queue_messages", {(state,): float(number) for state, number in numbers.items()})
        age = parts.runtime.now().timestamp() - counted.oldest if counted.oldest else 0.0
        self.measures.look("mailsec_queue_oldest_seconds", {(): max(0.0, age)})
        self.measures.look("mailsec_spool_free_octets", {(): float(room.f_bavail * room.f_frsize)})
        self.measures.look("mailsec_spool_free_inodes", {(): float(room.f_favail)})

    async def _look_at_keys(self) -> None:
        parts, now = self._parts, self._parts.runtime.now()
        try:
            ends = await parts.runtime.in_thread(parts.expiry.ends_of_keys, lane="database")
        except MailsecError as error:
            _log.warning("certificates cannot be counted", error=error.message)
            return
        counts: dict[tuple[str, ...], float] = {
            (str(days),): float(sum(1 for end in ends if end <= now + timedelta(days=days))) for days in _DAYS
        }
        self.measures.look("mailsec_key_certificates_ending", counts)


def _days_left(parts: Parts, now: datetime) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for own in parts.certificates.all():
        end = own.certificate.not_after
        if end is not None:
            # Of several kinds of keys under one name, the one that ends first.
            left = (end - now).total_seconds() / 86400
            found[own.name,] = min(left, found.get((own.name,), left))
    return found
