"""The sessions and the login of one token.

One anchor session keeps the login and is never closed (closing the one that logged in logs everybody out in some libraries); each thread
works in a session of its own. After a loss (a card pulled, a library that forgot us) the token is looked for again by label and serial,
logged in again where that is allowed, and the call is made once more. The one invariant: C_Login is called here and nowhere else, under
the lock of the token, with its mark on disk (`tokens.state`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from mailsec.errors import KeyUnavailable, TokenError
from mailsec.tokens.codes import DEVICE, LOST, NOT_LOGGED_IN, PIN_UNTRIED, PIN_VERDICTS, STALE_OBJECT, CkError
from mailsec.tokens.cryptoki import Cryptoki, TokenState
from mailsec.tokens.loader import Library
from mailsec.tokens.softoken import place_of
from mailsec.tokens.state import StateDirectory

__all__ = [
    "COUNT_LOW",
    "FINAL_TRY",
    "INITIALISED",
    "KEY_TYPE_INCONSISTENT",
    "LOCKED",
    "LOGIN_REQUIRED",
    "PIN_PAD",
    "WRITE_PROTECTED",
    "LoadedKey",
    "Sessions",
    "advice",
    "marked_words",
]

T = TypeVar("T")

# CKF_* of CK_TOKEN_INFO
WRITE_PROTECTED, LOGIN_REQUIRED, _PIN_INITIALISED, PIN_PAD, INITIALISED = 0x2, 0x4, 0x8, 0x100, 0x400
COUNT_LOW, FINAL_TRY, LOCKED = 0x10000, 0x20000, 0x40000
KEY_TYPE_INCONSISTENT: Final = 0x63
_OPERATION_ACTIVE: Final = 0x90
_ALREADY_LOGGED_IN: Final = 0x100
_READ_ONLY: Final = frozenset({0xB5, 0xE2})
_AGAIN_SECONDS: Final = 1.0
"""A token that is out is looked for no more often than this."""


@dataclass(frozen=True, slots=True)
class LoadedKey:
    """A private key as the sessions use it."""

    handle: int
    always_authenticate: bool


class Sessions:
    """A token in a slot, as long as its module is loaded; it may be pulled and come back."""

    def __init__(
        self,
        library: Library,
        module: str,
        slot: int,
        state: TokenState,
        directory: StateDirectory,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.library = library
        self.functions: Cryptoki = library.functions
        self.module = module
        self.slot = slot
        self.state = state
        self.place = f"{state.label}\0{place_of(library.parameters or '')}" if library.softoken else ""
        """What tells it apart where serials do not (all NSS databases have one), for who reads there and who writes."""
        self.problem = ""
        """Why it is out of service; empty: it is not."""
        self.directory = directory
        self._monotonic = monotonic
        self.lock = threading.RLock()
        self._local = threading.local()
        self.anchor: int | None = None
        self._generation = 0
        self.pin: bytes | None = None
        self._wanted = False
        """Somebody has logged in: after a loss it is done again."""
        self._proven = False
        """The PIN was right earlier in this process, or its supervisor says so."""
        self._not_before = 0.0
        self.keys: dict[bytes, LoadedKey] = {}

    def __repr__(self) -> str:
        return f"<token {self.state.label!r} of {self.module}>"

    @property
    def stage(self) -> str:
        """What mail waits for that needs this token."""
        return f"token:{self.state.label}"

    def logged_in(self) -> bool:
        """True where private objects can be used."""
        with self.lock:
            if self.anchor is None:
                return False
            try:
                return self.functions.session_state(self.anchor) in (1, 3)
            except CkError:
                return False

    @property
    def usable(self) -> bool:
        """True where its keys can be used as far as is known: logged in, or no login needed."""
        return not self.problem and (self.logged_in() or not self.state.flags & LOGIN_REQUIRED)

    # -- login ---------------------------------------------------------------------------------------------------------------------

    def login(self, pin: bytes | None, *, person: bool = False, proven: bool = False, final: bool = False) -> None:
        """Log in, and stay so. `person`: somebody has typed the PIN just now, which lifts a mark; `proven`: it was right earlier;
        `final`: that person knows that a wrong one locks the token.

        Raise TokenError where a mark stands or the token says no (it is out of service then), KeyUnavailable where it is away.
        """
        with self.lock:
            self._open_anchor()
            assert self.anchor is not None
            before, in_use = self.pin, person and self.library.softoken and not self.problem and self.logged_in()
            if person and (self.problem or self.library.softoken):
                # A key that asks each time may have refused a PIN while the session is logged in; and NSS's password may have been changed.
                self._end_login()
            self._wanted = True
            if self.logged_in():
                # Nothing is tried: what was typed now may be wrong, and is not kept.
                return
            self.pin, self._proven = pin, proven
            try:
                self._login(self.anchor, pin, person=person, final=final)
            except TokenError:
                if in_use:
                    self._restore(before)
                raise
            self._proven = True
            self.problem = ""

    def _restore(self, pin: bytes | None) -> None:
        """After a slip of the fingers at an NSS database in use, which counts no wrong passwords: as it was, if that password still holds."""
        assert self.anchor is not None
        try:
            self._login(self.anchor, pin, person=True)
        except (TokenError, KeyUnavailable):
            return
        self.pin, self._wanted, self._proven, self.problem = pin, True, True, ""

    def probe(self) -> None:
        """Raise KeyUnavailable where the token is away."""
        with self.lock:
            self._open_anchor()

    def renew_login(self) -> None:
        """Before something is written to an NSS database or taken from it: whether the password is still the one that we logged in with.

        Attack by accident: after another process has changed it, softoken writes keys with the old one, and nobody can ever read them.
        Raise TokenError where it is another one now, KeyUnavailable.
        """
        if self.library.softoken and self.state.flags & LOGIN_REQUIRED and self._wanted:
            with self.lock:
                self._open_anchor()
                assert self.anchor is not None
                self._end_login()
                self._login(self.anchor, self.pin, person=False)

    def _end_login(self) -> None:
        """Log out; what was loaded is gone with it."""
        if self.anchor is not None:
            self._logout(self.anchor)
        self._generation += 1
        self.keys = {}

    def _login(self, session: int, pin: bytes | None, *, person: bool, final: bool = False) -> None:
        state = self.state = self.answered(lambda: self.functions.token_info(self.slot))
        if not state.flags & LOGIN_REQUIRED:
            return
        label = state.label
        if state.flags & LOCKED:
            raise self._out(
                TokenError(f"the PIN of token {label!r} is locked", hint="unlock it with the tool of its maker", stage=self.stage)
            )
        if not state.flags & _PIN_INITIALISED:
            raise self._out(
                TokenError(f"token {label!r} has no PIN yet", hint=f'to set one: mailsec token pin "{label}"', stage=self.stage)
            )
        with self.directory.lock(f"login {state.serial} {label}"):
            lifted = False
            mark = self.directory.mark(state, self.place)
            if mark is not None and not person:
                suspicious = state.flags & (COUNT_LOW | FINAL_TRY)
                if mark.verdict or mark.lifted or not self._proven or suspicious:
                    raise self._out(
                        TokenError(f"no login to token {label!r}: {marked_words(mark.verdict)}", hint=advice(label), stage=self.stage)
                    )
                lifted = True
            if state.flags & FINAL_TRY and not final:
                # A wrong PIN in a file, or a typing mistake, would be the one that blocks the card.
                hint = f'if you are sure of the PIN: mailsec token login --final-try "{label}"'
                raise self._out(
                    TokenError(f"no login to token {label!r}: it has one try left before it locks", hint=hint, stage=self.stage)
                )
            self.directory.set_mark(self.module, state, self.place, lifted=lifted)
            try:
                self.functions.login(session, 1, pin)
            except CkError as error:
                if error.code != _ALREADY_LOGGED_IN:
                    if error.code in PIN_VERDICTS:
                        self.directory.set_mark(self.module, state, self.place, verdict=error.name)
                        self.pin, self._wanted, self._proven = None, False, False
                        raise self._out(
                            TokenError(f"token {label!r} refuses the PIN ({error.name})", hint=advice(label), stage=self.stage)
                        ) from error
                    # No verdict: the mark stands.
                    raise self.away(error) from error
            self.directory.lift(state, self.place)

    def _out(self, error: TokenError) -> TokenError:
        self.problem = error.message
        return error

    def take_out(self, why: str) -> None:
        """Out of service: mail that needs it waits."""
        self.problem = why

    # -- sessions --------------------------------------------------------------------------------------------------------------------

    def _open_anchor(self) -> None:
        """Have an anchor session that is alive. Raise KeyUnavailable where the token is away."""
        if self.anchor is not None:
            try:
                self.functions.session_state(self.anchor)
                return
            except CkError:
                self._forget()
        self._find_slot()
        try:
            self.anchor = self.functions.open_session(self.slot)
        except CkError as error:
            raise self.away(error) from error

    def _find_slot(self) -> None:
        """The slot that the token is in now: a reader may have got another number, or a card another reader."""
        known = (self.state.label, self.state.serial, self.state.manufacturer, self.state.model)
        slots = self.answered(lambda: self.functions.slots(present=True))
        for slot in sorted(slots, key=lambda one: one != self.slot):
            try:
                state = self.functions.token_info(slot)
            except CkError:
                continue
            if (state.label, state.serial, state.manufacturer, state.model) == known:
                self.slot, self.state = slot, state
                return
        raise KeyUnavailable(
            f"token {self.state.label!r} is not there", hint="is the card in its reader, and the HSM reachable?", stage=self.stage
        )

    def _forget(self) -> None:
        """Sessions and handles are of no use any more."""
        self.anchor = None
        self._generation += 1
        self.keys = {}

    def revive(self) -> None:
        """After a loss: anchor and login as they were. Raise KeyUnavailable."""
        with self.lock:
            now = self._monotonic()
            if self.anchor is None and now < self._not_before:
                raise KeyUnavailable(f"token {self.state.label!r} is out", hint="it is looked for every second", stage=self.stage)
            try:
                self._open_anchor()
                assert self.anchor is not None
                if self._wanted and not self.problem and not self.logged_in():
                    self._generation += 1
                    self.keys = {}
                    self._login(self.anchor, self.pin, person=False)
            except TokenError as error:
                raise KeyUnavailable(error.message, hint=error.hint, stage=self.stage) from error
            except KeyUnavailable:
                self._not_before = now + _AGAIN_SECONDS
                raise

    def session(self) -> int:
        """This thread's session."""
        local = self._local
        if self.anchor is None:
            self.revive()
        if getattr(local, "generation", -1) == self._generation:
            session: int = local.session
            return session
        with self.lock:
            self._close(getattr(local, "session", None))
            local.session = self.functions.open_session(self.slot)
            local.generation = self._generation
        return int(local.session)

    def drop_session(self) -> None:
        """Give up this thread's session: an operation in it did not end."""
        local = self._local
        if getattr(local, "generation", -1) == self._generation:
            local.generation = -1
            self._close(local.session)
            local.session = None

    def _close(self, session: int | None) -> None:
        if session is not None:
            try:
                self.functions.close_session(session)
            except CkError:
                pass

    def call(self, function: Callable[[int], T]) -> T:
        """`function(session)` in this thread's session, once more after a loss that could be mended. Raise CkError, KeyUnavailable."""
        try:
            return function(self.session())
        except CkError as error:
            if not self._mend(error):
                raise
        return function(self.session())

    def _mend(self, error: CkError) -> bool:
        """Repair what an error says is broken; False where it says nothing of the kind."""
        code = error.code
        if code in STALE_OBJECT and self._wanted and self.state.flags & LOGIN_REQUIRED and not self.logged_in():
            # Logged out behind our back: its private objects are gone until the next login.
            code = NOT_LOGGED_IN
        if code in LOST or (code == KEY_TYPE_INCONSISTENT and self.library.softoken):
            with self.lock:
                if code == KEY_TYPE_INCONSISTENT:
                    # NSS: another process has changed the password; only a new login reads the keys again.
                    self._end_login()
                self._generation += 1
                self.keys = {}
            self.revive()
            return True
        if code in STALE_OBJECT:
            self.keys = {}
            return True
        if code in DEVICE or code == _OPERATION_ACTIVE:
            self.drop_session()
            return True
        return False

    def _logout(self, session: int) -> None:
        try:
            self.functions.logout(session)
        except CkError:
            pass

    @contextmanager
    def writing(self, *, secrets: bool = False) -> Iterator[int]:
        """A session for changes, closed afterwards; `secrets`: for what NSS encrypts or signs with the password.

        Raise TokenError, KeyUnavailable.
        """
        self.need_service()
        if self.state.flags & WRITE_PROTECTED:
            raise self.read_only()
        if secrets:
            self.renew_login()
        session = self.call(lambda _: self.functions.open_session(self.slot, writing=True))
        try:
            yield session
        except CkError as error:
            raise self.told(error) from error
        finally:
            self.keys = {}
            self._close(session)

    def reading(self, function: Callable[[int], T]) -> T:
        """`call` with errors in words."""
        try:
            return self.call(function)
        except CkError as error:
            raise self.told(error) from error

    def told(self, error: CkError) -> KeyUnavailable | TokenError:
        """A library's answer in our words."""
        if error.code in LOST or error.code in DEVICE:
            return self.away(error)
        if error.code in _READ_ONLY:  # softoken does not say so before
            return self.read_only()
        return TokenError(
            f"token {self.state.label!r} refuses: {error}",
            hint="the command mailsec token mechanisms shows what it can do",
            stage=self.stage,
        )

    def read_only(self) -> TokenError:
        """What is said to who wants to change it."""
        return TokenError(
            f"token {self.state.label!r} is read-only", hint="open it for writing, or change it with its own tool", stage=self.stage
        )

    def away(self, error: CkError) -> KeyUnavailable:
        return KeyUnavailable(
            f"token {self.state.label!r} is out: {error}", hint="is the card in its reader, and the HSM reachable?", stage=self.stage
        )

    def answered(self, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except CkError as error:
            raise self.away(error) from error

    def need_service(self) -> None:
        if self.problem:
            raise KeyUnavailable(self.problem, hint=advice(self.state.label), stage=self.stage)
        if self.state.flags & LOGIN_REQUIRED and not self._wanted:
            raise KeyUnavailable(
                f"token {self.state.label!r} is not logged in", hint="say in [passphrase] where its PIN comes from", stage=self.stage
            )

    def set_pin(self, old: bytes | None, new: bytes | None) -> None:
        """Change the user's PIN. It counts as a login: the same mark, the same lock; a person has typed it."""
        with self.lock:
            self._open_anchor()
            assert self.anchor is not None
            error = self._set_pin(old, new)
            if error is not None and error.code == NOT_LOGGED_IN:
                # NSS wants a login first (PKCS #11 v3.1 §5.6.8 does not).
                self._login(self.anchor, old, person=True)
                error = self._set_pin(old, new)
            if error is not None:
                raise TokenError(
                    f"token {self.state.label!r} keeps its PIN: {error}", hint="is the old one right, and the new one long enough?"
                ) from error
            self.pin = new

    def _set_pin(self, old: bytes | None, new: bytes | None) -> CkError | None:
        """Ask the token; what it says where it does not."""
        state = self.answered(lambda: self.functions.token_info(self.slot))
        with self.directory.lock(f"login {state.serial} {state.label}"):
            session = self.answered(lambda: self.functions.open_session(self.slot, writing=True))
            before = self.directory.mark(state, self.place)
            self.directory.set_mark(self.module, state, self.place)
            try:
                self.functions.set_pin(session, old, new)
            except CkError as error:
                if error.code in PIN_UNTRIED:
                    self.directory.put_back(state, self.place, before)
                elif error.code in PIN_VERDICTS:
                    self.directory.set_mark(self.module, state, self.place, verdict=error.name)
                return error
            finally:
                self._close(session)
            self.directory.lift(state, self.place)
            return None

    def close(self) -> None:
        """End the anchor session, and with it the login."""
        with self.lock:
            if self.anchor is not None:
                self._logout(self.anchor)
                self._close(self.anchor)
            self._forget()


def marked_words(verdict: str) -> str:
    if verdict:
        return f"an earlier login failed ({verdict})"
    return "an earlier login was cut off, and may have cost a try of the PIN"


def advice(label: str) -> str:
    return f'to try the PIN once: mailsec token login "{label}"'
