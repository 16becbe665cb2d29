"""The functions of a PKCS#11 library (PKCS #11 v3.2 §5), called as they are: numbers and octets in, numbers and octets out, `CkError` for the rest.

python-pkcs11 has the names and numbers (`pkcs11.constants`, `pkcs11.mechanisms`), and no call of it is used: it says to the library that
there are no threads (C_Initialize with NULL) and then calls it from several at once, logs everybody out when one session is closed, and
takes no parameter string. Here every call releases the GIL, and the library was told about threads.

Invariants: nothing is called in a process that was forked after C_Initialize: softoken would repeat its random numbers there, and two ECDSA
signatures with one nonce give the private key away. And what a library says of lengths is believed as far as there is room, and no further.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from mailsec.errors import ConfigurationError
from mailsec.tokens.codes import IMPOSSIBLE, CkError
from mailsec.tokens.structures import (
    KEM_SIGNATURES,
    SIGNATURES,
    Attribute,
    CkMechanism,
    FunctionList,
    Info,
    InitializeArgs,
    Interface,
    MechanismInfo,
    SessionInfo,
    SlotInfo,
    TokenInfo,
)

__all__ = ["CkMechanism", "Cryptoki", "SlotState", "TokenState", "Value", "observe_calls"]

Value = bool | int | bytes | str
"""Of an attribute: CK_BBOOL, CK_ULONG, octets, or UTF-8."""

_NOTHING: Final = ctypes.c_ulong(-1).value
"""CK_UNAVAILABLE_INFORMATION."""

_OS_LOCKING: Final = 2
_RW, _SERIAL = 2, 4
_SENSITIVE, _TYPE_INVALID, _BUFFER_TOO_SMALL = 0x11, 0x12, 0x150
_WRONG_SIGNATURE = frozenset({0xC0, 0xC1})
"""CKR_SIGNATURE_INVALID, CKR_SIGNATURE_LEN_RANGE."""
_RESULT_OCTETS: Final = 8192
"""Room for a result: an ML-DSA-87 signature has 4627 octets."""
_VALUE_OCTETS: Final = 1024 * 1024
_MOST_SLOTS, _MOST_MECHANISMS, _MOST_OBJECTS, _MOST_INTERFACES = 4096, 4096, 100_000, 64
"""Attack: a library that lists without end, or says that it has more than memory holds."""


class SlotState(NamedTuple):
    """CK_SLOT_INFO, as far as it is used."""

    description: str
    present: bool


class TokenState(NamedTuple):
    """CK_TOKEN_INFO, as far as it is used."""

    label: str
    manufacturer: str
    model: str
    serial: str
    flags: int


_ULONG = ctypes.c_ulong
_ANY = ctypes.c_void_p

_initialised: weakref.WeakSet[Cryptoki] = weakref.WeakSet()


def _after_fork() -> None:
    for library in _initialised:
        library.forget()


os.register_at_fork(after_in_child=_after_fork)


_observer: Callable[[str, str], None] | None = None


def observe_calls(observer: Callable[[str, str], None]) -> None:
    """Tell `observer` the name and the library of each call that libraries loaded from now on are about to get, and "" when it has ended."""
    global _observer
    _observer = observer


def _observed(library: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, with the observer told."""
    observer = _observer
    if observer is None:
        return function

    def call(*arguments: Any) -> Any:
        observer(name, library)
        try:
            return function(*arguments)
        finally:
            observer("", library)

    return call


class Cryptoki:
    """One library, initialised. Several threads may use it, each with sessions of its own."""

    def __init__(self, path: str, parameters: str | None = None) -> None:
        """Load and initialise; `parameters` is NSS's parameter string. Raise ConfigurationError or CkError."""
        self.path = path
        try:
            self._library = _observed(path, "dlopen", ctypes.CDLL)(path)
            get_list = self._library.C_GetFunctionList
        except (OSError, AttributeError) as error:
            why = "it is no PKCS#11 library" if isinstance(error, AttributeError) else str(error)
            raise ConfigurationError(f"the PKCS#11 library {path} cannot be loaded: {why}", hint="is its package installed?") from None
        functions = ctypes.POINTER(FunctionList)()
        if (code := _observed(path, "C_GetFunctionList", get_list)(ctypes.byref(functions))) != 0:
            raise CkError(code, "C_GetFunctionList")
        self._functions: dict[str, Any] = {}
        for name, arguments in SIGNATURES.items():
            address = getattr(functions.contents, name)
            if address:
                self._functions[name] = _observed(path, f"C_{name}", ctypes.CFUNCTYPE(_ULONG, *arguments)(address))
        for name, address in _later_functions(self._library, path).items():
            self._functions[name] = _observed(path, f"C_{name}", ctypes.CFUNCTYPE(_ULONG, *KEM_SIGNATURES[name])(address))
        string = None if parameters is None else ctypes.c_char_p(parameters.encode())
        pointer = ctypes.cast(string, _ANY) if string is not None else None
        # NSS put its LibraryParameters before pReserved, which is NULL there; everywhere else the first of the two is pReserved.
        told = InitializeArgs(None, None, None, None, _OS_LOCKING, pointer, None)
        self._call("Initialize", ctypes.byref(told))
        self._bind()
        _initialised.add(self)

    def _bind(self) -> None:
        # The two that every signature takes: no look-up, no packing of arguments on the way.
        self._sign_init, self._sign = self._functions["SignInit"], self._functions["Sign"]

    def forget(self) -> None:
        """Called in a child of a fork: this library is the parent's."""
        self._functions = {}
        self._sign_init = self._sign = lambda *_: 0x190

    def finalise(self) -> None:
        """C_Finalize: all sessions end."""
        if self._functions:
            _initialised.discard(self)
            self._call("Finalize", None)
            self._functions = {}

    @property
    def decapsulates(self) -> bool:
        """Whether it has C_DecapsulateKey."""
        return "DecapsulateKey" in self._functions

    def _call(self, name: str, *arguments: Any) -> None:
        function = self._functions.get(name)
        # 0x54 is CKR_FUNCTION_NOT_SUPPORTED, 0x190 CKR_CRYPTOKI_NOT_INITIALIZED (and so it is after a fork).
        code = function(*arguments) if function is not None else 0x54 if self._functions else 0x190
        if code:
            raise CkError(code, f"C_{name}")

    # -- slots and tokens --------------------------------------------------------------------------------------------------------

    def description(self) -> str:
        """Who made the library, and what it calls itself."""
        info = Info()
        self._call("GetInfo", ctypes.byref(info))
        return f"{_text(info.manufacturer)} {_text(info.description)} {info.version.major}.{info.version.minor}".strip()

    def slots(self, *, present: bool) -> list[int]:
        """Numbers of all slots, or of those with a token in them. Asking for the count first makes libraries look again."""
        while True:
            count = _ULONG()
            self._call("GetSlotList", int(present), None, ctypes.byref(count))
            _demand(count.value, _MOST_SLOTS, "GetSlotList")
            room = (_ULONG * (count.value + 1))()
            count.value += 1
            try:
                self._call("GetSlotList", int(present), ctypes.byref(room), ctypes.byref(count))
            except CkError as error:
                if error.code != _BUFFER_TOO_SMALL:  # a token was put in meanwhile
                    raise
                continue
            _demand(count.value, len(room), "GetSlotList")
            return list(room[: count.value])

    def slot_info(self, slot: int) -> SlotState:
        info = SlotInfo()
        self._call("GetSlotInfo", slot, ctypes.byref(info))
        return SlotState(_text(info.description), bool(info.flags & 1))

    def token_info(self, slot: int) -> TokenState:
        info = TokenInfo()
        self._call("GetTokenInfo", slot, ctypes.byref(info))
        return TokenState(_text(info.label), _text(info.manufacturer), _text(info.model), _text(info.serial), info.flags)

    def mechanisms(self, slot: int) -> list[tuple[int, int, int, int]]:
        """(number, smallest key, largest key, flags) of each mechanism."""
        count = _ULONG()
        self._call("GetMechanismList", slot, None, ctypes.byref(count))
        _demand(count.value, _MOST_MECHANISMS, "GetMechanismList")
        numbers = (_ULONG * count.value)()
        self._call("GetMechanismList", slot, ctypes.byref(numbers), ctypes.byref(count))
        _demand(count.value, len(numbers), "GetMechanismList")
        found = []
        for number in numbers[: count.value]:
            info = MechanismInfo()
            try:
                self._call("GetMechanismInfo", slot, number, ctypes.byref(info))
            except CkError:  # some list what they then do not know
                continue
            found.append((number, info.smallest, info.largest, info.flags))
        return found

    def init_token(self, slot: int, label: str, so_pin: bytes) -> None:
        """Make the token anew; everything on it is gone."""
        self._call("InitToken", slot, so_pin, len(so_pin), label.encode().ljust(32)[:32])

    # -- sessions and login ------------------------------------------------------------------------------------------------------

    def open_session(self, slot: int, *, writing: bool = False) -> int:
        handle = _ULONG()
        self._call("OpenSession", slot, _SERIAL | (_RW if writing else 0), None, None, ctypes.byref(handle))
        return handle.value

    def close_session(self, session: int) -> None:
        self._call("CloseSession", session)

    def session_state(self, session: int) -> int:
        """CKS_*: 0 and 2 are public sessions, 1 and 3 a user's, 4 a security officer's."""
        info = SessionInfo()
        self._call("GetSessionInfo", session, ctypes.byref(info))
        return int(info.state)

    def login(self, session: int, user: int, pin: bytes | None) -> None:
        """CKU_SO 0, CKU_USER 1, CKU_CONTEXT_SPECIFIC 2; without a PIN it is asked for at the reader."""
        self._call("Login", session, user, pin, 0 if pin is None else len(pin))

    def logout(self, session: int) -> None:
        self._call("Logout", session)

    def init_pin(self, session: int, pin: bytes) -> None:
        self._call("InitPIN", session, pin, len(pin))

    def set_pin(self, session: int, old: bytes | None, new: bytes | None) -> None:
        self._call("SetPIN", session, old, len(old or b""), new, len(new or b""))

    # -- objects -----------------------------------------------------------------------------------------------------------------

    def find(self, session: int, template: Mapping[int, Value]) -> list[int]:
        """Handles of all objects that have these attributes."""
        attributes, _kept = _template(template)
        self._call("FindObjectsInit", session, ctypes.byref(attributes), len(template))
        found: list[int] = []
        try:
            room, count = (_ULONG * 64)(), _ULONG()
            while True:
                self._call("FindObjects", session, ctypes.byref(room), 64, ctypes.byref(count))
                if not count.value:
                    return found
                _demand(count.value, 64, "FindObjects")
                found += room[: count.value]
                _demand(len(found), _MOST_OBJECTS, "FindObjects")
        finally:
            self._call("FindObjectsFinal", session)

    def attributes(self, session: int, handle: int, types: Sequence[int]) -> dict[int, bytes | None]:
        """Values of attributes as they lie there; None for those that it has not, or does not tell."""
        room: Any = (Attribute * len(types))()
        for attribute, one in zip(room, types, strict=True):
            attribute.type = int(one)
        self._attribute_call(session, handle, room)
        buffers: list[Any] = []
        for attribute in room:
            if attribute.length == _NOTHING or attribute.length > _VALUE_OCTETS:
                attribute.length = 0
                buffers.append(None)
            else:
                buffers.append(ctypes.create_string_buffer(attribute.length or 1))
                attribute.value = ctypes.addressof(buffers[-1])
        self._attribute_call(session, handle, room)
        return {
            one: None if buffer is None or attribute.length == _NOTHING else buffer.raw[: attribute.length]
            for one, attribute, buffer in zip(types, room, buffers, strict=True)
        }

    def _attribute_call(self, session: int, handle: int, room: Any) -> None:
        try:
            self._call("GetAttributeValue", session, handle, ctypes.byref(room), len(room))
        except CkError as error:
            # PKCS #11 v3.1 §5.7.5: those that are not told have the length -1, all others are there.
            if error.code not in (_SENSITIVE, _TYPE_INVALID):
                raise

    def set_attributes(self, session: int, handle: int, template: Mapping[int, Value]) -> None:
        attributes, _kept = _template(template)
        self._call("SetAttributeValue", session, handle, ctypes.byref(attributes), len(template))

    def create(self, session: int, template: Mapping[int, Value]) -> int:
        attributes, _kept = _template(template)
        handle = _ULONG()
        self._call("CreateObject", session, ctypes.byref(attributes), len(template), ctypes.byref(handle))
        return handle.value

    def copy(self, session: int, handle: int, template: Mapping[int, Value]) -> int:
        attributes, _kept = _template(template)
        copied = _ULONG()
        self._call("CopyObject", session, handle, ctypes.byref(attributes), len(template), ctypes.byref(copied))
        return copied.value

    def destroy(self, session: int, handle: int) -> None:
        self._call("DestroyObject", session, handle)

    def generate_pair(
        self, session: int, mechanism: CkMechanism, public: Mapping[int, Value], private: Mapping[int, Value]
    ) -> tuple[int, int]:
        """Handles of the public and the private key."""
        (one, _kept_one), (other, _kept_other) = _template(public), _template(private)
        handles = _ULONG(), _ULONG()
        self._call(
            "GenerateKeyPair",
            session,
            ctypes.byref(mechanism),
            ctypes.byref(one),
            len(public),
            ctypes.byref(other),
            len(private),
            ctypes.byref(handles[0]),
            ctypes.byref(handles[1]),
        )
        return handles[0].value, handles[1].value

    # -- operations --------------------------------------------------------------------------------------------------------------

    def sign(self, session: int, key: int, mechanism: CkMechanism, data: bytes, pin: bytes | None = None) -> bytes:
        """A signature; with `pin` the key asks for it each time (CKA_ALWAYS_AUTHENTICATE)."""
        if code := self._sign_init(session, ctypes.byref(mechanism), key):
            raise CkError(code, "C_SignInit")
        if pin is not None:
            self.login(session, 2, pin or None)
        room, length = ctypes.create_string_buffer(_RESULT_OCTETS), _ULONG(_RESULT_OCTETS)
        if code := self._sign(session, data, len(data), room, ctypes.byref(length)):
            raise CkError(code, "C_Sign")
        return _result(room, length.value, "Sign")

    def decrypt(self, session: int, key: int, mechanism: CkMechanism, data: bytes, pin: bytes | None = None) -> bytes:
        """A decrypted value; `pin` as with `sign`."""
        self._call("DecryptInit", session, ctypes.byref(mechanism), key)
        if pin is not None:
            self.login(session, 2, pin or None)
        room, length = ctypes.create_string_buffer(_RESULT_OCTETS), _ULONG(_RESULT_OCTETS)
        self._call("Decrypt", session, data, len(data), room, ctypes.byref(length))
        return _result(room, length.value, "Decrypt")

    def encrypt(self, session: int, key: int, mechanism: CkMechanism, data: bytes) -> bytes:
        """An encrypted value."""
        self._call("EncryptInit", session, ctypes.byref(mechanism), key)
        room, length = ctypes.create_string_buffer(_RESULT_OCTETS), _ULONG(_RESULT_OCTETS)
        self._call("Encrypt", session, data, len(data), room, ctypes.byref(length))
        return _result(room, length.value, "Encrypt")

    def verify(self, session: int, key: int, mechanism: CkMechanism, data: bytes, signature: bytes) -> bool:
        """Whether a signature is right."""
        self._call("VerifyInit", session, ctypes.byref(mechanism), key)
        try:
            self._call("Verify", session, data, len(data), signature, len(signature))
        except CkError as error:
            if error.code not in _WRONG_SIGNATURE:
                raise
            return False
        return True

    def wrap(self, session: int, wrapping: int, key: int, mechanism: CkMechanism) -> bytes:
        """The key `key`, encrypted with the key `wrapping`."""
        room, length = ctypes.create_string_buffer(_RESULT_OCTETS), _ULONG(_RESULT_OCTETS)
        self._call("WrapKey", session, ctypes.byref(mechanism), wrapping, key, room, ctypes.byref(length))
        return _result(room, length.value, "WrapKey")

    def derive(self, session: int, key: int, mechanism: CkMechanism, template: Mapping[int, Value]) -> int:
        """The handle of a derived secret."""
        attributes, _kept = _template(template)
        handle = _ULONG()
        self._call("DeriveKey", session, ctypes.byref(mechanism), key, ctypes.byref(attributes), len(template), ctypes.byref(handle))
        return handle.value

    def decapsulate(self, session: int, key: int, mechanism: CkMechanism, ciphertext: bytes, template: Mapping[int, Value]) -> int:
        """The handle of the secret in a ciphertext (PKCS #11 v3.2, C_DecapsulateKey)."""
        attributes, _kept = _template(template)
        handle, by_reference = _ULONG(), ctypes.byref
        places = by_reference(attributes), len(template), ciphertext, len(ciphertext), by_reference(handle)
        self._call("DecapsulateKey", session, by_reference(mechanism), key, *places)
        return handle.value


def _later_functions(library: ctypes.CDLL, path: str) -> dict[str, int]:
    """Addresses of what PKCS #11 v3.2 added and is used here, by name; nothing where the library is older."""
    try:
        get_list = _observed(path, "C_GetInterfaceList", library.C_GetInterfaceList)
    except AttributeError:
        return {}
    count = _ULONG()
    if get_list(None, ctypes.byref(count)) or not 0 < count.value <= _MOST_INTERFACES:
        return {}
    room = (Interface * count.value)()
    if get_list(ctypes.byref(room), ctypes.byref(count)):
        return {}
    for one in room[: count.value]:
        # "PKCS 11" is the standard's; vendors have interfaces of their own. Later minor versions only add at the end.
        if one.name == b"PKCS 11" and one.functions:
            functions = one.functions.contents
            if functions.version.major == 3 and functions.version.minor >= 2:
                return {name: address for name in KEM_SIGNATURES if (address := getattr(functions, name))}
    return {}


def _demand(number: int, most: int, function: str) -> None:
    """Raise CkError where a library says that it gives more than can be."""
    if number > most:
        raise CkError(IMPOSSIBLE, f"C_{function}")


def _result(room: Any, length: int, function: str) -> bytes:
    """What a library has written. Attack: one that says it wrote more has us read on, into whatever lies behind."""
    _demand(length, _RESULT_OCTETS, function)
    return ctypes.string_at(room, length)


def _template(values: Mapping[int, Value]) -> tuple[Any, list[Any]]:
    """CK_ATTRIBUTEs, and what they point to."""
    kept: list[Any] = []
    room = (Attribute * len(values))()
    for attribute, (number, value) in zip(room, values.items(), strict=True):
        if isinstance(value, bool):
            octets = b"\1" if value else b"\0"
        elif isinstance(value, int):
            octets = bytes(_ULONG(value))
        else:
            octets = value.encode() if isinstance(value, str) else value
        buffer = ctypes.create_string_buffer(octets, len(octets) or 1)
        kept.append(buffer)
        attribute.type, attribute.value, attribute.length = int(number), ctypes.addressof(buffer), len(octets)
    return room, kept


def _text(padded: bytes) -> str:
    """A name that is padded with blanks; not everybody writes UTF-8."""
    return padded.decode("utf-8", "replace").rstrip(" \0")
