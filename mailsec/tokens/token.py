"""One token: what it is, and the raw operations of its keys.

The one invariant: a refusal to decrypt says nothing about the octets (RFC 3218 §2.3.2), and a token that is out is never an answer about them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from pkcs11.constants import Attribute, ObjectClass

from mailsec.errors import CryptoError, KeyUnavailable, TokenError
from mailsec.model.tokens import TokenInfo
from mailsec.tokens.codes import DEVICE, LOST, NOT_LOGGED_IN, PIN_VERDICTS, CkError
from mailsec.tokens.cryptoki import Value
from mailsec.tokens.mechanisms import ck_mechanism, decapsulation, derivation, described
from mailsec.tokens.sessions import (
    COUNT_LOW,
    FINAL_TRY,
    INITIALISED,
    KEY_TYPE_INCONSISTENT,
    LOCKED,
    LOGIN_REQUIRED,
    PIN_PAD,
    WRITE_PROTECTED,
    LoadedKey,
    Sessions,
    advice,
    marked_words,
)

__all__ = ["Token"]

_GENERAL_ERROR: Final = 0x05
# What C_DecryptInit says to a hash that it does not know: SoftHSM2 to OAEP with anything but SHA-1.
_PARAMETERS: Final = frozenset({0x07, 0x70, 0x71})

_SECRET: Final[Mapping[int, Value]] = {
    Attribute.CLASS: int(ObjectClass.SECRET_KEY),
    Attribute.KEY_TYPE: 0x10,  # CKK_GENERIC_SECRET
    Attribute.TOKEN: False,
    Attribute.SENSITIVE: False,
    Attribute.EXTRACTABLE: True,
}
"""A secret that is read at once, and destroyed."""
_KEM_SECRET: Final = 32
"""FIPS 203 §8: octets of a shared secret of ML-KEM, whatever the parameters."""


class Token(Sessions):
    """A token of a module."""

    _offered: frozenset[str] | None = None

    # -- what it is ----------------------------------------------------------------------------------------------------------------

    def info(self) -> TokenInfo:
        """What it is, and in which state."""
        present, state = True, self.state
        try:
            state = self.state = self.functions.token_info(self.slot)
        except CkError:
            present = False
        flags = state.flags
        mark = self.directory.mark(state, self.place) if flags & INITIALISED else None
        return TokenInfo(
            self.module,
            state.label,
            state.serial,
            state.manufacturer,
            state.model,
            self.slot,
            present=present,
            initialised=bool(flags & INITIALISED),
            login_required=bool(flags & LOGIN_REQUIRED),
            logged_in=present and self.logged_in(),
            pin_pad=bool(flags & PIN_PAD),
            read_only=bool(flags & WRITE_PROTECTED),
            pin_state="locked" if flags & LOCKED else "final-try" if flags & FINAL_TRY else "low" if flags & COUNT_LOW else "",
            marked=mark is not None,
            problem=self.problem or (marked_words(mark.verdict) if mark is not None else ""),
        )

    def offered(self) -> frozenset[str]:
        """Names of its mechanisms, without CKM_."""
        if self._offered is None:
            rows = self.answered(lambda: self.functions.mechanisms(self.slot))
            told = described(rows)
            self._offered = frozenset(one.name.removeprefix("CKM_") for one in told)
            # A library may list what it only encapsulates with, or has no function of PKCS #11 v3.2 for.
            if not self.functions.decapsulates or not any(one.name == "CKM_ML_KEM" and "decapsulate" in one.uses for one in told):
                self._offered -= {"ML_KEM"}
        return self._offered

    def set_first_pin(self, pin: bytes) -> None:
        """Of an NSS database that has just been made: its password, empty for none. Raise TokenError."""
        with self.lock:
            session = self.answered(lambda: self.functions.open_session(self.slot, writing=True))
            try:
                # NSS's security officer has no PIN, and exists for this only.
                self.functions.login(session, 0, b"")
                self.functions.init_pin(session, pin)
                self.functions.logout(session)
            except CkError as error:
                raise TokenError(f"token {self.state.label!r} does not take the password: {error}", hint="choose a longer one") from error
            finally:
                self.functions.close_session(session)

    # -- raw operations ----------------------------------------------------------------------------------------------------------------

    def sign(self, key_id: bytes, operation: str, data: bytes) -> bytes:
        """Raise KeyUnavailable (the token is out, mail waits), CryptoError (it does not do this)."""
        mechanism = ck_mechanism(operation)
        return self._operate(key_id, lambda session, key, pin: self.functions.sign(session, key, mechanism, data, pin))

    def decrypt(self, key_id: bytes, operation: str, data: bytes) -> bytes:
        """As `sign`, and TokenError for an operation that it does not know at all; a refusal says nothing about the octets."""
        mechanism = ck_mechanism(operation)
        return self._operate(key_id, lambda session, key, pin: self.functions.decrypt(session, key, mechanism, data, pin), operation)

    def derive(self, key_id: bytes, operation: str, point: bytes) -> bytes:
        """The shared secret with `point`, as long as the field of the curve."""
        size = len(point) if len(point) in (32, 56) else (len(point) - 1) // 2
        mechanism, template = derivation(operation, point), {**_SECRET, Attribute.VALUE_LEN: size}

        def agree(session: int, key: int, _pin: bytes | None) -> bytes:
            return self._read(session, self.functions.derive(session, key, mechanism, template), size)

        return self._operate(key_id, agree)

    def decapsulate(self, key_id: bytes, operation: str, ciphertext: bytes) -> bytes:
        """The shared secret in a ciphertext; a refusal says nothing about the octets."""
        mechanism = decapsulation(operation)

        def open_it(session: int, key: int, _pin: bytes | None) -> bytes:
            return self._read(session, self.functions.decapsulate(session, key, mechanism, ciphertext, _SECRET), _KEM_SECRET)

        return self._operate(key_id, open_it, operation)

    def _read(self, session: int, secret: int, size: int) -> bytes:
        """The value of a secret in the session, which is destroyed."""
        try:
            value = self.functions.attributes(session, secret, [Attribute.VALUE])[Attribute.VALUE]
        finally:
            self.functions.destroy(session, secret)
        if value is None:
            raise CryptoError("the token keeps the secret to itself")
        if len(value) != size:
            raise CryptoError("the token gives a secret of another length")
        return value

    def _operate(self, key_id: bytes, function: Callable[[int, int, bytes | None], bytes], operation: str = "") -> bytes:
        self.need_service()

        def use(session: int) -> bytes:
            key = self.keys.get(key_id) or self._load(key_id)
            return function(session, key.handle, (self.pin or b"") if key.always_authenticate else None)

        try:
            return self.call(use)
        except CkError as error:
            raise self._failed(error, operation) from error

    def _failed(self, error: CkError, operation: str) -> KeyUnavailable | CryptoError | TokenError:
        if error.code in PIN_VERDICTS:
            # A key that asks for its PIN each time was told a wrong one: never again by itself.
            self.directory.set_mark(self.module, self.state, self.place, verdict=error.name)
            self.problem = f"token {self.state.label!r} refuses the PIN ({error.name})"
            self.drop_session()
            return KeyUnavailable(self.problem, hint=advice(self.state.label), stage=self.stage)
        if error.code in LOST or error.code in DEVICE or (error.code == _GENERAL_ERROR and not (operation and self._answers())):
            return self.away(error)
        if operation and error.function == "C_DecryptInit" and error.code in _PARAMETERS:
            return TokenError(f"token {self.state.label!r} does not know {operation}", stage=self.stage)
        # Which octets it was that were refused is nobody's business (RFC 3218 §2.3.2).
        return CryptoError("the token does not do it" if operation else f"the token does not do it ({error.name})")

    def _answers(self) -> bool:
        """False where the token itself is in trouble: CKR_GENERAL_ERROR may be about that, or about a padding."""
        try:
            self.functions.token_info(self.slot)
            self.functions.session_state(self.session())
        except (CkError, KeyUnavailable):
            return False
        return True

    def _load(self, key_id: bytes) -> LoadedKey:
        """Find a key; of an NSS database, make the copy in the session that is 24 times as fast."""
        with self.lock:
            if self.anchor is None:
                self.revive()
            anchor = self.anchor
            assert anchor is not None
            if (known := self.keys.get(key_id)) is not None:
                return known
            found = self.functions.find(
                anchor, {Attribute.CLASS: int(ObjectClass.PRIVATE_KEY), Attribute.ID: key_id, Attribute.TOKEN: True}
            )
            if not found and self.state.flags & LOGIN_REQUIRED and not self.logged_in():
                # Logged out behind our back: private objects are not there then.
                raise CkError(NOT_LOGGED_IN, "C_FindObjects")
            if not found:
                raise KeyUnavailable(
                    f"token {self.state.label!r} has no key {key_id.hex()}",
                    hint="the command mailsec key list shows those that there are",
                    stage=self.stage,
                )
            handle, always = self._own(anchor, found, key_id)
            if self.library.softoken:
                try:
                    handle = self.functions.copy(anchor, handle, {Attribute.TOKEN: False})
                except CkError as error:
                    if error.code == KEY_TYPE_INCONSISTENT or error.code in LOST:
                        raise
            key = self.keys[key_id] = LoadedKey(handle, always_authenticate=always)
            return key

    def _own(self, anchor: int, found: list[int], key_id: bytes) -> tuple[int, bool]:
        """The key of `found` that has this CKA_ID, and whether it asks for its PIN each time.

        Attack by accident: a library that does not look at CKA_ID finds the key of somebody else first.
        """
        for handle in found:
            values = self.functions.attributes(anchor, handle, [Attribute.ID, Attribute.ALWAYS_AUTHENTICATE])
            if values[Attribute.ID] == key_id:
                return handle, values[Attribute.ALWAYS_AUTHENTICATE] == b"\1"
        raise KeyUnavailable(
            f"token {self.state.label!r} answers with other keys than {key_id.hex()}",
            hint="its library does not find what it is asked for",
            stage=self.stage,
        )
