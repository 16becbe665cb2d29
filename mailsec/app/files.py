"""Files that commands read and write: `-` is standard input or output, sizes are bounded, and errors are ours.

The invariant: what is written is there whole or not at all (written beside, then renamed).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mailsec.errors import InputError, LimitExceeded, MailsecError
from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = ["naming", "read_file", "reason_of", "write_file"]


def reason_of(error: OSError) -> str:
    """The system's words, in our voice: "no such file or directory"."""
    return (error.strerror or str(error)).lower()


@contextmanager
def naming(path: str, hint: str = "") -> Iterator[None]:
    """What cannot be read of the octets of the file `path` is told with its name, and with `hint` where the error has none."""
    try:
        yield
    except InputError as error:
        if path not in error.message:
            error.message = f"{path}: {error.message}"
        error.hint = error.hint or hint
        raise


def read_file(path: str, *, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """All octets of the file `path`; raise InputError where it cannot be read, LimitExceeded over `message_size`."""
    try:
        if path == "-":
            data = sys.stdin.buffer.read(limits.message_size + 1)
        else:
            with Path(path).open("rb") as file:
                data = file.read(limits.message_size + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {reason_of(error)}", stage="read") from error
    if len(data) > limits.message_size:
        raise LimitExceeded("message_size", f"{path} is larger than {limits.message_size} octets", stage="read")
    return data


def write_file(path: str, data: bytes, *, private: bool = False, replace: bool = True) -> None:
    """Write the file `path`, or standard output for "-"; with `private` only we can read it. Raise MailsecError where that fails."""
    if path == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    target = Path(path)
    if not replace and target.exists():
        raise MailsecError(f"{path} exists already", hint="remove it, or choose another name")
    temporary = None
    try:
        if target.exists() and not target.is_file():  # /dev/stdout, a pipe: there is nothing to rename over
            target.write_bytes(data)
            return
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if not private:
            mask = os.umask(0)
            os.umask(mask)
            Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(target)
        temporary = None
    except OSError as error:
        raise MailsecError(f"cannot write {path}: {reason_of(error)}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
