"""Trust objects of NSS (CKO_NSS_TRUST), read as trust letters and written from them.

The same table as NSS's own (pki3hack.c): "C" is a trusted delegator, "c" a valid one, "P" trusted, "p" not trusted. The one invariant: an
attribute that cannot be read, or was not checked because nobody is logged in, trusts nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Final

from mailsec.model.trust import TrustFlags
from mailsec.tokens.codes import CkError
from mailsec.tokens.cryptoki import Cryptoki, Value

__all__ = ["FIELDS", "TRUST_CLASS", "read_trust", "trust_template", "trust_values"]

TRUST_CLASS: Final = 0xCE534353
SHA1_HASH: Final = 0xCE5363B4
MD5_HASH: Final = 0xCE5363B5
_STEP_UP_APPROVED: Final = 0xCE536360
FIELDS: Final = {"server": 0xCE536358, "client": 0xCE536359, "code": 0xCE53635A, "email": 0xCE53635B}
_TRUSTED, _DELEGATOR, _MUST_VERIFY, _NOT_TRUSTED, _VALID_DELEGATOR = 0xCE534351, 0xCE534352, 0xCE534353, 0xCE53435A, 0xCE53435B
_LETTERS: Final = {_TRUSTED: "P", _DELEGATOR: "C", _NOT_TRUSTED: "p", _VALID_DELEGATOR: "c"}
_SERIAL, _ISSUER = 0x82, 0x81


def read_trust(functions: Cryptoki, session: int, handle: int) -> tuple[TrustFlags, str]:
    """The letters of a trust object, and a problem where an attribute cannot be read (somebody else wrote it): then no letters."""
    values: dict[str, int] = {}
    for name, number in FIELDS.items():
        try:
            octets = functions.attributes(session, handle, [number])[number]
        except CkError as error:
            # NSS checks the signature of each of these by its own: the database was changed by something else than NSS.
            return TrustFlags(), f"its trust was not written by NSS ({error.name})"
        values[name] = int.from_bytes(octets or b"", "little")
    tls = _LETTERS.get(values["server"], "")
    client = values["client"]
    if client == _DELEGATOR:
        # "T" alone makes it a valid CA for servers, too; NSS does not show that.
        tls = tls.replace("c", "") + "T"
    elif client == _TRUSTED and "P" not in tls:
        tls += "P"
    elif client == _NOT_TRUSTED and "p" not in tls:
        tls += "p"
    elif client == _VALID_DELEGATOR and not tls:
        tls = "c"
    return TrustFlags(tls, _LETTERS.get(values["email"], ""), _LETTERS.get(values["code"], "")), ""


def trust_values(trust: TrustFlags) -> dict[int, int]:
    """The four attributes that say these letters."""
    return {
        FIELDS["server"]: _value(trust.tls, "C"),
        FIELDS["client"]: _value(trust.tls, "T"),
        FIELDS["email"]: _value(trust.email, "C"),
        FIELDS["code"]: _value(trust.object, "C"),
    }


def _value(letters: str, delegator: str) -> int:
    if "p" in letters:
        return _NOT_TRUSTED
    if delegator in letters:
        return _DELEGATOR
    if "P" in letters:
        return _TRUSTED
    return _VALID_DELEGATOR if set(letters) & set("CcT") else _MUST_VERIFY


def trust_template(der: bytes, issuer: bytes, serial: bytes, trust: TrustFlags) -> Mapping[int, Value]:
    """A new trust object. NSS finds it by issuer and serial (DER), and compares the hashes."""
    return {
        0x00: TRUST_CLASS,
        0x01: True,
        _ISSUER: issuer,
        _SERIAL: serial,
        SHA1_HASH: hashlib.sha1(der, usedforsecurity=False).digest(),
        MD5_HASH: hashlib.md5(der, usedforsecurity=False).digest(),
        **trust_values(trust),
        _STEP_UP_APPROVED: False,
    }
