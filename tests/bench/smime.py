"""S/MIME on messages of 4 KiB, beside its peers and in turn with them: messages a second of CPU time (process and children).

An operation is a whole message in, a whole message out: header, MIME, base64; verification is a verdict with path and From.
"""

from __future__ import annotations

import base64
import math
import os
import statistics
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from mailsec.interfaces import run_now
from mailsec.keys.files import pem
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.mime.index import index_message
from mailsec.model.address import Address
from mailsec.model.octets import BytesOctets
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.model.trust import Anchor
from mailsec.pki.anchors import anchor_set
from mailsec.pki.build import CertificatePool
from mailsec.pki.cache import PathCache
from mailsec.smime.assess import assess
from mailsec.smime.protect import protect_message
from mailsec.smime.unprotect import unprotect_message
from mailsec.testing.memory import MemoryScratch
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of
from tests.bench import smime_bulk
from tests.bench.peers import PEERS, Absent, Measured, counted

__all__ = ["figures", "goals"]

OPERATIONS = ("sign", "verify", "encrypt", "encrypt-cbc", "decrypt", "decrypt-cbc")
BARE = "RSA-2048 signatures alone"
OURS = "mailsec"

_LINE = b"Minutes of the meeting, as they were agreed upon by everybody.\r\n"
_HEADER = b"From: alice@example.org\r\nTo: alice@example.org\r\nSubject: minutes\r\nMIME-Version: 1.0\r\n"
_TEXT = b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + _LINE * (4096 // len(_LINE))


async def _inline(cost: int, function: Callable[..., object], *arguments: object) -> object:
    return function(*arguments)


class _Ours:
    """mailsec, in this process, as the gateway uses it: keys, anchors and paths are loaded and kept."""

    def __init__(self, folder: Path) -> None:
        self.at = datetime.now(UTC)
        ca_key, key = make_key("ec-p256"), make_key("rsa-2048")
        ca = make_ca(common_name="Bench CA", key=ca_key, at=self.at, random=os.urandom)
        certificate = issue_mail(
            IssuedBy(ca, ca_key),
            addresses=[Address.parse("alice@example.org")],
            public_key=public_key_of(key),
            at=self.at,
            random=os.urandom,
        )
        self.key = SoftwareKey("alice", key, certificate=certificate)
        self.bare = serialization.load_der_private_key(key, None)
        self.recipients = [EncryptionRecipient(certificate)]
        self.backend = SoftwareBackend()
        self.anchors, self.pool, self.paths = anchor_set([Anchor(ca)]), CertificatePool(()), PathCache()
        self.message = _HEADER + _TEXT
        self.given = {
            "verify": self.protected(ProtectionPlan(sign=True)),
            "decrypt": self.protected(ProtectionPlan(encrypt=True, profile="fips-algorithms")),
            "decrypt-cbc": self.protected(ProtectionPlan(encrypt=True)),
        }
        for name, data in (
            ("plain", _TEXT),
            ("signed", self.given["verify"]),
            ("gcm", self.given["decrypt"]),
            ("cbc", self.given["decrypt-cbc"]),
            ("ca.pem", pem(ca, "CERTIFICATE")),
            ("alice.pem", pem(certificate, "CERTIFICATE")),
            ("alice.der", certificate),
            ("alice.key", pem(key, "PRIVATE KEY")),
            ("alice.key.der", key),
            ("gcm.der", _object(self.given["decrypt"])),
            ("signed.der", _object(self.given["verify"][self.given["verify"].index(b"name=smime.p7s") :])),
        ):
            (folder / name).write_bytes(data)

    def protected(self, plan: ProtectionPlan) -> bytes:
        return run_now(
            protect_message(
                index_message(BytesOctets(self.message)),
                plan,
                signers=[self.key] if plan.sign else [],
                recipients=self.recipients if plan.encrypt else [],
                backend=self.backend,
                random=os.urandom,
                work=_inline,  # type: ignore[arg-type]  # what is small is never handed over
                at=self.at,
            )
        ).join()

    def verify(self) -> object:
        message = index_message(BytesOctets(self.given["verify"]))
        result = run_now(unprotect_message(message, backend=self.backend, scratch=MemoryScratch, work=_inline))  # type: ignore[arg-type]
        verdict = assess(result, message, anchors=self.anchors, intermediates=self.pool, at=self.at, backend=self.backend, cache=self.paths)
        assert verdict.trusted
        return verdict

    def decrypt(self, given: bytes) -> bytes:
        message = index_message(BytesOctets(given))
        result = run_now(
            unprotect_message(message, keys=[self.key], backend=self.backend, scratch=MemoryScratch, work=_inline)  # type: ignore[arg-type]
        )
        assert result.clear is not None
        return b"".join(result.clear.blocks())

    def operation(self, name: str) -> Callable[[], object]:
        plans = {
            "sign": ProtectionPlan(sign=True),
            "encrypt": ProtectionPlan(encrypt=True, profile="fips-algorithms"),
            "encrypt-cbc": ProtectionPlan(encrypt=True),
        }
        if name in plans:
            return lambda: self.protected(plans[name])
        return self.verify if name == "verify" else lambda: self.decrypt(self.given[name])

    def signature(self) -> object:
        return self.bare.sign(b"x" * 100, padding.PKCS1v15(), hashes.SHA256())  # type: ignore[union-attr, call-arg, arg-type]


def _object(entity: bytes) -> bytes:
    """The CMS object behind the entity's header."""
    body = entity[entity.index(b"\r\n\r\n") + 4 :]
    return base64.b64decode(body.partition(b"\r\n--")[0])


def figures(rounds: int, scale: float, say: Callable[[str], None]) -> dict[str, float]:
    """Messages a second of CPU time, by operation and who did it; and `ratio` to each peer, the median of the rounds' ratios."""
    seconds = max(0.2, 1.0 * scale)
    rates: dict[tuple[str, str], list[float]] = {}
    absent: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="mailsec-bench-") as name:
        folder = Path(name)
        ours = _Ours(folder)

        def take(operation: str, who: str, measure: Callable[[], Measured]) -> None:
            try:
                count, used = measure()
            except Absent as error:
                absent.setdefault(f"{who}, {operation}", str(error))
                return
            rates.setdefault((operation, who), []).append(count / used)

        for _ in range(rounds):
            for operation in OPERATIONS:
                do = ours.operation(operation)
                take(operation, OURS, lambda do=do: counted(do, seconds))  # type: ignore[misc]
                if operation == "sign":
                    take(operation, BARE, lambda: counted(ours.signature, seconds))
                for peer, measure in PEERS.items():
                    take(operation, peer, lambda measure=measure, operation=operation: measure(operation, folder, seconds))  # type: ignore[misc]
    for key, why in absent.items():
        if "cannot do it" not in why and "has no GCM" not in why and "measured with" not in why:
            say(f"  left out: {key}: {why}")
    found: dict[str, float] = {}
    for (operation, who), values in rates.items():
        found[f"{operation}, 4 KiB, {who}"] = statistics.median(values)
        if who != OURS:
            pairs = zip(rates[operation, OURS], values, strict=True)
            found[f"{operation}, 4 KiB, ratio to {who}"] = statistics.median(one / other for one, other in pairs)
    return found | smime_bulk.figures(rounds, scale)


def goals(found: dict[str, float]) -> list[tuple[str, float, float, float]]:
    """What must be reached, as (what, figure, must, aim)."""

    def ratio(operation: str, peer: str) -> float:
        return found.get(f"{operation}, 4 KiB, ratio to {peer}", math.nan)

    cli, m2 = "openssl cms, started for each", "M2Crypto"
    rows = [
        (f"sign / {BARE}", ratio("sign", BARE), 0.85, 0.9),
        (f"encrypt GCM / {cli}", ratio("encrypt", cli), 50, 60),
        (f"verify / {cli}", ratio("verify", cli), 10, 15),
        (f"decrypt GCM / {cli}", ratio("decrypt", cli), 8, 10),
        (f"sign / {m2}", ratio("sign", m2), 1.5, 2),
        *((f"{operation} / {m2}", ratio(operation, m2), 0.8, 1) for operation in ("verify", "encrypt-cbc", "decrypt-cbc")),
    ]
    for peer in ("pyca pkcs7", "endesive", "Bouncy Castle, warm"):
        rows += [(f"{operation} / {peer}", ratio(operation, peer), 1, 1) for operation in OPERATIONS]
    rows += smime_bulk.goals(found)
    return [row for row in rows if not math.isnan(row[1])]
