"""Logins in a file: a line for each, `login:hash` or `login:hash:addresses`, as `htpasswd -B` and `doveadm pw` write hashes.

The file is read again when it changes. The one invariant: a login that does not stand in it costs as much as one that does, and a file
with a line that cannot be read lets nobody in.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import hmac
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mailsec.errors import ConfigurationError, MailsecError, Unavailable
from mailsec.interfaces import PEER, Credentials, Runtime
from mailsec.model.address import Address, normalise_domain
from mailsec.model.session import Identity, Session

__all__ = ["PasswdFile", "read_passwd"]

_OCTETS = 16 * 1024 * 1024
_CRYPT_DATA = 32768
"""sizeof(struct crypt_data) of libxcrypt, which `crypt_rn` is given."""
# crypt(5): SHA-256, SHA-512, bcrypt, scrypt, yescrypt and its GOST form. DES, MD5 and SHA-1 are guessed too fast.
_HASH = re.compile(r"(?:\{(?:CRYPT|SHA256-CRYPT|SHA512-CRYPT|BLF-CRYPT)\})?(\$(?:5|6|2[aby]|7|y|gy)\$[!-9;-~]+)\Z")
_DUMMY = "$6$rounds=100000$mailsecmailsec$"


@dataclass(frozen=True, slots=True)
class _Line:
    hash: str = field(repr=False)
    login: str
    addresses: tuple[str, ...]


def read_passwd(text: str) -> Mapping[str, _Line]:
    """Lines by login. Raise ConfigurationError for one that cannot be read; its text is not shown."""
    found: dict[str, _Line] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        login, _, rest = line.partition(":")
        written, _, addresses = rest.partition(":")
        match = _HASH.match(written)
        if not login or match is None:
            raise ConfigurationError(
                f"line {number} is no login with a hash",
                hint="as in alice@example.org:$6$…, from `doveadm pw -s SHA512-CRYPT` or `htpasswd -nB`",
            )
        patterns = tuple(one.strip() for one in addresses.split(",") if one.strip()) or (login,)
        if not all(map(_is_pattern, patterns)):
            raise ConfigurationError(
                f"line {number} names no addresses",
                hint='a login that is no address needs some: "alice:$6$…:alice@example.org,@example.net"',
            )
        if login in found:
            raise ConfigurationError(f"line {number} has a login that was there before")
        found[login] = _Line(match[1], login, patterns)
    return found


class PasswdFile:
    """An `Authenticator` over the file at `path`."""

    mechanisms = frozenset({"PLAIN", PEER})

    def __init__(self, path: str, runtime: Runtime) -> None:
        self.name = f"passwd-file {path}"
        self._path = Path(path)
        self._runtime = runtime
        self._seen: tuple[int, int, int] | None = None
        self._lines: Mapping[str, _Line] = {}

    async def authenticate(self, credentials: Credentials, session: Session) -> Identity | None:
        """The identity; None where login and password do not fit. Raise Unavailable where the file cannot be read."""
        # RFC 4616 §2: the authorisation identity says as whom to act; nobody acts as somebody else here.
        if credentials.mechanism not in self.mechanisms or credentials.authorisation not in ("", credentials.login):
            return None
        line = await self._runtime.in_thread(self._check, credentials)
        return None if line is None else Identity(line.login, line.addresses, credentials.mechanism)

    def _check(self, credentials: Credentials) -> _Line | None:
        lines = self._current()
        line = lines.get(credentials.login)
        if credentials.mechanism == PEER:
            return line
        # Attack: finding out which logins there are by the time of an answer.
        against = line.hash if line is not None else next((one.hash for one in lines.values()), _DUMMY)
        fits = _fits(credentials.secret, against)
        return line if fits and line is not None else None

    def _current(self) -> Mapping[str, _Line]:
        try:
            status = self._path.stat()
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if status.st_mode & stat.S_IWOTH:
                raise ConfigurationError("everybody may write to it")
            if seen != self._seen:
                with self._path.open("rb") as file:
                    data = file.read(_OCTETS + 1)
                if len(data) > _OCTETS:
                    raise ConfigurationError(f"is larger than {_OCTETS} octets")
                self._lines = read_passwd(data.decode("utf-8"))
                self._seen = seen
        except (OSError, UnicodeDecodeError, MailsecError) as error:
            why = (
                error.message if isinstance(error, MailsecError) else "it is not UTF-8" if isinstance(error, ValueError) else error.strerror
            )
            raise Unavailable(f"{self._path} cannot be used: {why}", stage="login") from error
        return self._lines


def _is_pattern(text: str) -> bool:
    if text.startswith("@"):
        text = "x" + (text if not text.startswith("@.") else "@" + text[2:])
    try:
        return bool(normalise_domain(Address.parse(text).domain))
    except MailsecError:
        return False


def _fits(password: bytes, written: str) -> bool:
    """True where `password` gives this very hash. (Blocking: some 50 ms and more.)"""
    if b"\0" in password or len(password) > 512:
        # C ends a password there, and crypt(3) refuses longer ones.
        password = b"\1"
        _crypt(password, written)
        return False
    made = _crypt(password, written)
    return made is not None and hmac.compare_digest(made, written.encode())


def _crypt(password: bytes, setting: str) -> bytes | None:
    # Python's own crypt is going away (PEP 594); crypt_rn(3) is the same function, for threads.
    data = ctypes.create_string_buffer(_CRYPT_DATA)
    result: bytes | None = _library().crypt_rn(password, setting.encode(), data, _CRYPT_DATA)
    return result


_loaded: list[Any] = []


def _library() -> Any:
    if not _loaded:
        try:
            library = ctypes.CDLL(ctypes.util.find_library("crypt") or "libcrypt.so.1")
            library.crypt_rn.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int]
            library.crypt_rn.restype = ctypes.c_char_p
        except (OSError, AttributeError) as error:
            raise Unavailable("there is no crypt(3) here", hint="install libcrypt1", stage="login") from error
        _loaded.append(library)
    return _loaded[0]
