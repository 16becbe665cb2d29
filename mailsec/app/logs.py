"""Log lines: text on a terminal, one JSON object a line elsewhere; one write for each line.

The receipt and delivery lines are on the hot path, so one function renders a line (about 5 µs) in place of structlog's usual chain.
What comes from outside (Message-IDs, addresses, replies) is escaped: a log line never holds a control character, so that nobody can forge
lines or command a terminal. Subjects and secrets are never given to a logger.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any, cast

import structlog

from mailsec.app.config.models import Log
from mailsec.app.files import reason_of
from mailsec.app.output import printable
from mailsec.app.pseudonyms import Pseudonyms, log_key
from mailsec.errors import ConfigurationError

__all__ = ["LEVELS", "HeldLines", "configure_logs", "configure_logs_with", "watch_twisted"]

LEVELS: Mapping[str, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}

_COLOURS = {"debug": "\x1b[2m", "info": "\x1b[32m", "warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}

_LOOK_SECONDS = 1.0
_ATOMIC_OCTETS = 4096
"""PIPE_BUF: what several processes write into one pipe is not mixed up to here."""

_encode = json.JSONEncoder(ensure_ascii=True, default=str, check_circular=False).encode


class _Writer:
    """Writes rendered lines to a descriptor. A log that cannot be written stops no mail.

    A file that was moved away (logrotate) is opened anew within a second, in each process for itself: nobody has to send a signal.
    """

    def __init__(self, descriptor: int, file: str = "") -> None:
        self.descriptor = descriptor
        self._file = file
        self._looked_at = 0.0
        self._identity = _identity(descriptor) if file else None

    def msg(self, line: bytes) -> None:
        if self._file:
            now = time.monotonic()
            if now - self._looked_at >= _LOOK_SECONDS:
                self._looked_at = now
                self._look()
        try:
            os.write(self.descriptor, line)
        except OSError:
            pass

    def _look(self) -> None:
        try:
            there = os.stat(self._file)  # noqa: PTH116 - a look a second
            if (there.st_dev, there.st_ino) == self._identity:
                return
        except FileNotFoundError:
            pass
        except OSError:
            return
        try:
            opened = _open(self._file)
        except OSError:
            # The directory is not ours to write in: the old file goes on.
            return
        os.dup2(opened, self.descriptor, inheritable=False)
        os.close(opened)
        self._identity = _identity(self.descriptor)

    debug = info = warning = warn = error = critical = fatal = exception = log = failure = msg


class HeldLines:
    """Lines that wait for `flush`, which writes them together. For whoever gives nothing away before its line is written."""

    def __init__(self) -> None:
        """After `configure_logs`."""
        self._lines: deque[bytes] = deque()
        self._lock = threading.Lock()
        self.configured()

    def configured(self) -> None:
        """Take up what `configure_logs` was called with last."""
        self._write = structlog.get_config()["logger_factory"]().msg
        self._tell = structlog.wrap_logger(self).bind().info

    def record(self, event: str, **fields: object) -> None:
        """Keep a line."""
        self._tell(event, **fields)

    def info(self, line: bytes) -> None:
        """What structlog hands over a rendered line to."""
        self._lines.append(line)

    def flush(self) -> None:
        """Write what waits; when it returns, all that was kept before has been written."""
        lines, together = self._lines, b""
        # Held while writing: another thread's flush must not find nothing here, and go on, before that is written which it waits for.
        with self._lock:
            while lines:
                line = lines.popleft()
                if together and len(together) + len(line) > _ATOMIC_OCTETS:
                    self._write(together)
                    together = b""
                together += line
            if together:
                self._write(together)


def _open(file: str) -> int:
    return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino


class _Clock:
    """The time as logs write it; the part above the second is formatted once a second."""

    def __init__(self) -> None:
        self.second = -1
        self.prefix = ""

    def now(self) -> str:
        instant = time.time()
        second = int(instant)
        if second != self.second:
            self.second = second
            self.prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self.prefix}.{int((instant - second) * 1000):03d}Z"


def configure_logs(settings: Log, *, data_key: bytes = b"", lasting: bool = True, **fixed: object) -> None:
    """Send structlog's lines to `[log] file` (standard error where it is empty); `fixed` fields stand in every line of this process.

    `data_key` is what pseudonyms are made with. Not `lasting`: a later call of this counts for loggers that are in use already, too.
    """
    configure_logs_with(settings, log_key(data_key) if data_key else b"", lasting=lasting, **fixed)


def configure_logs_with(settings: Log, key: bytes, *, lasting: bool = True, **fixed: object) -> None:
    """The same with the key of pseudonyms itself, for a process that never has the data key."""
    descriptor = 2
    if settings.file:
        try:
            descriptor = _open(settings.file)
        except OSError as error:
            raise ConfigurationError(f"cannot write the log {settings.file}: {reason_of(error)}", hint="see [log] file") from error
    text = settings.format == "text" or (settings.format == "auto" and os.isatty(descriptor))
    clock = _Clock()
    colours = os.isatty(descriptor) and not os.environ.get("NO_COLOR")
    render = _text_renderer(clock, fixed, colours) if text else _json_renderer(clock, fixed)
    writer = _Writer(descriptor, settings.file)
    processors = [render]
    if settings.privacy != "none":
        processors.insert(0, _hider(Pseudonyms(key, strict=settings.privacy == "strict")))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[settings.level]),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=lasting,
    )


def _hider(pseudonyms: Pseudonyms) -> Any:
    def hide(_logger: object, _level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        _unfold_exception(event)
        pseudonyms.hide(event)
        return event

    return hide


def _json_renderer(clock: _Clock, fixed: Mapping[str, object]) -> Any:
    tail = "".join(f", {_encode(key)}: {_encode(value)}" for key, value in fixed.items())

    def render(_logger: object, level: str, event: MutableMapping[str, Any]) -> bytes:
        name = event.pop("event", "")
        _unfold_exception(event)
        fields = _encode(event)[1:-1]
        return f'{{"time": "{clock.now()}", "level": "{level}", "event": {_encode(name)}{tail}{", " if fields else ""}{fields}}}\n'.encode()

    return render


def _text_renderer(clock: _Clock, fixed: Mapping[str, object], colours: bool) -> Any:
    tail = "".join(f" {key}={_value(value)}" for key, value in fixed.items())

    def render(_logger: object, level: str, event: MutableMapping[str, Any]) -> bytes:
        name = event.pop("event", "")
        _unfold_exception(event)
        fields = "".join(f" {key}={_value(value)}" for key, value in event.items() if value not in (None, ""))
        word = f"{_COLOURS.get(level, '')}{level:<7}\x1b[0m" if colours else f"{level:<7}"
        return f"{clock.now()[11:23]} {word} {_line(name)}{fields}{tail}\n".encode("utf-8", "backslashreplace")

    return render


def _value(value: object) -> str:
    if isinstance(value, str):
        if value.isascii() and value.isprintable() and value and not any(sign in value for sign in " \"'="):
            return value
        return '"' + _line(value).replace('"', '\\"') + '"'
    if isinstance(value, list | tuple):
        return ",".join(_value(item) for item in value)
    return _line(value)


def _line(text: object) -> str:
    """`text` on one line: `printable` lets line feeds through."""
    return printable(text).replace("\n", "\\n")


def _unfold_exception(event: MutableMapping[str, Any]) -> None:
    """`exc_info=` becomes the traceback as one field; it names places in the source, never values."""
    found = event.pop("exc_info", None)
    if not found:
        return
    import traceback

    error = found if isinstance(found, BaseException) else sys.exc_info()[1]
    if error is not None:
        event["error"] = f"{type(error).__name__}: {error}"
        event["where"] = " < ".join(
            f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[::-1]
        )


def watch_twisted() -> None:
    """Send what Twisted itself has to say (failures that nobody handled, warnings) to our log."""
    from twisted.logger import LogLevel, formatEvent, globalLogBeginner

    log = structlog.get_logger("twisted")

    def observe(event: dict[str, Any]) -> None:
        level = event.get("log_level", LogLevel.info)
        if level < LogLevel.warn:
            return
        failure = event.get("log_failure")
        if failure is not None:
            log.error("unexpected error", exc_info=failure.value, where_from=str(event.get("log_namespace", "")))
        else:
            log.warning(formatEvent(event))

    globalLogBeginner.beginLoggingTo([cast(Any, observe)], redirectStandardIO=False, discardBuffer=True)
