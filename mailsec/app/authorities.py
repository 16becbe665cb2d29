"""The authorities of our own that a database holds: which one issues, with its key."""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.errors import KeyUnavailable, UsageError
from mailsec.model.trust import CertificateEntry
from mailsec.store.certdb import CertDb
from mailsec.store.nssdb import NssDb
from mailsec.x509.certificate import load_certificate

__all__ = ["authorities_called", "authority_of", "key_of"]

_MAKE_ONE = '`mailsec cert issue --new-ca "My CA" --for example.org` makes one'


def authorities_called(database: CertDb | NssDb, nickname: str = "") -> Sequence[CertificateEntry]:
    """Certificates of the CA called `nickname` (or of the only one) whose key is here; the one that issues now is first.

    A CA has several where it was renewed. Raise KeyUnavailable where there is none, UsageError where several CAs could be meant.
    """
    from mailsec.app.databases import entries_called

    if nickname:
        found = [entry for entry in entries_called(database, nickname) if _is_ca(entry)]
        if not found:
            raise KeyUnavailable(f'"{nickname}" is not a CA whose key is here', hint=_MAKE_ONE)
        return found
    names = sorted({entry.nickname for entry in database.entries() if _is_ca(entry)})
    if not names:
        raise KeyUnavailable("there is no CA whose key is here", hint=_MAKE_ONE)
    if len(names) > 1:
        raise UsageError("there are several CAs here: " + ", ".join(names), hint="choose one with --ca")
    return [entry for entry in database.find(names[0]) if _is_ca(entry)]


def authority_of(database: CertDb | NssDb, certificate: bytes) -> CertificateEntry | None:
    """The CA of ours that issued `certificate`, by name and key identifier; None where it is not ours."""
    below = load_certificate(certificate)
    wanted = below.authority_key_id.key_id if below.authority_key_id else None
    for entry in database.entries():
        if _is_ca(entry):
            above = load_certificate(entry.der)
            if above.subject.der == below.issuer.der and (wanted is None or above.subject_key_id in (None, wanted)):
                return entry
    return None


def key_of(database: CertDb | NssDb, entry: CertificateEntry) -> bytes:
    """The private key of a CA, PKCS#8 DER."""
    key = database.private_key(entry)
    if key is None:
        raise KeyUnavailable(f'the key of "{entry.nickname}" is not here', hint="import it with `mailsec p12 import`")
    return key


def _is_ca(entry: CertificateEntry) -> bool:
    constraints = load_certificate(entry.der).basic_constraints
    return entry.verified and entry.has_key and constraints is not None and constraints.ca
