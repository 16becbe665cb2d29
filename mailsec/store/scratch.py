"""Octets that are written once and then read: in memory while they are few, in a file without a name when they are many.

The one invariant: the file is ours alone. It has no name (O_TMPFILE) until the spool gives it one, it is read by `pread` and
never mapped (a mapped file counts in full as memory, and one truncated by another process kills us), and what was read of a
large file is given back to the kernel at once, so that a 100 MiB message costs a window and not its size (promise 9).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator

from mailsec.errors import LocalProtocolError, StoreError
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.octets import BLOCK, BytesOctets, Octets
from mailsec.store.spool_faults import storage_fault

__all__ = ["FileOctets", "FileScratch", "WindowedOctets"]

_WINDOW = 64 * 1024
_DROP_BEHIND = 16 * 1024 * 1024
"""Files up to this size stay in the page cache while they are worked on: reading them again from a disk would cost more than it saves."""


class WindowedOctets:
    """`Octets` that are read through one small window; a subclass says how octets are read."""

    __slots__ = ("_length", "_window")

    def __init__(self, length: int) -> None:
        self._length = length
        self._window = (0, b"")  # one value: another thread may move the window while we look

    def __len__(self) -> int:
        return self._length

    def __repr__(self) -> str:
        return f"<{self._length} octets in a file>"

    def _read(self, start: int, end: int) -> bytes:
        """Octets [start, end), which lie within the length."""
        raise LocalProtocolError("a subclass says how octets are read")

    def _drop(self, start: int, end: int) -> None:
        """Octets [start, end) were read and will hardly be read again."""

    def view(self, start: int, end: int) -> bytes:
        start = max(start, 0)
        end = min(end, self._length)
        if end <= start:
            return b""
        if end - start > _WINDOW:
            return self._read(start, end)
        window_start, window = self._window
        if start < window_start or end > window_start + len(window):
            window_start = start
            window = self._read(start, min(start + _WINDOW, self._length))
            self._window = (window_start, window)
        return window[start - window_start : end - window_start]

    def find(self, pattern: bytes, start: int = 0, end: int | None = None) -> int:
        end = self._length if end is None else min(end, self._length)
        start = max(start, 0)
        if not pattern:
            return start if start <= end else -1
        overlap = len(pattern) - 1
        rare = set(pattern)
        size = _WINDOW
        while start + len(pattern) <= end:
            stop = min(start + max(size, 2 * len(pattern)), end)
            window = self.view(start, stop)
            # One octet is looked for thirty times as fast as several: of a delimiter, base64 has not even one hyphen.
            found = window.find(pattern) if all(octet in window for octet in rare) else -1
            if found >= 0:
                return start + found
            if stop == end:
                break
            start = stop - overlap
            size = BLOCK
        return -1

    def blocks(self, start: int = 0, end: int | None = None) -> Iterator[bytes | memoryview]:
        end = self._length if end is None else min(end, self._length)
        start = max(start, 0)
        while start < end:
            stop = min(start + BLOCK, end)
            yield self._read(start, stop)
            self._drop(start, stop)
            start = stop


class FileOctets(WindowedOctets):
    """`Octets` over a file that mailsec wrote; it holds the descriptor, and closes it when nobody holds it any more."""

    __slots__ = ("ascii", "descriptor", "linkable")

    def __init__(self, descriptor: int, length: int, *, linkable: bool = False, ascii: bool = False) -> None:
        super().__init__(length)
        self.descriptor = descriptor
        self.linkable = linkable
        """True where the file has no name yet and can be given one."""
        self.ascii = ascii
        """True where it is known that no octet is above 127."""

    @classmethod
    def open(cls, path: str) -> FileOctets:
        """The octets of the file at `path`; raise StoreError where it cannot be opened."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            return cls(descriptor, os.fstat(descriptor).st_size)
        except OSError as fault:
            raise storage_fault(fault, "opening the body of a message in the spool") from fault

    def _read(self, start: int, end: int) -> bytes:
        if self.descriptor < 0:
            raise StoreError("octets were read after their file was given back")
        try:
            piece = os.pread(self.descriptor, end - start, start)
            while len(piece) < end - start:
                more = os.pread(self.descriptor, end - start - len(piece), start + len(piece))
                if not more:
                    raise StoreError("a file of the spool is shorter than it was written")
                piece += more
        except OSError as fault:
            raise storage_fault(fault, "reading a message") from fault
        return piece

    def _drop(self, start: int, end: int) -> None:
        if self._length > _DROP_BEHIND:
            os.posix_fadvise(self.descriptor, start, end - start, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Give the file back; allowed more than once."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class FileScratch:
    """A `Scratch` whose file, if it grows one, lies in `directory` without a name."""

    __slots__ = ("_ascii", "_check_room", "_chunks", "_descriptor", "_directory", "_dropped", "_length", "_linkable", "_memory", "_sealed")

    def __init__(self, directory: str, limits: Limits = DEFAULT_LIMITS, check_room: Callable[[int], None] | None = None) -> None:
        """`check_room` raises StorageFull where so many octets more should not be written."""
        self._directory = directory
        self._check_room = check_room
        self._memory = limits.scratch_memory
        self._chunks: list[bytes] = []
        self._length = 0
        self._descriptor = -1
        self._linkable = False
        self._ascii = True
        self._dropped = 0
        self._sealed: Octets | None = None

    def __len__(self) -> int:
        return self._length

    def append(self, chunk: bytes | memoryview) -> None:
        """Add `chunk`; raise StorageFull where the disk is full."""
        if self._sealed is not None:
            raise LocalProtocolError("octets were added to a scratch that is sealed")
        self._length += len(chunk)
        if self._descriptor < 0:
            self._chunks.append(chunk if isinstance(chunk, bytes) else bytes(chunk))
            if self._length <= self._memory:
                return
            chunk = b"".join(self._chunks)
            self._chunks.clear()
            self._descriptor, self._linkable = unnamed_file(self._directory)
        # Noted while it is in the processor's cache, and it costs nearly nothing: whoever sends it on has to know (RFC 6152).
        self._ascii = self._ascii and (chunk if isinstance(chunk, bytes) else bytes(chunk)).isascii()
        if self._check_room is not None:
            # Attack: hundreds of large messages that are begun and never ended. They stop before they take the room that deletions need.
            self._check_room(len(chunk))
        write_all(self._descriptor, chunk)
        if self._length - self._dropped > _DROP_BEHIND:
            # Starts writing what is dirty and forgets what is clean: page cache counts as memory where memory is limited.
            os.posix_fadvise(self._descriptor, 0, self._length, os.POSIX_FADV_DONTNEED)
            self._dropped = self._length

    def seal(self) -> Octets:
        if self._sealed is None:
            if self._descriptor < 0:
                self._sealed = BytesOctets(self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks))
                self._chunks.clear()
            else:
                descriptor, self._descriptor = self._descriptor, -1
                self._sealed = FileOctets(descriptor, self._length, linkable=self._linkable, ascii=self._ascii)
        return self._sealed

    def discard(self) -> None:
        self._chunks.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if isinstance(self._sealed, FileOctets):
            self._sealed.close()
        elif self._sealed is None:
            self._sealed = BytesOctets(b"")

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def unnamed_file(directory: str) -> tuple[int, bool]:
    """(descriptor, linkable) of a new file without a name in `directory`; raise StorageFull or StoreError."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), True
    except OSError as fault:
        if isinstance(fault, FileNotFoundError | PermissionError) or storage_fault(fault, "").reply.code == 452:
            raise storage_fault(fault, "opening a file in the spool") from fault
    try:  # a file system without O_TMPFILE (NFS): named for an instant, and not to be named again
        descriptor, path = tempfile.mkstemp(prefix="unnamed-", dir=directory)
        os.unlink(path)  # noqa: PTH108 - a path for an instant
    except OSError as fault:
        raise storage_fault(fault, "opening a file in the spool") from fault
    return descriptor, False


def write_all(descriptor: int, chunk: bytes | memoryview) -> None:
    """Write the whole of `chunk`; raise StorageFull or StoreError."""
    try:
        written = os.write(descriptor, chunk)
        while written < len(chunk):
            written += os.write(descriptor, memoryview(chunk)[written:])
    except OSError as fault:
        raise storage_fault(fault, "writing a message") from fault
