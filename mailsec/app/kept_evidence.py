"""Evidence that commands find where the gateway keeps its own: lists and responses of the database, and `[revocation] crl_files`.

The one invariant: as in the gateway, nothing is believed for being kept; whoever asks has it judged, at the instant in question.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path

from mailsec.app.databases import open_any
from mailsec.app.files import reason_of
from mailsec.app.options import DatabaseChoice
from mailsec.app.output import Output
from mailsec.app.revocation_inputs import revocation_of
from mailsec.builtin.crl import read_lists
from mailsec.errors import InputError
from mailsec.gateway.engine import Engine
from mailsec.gateway.evidence import EvidenceDesk, TrustStore
from mailsec.interfaces import Evidence, EvidenceRequest, Runtime
from mailsec.model.settings import RevocationSettings
from mailsec.model.verdict import Revocation
from mailsec.pki.path import PathResult
from mailsec.store.certdb import CertDb
from mailsec.store.evidence import EvidenceStore, fingerprint
from mailsec.store.nss_lists import NssLists
from mailsec.store.nssdb import NssDb
from mailsec.x509.certificate import load_certificate

__all__ = ["KeptLists", "ListsOnly", "kept_evidence"]


class KeptLists:
    """The lists of an open database as a `gateway.inquiry.EvidenceCache`: what says without asking anybody that something was revoked."""

    def __init__(self, database: CertDb | NssDb, at: datetime) -> None:
        self._database = database
        self._at = at

    async def known(self, requests: Sequence[EvidenceRequest]) -> Sequence[Evidence]:
        """Lists of the issuers of what is asked about."""
        issuers = {load_certificate(request.certificate).issuer.der for request in requests}
        urls = {url for request in requests if request.kind == "crl" for url in request.urls}
        return [Evidence("crl", der, "database", self._at) for der in _lists_of(self._database, issuers, urls)]

    async def keep(self, found: Sequence[tuple[EvidenceRequest, Evidence]]) -> None:
        """Nothing is kept: only what was here already is looked at."""


class ListsOnly(EvidenceDesk):
    """Judges with the lists of one database, and asks nobody: what they call revoked is; of everything else nothing is said."""

    def __init__(self, engine: Engine, runtime: Runtime, trust: TrustStore, lists: KeptLists) -> None:
        super().__init__(engine, runtime, trust, revocation=RevocationSettings(), cache=lists)
        self._silent = EvidenceDesk(engine, runtime, trust)

    async def recipient(self, certificate: bytes, chain: Sequence[bytes] = ()) -> PathResult:
        """As `EvidenceDesk.recipient`; what no list says anything of is not waited for."""
        found = await super().recipient(certificate, chain)
        return found if found.revocation is Revocation.REVOKED else await self._silent.recipient(certificate, chain)


def _lists_of(database: CertDb | NssDb, issuers: Collection[bytes], urls: Collection[str]) -> Sequence[bytes]:
    if isinstance(database, NssDb):
        return NssLists(database).lists_of(issuers)
    store = EvidenceStore(database)
    return store.list_octets([number for _, number in store.lists_of(issuers, urls)])


def kept_evidence(output: Output, choice: DatabaseChoice, requests: Sequence[EvidenceRequest]) -> Sequence[Evidence]:
    """What may help with `requests`; raise InputError for a file of the configuration that cannot be read."""
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
        if isinstance(opened, CertDb):
            # Whatever has not been thrown away: `--at` may speak of an instant long ago.
            rows = EvidenceStore(opened).about(
                [fingerprint(der) for der in certificates], at=datetime.fromtimestamp(0, UTC), kinds=("ocsp",)
            )
            found += [Evidence("ocsp", row.octets, row.source, row.fetched_at) for row in rows]
        found += [Evidence("crl", der, "database", now) for der in _lists_of(opened, issuers, urls)]
    return found
