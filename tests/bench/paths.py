"""Paths: a fresh chain, one that is known, one that is kept, a bag of hostile certificates, a long revocation list, and all of PKITS.

Times are of the processor, but for PKITS: that is the whole run of its tests.
"""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

__all__ = ["figures", "goals"]

PROJECT = Path(__file__).resolve().parents[2]
AT = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)


def _issue(subject: str, key, issuer: str, signer, ca: bool) -> bytes:
    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .not_valid_before(AT - dt.timedelta(days=30))
        .not_valid_after(AT + dt.timedelta(days=30))
        .serial_number(x509.random_serial_number())
        .public_key(key.public_key())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, None), True)
    else:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.RFC822Name("alice@example.org")]), False)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)


def _microseconds(function: Callable[[], object], number: int = 300) -> float:
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for _ in range(number):
            function()
        best = min(best, time.process_time() - start)
    return best / number * 1e6


def figures() -> dict[str, float]:
    """Microseconds and milliseconds, as each line says."""
    from mailsec.algorithms.table import signature_mechanism
    from mailsec.keys import software
    from mailsec.model.trust import Anchor
    from mailsec.pki.anchors import AnchorSet
    from mailsec.pki.cache import PathCache
    from mailsec.pki.path import validate
    from mailsec.x509 import certificate, der, keys, names

    backend = software.SoftwareBackend()
    small = (certificate._kept, der._time, names._kept_rdns, names._kept_key, names._kept_text, software._kept_key)
    caches = (*small, keys.key_facts, keys.has_close_primes)

    def forget() -> None:
        for cache in caches:
            cache.cache_clear()

    result: dict[str, float] = {}
    for label, make in (
        ("RSA-2048", lambda: rsa.generate_private_key(65537, 2048)),
        ("P-256", lambda: ec.generate_private_key(ec.SECP256R1())),
    ):
        root, authority, alice = make(), make(), make()
        anchor = _issue("Root", root, "Root", root, True)
        between = _issue("Authority", authority, "Root", root, True)
        end = _issue("Alice", alice, "Authority", authority, False)
        anchors, kept = AnchorSet([Anchor(anchor)]), PathCache()

        def ask(cache: PathCache | None = None, anchors: AnchorSet = anchors, end: bytes = end, between: bytes = between) -> object:
            load = certificate.load_certificate
            return validate(
                load(end), anchors=anchors, intermediates=[load(between)], at=AT, purpose="email-sign", backend=backend, cache=cache
            )

        loaded = [
            (certificate.load_certificate(one), certificate.load_certificate(other)) for one, other in ((end, between), (between, anchor))
        ]
        checks = [
            (issuer.spki, signature_mechanism("", one.signature_algorithm, issuer.key_type), one.signature, one.tbs)
            for one, issuer in loaded
        ]

        def forget_all_but_the_anchor(spki: bytes = loaded[1][1].spki) -> None:
            # A worker has looked at the keys of its anchors long ago.
            forget()
            keys.has_close_primes(spki)

        def fresh(ask: Callable[[], object] = ask, forget: Callable[[], None] = forget_all_but_the_anchor) -> None:
            forget()
            ask()

        def bare(checks: list = checks) -> None:
            forget()
            for check in checks:
                backend.verify(*check)

        overhead = _microseconds(forget)
        result[f"three certificates, {label}, their bare signature checks, µs"] = _microseconds(bare) - overhead
        known = _microseconds(forget_all_but_the_anchor)
        result[f"three certificates, {label}, fresh, µs"] = _microseconds(fresh) - known
        result[f"three certificates, {label}, certificates known, µs"] = _microseconds(ask)
        result[f"three certificates, {label}, path kept, µs"] = _microseconds(lambda ask=ask, kept=kept: ask(kept))
        if label == "P-256":
            pool = [make() for _ in range(20)]
            bag = [_issue("Authority", pool[index % 20], "Root", pool[index % 20], True) for index in range(1000)]
            forget()
            start = time.process_time()
            hostile = [certificate.load_certificate(item) for item in bag]
            validate(
                certificate.load_certificate(end), anchors=anchors, intermediates=hostile, at=AT, purpose="email-sign", backend=backend
            )
            result["1,000 hostile certificates, ms"] = (time.process_time() - start) * 1e3
    result |= _verdicts()
    result["revocation list of 100,000 entries: read and one look-up, ms"] = _long_list()
    result["PKITS as a whole, s"] = _pkits()
    return result


def goals(found: Mapping[str, float]) -> list[tuple[str, float, float, float]]:
    """(What, figure, must, aim) of those that were measured."""
    if "PKITS as a whole, s" not in found:
        return []
    rows = []
    for label in ("RSA-2048", "P-256"):
        fresh, bare = (found[f"three certificates, {label}, {which}, µs"] for which in ("fresh", "their bare signature checks"))
        rows.append((f"three certificates, {label}: fresh to bare checks (at most)", fresh / bare, 6.0, 6.0))
    kept = found["verdict with evidence, path kept (whole desk), µs"]
    return [
        *rows,
        ("kept verdict to a P-256 verification (at most)", kept / found["one P-256 verification, µs"], 0.5, 0.33),
        ("1,000 hostile certificates, ms (at most)", found["1,000 hostile certificates, ms"], 100, 100),
        (
            "100,000 revoked: read and one look-up, ms (at most)",
            found["revocation list of 100,000 entries: read and one look-up, ms"],
            10,
            10,
        ),
        ("PKITS as a whole, s (at most)", found["PKITS as a whole, s"], 10, 10),
    ]


def _verdicts() -> dict[str, float]:
    """A verdict whose path and evidence are known, beside the check of one signature."""
    from mailsec.algorithms.table import signature_mechanism
    from mailsec.gateway.engine import SmimeEngine
    from mailsec.gateway.evidence import EvidenceDesk
    from mailsec.interfaces import Evidence, run_now
    from mailsec.keys.software import SoftwareBackend
    from mailsec.mime.index import index_message
    from mailsec.model.octets import BytesOctets
    from mailsec.model.settings import RevocationSettings
    from mailsec.model.trust import Anchor
    from mailsec.model.verdict import LayerResult, SignerResult, SmimeResult
    from mailsec.pki.anchors import AnchorSet
    from mailsec.pki.cache import PathCache
    from mailsec.pki.evidence import RevocationEvidence
    from mailsec.pki.path import PathOptions
    from mailsec.smime.assess import assess
    from mailsec.testing.authority import MemoryTrust
    from mailsec.testing.runtime import FakeRuntime
    from mailsec.x509.certificate import load_certificate

    backend = SoftwareBackend()
    root, authority, alice = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
    anchor = _issue("Root", root, "Root", root, True)
    between = _issue("Authority", authority, "Root", root, True)
    end = _issue("Alice", alice, "Authority", authority, False)
    lists = [_list_of(name, key) for name, key in (("Root", root), ("Authority", authority))]
    signer = SignerResult(True, end, "", "sha256", "ecdsa", None)
    layer = LayerResult("signed-data", signers=(signer,), certificates=(end, between))
    shown = SmimeResult(signed=True, encrypted=False, layers=(layer,))
    message = index_message(BytesOctets(b"From: alice@example.org\r\nSubject: x\r\n\r\nx\r\n"))
    given = {"anchors": AnchorSet([Anchor(anchor)]), "at": AT, "backend": backend, "options": PathOptions(check_revocation=True)}
    evidence, cache = RevocationEvidence(lists), PathCache()

    def verdict() -> object:
        return assess(shown, message, intermediates=(), evidence=evidence, cache=cache, **given)

    assert verdict().revocation.value == "good" and verdict().trusted

    runtime = FakeRuntime(AT)

    class Lists:
        name = "lists"

        async def evidence(self, request):
            return [Evidence("crl", data, "bench", AT) for data in lists]

    revocation = RevocationSettings()
    engine = SmimeEngine(backend, runtime, revocation=revocation)
    desk = EvidenceDesk(engine, runtime, MemoryTrust(Anchor(anchor)), [Lists()], revocation=revocation)
    assert runtime.run(desk.judge(shown, message)).trusted

    loaded, issuer = load_certificate(end), load_certificate(between)
    mechanism = signature_mechanism("", loaded.signature_algorithm, issuer.key_type)
    return {
        "one P-256 verification, µs": _microseconds(lambda: backend.verify(issuer.spki, mechanism, loaded.signature, loaded.tbs)),
        "verdict with evidence, path kept (assess), µs": _microseconds(verdict),
        "verdict with evidence, path kept (whole desk), µs": _microseconds(lambda: run_now(desk.judge(shown, message))),
    }


def _list_of(name: str, key) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = x509.CertificateRevocationListBuilder(subject, AT - dt.timedelta(hours=1), AT + dt.timedelta(days=1))
    return builder.add_extension(x509.CRLNumber(1), False).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def _long_list() -> float:
    from mailsec.x509.crl import load_crl

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")])
    serials = [x509.random_serial_number() for _ in range(100_000)]
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=name,
        last_update=AT,
        next_update=AT + dt.timedelta(days=1),
        revoked_certificates=[x509.RevokedCertificateBuilder(serial, AT).build() for serial in serials],
    )
    octets = builder.add_extension(x509.CRLNumber(1), False).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    start = time.process_time()
    crl = load_crl(octets)
    # the longer of the two: who stands on the list is found before its end
    assert crl.find(12345, crl.issuer) is None
    spent = (time.process_time() - start) * 1e3
    assert crl.find(serials[70_000], crl.issuer) is not None
    return spent


def _pkits() -> float:
    start = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/pki/test_pkits.py"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
    )
    return time.monotonic() - start


if __name__ == "__main__":
    for line, figure in figures().items():
        print(f"{line:70} {figure:10.1f}")
