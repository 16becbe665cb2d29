"""Revocation lists in NSS databases (CKO_NSS_CRL), as crlutil reads and writes them.

NSS keeps one list for each issuer, and finds it by the issuer's name. The one invariant: a list is judged where it is used, and never
believed for lying here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pkcs11.constants import Attribute

from mailsec.errors import InputError, TokenError
from mailsec.tokens.codes import CkError
from mailsec.tokens.cryptoki import Value
from mailsec.tokens.token import Token
from mailsec.x509.crl import CertificateList, load_crl

__all__ = ["delete_list", "import_list", "read_lists", "url_of_list"]

_CRL_CLASS: Final = 0xCE534351
_NSS_URL: Final = 0xCE534351
_NSS_KRL: Final = 0xCE534358


def read_lists(token: Token) -> Sequence[bytes]:
    """DER of each list, in no order."""
    if not token.library.softoken:
        return ()
    return tuple(token.reading(lambda session: [der for _, der in _found(token, session, {Attribute.CLASS: _CRL_CLASS})]))


def import_list(token: Token, der: bytes, url: str = "") -> None:
    """Put a list there, in the place of older ones of its issuer; `url` is where it came from.

    Raise InputError where it is none, or older than the one that is there.
    """
    crl = load_crl(der)
    if not crl.readable:
        raise InputError(crl.problems[0].message, hint=crl.problems[0].hint, stage="parse")
    if not token.library.softoken:
        raise TokenError(f"token {token.state.label!r} keeps no revocation lists", hint="import it into the mailsec database")
    with token.writing() as session:
        there = _found(token, session, {Attribute.CLASS: _CRL_CLASS, Attribute.SUBJECT: crl.issuer.der})
        if same := [handle for handle, octets in there if octets == der]:
            if url:
                token.functions.set_attributes(session, same[0], {_NSS_URL: url})
            return
        # Attack: an older list in the place of the one that says what was revoked since. crlutil refuses it, too.
        if any(_newer(load_crl(octets), crl) for _, octets in there):
            raise InputError("a newer list of this issuer is there", hint="delete that one first, if this one is right")
        values: dict[int, Value] = {
            Attribute.CLASS: _CRL_CLASS,
            Attribute.TOKEN: True,
            Attribute.SUBJECT: crl.issuer.der,
            Attribute.VALUE: der,
            # Empty, but there: crlutil passes over lists without it.
            _NSS_URL: url,
            _NSS_KRL: False,
        }
        token.functions.create(session, values)
        for handle, _ in there:
            token.functions.destroy(session, handle)


def url_of_list(token: Token, der: bytes) -> str:
    """Where a list came from (crlutil -u); empty where nobody said so, or it is not there."""
    if not token.library.softoken:
        return ""

    def look(session: int) -> str:
        for handle, octets in _found(token, session, {Attribute.CLASS: _CRL_CLASS, Attribute.SUBJECT: load_crl(der).issuer.der}):
            if octets == der:
                try:
                    found = token.functions.attributes(session, handle, [_NSS_URL])[_NSS_URL] or b""
                except CkError:
                    return ""
                # Anybody may have written it: it is shown, and never fetched by itself.
                return found.rstrip(b"\0").decode("utf-8", "replace")[:2048]
        return ""

    return token.reading(look)


def delete_list(token: Token, der: bytes) -> None:
    """Take a list away; nothing happens where it is not there."""
    with token.writing() as session:
        for handle, octets in _found(token, session, {Attribute.CLASS: _CRL_CLASS}):
            if octets == der:
                token.functions.destroy(session, handle)


def _newer(one: CertificateList, other: CertificateList) -> bool:
    return one.this_update is not None and other.this_update is not None and one.this_update > other.this_update


def _found(token: Token, session: int, template: dict[int, Value]) -> list[tuple[int, bytes]]:
    found = []
    for handle in token.functions.find(session, template):
        try:
            octets = token.functions.attributes(session, handle, [Attribute.VALUE])[Attribute.VALUE]
        except CkError:  # deleted meanwhile
            continue
        if octets:
            found.append((handle, octets))
    return found
