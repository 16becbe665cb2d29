"""The process of a token host: one PKCS#11 module, its sessions, and a socket. Run as `python -m mailsec.app.token_host` by the supervisor,

or by systemd under a user of its own (`-c CONFIG NAME`), when the supervisor connects and hands over PINs and assignments.

Started by exec, never by a fork of a process that has a library in it. The one invariant: when the supervisor that started it goes, it goes.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from mailsec.app.config.models import Module
from mailsec.app.files import reason_of, write_file
from mailsec.app.hardening import harden_process
from mailsec.app.output import Output
from mailsec.errors import ConfigurationError, MailsecError, RemoteProtocolError
from mailsec.keys.frames import FrameReader, read_json

__all__ = ["SUPERVISOR", "main", "settings_of"]

SUPERVISOR = 3
"""The descriptor of the supervisor's socket, in a host that it started."""

_log = structlog.get_logger("mailsec.token_host")
_END_SECONDS = 2.0
_SWITCH_SECONDS = 0.0005


def settings_of(configuration: Any, module: Module) -> dict[str, Any]:
    """What the host of a module is started with. Raise ConfigurationError where its library cannot be named."""
    from mailsec.app.config.tokens import host_socket
    from mailsec.app.modules import module_library

    elsewhere = module.host and not (module.library or module.nss)
    library, parameters = ("", None) if elsewhere else module_library(module, read_only=True)
    return {
        "name": module.name,
        "library": library,
        "parameters": parameters,
        "nss": list(module.nss),
        "socket": host_socket(module, configuration.gateway.run_directory),
        "state": configuration.gateway.state_directory,
        "threads": module.threads or len(os.sched_getaffinity(0)),
        "uses_per_minute": module.uses_per_minute,
        "log": configuration.log.model_dump(),
        "shared": bool(module.host),
    }


def _configured(path: str, name: str) -> dict[str, Any]:
    """The same for a host that systemd starts."""
    from mailsec.app.config import load_configuration

    configuration = load_configuration(path)
    module = next((one for one in configuration.modules if one.name == name), None)
    if module is None:
        raise ConfigurationError(f'there is no [[module]] called "{name}"', hint=f"{path} is read by this host, too")
    if not module.host:
        raise ConfigurationError(f'[[module]] "{name}" has no host = "unix:PATH"', hint="mailsec serve starts its host itself")
    settings = settings_of(configuration, module)
    # A user of its own cannot write where mailsec does; systemd says where it can (StateDirectory=).
    return settings | {"state": os.environ.get("STATE_DIRECTORY") or settings["state"]}


def main() -> None:
    """Read what we are, load the library, serve."""
    harden_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # A thread that comes back from the library asks for the interpreter; the others give it up soon.
    sys.setswitchinterval(_SWITCH_SECONDS)
    output = Output()
    try:
        if sys.argv[1:2] == ["-c"] and len(sys.argv) == 4:
            code = _serve(_configured(sys.argv[2], sys.argv[3]), None, {})
        else:
            parent = socket.socket(fileno=SUPERVISOR)
            first = _first_frame(parent)
            code = _serve(first.pop("settings"), parent, first)
    except MailsecError as error:
        output.mailsec_error(error)
        code = error.exit_code
    # Not sys.exit: a library that hangs in a thread, or in its own clean-up, keeps no process alive.
    sys.stderr.flush()
    os._exit(code)


def _first_frame(parent: socket.socket) -> dict[str, Any]:
    """What we are. No octet more is read: the next frame is the server's."""
    head = parent.recv(4, socket.MSG_WAITALL)
    octets = head + parent.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL) if len(head) == 4 else b""
    for one in FrameReader().feed(octets):
        return read_json(one)
    raise RemoteProtocolError("the supervisor has gone")


def _serve(settings: Mapping[str, Any], parent: socket.socket | None, first: Mapping[str, Any]) -> int:
    from mailsec.app.modules import demand_sound_files, known_listing, listing_path
    from mailsec.tokens.desk import Desk
    from mailsec.tokens.host import HostServer
    from mailsec.tokens.module import Module as LoadedModule
    from mailsec.tokens.state import StateDirectory

    log = _HostLog(settings, first)
    _log.info("token host is starting", library=settings["library"], pid=os.getpid())
    demand_sound_files(settings["nss"])
    module = LoadedModule(settings["name"], settings["library"], state=StateDirectory(settings["state"]), parameters=settings["parameters"])
    listing = listing_path(settings["state"], settings["name"])

    def keep(value: Mapping[str, Any]) -> None:
        """Written down for workers that start while the token is away: for whom its keys are."""
        try:
            write_file(listing, json.dumps(value).encode(), private=True)
        except MailsecError as error:
            _log.warning("the list of a token cannot be kept", error=error.message)

    known = known_listing(settings["state"], settings["name"])
    desk = Desk(module, log.record, keep=keep, known=known, uses_per_minute=settings["uses_per_minute"], audit=log.uses.record)
    desk.configure(first)
    server = HostServer(desk, log.record, threads=settings["threads"], users=_sharers(settings), told=log.told, flush=log.uses.flush)
    server.listen(_listen(settings["socket"], shared=settings["shared"]))
    if parent is not None:
        server.attend(parent)
    signal.signal(signal.SIGTERM, lambda *_: server.stop())
    server.serve()
    _log.info("token host ends", pid=os.getpid())
    ending = threading.Thread(target=module.close, daemon=True)
    ending.start()
    ending.join(_END_SECONDS)
    return 0


class _HostLog:
    """This process's log: with the pseudonyms that the workers write.

    A host that systemd starts learns the key of them when the supervisor connects; until then every person is "~". No key is used before.
    """

    def __init__(self, settings: Mapping[str, Any], first: Mapping[str, Any]) -> None:
        from mailsec.app.logs import HeldLines

        self._settings = settings
        self._key: str | None = None
        self._privacy = settings["log"]["privacy"]
        self._configure(first)
        self.uses = HeldLines()
        """Lines about uses of keys: those of a few signatures are written together, and before these leave."""

    def told(self, value: Mapping[str, Any]) -> None:
        """What the supervisor says: its key, and what it wants hidden after a reload."""
        if self._configure(value):
            self.uses.configured()

    def _configure(self, value: Mapping[str, Any]) -> bool:
        """True where that is something new."""
        from mailsec.app.config.models import Log
        from mailsec.app.logs import configure_logs_with

        key = str(value.get("log_key", self._key or ""))
        privacy = value.get("settings", self._settings)["log"]["privacy"]
        if (key, privacy) == (self._key, self._privacy):
            return False
        self._key, self._privacy = key, privacy
        log = Log.model_validate({**self._settings["log"], "privacy": privacy})
        configure_logs_with(log, bytes.fromhex(key), lasting=False, module=self._settings["name"])
        return True

    def record(self, event: str, **fields: Any) -> None:
        """Write a line as it is to be written at this moment."""
        _log.info(event, **fields)


def _listen(path: str, *, shared: bool) -> socket.socket:
    """Listen at `path`, which nobody does: the supervisor starts one host of a module at a time."""
    place = Path(path)
    try:
        if place.exists() and stat.S_ISSOCK(place.lstat().st_mode):
            place.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(path)
        # A host with a user of its own shares a group with mailsec; its directory is 0750.
        place.chmod(0o660 if shared else 0o600)
        listening.listen(128)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {path}: {reason_of(error)}", hint="unix sockets have names of at most 107 octets"
        ) from error
    return listening


def _sharers(settings: Mapping[str, Any]) -> frozenset[int]:
    """With a user of its own: who is in the group of the socket's directory may connect, so it is the directory that says who."""
    if not settings["shared"]:
        return frozenset()
    import grp
    import pwd

    group = Path(settings["socket"]).parent.stat().st_gid
    members = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == group}
    try:
        members |= {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(group).gr_mem}
    except KeyError:
        pass
    return frozenset(members)


if __name__ == "__main__":
    main()
