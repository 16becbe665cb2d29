"""Certificates of the database that a token host is given for the keys on its tokens: most smart cards hold a key and nothing else.

They are listed as if they lay on the token, with the id of their key, so that whoever finds keys by their certificates finds these, too. The
one invariant: a certificate joins the key whose public key it names, and no other.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mailsec.model.tokens import TokenCertificate, TokenKey
from mailsec.x509.certificate import load_certificate

__all__ = ["GivenCertificate", "given_certificates", "given_rows", "joined"]


@dataclass(frozen=True, slots=True)
class GivenCertificate:
    """One certificate of the database, with those of its issuers that are there."""

    label: str
    der: bytes
    public_key: bytes
    chain: tuple[bytes, ...]


def given_certificates(rows: Any) -> tuple[GivenCertificate, ...]:
    """What the supervisor tells; rows that are none are passed over."""
    found = []
    for row in rows if isinstance(rows, list) else ():
        try:
            der, chain = base64.b64decode(row["der"]), tuple(base64.b64decode(one) for one in row["chain"])
            found.append(GivenCertificate(str(row["label"]), der, load_certificate(der).spki, chain))
        except (KeyError, TypeError, ValueError):
            continue
    return tuple(found)


def joined(
    given: Sequence[GivenCertificate],
    token: str,
    keys: Sequence[TokenKey],
    there: Collection[bytes],
    before: Mapping[str, Any] | None,
) -> list[TokenCertificate]:
    """Those whose keys lie on this token, but for certificates that are `there` themselves (DER). `before` is how it was listed last."""
    ids = {key.public_key: key.id for key in keys}
    if not keys and before is not None:
        # Before the login nobody sees the keys: mail for them waits, as it does where the certificates lie on the card.
        ids = {
            load_certificate(base64.b64decode(one["der"])).spki: bytes.fromhex(one["id"])
            for one in before["certificates"]
            if one.get("given")
        }
    return [
        TokenCertificate(token, one.label, ids[one.public_key], one.der, has_key=True)
        for one in given
        if one.public_key and one.public_key in ids and one.der not in there
    ]


def given_rows(given: Sequence[GivenCertificate], certificates: Sequence[TokenCertificate]) -> list[dict[str, Any]]:
    """How they are listed, and behind them the certificates of their issuers, which have no id."""
    chains = {one.der: one.chain for one in given}
    above = dict.fromkeys(der for one in certificates for der in chains.get(one.der, ()))
    rows = [{"label": one.label, "id": one.id.hex(), "der": _text(one.der), "has_key": True, "given": True} for one in certificates]
    rows += [{"label": "", "id": "", "der": _text(der), "has_key": False} for der in above]
    return [row | {"trust": ",,", "problem": ""} for row in rows]


def _text(der: bytes) -> str:
    return base64.b64encode(der).decode("ascii")
