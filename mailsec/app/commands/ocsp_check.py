"""`mailsec ocsp check CERT`: the status of a certificate as its responder tells it now, or as the database remembers it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from mailsec.app.output import Output, json_option
from mailsec.app.path_inputs import PathInputs, path_options, read_ders, reason_value, tell_reasons
from mailsec.errors import InputError, MailsecError, Unavailable

if TYPE_CHECKING:
    from mailsec.interfaces import Evidence, Runtime
    from mailsec.model.settings import RevocationSettings
    from mailsec.pki.evidence import Status
    from mailsec.x509.certificate import Certificate

__all__ = ["check"]

_TEMPORARY = 75


@dataclass(frozen=True, slots=True)
class _Answer:
    status: Status
    source: str
    fetched_at: datetime
    kept: bool


@json_option
@click.command()
@click.argument("place", metavar="CERT")
@click.option("--issuer", metavar="FILE", default="", help="The certificate of its issuer, where it is not found otherwise.")
@click.option("--url", metavar="URL", default="", help="The responder to ask, instead of the one that the certificate names.")
@click.option("--fresh", is_flag=True, help="Ask the responder even if the database has a current answer.")
@path_options
@click.pass_obj
def check(output: Output, *, place: str, issuer: str, url: str, fresh: bool, paths: PathInputs) -> int:
    """Say whether the certificate in the file CERT (or with the nickname CERT) was revoked: status, source, age, and when it is asked again.

    The exit code is 0 if it is good, 1 if it is revoked or unknown, 75 if nobody answers.
    """
    from mailsec.app.revocation_inputs import certificate_of, revocation_of
    from mailsec.keys.software import SoftwareBackend
    from mailsec.model.verdict import Revocation

    backend = SoftwareBackend()
    certificate = certificate_of(output, place, paths.database)
    authority = _issuer(output, certificate, issuer, paths, backend)
    revocation = revocation_of(paths.database)
    if url:
        revocation = replace(revocation, default_responder=url)
    found = None if fresh else _kept(output, certificate, authority, paths, backend, revocation)
    trouble: MailsecError | None = None
    if found is None:
        try:
            asked = _asked(certificate, authority, backend, revocation, typed=bool(url))
        except Unavailable as error:
            asked, trouble = None, error
        if asked is not None:
            found, item = asked
            if found.status.revocation is not Revocation.UNKNOWN:
                _keep(output, certificate, authority, item, paths)
    return _report(output, certificate, found, trouble, good=found is not None and found.status.revocation is Revocation.GOOD)


def _issuer(output: Output, certificate: Certificate, given: str, paths: PathInputs, backend: Any) -> Certificate:
    """The certificate of the issuer whose key signed: the one that was given, else one at hand."""
    from mailsec.pki.budget import Budget
    from mailsec.pki.signatures import is_signed_by
    from mailsec.x509.certificate import load_certificate

    anchors, helpful, _ = paths.trust(output, backend)
    candidates = [load_certificate(der) for der in read_ders(given)] if given else []
    candidates += [*(load_certificate(anchor.der) for anchor in anchors), *helpful]
    for one in candidates:
        if one.subject.matches(certificate.issuer) and is_signed_by(
            certificate.fingerprint,
            certificate.tbs,
            certificate.signature_algorithm,
            certificate.signature,
            one.spki,
            one.key,
            backend,
            Budget(),
        ):
            return one
    raise InputError(
        f"the certificate of the issuer {certificate.issuer} was not found",
        hint="name it with --issuer FILE, or a database with -d",
        stage="path",
    )


def _judged(
    octets: bytes, certificate: Certificate, authority: Certificate, at: datetime, backend: Any, revocation: RevocationSettings
) -> Status:
    from mailsec.pki.budget import Budget
    from mailsec.pki.ocsp import OcspRules, judge_ocsp

    chosen = revocation.default_responder_certificate
    rules = OcspRules(responders=(chosen,)) if chosen else OcspRules()
    return judge_ocsp(octets, certificate, authority, at=at, backend=backend, budget=Budget(), rules=rules)


def _kept(
    output: Output, certificate: Certificate, authority: Certificate, paths: PathInputs, backend: Any, revocation: RevocationSettings
) -> _Answer | None:
    """What the database has, if it says something now."""
    from mailsec.app.nss_databases import is_nss

    # NSS databases keep lists, and no responses.
    if not (paths.database.configuration or paths.database.database) or is_nss(paths.database.database):
        return None
    from mailsec.app.databases import open_database
    from mailsec.model.verdict import Revocation
    from mailsec.store.evidence import EvidenceStore, fingerprint

    at = paths.instant()
    with open_database(output, paths.database, look=True) as opened:
        rows = EvidenceStore(opened).about([fingerprint(certificate.der)], at=at, kinds=("ocsp",))
    answers = [
        _Answer(_judged(row.octets, certificate, authority, at, backend, revocation), row.source, row.fetched_at, True) for row in rows
    ]
    for wanted in (Revocation.REVOKED, Revocation.GOOD):
        for answer in answers:
            if answer.status.revocation is wanted:
                return answer
    return None


def _asked(
    certificate: Certificate, authority: Certificate, backend: Any, revocation: RevocationSettings, *, typed: bool
) -> tuple[_Answer, Evidence] | None:
    """What the responder says; None where the certificate names none. Raise Unavailable."""
    from mailsec.app.online import run_online
    from mailsec.builtin.asking import Asking
    from mailsec.builtin.ocsp import OcspSource
    from mailsec.interfaces import EvidenceRequest
    from mailsec.pki.revocation import ocsp_urls

    request = EvidenceRequest("ocsp", certificate.der, authority.der, ocsp_urls(certificate))

    async def ask(runtime: Runtime) -> list[Evidence]:
        return list(await OcspSource(revocation, runtime, Asking(runtime)).evidence(request))

    brought = run_online(ask, revocation, typed=typed)
    if not brought:
        return None
    item = brought[0]
    status = _judged(item.data, certificate, authority, datetime.now(UTC), backend, revocation)
    return _Answer(status, item.source, item.fetched_at, False), item


def _keep(output: Output, certificate: Certificate, authority: Certificate, item: Evidence, paths: PathInputs) -> None:
    from mailsec.app.nss_databases import is_nss

    if not (paths.database.configuration or paths.database.database) or is_nss(paths.database.database):
        return
    from mailsec.app.databases import open_database
    from mailsec.app.evidence_cache import kept_response
    from mailsec.store.evidence import EvidenceStore

    row = kept_response(certificate.der, authority.der, item.data, item.source, item.fetched_at)
    if row is not None:
        with open_database(output, paths.database, look=True) as opened:
            EvidenceStore(opened).keep([row])


def _report(output: Output, certificate: Certificate, found: _Answer | None, trouble: MailsecError | None, *, good: bool) -> int:
    from mailsec.model.verdict import Reason

    now = datetime.now(UTC)
    status = found.status if found is not None else None
    reasons: tuple[Reason, ...] = status.reasons if status is not None else ()
    if trouble is not None:
        reasons = (Reason("revocation-unknown", "revocation", trouble.message, trouble.hint, "RFC 6960 §2.3"),)
    elif found is None:
        reasons = (Reason("revocation-not-checked", "revocation", "the certificate names no responder", "name one with --url", ""),)
    word = status.revocation.value if status is not None else "unknown" if trouble is not None else "not-checked"
    again = _again(found, now)
    value: dict[str, Any] = {
        "status": word,
        "certificate": certificate.subject.text,
        "source": found.source if found is not None else None,
        "kept": found.kept if found is not None else False,
        "this_update": status.this_update if status is not None else None,
        "next_update": status.next_update if status is not None else None,
        "age": max(0, int((now - status.this_update).total_seconds())) if status is not None and status.this_update is not None else None,
        "asked_again": again,
        "revoked_at": status.revoked_at if status is not None else None,
        "reason": status.reason or None if status is not None else None,
        "reasons": [reason_value(reason) for reason in reasons],
    }

    def tell() -> None:
        output.text(f"{word}: {certificate.subject.text or '(no name)'}")
        if found is not None:
            output.fact("source", found.source + (" (kept in the database)" if found.kept else ""))
        if status is not None and status.this_update is not None:
            output.fact("age", f"{timedelta(seconds=value['age'])}, of {status.this_update:%Y-%m-%d %H:%M:%S} UTC")
        if status is not None and status.next_update is not None:
            output.fact("holds until", f"{status.next_update:%Y-%m-%d %H:%M:%S} UTC")
        if again is not None:
            output.fact("asked again", f"{again:%Y-%m-%d %H:%M:%S} UTC")
        if status is not None and status.revoked_at is not None:
            output.fact("revoked", f"{status.revoked_at:%Y-%m-%d %H:%M:%S} UTC, {status.reason}")
        tell_reasons(output, reasons)

    output.result(value, tell)
    return 0 if good else _TEMPORARY if trouble is not None else 1


def _again(found: _Answer | None, now: datetime) -> datetime | None:
    """When a running gateway asks again: a quarter of the time before the end (`app.evidence_refresh`)."""
    if found is None or found.status.next_update is None:
        return None
    end = found.status.next_update
    return max(now, end - (end - found.fetched_at) / 4).replace(microsecond=0)
