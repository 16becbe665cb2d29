"""Where `mailsec queue` tells the owner of a spool that it wrote something: a unix datagram socket beside the spool.

The one invariant: a datagram says nothing but "look now"; whoever can write to it could have waited a second instead.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol

__all__ = ["listen_for_wakes"]

_log = structlog.get_logger("mailsec.relay")

_PATH_OCTETS = 107
"""What fits into a sockaddr_un, with its zero octet."""


class _Wakes(DatagramProtocol):
    noisy = False

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self._wake()


def listen_for_wakes(reactor: Any, path: str, wake: Callable[[], None]) -> Any | None:
    """Call `wake` for each datagram at `path`; the port, or None where it cannot be opened (the owner looks once a second anyway)."""
    if len(os.fsencode(path)) > _PATH_OCTETS:
        return None
    with contextlib.suppress(OSError):
        Path(path).unlink()  # of the last owner: the spool's lock says that it is gone
    try:
        return reactor.listenUNIXDatagram(path, _Wakes(wake), maxPacketSize=64, mode=0o600)
    except CannotListenError as error:
        _log.warning("relay-cannot-be-woken", error=str(error))
        return None
