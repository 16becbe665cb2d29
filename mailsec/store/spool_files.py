"""Large bodies beside the database: written and synced without a name, named, and only then committed.

The one invariant: a file that a committed row names is whole and durable, its directory entry too. A file that no row names is
removed when the spool is opened.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable

from mailsec.errors import StorageFull, StoreError
from mailsec.model.octets import Segments, Slice
from mailsec.store.crashpoints import crash_point
from mailsec.store.scratch import FileOctets, unnamed_file, write_all
from mailsec.store.spool_faults import storage_fault
from mailsec.store.spool_seal import Sealer

__all__ = ["BodyFiles"]

_RESERVED_INODES = 64
_BALLAST = 16 * 1024 * 1024
_KEEP_CACHED = 16 * 1024 * 1024


class BodyFiles:
    """The directory of one spool's bodies. All methods block; long ones belong into a thread."""

    __slots__ = ("_ballast", "_ballast_octets", "_descriptor", "directory", "reserve")

    def __init__(self, directory: str, reserve: int) -> None:
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)  # noqa: PTH103 - paths are str here, for speed
            self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as fault:
            raise storage_fault(fault, "opening the spool") from fault
        self.directory = directory
        self.reserve = reserve
        """Octets that stay free: the database needs some to get rid of rows."""
        self._ballast = -1
        self._ballast_octets = min(_BALLAST, reserve // 4)
        self._take_ballast()

    def close(self) -> None:
        """Give the directory back."""
        self.drop_ballast()
        os.close(self._descriptor)

    def _take_ballast(self) -> None:
        """Occupy some room, so that there is some to give where others have filled the disk: deleting rows needs room too."""
        try:
            if self._ballast_octets:
                self._ballast, _ = unnamed_file(self.directory)
                os.posix_fallocate(self._ballast, 0, self._ballast_octets)
        except (OSError, StoreError):
            self.drop_ballast()

    def drop_ballast(self) -> None:
        """Give the occupied room back; it is taken again when there is enough."""
        ballast, self._ballast = self._ballast, -1
        if ballast >= 0:
            os.close(ballast)

    def check_room(self, octets: int) -> None:
        """Raise StorageFull where `octets` more would eat into the reserve, or inodes are short."""
        try:
            status = os.fstatvfs(self._descriptor)
        except OSError as fault:
            raise storage_fault(fault, "looking for room in the spool") from fault
        ballast = self._ballast_octets if self._ballast >= 0 else 0
        if status.f_bavail * status.f_frsize + ballast < self.reserve + octets:
            raise StorageFull("the file system of the spool is nearly full", hint="free some room; mail is taken again by itself")
        if status.f_files and status.f_favail < _RESERVED_INODES:
            raise StorageFull("the file system of the spool has nearly no inodes left", hint="remove some files")
        if self._ballast < 0 and self._ballast_octets:
            self._take_ballast()

    def write(self, name: str, segments: Segments, sealer: Sealer | None, context: str) -> None:
        """Make the file `name` durable: the octets of `segments`, sealed where `sealer` is given."""
        ours = _whole_file(segments) if sealer is None else None
        try:
            if ours is not None:
                # What arrived in clear and leaves in clear is there already: it only gets a name.
                os.fdatasync(ours.descriptor)
                crash_point("spool.file.synced")
                self._link(ours.descriptor, name)
            else:
                self._copy(name, segments if sealer is None else sealer.seal(context, segments))
            crash_point("spool.file.linked")
            os.fsync(self._descriptor)
        except OSError as fault:
            self.remove((name,))
            raise storage_fault(fault, "writing a message to the spool") from fault
        except BaseException:
            self.remove((name,))
            raise
        crash_point("spool.file.directory-synced")

    def _link(self, descriptor: int, name: str) -> None:
        # linkat() follows the magic link only if it is told to, and os.link() calls linkat() only if it is given a directory.
        os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=self._descriptor, follow_symlinks=True)

    def _copy(self, name: str, octets: Iterable[bytes | memoryview]) -> None:
        descriptor, linkable = unnamed_file(self.directory)
        unfinished = ""
        try:
            if not linkable:
                unfinished = name + ".new"
                os.close(descriptor)
                descriptor = os.open(
                    unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self._descriptor
                )
            written = 0
            for chunk in octets:
                write_all(descriptor, chunk)
                written += len(chunk)
            crash_point("spool.file.written")
            os.fdatasync(descriptor)
            crash_point("spool.file.synced")
            if written > _KEEP_CACHED:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            if unfinished:
                os.rename(unfinished, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
                unfinished = ""
            else:
                self._link(descriptor, name)
        finally:
            os.close(descriptor)
            if unfinished:
                self.remove((unfinished,))

    def adopt(self, path: str, name: str) -> None:
        """Give the file at `path` (of another spool on this file system) the name `name` here too, durably."""
        try:
            os.link(path, name, dst_dir_fd=self._descriptor)
            os.fsync(self._descriptor)
        except OSError as fault:
            raise storage_fault(fault, "adopting a message") from fault

    def open(self, name: str) -> FileOctets:
        """The octets of the file `name`."""
        if "/" in name or name.startswith("."):
            raise StoreError("a row of the spool names a file that is not of the spool")
        return FileOctets.open(f"{self.directory}/{name}")

    def remove(self, names: Iterable[str]) -> None:
        """Remove files; those that are gone already are no error. Whatever stays is removed at the next start."""
        for name in names:
            try:
                os.unlink(name, dir_fd=self._descriptor)
            except OSError:
                continue

    def remove_all_but(self, named: Collection[str]) -> int:
        """Remove what no row names; return how many there were."""
        leftovers = [name for name in os.listdir(self.directory) if name not in named]  # noqa: PTH208
        self.remove(leftovers)
        return len(leftovers)


def _whole_file(segments: Segments) -> FileOctets | None:
    """The unnamed file that `segments` are the whole of, if they are."""
    if len(segments.pieces) != 1:
        return None
    piece = segments.pieces[0]
    if isinstance(piece, Segments):
        return _whole_file(piece)
    if isinstance(piece, Slice) and isinstance(piece.octets, FileOctets):
        octets = piece.octets
        if octets.linkable and octets.descriptor >= 0 and piece.start == 0 and piece.end == len(octets):
            return octets
    return None
