"""Mozilla's root certificates in NSS's module of roots (libnssckbi.so), with their trust bits for e-mail.

The module is opened as any PKCS#11 module is; it holds certificates and NSS's trust objects, and asks for no login.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pkcs11.constants import Attribute, ObjectClass

from mailsec.errors import KeyUnavailable, UsageError
from mailsec.keys.certdata import Root, distrust_after_of
from mailsec.tokens.codes import CkError
from mailsec.tokens.cryptoki import Cryptoki
from mailsec.tokens.loader import load_library, unload_library
from mailsec.tokens.softoken import PLACES
from mailsec.tokens.state import StateDirectory
from mailsec.tokens.trust_objects import SHA1_HASH, TRUST_CLASS, read_trust

__all__ = ["find_roots_module", "read_mozilla_roots"]

_EMAIL_DISTRUST_AFTER: Final = 0xCE534374
"""CKA_NSS_EMAIL_DISTRUST_AFTER (nss/lib/util/pkcs11n.h)."""
_OF_CERTIFICATE: Final = (Attribute.LABEL, Attribute.VALUE, _EMAIL_DISTRUST_AFTER)


def find_roots_module() -> str:
    """The path of the module; raise UsageError where NSS is not installed."""
    for place in PLACES:
        found = sorted(Path("/").glob(place.lstrip("/").replace("libsoftokn3", "libnssckbi")))
        if found:
            return str(found[0])
    raise UsageError("Mozilla's roots are not on this machine", hint="apt-get install libnss3, or name a file: certdata.txt or PEM")


def read_mozilla_roots(library: str = "") -> Sequence[Root]:
    """The roots of the module at `library` (empty: where NSS has it). Raise KeyUnavailable where it does not answer."""
    with tempfile.TemporaryDirectory(prefix="mailsec-") as state:
        loaded = load_library(library or find_roots_module(), None, StateDirectory(state))
        try:
            return [root for slot in loaded.functions.slots(present=True) for root in _roots(loaded.functions, slot)]
        except CkError as error:
            raise KeyUnavailable(f"the module of Mozilla's roots does not answer: {error}", hint="name a file instead") from error
        finally:
            unload_library(loaded)


def _roots(functions: Cryptoki, slot: int) -> Sequence[Root]:
    session = functions.open_session(slot)
    try:
        trust: dict[bytes, str] = {}
        for handle in functions.find(session, {Attribute.CLASS: TRUST_CLASS}):
            digest = functions.attributes(session, handle, [SHA1_HASH])[SHA1_HASH]
            if digest:
                trust[digest] = read_trust(functions, session, handle)[0].email
        found = []
        for handle in functions.find(session, {Attribute.CLASS: int(ObjectClass.CERTIFICATE)}):
            values = functions.attributes(session, handle, _OF_CERTIFICATE)
            der = values[Attribute.VALUE]
            if der:
                letter = trust.get(hashlib.sha1(der, usedforsecurity=False).digest(), "")
                name = (values[Attribute.LABEL] or b"").decode("utf-8", "replace").rstrip("\0")
                found.append(Root(name, der, letter if letter in ("C", "p") else "", distrust_after_of(values[_EMAIL_DISTRUST_AFTER])))
        return found
    finally:
        functions.close_session(session)
