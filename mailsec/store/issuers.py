"""The certificates of a certificate's issuers, out of those that a database has."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mailsec.model.limits import DEFAULT_LIMITS
from mailsec.x509.certificate import Certificate

__all__ = ["issuers_of"]


def issuers_of(below: Certificate, called: Callable[[bytes], Sequence[Certificate]]) -> tuple[bytes, ...]:
    """DER of the issuers, nearest first; a self-signed one, the anchor, is left out. `called` finds certificates by their subject (DER).

    Only names and key identifiers are compared: whoever gets the chain checks it.
    """
    chain: list[bytes] = []
    while len(chain) < DEFAULT_LIMITS.path_length:
        wanted = below.authority_key_id.key_id if below.authority_key_id else None
        fitting = [each for each in called(below.issuer.der) if wanted is None or each.subject_key_id in (None, wanted)]
        if not fitting or fitting[-1].is_self_issued or fitting[-1].der in chain:
            break
        below = fitting[-1]
        chain.append(below.der)
    return tuple(chain)
