"""What every long-running process does first: secrets stay in it (promise 6; no core dump, no debugger, no new privileges), and it has the
descriptors that the limits of connections count on.

Linux only; elsewhere what does not exist is left out.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from dataclasses import replace

from mailsec.model.limits import Limits

__all__ = ["end_with_parent", "fitting", "harden_process", "raise_descriptors"]

_DESCRIPTORS = 65_536
"""More than the limits of one worker can use; a hard limit may be a thousand times as high."""

# linux/prctl.h
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38


def harden_process() -> None:
    """umask 077, no core dumps, not dumpable (nobody but root reads /proc/PID/mem), no privileges through set-user-ID programs.

    An exec makes a process dumpable again, so each process calls this for itself.
    """
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None, use_errno=True).prctl
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def end_with_parent(parent: int) -> None:
    """In a child that was forked by `parent`: end (SIGTERM) when it does."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGTERM)


def raise_descriptors() -> int:
    """Take as many descriptors as may be had without asking anybody; return how many.

    Most systems give 1024 (for programs with select()) and allow many more. Attack: connections from many addresses that leave none for
    the spool and the next hops.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


def fitting(limits: Limits, descriptors: int) -> Limits:
    """`limits` with no more connections than so many descriptors carry: a client has a socket and a file, and files are needed elsewhere too."""
    return replace(
        limits,
        connections=max(1, min(limits.connections, descriptors // 4)),
        outgoing_connections=max(1, min(limits.outgoing_connections, descriptors // 8)),
    )
