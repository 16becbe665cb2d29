"""Evidence that commands find where the gateway keeps its own: lists and responses of the database, and `[revocation] crl_files`.

The one invariant: as in the gateway, nothing is believed for being kept; whoever asks has it judged, at the instant in question.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mailsec.app.databases import open_any
from mailsec.app.files import reason_of
from mailsec.app.options import DatabaseChoice
from mailsec.app.output import Output
from mailsec.app.revocation_inputs import revocation_of
from mailsec.builtin.crl import read_lists
from mailsec.errors import InputError
from mailsec.interfaces import Evidence, EvidenceRequest
from mailsec.store.certdb import CertDb
from mailsec.store.evidence import EvidenceStore, fingerprint
from mailsec.store.nss_lists import NssLists
from mailsec.x509.certificate import load_certificate

__all__ = ["kept_evidence"]


def kept_evidence(output: Output, choice: DatabaseChoice, requests: Sequence[EvidenceRequest]) -> Sequence[Evidence]:
    """What may help with `requests`; raise InputError for a file of the configuration that cannot be read."""
    from datetime import UTC, datetime

    now = datetime.now(UTC)
    found: list[Evidence] = []
    for path in revocation_of(choice).crl_files:
        try:
            found += [Evidence("crl", crl.der, path, now) for crl in read_lists(Path(path).read_bytes())]
        except OSError as error:
            raise InputError(f"cannot read {path}: {reason_of(error)}", stage="revocation") from None
    certificates = {request.certificate for request in requests if request.kind != "issuer"}
    issuers = {load_certificate(der).issuer.der for der in certificates}
    urls = {url for request in requests if request.kind == "crl" for url in request.urls}
    with open_any(output, choice, look=True) as opened:
        if not isinstance(opened, CertDb):
            return [*found, *(Evidence("crl", der, "database", now) for der in NssLists(opened).lists_of(issuers))]
        store = EvidenceStore(opened)
        # Whatever has not been thrown away: `--at` may speak of an instant long ago.
        rows = store.about([fingerprint(der) for der in certificates], at=datetime.fromtimestamp(0, UTC), kinds=("ocsp",))
        found += [Evidence("ocsp", row.octets, row.source, row.fetched_at) for row in rows]
        found += [
            Evidence("crl", der, "database", now) for der in store.list_octets([number for _, number in store.lists_of(issuers, urls)])
        ]
    return found
