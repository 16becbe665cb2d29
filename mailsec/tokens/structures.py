"""The structures of PKCS #11 (v3.2 §3, §5) as a C compiler lays them out: packed as the platform does, as on every Unix.

Invariant: nothing here calls anything.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, Final

__all__ = [
    "KEM_SIGNATURES",
    "SIGNATURES",
    "Attribute",
    "CkMechanism",
    "FunctionList",
    "FunctionList32",
    "Info",
    "InitializeArgs",
    "Interface",
    "MechanismInfo",
    "SessionInfo",
    "SlotInfo",
    "TokenInfo",
]

_NAMES: Final = (
    "Initialize Finalize GetInfo GetFunctionList GetSlotList GetSlotInfo GetTokenInfo GetMechanismList GetMechanismInfo InitToken InitPIN "
    "SetPIN OpenSession CloseSession CloseAllSessions GetSessionInfo GetOperationState SetOperationState Login Logout CreateObject "
    "CopyObject DestroyObject GetObjectSize GetAttributeValue SetAttributeValue FindObjectsInit FindObjects FindObjectsFinal EncryptInit "
    "Encrypt EncryptUpdate EncryptFinal DecryptInit Decrypt DecryptUpdate DecryptFinal DigestInit Digest DigestUpdate DigestKey "
    "DigestFinal SignInit Sign SignUpdate SignFinal SignRecoverInit SignRecover VerifyInit Verify VerifyUpdate VerifyFinal "
    "VerifyRecoverInit VerifyRecover DigestEncryptUpdate DecryptDigestUpdate SignEncryptUpdate DecryptVerifyUpdate GenerateKey "
    "GenerateKeyPair WrapKey UnwrapKey DeriveKey SeedRandom GenerateRandom GetFunctionStatus CancelFunction WaitForSlotEvent"
)
"""CK_FUNCTION_LIST of version 2, in its order; later versions begin with the same."""
_LATER: Final = (
    "GetInterfaceList GetInterface LoginUser SessionCancel MessageEncryptInit EncryptMessage EncryptMessageBegin EncryptMessageNext "
    "MessageEncryptFinal MessageDecryptInit DecryptMessage DecryptMessageBegin DecryptMessageNext MessageDecryptFinal MessageSignInit "
    "SignMessage SignMessageBegin SignMessageNext MessageSignFinal MessageVerifyInit VerifyMessage VerifyMessageBegin VerifyMessageNext "
    "MessageVerifyFinal EncapsulateKey DecapsulateKey VerifySignatureInit VerifySignature VerifySignatureUpdate VerifySignatureFinal "
    "GetSessionValidationFlags AsyncComplete AsyncGetID AsyncJoin WrapKeyAuthenticated UnwrapKeyAuthenticated"
)
"""What versions 3.0 and 3.2 added to it, in their order."""


class Version(ctypes.Structure):
    _fields_ = [("major", ctypes.c_ubyte), ("minor", ctypes.c_ubyte)]


class FunctionList(ctypes.Structure):
    _fields_ = [("version", Version), *((name, ctypes.c_void_p) for name in _NAMES.split())]


class FunctionList32(ctypes.Structure):
    """CK_FUNCTION_LIST_3_2."""

    _fields_ = [("version", Version), *((name, ctypes.c_void_p) for name in (*_NAMES.split(), *_LATER.split()))]


class Interface(ctypes.Structure):
    """CK_INTERFACE."""

    _fields_ = [("name", ctypes.c_char_p), ("functions", ctypes.POINTER(FunctionList32)), ("flags", ctypes.c_ulong)]


class InitializeArgs(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("CreateMutex", "DestroyMutex", "LockMutex", "UnlockMutex")),
        ("flags", ctypes.c_ulong),
        ("first", ctypes.c_void_p),
        ("second", ctypes.c_void_p),
    ]


class Info(ctypes.Structure):
    _fields_ = [
        ("cryptoki", Version),
        ("manufacturer", ctypes.c_char * 32),
        ("flags", ctypes.c_ulong),
        ("description", ctypes.c_char * 32),
        ("version", Version),
    ]


class SlotInfo(ctypes.Structure):
    _fields_ = [
        ("description", ctypes.c_char * 64),
        ("manufacturer", ctypes.c_char * 32),
        ("flags", ctypes.c_ulong),
        ("hardware", Version),
        ("firmware", Version),
    ]


class TokenInfo(ctypes.Structure):
    _fields_ = [
        ("label", ctypes.c_char * 32),
        ("manufacturer", ctypes.c_char * 32),
        ("model", ctypes.c_char * 16),
        ("serial", ctypes.c_char * 16),
        ("flags", ctypes.c_ulong),
        *((f"number{index}", ctypes.c_ulong) for index in range(10)),
        ("hardware", Version),
        ("firmware", Version),
        ("time", ctypes.c_char * 16),
    ]


class MechanismInfo(ctypes.Structure):
    _fields_ = [("smallest", ctypes.c_ulong), ("largest", ctypes.c_ulong), ("flags", ctypes.c_ulong)]


class SessionInfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulong) for name in ("slot", "state", "flags", "error")]


class Attribute(ctypes.Structure):
    _fields_ = [("type", ctypes.c_ulong), ("value", ctypes.c_void_p), ("length", ctypes.c_ulong)]


class CkMechanism(ctypes.Structure):
    """CK_MECHANISM; what its parameter points to is kept with it."""

    _fields_ = [("mechanism", ctypes.c_ulong), ("parameter", ctypes.c_void_p), ("length", ctypes.c_ulong)]

    @classmethod
    def of(cls, number: int, parameter: ctypes.Structure | None = None, *kept: Any) -> CkMechanism:
        """Mechanism `number` with its parameter; `kept` is what that points to."""
        if parameter is None:
            return cls(number, None, 0)
        made = cls(number, ctypes.addressof(parameter), ctypes.sizeof(parameter))
        made.kept = (parameter, *kept)
        return made


_ULONG = ctypes.c_ulong
_ANY = ctypes.c_void_p
# Pointers are passed as byref() of what lies there: c_void_p takes them all.
SIGNATURES: Final[Mapping[str, tuple[Any, ...]]] = {
    "Initialize": (_ANY,),
    "Finalize": (_ANY,),
    "GetInfo": (_ANY,),
    "GetSlotList": (ctypes.c_ubyte, _ANY, _ANY),
    "GetSlotInfo": (_ULONG, _ANY),
    "GetTokenInfo": (_ULONG, _ANY),
    "GetMechanismList": (_ULONG, _ANY, _ANY),
    "GetMechanismInfo": (_ULONG, _ULONG, _ANY),
    "InitToken": (_ULONG, ctypes.c_char_p, _ULONG, ctypes.c_char_p),
    "InitPIN": (_ULONG, ctypes.c_char_p, _ULONG),
    "SetPIN": (_ULONG, ctypes.c_char_p, _ULONG, ctypes.c_char_p, _ULONG),
    "OpenSession": (_ULONG, _ULONG, _ANY, _ANY, _ANY),
    "CloseSession": (_ULONG,),
    "GetSessionInfo": (_ULONG, _ANY),
    "Login": (_ULONG, _ULONG, ctypes.c_char_p, _ULONG),
    "Logout": (_ULONG,),
    "CreateObject": (_ULONG, _ANY, _ULONG, _ANY),
    "CopyObject": (_ULONG, _ULONG, _ANY, _ULONG, _ANY),
    "DestroyObject": (_ULONG, _ULONG),
    "GetAttributeValue": (_ULONG, _ULONG, _ANY, _ULONG),
    "SetAttributeValue": (_ULONG, _ULONG, _ANY, _ULONG),
    "FindObjectsInit": (_ULONG, _ANY, _ULONG),
    "FindObjects": (_ULONG, _ANY, _ULONG, _ANY),
    "FindObjectsFinal": (_ULONG,),
    "EncryptInit": (_ULONG, _ANY, _ULONG),
    "Encrypt": (_ULONG, ctypes.c_char_p, _ULONG, _ANY, _ANY),
    "VerifyInit": (_ULONG, _ANY, _ULONG),
    "Verify": (_ULONG, ctypes.c_char_p, _ULONG, ctypes.c_char_p, _ULONG),
    "DecryptInit": (_ULONG, _ANY, _ULONG),
    "Decrypt": (_ULONG, ctypes.c_char_p, _ULONG, _ANY, _ANY),
    "SignInit": (_ULONG, _ANY, _ULONG),
    "Sign": (_ULONG, ctypes.c_char_p, _ULONG, _ANY, _ANY),
    "GenerateKeyPair": (_ULONG, _ANY, _ANY, _ULONG, _ANY, _ULONG, _ANY, _ANY),
    "WrapKey": (_ULONG, _ANY, _ULONG, _ULONG, _ANY, _ANY),
    "DeriveKey": (_ULONG, _ANY, _ULONG, _ANY, _ULONG, _ANY),
}
KEM_SIGNATURES: Final[Mapping[str, tuple[Any, ...]]] = {
    "DecapsulateKey": (_ULONG, _ANY, _ULONG, _ANY, _ULONG, ctypes.c_char_p, _ULONG, _ANY)
}
