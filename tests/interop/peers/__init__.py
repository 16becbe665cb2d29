"""Programs of other people. Each has `name`, `version()`, `write(row) -> CMS in DER or BER` and `read(row, cms) -> content`."""

from __future__ import annotations

import subprocess
from pathlib import Path

__all__ = ["PeerError", "run"]


class PeerError(Exception):
    """The peer did not do it; says what it said."""


def run(*command: str | Path, cwd: Path | None = None, stdin: bytes = b"") -> bytes:
    """Run a program to its end; raise PeerError where it fails, with its words."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, timeout=60, input=stdin, check=False)
    if done.returncode:
        raise PeerError(f"{' '.join(map(str, command))[:300]}\n{done.stderr.decode(errors='replace')[-1500:]}")
    return done.stdout
