"""What is kept about modules between processes and reboots: locks, and the mark of a login that was begun.

No card is ever blocked by us. Before C_Login a mark with the token's serial is synced to the state directory, and it is removed after
success. While it stands no process logs in to this token, not after a crash, a reload or a reboot, until a person says so (`mailsec token
login`). The one invariant: a mark is on disk before the library hears of a PIN, and a verdict on a PIN never lifts it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mailsec.errors import KeyUnavailable, MailsecError
from mailsec.tokens.cryptoki import TokenState

__all__ = ["MOST_FAILURES", "LoginMark", "StateDirectory"]

MOST_FAILURES = 2
"""Wrong PINs after which a token host takes no more from anybody: most cards lock after three."""
_LOCK_SECONDS = 30.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class LoginMark:
    """A login that has no good end yet."""

    module: str
    label: str
    serial: str
    at: float
    """Seconds since 1970."""
    verdict: str = ""
    """What the token answered about the PIN ("CKR_PIN_INCORRECT"); empty while it has not answered."""
    lifted: bool = False
    """It was lifted once by itself already."""
    failures: int = 0
    """Verdicts against PINs since the last login that ended well."""


class StateDirectory:
    """The directory of marks and locks; its marks outlive the machine's next start."""

    def __init__(self, path: str | Path, *, clock: Callable[[], float] = time.time, pause: Callable[[float], None] = time.sleep) -> None:
        self.path = Path(path)
        self._clock = clock
        self._pause = pause

    # -- locks -------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, what: str, seconds: float = _LOCK_SECONDS) -> Iterator[None]:
        """Hold the lock `what` among all processes of this directory; raise KeyUnavailable where another holds it for longer."""
        self._make()
        try:
            descriptor = self._open(self.path / f"{_safe(what)}.lock", os.O_RDWR)
        except OSError as error:
            raise _unwritable(self.path, error) from error
        try:
            left = seconds
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if left <= 0:
                        raise KeyUnavailable(
                            f"another process is starting {what}, and does not come to an end", hint="is its PKCS#11 library stuck?"
                        ) from None
                    self._pause(_POLL_SECONDS)
                    left -= _POLL_SECONDS
            yield
        finally:
            os.close(descriptor)

    # -- marks -------------------------------------------------------------------------------------------------------------------

    # `place` tells tokens apart whose maker gives all of them one serial: NSS databases.

    def mark(self, token: TokenState, place: str = "") -> LoginMark | None:
        """The mark that stands for a token. One that cannot be read stands, too."""
        return _read_mark(self._mark_path(token, place), token)

    def marks(self) -> list[LoginMark]:
        """All that stand."""
        return [mark for mark in map(_read_mark, sorted(self.path.glob("login-*.mark"))) if mark is not None]

    def set_mark(self, module: str, token: TokenState, place: str = "", *, verdict: str = "", lifted: bool = False) -> None:
        """Write the mark of a token, and sync it."""
        before = _read_mark(self._mark_path(token, place), token)
        failures = (before.failures if before is not None else 0) + bool(verdict)
        self._write(token, place, LoginMark(module, token.label, token.serial, self._clock(), verdict, lifted, failures))

    def put_back(self, token: TokenState, place: str, mark: LoginMark | None) -> None:
        """As it was before a call that, as its answer shows, has tried no PIN."""
        if mark is None:
            self.lift(token, place)
        else:
            self._write(token, place, mark)

    def _write(self, token: TokenState, place: str, value: LoginMark) -> None:
        self._make()
        path = self._mark_path(token, place)
        beside = path.with_suffix(f".{os.getpid()}")
        try:
            descriptor = self._open(beside, os.O_WRONLY | os.O_TRUNC)
            try:
                os.write(descriptor, json.dumps(asdict(value)).encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            beside.replace(path)
            self._sync()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def lift(self, token: TokenState, place: str = "") -> None:
        """Remove the mark of a token: its login ended well, or a person has said so."""
        try:
            self._mark_path(token, place).unlink(missing_ok=True)
            self._sync()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _mark_path(self, token: TokenState, place: str) -> Path:
        # Serials are unique with their manufacturer and model only; a label changes when a token is made anew.
        name = "\0".join((token.manufacturer, token.model, token.serial, place)).encode()
        return self.path / f"login-{hashlib.sha256(name).hexdigest()[:32]}.mark"

    def _make(self) -> None:
        try:
            if not self.path.is_dir():
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    _give(descriptor, self.path.parent)
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def _open(self, path: Path, flags: int) -> int:
        # Attack: a link in the service's directory, that leads root, who tries a PIN, elsewhere.
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return os.open(path, flags)
        _give(descriptor, self.path)
        return descriptor

    def _sync(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _give(descriptor: int, beside: Path) -> None:
    """What root has just made for a command belongs to the service, which is to lock and to read it: to the owner of `beside`."""
    if os.geteuid() == 0:
        owner = beside.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _read_mark(path: Path, token: TokenState | None = None) -> LoginMark | None:
    try:
        return LoginMark(**json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        label, serial = ("", "") if token is None else (token.label, token.serial)
        return LoginMark("", label, serial, 0.0, "unreadable", lifted=True, failures=MOST_FAILURES)


def _safe(name: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9.-]", "_", name)[-40:]
    return f"{readable}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _unwritable(path: Path, error: OSError) -> MailsecError:
    return MailsecError(
        f"cannot write in {path}: {(error.strerror or str(error)).lower()}",
        hint="state_directory in [gateway] must be writable: without a mark there no PIN is given to a token",
        stage="token",
    )
