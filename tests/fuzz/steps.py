"""Work is counted in steps, never in seconds: a busy machine changes nothing, and a quadratic reader fails at once.

A step is a call of a function, in Python or in C. Beyond the limit the work is ended where it stands.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

__all__ = ["TooMuchWork", "steps"]


class TooMuchWork(BaseException):
    """More steps than the size of the input allows. No `except Exception` on the way holds it up."""


def steps(function: Callable[[], object], most: int = 1 << 40) -> int:
    """Run `function`; return how many calls it took, or raise TooMuchWork beyond `most`."""
    count = 0

    def counted(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += 1
            if count > most:
                sys.setprofile(None)
                raise TooMuchWork(f"more than {most} steps")

    before = sys.getprofile()
    sys.setprofile(counted)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count
