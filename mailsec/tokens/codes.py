"""What a PKCS#11 library answers (CKR_*, PKCS #11 v3.1 §5.1), and what follows from it.

The one invariant: a PIN is never tried again after an answer that may have been about it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DEVICE", "IMPOSSIBLE", "LOST", "NAMES", "NOT_LOGGED_IN", "PIN_UNTRIED", "PIN_VERDICTS", "STALE_OBJECT", "CkError", "name_of"]

IMPOSSIBLE: Final = -1
"""No answer of the standard: CKR_OK, with a length that cannot be."""

NAMES: Final = {
    IMPOSSIBLE: "a length that cannot be",
    0x01: "CKR_CANCEL",
    0x02: "CKR_HOST_MEMORY",
    0x03: "CKR_SLOT_ID_INVALID",
    0x05: "CKR_GENERAL_ERROR",
    0x06: "CKR_FUNCTION_FAILED",
    0x07: "CKR_ARGUMENTS_BAD",
    0x0A: "CKR_CANT_LOCK",
    0x10: "CKR_ATTRIBUTE_READ_ONLY",
    0x11: "CKR_ATTRIBUTE_SENSITIVE",
    0x12: "CKR_ATTRIBUTE_TYPE_INVALID",
    0x13: "CKR_ATTRIBUTE_VALUE_INVALID",
    0x1B: "CKR_ACTION_PROHIBITED",
    0x20: "CKR_DATA_INVALID",
    0x21: "CKR_DATA_LEN_RANGE",
    0x30: "CKR_DEVICE_ERROR",
    0x31: "CKR_DEVICE_MEMORY",
    0x32: "CKR_DEVICE_REMOVED",
    0x40: "CKR_ENCRYPTED_DATA_INVALID",
    0x41: "CKR_ENCRYPTED_DATA_LEN_RANGE",
    0x50: "CKR_FUNCTION_CANCELED",
    0x54: "CKR_FUNCTION_NOT_SUPPORTED",
    0x60: "CKR_KEY_HANDLE_INVALID",
    0x62: "CKR_KEY_SIZE_RANGE",
    0x63: "CKR_KEY_TYPE_INCONSISTENT",
    0x68: "CKR_KEY_FUNCTION_NOT_PERMITTED",
    0x70: "CKR_MECHANISM_INVALID",
    0x71: "CKR_MECHANISM_PARAM_INVALID",
    0x82: "CKR_OBJECT_HANDLE_INVALID",
    0x90: "CKR_OPERATION_ACTIVE",
    0x91: "CKR_OPERATION_NOT_INITIALIZED",
    0xA0: "CKR_PIN_INCORRECT",
    0xA1: "CKR_PIN_INVALID",
    0xA2: "CKR_PIN_LEN_RANGE",
    0xA3: "CKR_PIN_EXPIRED",
    0xA4: "CKR_PIN_LOCKED",
    0xB0: "CKR_SESSION_CLOSED",
    0xB1: "CKR_SESSION_COUNT",
    0xB3: "CKR_SESSION_HANDLE_INVALID",
    0xB5: "CKR_SESSION_READ_ONLY",
    0xB6: "CKR_SESSION_EXISTS",
    0xB8: "CKR_SESSION_READ_WRITE_SO_EXISTS",
    0xD0: "CKR_TEMPLATE_INCOMPLETE",
    0xD1: "CKR_TEMPLATE_INCONSISTENT",
    0xE0: "CKR_TOKEN_NOT_PRESENT",
    0xE1: "CKR_TOKEN_NOT_RECOGNIZED",
    0xE2: "CKR_TOKEN_WRITE_PROTECTED",
    0x100: "CKR_USER_ALREADY_LOGGED_IN",
    0x101: "CKR_USER_NOT_LOGGED_IN",
    0x102: "CKR_USER_PIN_NOT_INITIALIZED",
    0x103: "CKR_USER_TYPE_INVALID",
    0x104: "CKR_USER_ANOTHER_ALREADY_LOGGED_IN",
    0x105: "CKR_USER_TOO_MANY_TYPES",
    0x130: "CKR_DOMAIN_PARAMS_INVALID",
    0x140: "CKR_CURVE_NOT_SUPPORTED",
    0x150: "CKR_BUFFER_TOO_SMALL",
    0x190: "CKR_CRYPTOKI_NOT_INITIALIZED",
    0x191: "CKR_CRYPTOKI_ALREADY_INITIALIZED",
    0x1A0: "CKR_MUTEX_BAD",
    0x200: "CKR_FUNCTION_REJECTED",
    0xCE534351: "CKR_NSS_CERTDB_FAILED",
    0xCE534352: "CKR_NSS_KEYDB_FAILED",
}

PIN_VERDICTS: Final = frozenset({0xA0, 0xA1, 0xA2, 0xA3, 0xA4})
"""The token has judged the PIN (or the state of PINs): it is not given this one again."""
PIN_UNTRIED: Final = frozenset({0x54, 0xA1, 0xA2, 0xB0, 0xB3, 0xB5, 0xE2, 0x101, 0x190, 0x191})
"""C_SetPIN has not got as far as to try the old PIN, or has found it right: the function, the session, or the form of the new PIN is at
fault (PKCS #11 v3.1 §5.1.6: CKR_PIN_INVALID and CKR_PIN_LEN_RANGE are about a PIN that is to be set)."""
NOT_LOGGED_IN: Final = 0x101
LOST: Final = frozenset({0x03, 0xB0, 0xB3, 0x32, 0xE0, 0xE1, NOT_LOGGED_IN})
"""Sessions, login or the card itself are gone: once they are back, the same call may be made again."""
DEVICE: Final = frozenset({0x30, 0x31, 0x02, 0xB1, 0x06, 0x190, IMPOSSIBLE})
"""The device or its library cannot do it now."""
STALE_OBJECT: Final = frozenset({0x60, 0x82})
"""The object was found before a loss, or was deleted and made anew."""


def name_of(code: int) -> str:
    """ "CKR_PIN_INCORRECT"; hexadecimal where the code is a vendor's own."""
    return NAMES.get(code, f"CKR 0x{code:X}")


class CkError(Exception):
    """A call that did not answer CKR_OK."""

    def __init__(self, code: int, function: str) -> None:
        super().__init__(f"{function}: {name_of(code)}")
        self.code = code
        self.function = function

    @property
    def name(self) -> str:
        return name_of(self.code)
