"""What systemd is told of us: sd_notify(3), sd_watchdog_enabled(3)."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping

import structlog

__all__ = ["Notifier"]

_log = structlog.get_logger("mailsec.supervisor")


class Notifier:
    """Speaks to the socket that systemd named in NOTIFY_SOCKET; silent where there is none."""

    def __init__(self, address: str, *, patience: float = float("inf")) -> None:
        self._address = address
        self.patience = patience
        """Seconds without WATCHDOG=1 after which systemd ends us (WatchdogSec=)."""

    @classmethod
    def taken_from(cls, environment: MutableMapping[str, str]) -> Notifier:
        """As systemd set it up; its variables are removed, so that no child takes them for its own."""
        address, microseconds, pid = (environment.pop(name, "") for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"))
        watched = microseconds.isdecimal() and int(microseconds) > 0 and pid in ("", str(os.getpid()))
        return cls(address, patience=int(microseconds) / 1e6 if watched else float("inf"))

    def tell(self, *lines: str) -> None:
        """One datagram with lines like READY=1."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.connect(address)
                sender.send("\n".join(lines).encode())
        except OSError as problem:
            _log.warning("systemd cannot be told", error=str(problem))

    def reloading(self) -> None:
        """Type=notify-reload compares the instant with its own."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
