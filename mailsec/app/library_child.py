"""PKCS#11 libraries in commands: a command that loads one goes on in a child, and its parent only watches.

What a library does in our process it does to us: it may crash there, or never come back from a call. The parent says so in one sentence. (A
gateway's libraries are in token hosts, which the supervisor watches.) The one invariant: the fork comes before the library, since nothing
is called in a process that was forked after C_Initialize.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import struct
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NoReturn

from mailsec import errors
from mailsec.app.hardening import end_with_parent
from mailsec.app.output import Output
from mailsec.errors import MailsecError, TokenError, Unavailable

__all__ = ["allow_child", "go_on_in_child", "in_child"]

SECONDS: Final = 30.0
"""For one call into a library."""
PATIENT_SECONDS: Final = 300.0
"""The same where somebody types at a pin pad, or a card makes a key."""
_PATIENT: Final = frozenset({"C_Login", "C_SetPIN", "C_InitPIN", "C_InitToken", "C_GenerateKeyPair", "C_GenerateKey"})
_CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGTRAP, signal.SIGSYS})
_PASSED_ON: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
_TICK_SECONDS: Final = 0.25
_END_SECONDS: Final = 1.0
"""For the call that a library is in when somebody ends the command."""
_WRONG: Final = 70
"""EX_SOFTWARE of sysexits.h."""
_INTERRUPTED: Final = 130
_HINT: Final = "is there a newer version of it? A gateway keeps it in a process of its own, and goes on"

_output: Output | None = None
"""How a command's parent speaks; None where this process is no command of its own (a program that calls us)."""


def allow_child(output: Output) -> None:
    """Called by the entry point of `mailsec`: this process may become the parent of what it began."""
    global _output
    _output = output


def go_on_in_child() -> None:
    """From here on the command is a child of this process, which ends as the child does, or says what a library has done to it."""
    global _output
    output = _output
    if output is None or threading.active_count() > 1:
        return
    _output = None
    child = _Child()
    if child.begin():
        return
    try:
        code = child.wait()
    except MailsecError as error:
        output.mailsec_error(error)
        code = error.exit_code
    _flush()
    # What this process began (open files, an event loop) is the child's.
    os._exit(code)


def in_child(function: Callable[[], Any]) -> Any:
    """What `function`, which uses a library, returns (of JSON's types), from a process of its own.

    Raise what it raises (a MailsecError), TokenError where the library crashed, Unavailable where it did not come back from a call.
    """
    reading, writing = os.pipe()
    child = _Child()
    if child.begin():
        _answer(function, writing)
    os.close(writing)
    found: list[bytes] = []
    with os.fdopen(reading, "rb") as answer:
        reader = threading.Thread(target=lambda: found.append(answer.read()), daemon=True)
        reader.start()
        code = child.wait()
        reader.join()
    if code == _INTERRUPTED:
        raise KeyboardInterrupt
    if code or not found[0]:
        raise TokenError("the process that a library was loaded into has ended", hint=_HINT)
    value = json.loads(found[0])
    if "error" in value:
        name, message, hint, stage = value["error"]
        raise getattr(errors, name, MailsecError)(message, hint=hint, stage=stage)
    return value["value"]


def _answer(function: Callable[[], Any], writing: int) -> NoReturn:
    """In the child: say what `function` says, and end."""
    code = 0
    try:
        try:
            value: dict[str, Any] = {"value": function()}
        except MailsecError as error:
            value = {"error": [type(error).__name__, error.message, error.hint, error.stage]}
        left = json.dumps(value).encode()
        while left:
            left = left[os.write(writing, left) :]
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = _WRONG
    finally:
        # Not sys.exit: the callers' clean-up is the parent's business, and a library's own may hang.
        os._exit(code)


class _Child:
    """A child of this process, and which call into which library it is in: a page that both see."""

    _form: Final = struct.Struct("=Q32s1024s")

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, self._form.size)
        self._count = 0
        self._pid = 0
        self._mask: set[int | signal.Signals] = set()

    def begin(self) -> bool:
        """Fork; True in the child, whose calls are noted from then on."""
        _flush()
        parent = os.getpid()
        # Before the fork, so that no end of the child is missed.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *_PASSED_ON})
        self._pid = os.fork()
        if self._pid:
            return False
        end_with_parent(parent)
        from mailsec.tokens.cryptoki import observe_calls

        observe_calls(self._note)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        return True

    def _note(self, function: str, library: str) -> None:
        """In the child: a call begins, or (without a name) has ended."""
        self._count += 1
        self._page[:] = self._form.pack(self._count, function.encode()[:32], library.encode(errors="replace")[:1024])

    def _now(self) -> tuple[int, str, str]:
        """In the parent: the number of the call, its function and its library; no function where the child is in none."""
        number, function, library = self._form.unpack(self._page[:])
        return number, function.rstrip(b"\0").decode(), library.rstrip(b"\0").decode(errors="replace")

    def wait(self) -> int:
        """Until the child has ended, its exit code; TokenError where a library crashed in it, Unavailable where one hung."""
        last, seen, wanted_end = 0, 0.0, 0
        try:
            while True:
                ended, status = os.waitpid(self._pid, os.WNOHANG)
                if ended:
                    return self._exit_code(os.waitstatus_to_exitcode(status))
                told = signal.sigtimedwait({signal.SIGCHLD, *_PASSED_ON}, _TICK_SECONDS)
                if told is not None:
                    if told.si_signo in _PASSED_ON:
                        wanted_end, seen = told.si_signo, 0.0
                        if told.si_code <= 0:  # what a terminal says it says to the child, too
                            os.kill(self._pid, told.si_signo)
                    continue
                number, function, library = self._now()
                # Counted, not looked up on a clock: a command that was stopped (^Z) was stopped in its call.
                seen = seen + _TICK_SECONDS if function and number == last else 0.0
                last = number
                # Python hears ^C when the library comes back.
                patience = _END_SECONDS if wanted_end else PATIENT_SECONDS if function in _PATIENT else SECONDS
                if seen >= patience:
                    os.kill(self._pid, signal.SIGKILL)
                    os.waitpid(self._pid, 0)
                    if wanted_end:
                        return 128 + wanted_end
                    raise Unavailable(
                        f"the PKCS#11 library {library} does not come back from {function}",
                        hint="is its device there, and its daemon running?",
                    )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)

    def _exit_code(self, code: int) -> int:
        if -code not in _CRASHES:
            return code if code >= 0 else 128 - code
        _, function, library = self._now()
        where = f"in {function}" if function else "after its last call"
        name = signal.Signals(-code).name
        raise TokenError(f"the PKCS#11 library {library or 'that was loaded'} crashed {where} ({name})", hint=_HINT)


def _flush() -> None:
    """Nothing that was said before a fork is said twice, and nothing after it is lost."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, AttributeError, ValueError):
            stream.flush()
