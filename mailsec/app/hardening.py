"""What every long-running process does first, so that secrets stay in it (promise 6): no core dump, no debugger, no new privileges.

Linux only; elsewhere what does not exist is left out.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

__all__ = ["harden_process"]

# linux/prctl.h
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
