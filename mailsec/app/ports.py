"""Listening sockets, opened once by the supervisor and inherited by every worker.

With SO_REUSEPORT each worker would have a queue of its own, and the connections waiting in it were reset when the worker died; on an
inherited socket another worker takes them.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from mailsec.app.config.addresses import Endpoint, parse_endpoint
from mailsec.app.config.problems import Problem
from mailsec.app.files import reason_of

__all__ = ["BACKLOG", "Ports"]

BACKLOG = 1024

_SD_LISTEN_FDS_START = 3
"""sd_listen_fds(3): descriptors that systemd hands over begin here."""


class Ports:
    """The listening sockets of this process, by their addresses: those that it opened, and those that systemd gave it."""

    def __init__(self) -> None:
        self._given = _from_systemd()
        self._open: dict[tuple[str, int], socket.socket] = {}

    def open(self, addresses: Sequence[str]) -> tuple[list[socket.socket], list[Problem]]:
        """A listening socket for each listener's address, in their order, or what is wrong with each that cannot be had.

        What is open already stays as it is; after a problem nothing is open that was not open before.
        """
        new: dict[tuple[str, int], socket.socket] = {}
        problems: list[Problem] = []
        for index, address in enumerate(addresses):
            endpoint = parse_endpoint(address)
            key = _key(endpoint)
            try:
                if key not in self._open and key not in new:
                    new[key] = self._given[key] if key in self._given else _bind(endpoint)
            except OSError as error:
                hints = {
                    errno.EADDRINUSE: "another program listens there already",
                    errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE, or a socket from systemd",
                    errno.EADDRNOTAVAIL: "this machine has no such address",
                }
                message = f"cannot listen on {address}: {reason_of(error)}"
                problems.append(Problem(("listener", index, "address"), message, hints.get(error.errno or 0, "")))
        if problems:
            self._close(new)
            return [], problems
        self._open |= new
        return [self._open[_key(parse_endpoint(address))] for address in addresses], []

    def keep(self, addresses: Sequence[str]) -> None:
        """Close what is open elsewhere. Whoever inherited such a socket may still accept on it."""
        kept = {_key(parse_endpoint(address)) for address in addresses}
        self._close({key: opened for key, opened in self._open.items() if key not in kept})

    def close(self) -> None:
        """Close them all; those of systemd are systemd's too, and stay open there."""
        self._close(dict(self._open))

    def _close(self, sockets: Mapping[tuple[str, int], socket.socket]) -> None:
        for key, opened in sockets.items():
            self._open.pop(key, None)
            if key not in self._given:
                opened.close()


def _key(endpoint: Endpoint) -> tuple[str, int]:
    return (endpoint.path, 0) if endpoint.path else (endpoint.host, endpoint.port)


def _bind(endpoint: Endpoint) -> socket.socket:
    if endpoint.path:
        return _bind_path(endpoint.path)
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opened.bind((endpoint.host, endpoint.port))
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def _bind_path(path: str) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            opened.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_abandoned(path):
                raise
            # The socket of a mailsec that was killed.
            Path(path).unlink()
            opened.bind(path)
        # Whoever may enter the directory and is in our group may connect.
        Path(path).chmod(0o660)
        opened.listen(BACKLOG)
    except OSError:
        opened.close()
        raise
    return opened


def _is_abandoned(path: str) -> bool:
    """True for a socket that nobody listens on."""
    if not Path(path).is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _from_systemd() -> dict[tuple[str, int], socket.socket]:
    """Sockets of a systemd socket unit (sd_listen_fds(3)), by their address."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    found: dict[tuple[str, int], socket.socket] = {}
    for descriptor in range(_SD_LISTEN_FDS_START, _SD_LISTEN_FDS_START + int(os.environ.get("LISTEN_FDS", "0"))):
        opened = socket.socket(fileno=descriptor)
        name = opened.getsockname()
        found[(name, 0) if isinstance(name, str) else (name[0], name[1])] = opened
    for variable in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(variable, None)
    return found
