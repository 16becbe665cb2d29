"""`run/control`: where people ask a running mailsec for something. One JSON object a line, on a unix socket of mode 0600.

A question is {"do": WORD, …}; each gets lines {"progress": TEXT} while it takes its time, and then one {"ok": true, …} or {"ok": false,
"error": TEXT, "hint": TEXT, …}. The one invariant: nobody is heard but our own user and root, whatever the mode of the socket has become
(SO_PEERCRED), and nothing that is said here is ever a secret of others.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from mailsec.app.config.problems import ConfigurationErrors
from mailsec.app.files import reason_of
from mailsec.errors import MailsecError, Unavailable

__all__ = ["NAME", "ControlSocket", "ask"]

_log = structlog.get_logger("mailsec.control")

NAME: Final = "control"
"""The socket's name in the run directory."""
_LINE_OCTETS: Final = 64 * 1024
_MOST: Final = 16
"""Connections at once."""
_SILENCE: Final = 30.0
"""Seconds that a connection may say nothing while nothing is asked."""
_PATH_OCTETS: Final = 107

Answerer = Callable[[Mapping[str, Any], Callable[[str], None]], Awaitable[Mapping[str, Any]]]
"""Answers a question; the second argument tells of progress. Raise MailsecError for no."""


class ControlSocket:
    """Listens in the run directory, whose lock we hold: what lies there of one that was killed is removed."""

    def __init__(self, reactor: Any, run_directory: str, answer: Answerer) -> None:
        self.reactor = reactor
        self.answer = answer
        self.open: set[_Line] = set()
        self._directory = run_directory
        self._port: Any = None

    def start(self) -> None:
        """Listen."""
        path = Path(self._directory) / NAME
        path.unlink(missing_ok=True)
        with _short(path) as name:
            try:
                self._port = self.reactor.listenUNIX(name, _Lines(self), backlog=_MOST, mode=0o600)
            except Exception as error:  # Twisted's CannotListenError and what the path can cause: mail goes on without it
                _log.error("nobody can ask this mailsec for anything", error=str(error))

    def stop(self) -> None:
        """Listen no more, and hang up."""
        if self._port is not None:
            # Twisted takes the file away itself, a turn of the reactor later; whoever looks meanwhile finds nobody there.
            maybeDeferred(self._port.stopListening).addErrback(_gone)
            self._port = None
            (Path(self._directory) / NAME).unlink(missing_ok=True)
        for line in list(self.open):
            line.transport.loseConnection()


def _gone(failure: Failure) -> None:
    failure.trap(FileNotFoundError)  # type: ignore[no-untyped-call]


class _Lines(Factory):
    noisy = False

    def __init__(self, owner: ControlSocket) -> None:
        self.owner = owner

    def buildProtocol(self, addr: Any) -> Protocol | None:
        return _Line(self.owner) if len(self.owner.open) < _MOST else None


class _Line(Protocol):
    """One connection: one question at a time."""

    transport: Any

    def __init__(self, owner: ControlSocket) -> None:
        self._owner = owner
        self._buffer = b""
        self._busy = False
        self._lost = False
        self._timer: Any = None

    def connectionMade(self) -> None:
        pid, uid, _ = struct.unpack("3i", self.transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            _log.warning("a stranger asked this mailsec for something", uid=uid, pid=pid)
            self.transport.abortConnection()
            return
        self._owner.open.add(self)
        self._wait()

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) > _LINE_OCTETS:
            self.transport.abortConnection()
            return
        self._next()

    def _wait(self) -> None:
        self._timer = self._owner.reactor.callLater(_SILENCE, self.transport.abortConnection)

    def _next(self) -> None:
        if self._busy or self._lost or b"\n" not in self._buffer:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        question, _, self._buffer = self._buffer.partition(b"\n")
        self._busy = True
        Deferred.fromCoroutine(self._answer(question)).addBoth(self._answered)

    async def _answer(self, octets: bytes) -> None:
        try:
            question = json.loads(octets)
            if not isinstance(question, dict) or not isinstance(question.get("do"), str):
                raise ValueError
        except (ValueError, RecursionError):
            self._tell({"ok": False, "error": "not a question", "hint": 'write {"do": "status"} and a line feed'})
            return
        try:
            answer = {"ok": True, **await self._owner.answer(question, lambda text: self._tell({"progress": text}))}
        except MailsecError as error:
            answer = {"ok": False, "error": error.message, "hint": error.hint}
            if isinstance(error, ConfigurationErrors):
                answer["errors"] = [{"message": one.message, "hint": one.hint} for one in error.problems]
        self._tell(answer)

    def _answered(self, result: Any) -> None:
        if isinstance(result, Failure):
            _log.error("a question cannot be answered: unexpected error", exc_info=result.value)
            self._tell({"ok": False, "error": f"unexpected error ({type(result.value).__name__})", "hint": "the log has more"})
        self._busy = False
        if not self._lost:
            self._wait()
            self._next()

    def _tell(self, answer: Mapping[str, Any]) -> None:
        if not self._lost:
            self.transport.write(json.dumps(answer, default=str).encode("ascii") + b"\n")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._lost = True
        self._owner.open.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def ask(
    run_directory: str, question: Mapping[str, Any], *, seconds: float = 30.0, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Ask the mailsec that runs in `run_directory`, and wait for its answer. Blocks. Raise Unavailable where none answers."""
    path = Path(run_directory) / NAME
    with _short(path) as name, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(seconds)
        try:
            line.connect(name)
            line.sendall(json.dumps(question).encode("ascii") + b"\n")
            with line.makefile("rb") as answers:
                for octets in answers:
                    answer = json.loads(octets)
                    if "ok" in answer:
                        return dict(answer)
                    if progress is not None:
                        progress(str(answer.get("progress", "")))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise Unavailable(
                "mailsec is not running", hint=f"nobody listens at {path}; mailsec serve, or systemctl start mailsec"
            ) from error
        except TimeoutError as error:
            raise Unavailable(f"there is no answer in {seconds:g} s", hint="the log of mailsec may say why") from error
        except PermissionError as error:
            raise Unavailable(f"{path} is not ours to use", hint="ask as root, or as the user that mailsec runs as") from error
        except OSError as error:
            raise Unavailable(f"cannot speak with mailsec at {path}: {reason_of(error)}") from error
    raise Unavailable("the connection was closed without an answer", hint="only its own user and root are heard; its log may say why")


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for `path` that fits into the address of a unix socket (unix(7): 107 octets)."""
    if len(os.fsencode(path)) <= _PATH_OCTETS:
        yield str(path)
        return
    try:
        directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        yield str(path)
        return
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)
