"""Which file system a file lies on: SQLite needs locks and shared memory that network file systems do not keep.

Linux says it in /proc/self/mountinfo (proc(5)): the device number of a file is that of its mount; names of file systems are the kernel's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

__all__ = ["NETWORK", "network_file_system"]

_FUSE: Final = (
    "ceph",
    "cifs",
    "curlftpfs",
    "davfs",
    "glusterfs",
    "juicefs",
    "mfs",
    "rclone",
    "s3fs",
    "smbnetfs",
    "sshfs",
)
NETWORK: Final = frozenset({
    "9p", "afs", "ceph", "cifs", "coda", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs",
    "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs",
    *(f"fuse.{name}" for name in _FUSE),
})  # fmt: skip
"""Names of file systems whose files other machines may change at the same time."""


def network_file_system(path: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The name of the network file system that `path` (or the directory it would be in) lies on; "" where it is local or not known."""
    place = path.resolve()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        device = place.stat().st_dev
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in lines:
        # "36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/root rw": optional fields end with a hyphen.
        fields = line.split(" ")
        if len(fields) > 6 and fields[2] == number and "-" in fields[6:-1]:
            name = fields[fields.index("-", 6) + 1]
            return name if name in NETWORK else ""
    return ""
