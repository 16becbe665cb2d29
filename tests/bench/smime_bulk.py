"""S/MIME on a message with 100 MiB attached: megabytes a second of CPU time, and memory above an idle process (promise 9).

Each figure is taken in a process of its own, with input from a file and output to another, as the gateway has them:
`python -m tests.bench.smime_bulk OPERATION FOLDER` prints it. The megabytes are those of the message as it is sent in clear.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from mailsec.asn1 import writer
from mailsec.cms.signed import read_signed_data
from mailsec.cms.verify import verify_signers
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.mime.index import index_message
from mailsec.mime.transfer import decode, encode_base64
from mailsec.model.address import Address
from mailsec.model.octets import Octets, Segments
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.smime.protect import protect_message
from mailsec.smime.unprotect import unprotect_message
from mailsec.store.scratch import FileOctets, FileScratch
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

__all__ = ["figures", "goals"]

PROJECT = Path(__file__).resolve().parents[2]
OPERATIONS = ("sign", "verify", "encrypt", "decrypt")
LIMITS = ("sha256", "base64")
PLANS = {"sign": ProtectionPlan(sign=True), "encrypt": ProtectionPlan(encrypt=True, profile="fips-algorithms")}
_CHUNK = 4096
"""Octets of a piece of a BER string, as streaming writers cut it."""


async def _inline(cost: int, function: Callable[..., object], *arguments: object) -> object:
    return function(*arguments)


def _message(size: int) -> Iterator[bytes]:
    yield (
        b"From: alice@example.org\r\nTo: alice@example.org\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\n"
        b"The drawings are attached.\r\n--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    )
    block = b"".join(base64.b64encode(os.urandom(57)) + b"\r\n" for _ in range(1024))
    for _ in range(size // (57 * 1024)):
        yield block
    yield b"\r\n--b--\r\n"


def _write(path: Path, blocks: Iterable[bytes | memoryview]) -> None:
    with path.open("wb") as file:
        for block in blocks:
            file.write(block)


class _Work:
    """The operations on the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.backend = SoftwareBackend()
        key, certificate = (folder / "key").read_bytes(), (folder / "certificate").read_bytes()
        self.key = SoftwareKey("alice", key, certificate=certificate)

    def scratch(self) -> FileScratch:
        return FileScratch(str(self.folder))

    def protect(self, plan: ProtectionPlan) -> Segments:
        assert self.key.certificate is not None
        return run_now(
            protect_message(
                index_message(FileOctets.open(str(self.folder / "plain"))),
                plan,
                signers=[self.key] if plan.sign else [],
                recipients=[EncryptionRecipient(self.key.certificate)] if plan.encrypt else [],
                backend=self.backend,
                random=os.urandom,
                work=_inline,  # type: ignore[arg-type]  # one thread, whose time is measured
                at=datetime.now(UTC),
            )
        )

    def unprotect(self, name: str) -> None:
        message = index_message(FileOctets.open(str(self.folder / name)))
        result = run_now(
            unprotect_message(message, keys=[self.key], backend=self.backend, scratch=self.scratch, work=_inline)  # type: ignore[arg-type]
        )
        (layer,) = result.layers
        assert layer.opened or layer.signers[0].intact

    def ber(self, size: int) -> None:
        """Verify an opaque signature over content in pieces of 4 KiB."""
        signed = read_signed_data(FileOctets.open(str(self.folder / f"ber-{size}")))
        (signer,) = verify_signers(signed, None, backend=self.backend)
        assert signer.intact, signer.reasons

    def run(self, operation: str) -> None:
        plain = FileOctets.open(str(self.folder / "plain"))
        if operation == "sha256":
            digest = hashlib.sha256()
            for block in plain.blocks():
                digest.update(block)
        elif operation == "base64":
            for _ in encode_base64(plain.blocks()):
                pass
        elif operation in PLANS:
            for _ in self.protect(PLANS[operation]):
                pass
        elif operation.startswith("ber-"):
            self.ber(int(operation.removeprefix("ber-")))
        else:
            self.unprotect({"verify": "sign", "decrypt": "encrypt"}[operation])


def _in_chunks(octets: Octets) -> Iterator[bytes]:
    """A ContentInfo with an opaque SignedData in DER, its content in pieces, indefinite lengths around it."""
    data = b"".join(bytes(block) for block in octets.blocks())
    signed = read_signed_data(data)
    assert signed.content is not None
    start, end = signed.content.content_start, signed.content.end
    head = data[data.index(writer.integer(1)) : data.index(writer.oid("1.2.840.113549.1.7.1"))]
    yield b"\x30\x80" + writer.oid("1.2.840.113549.1.7.2") + b"\xa0\x80\x30\x80" + head[: head.rindex(b"\x30")]
    yield b"\x30\x80" + writer.oid("1.2.840.113549.1.7.1") + b"\xa0\x80\x24\x80"
    for at in range(start, end, _CHUNK):
        yield writer.octet_string(data[at : min(at + _CHUNK, end)])
    yield b"\0\0" * 3 + data[end:] + b"\0\0" * 3


def prepare(folder: Path, size: int) -> None:
    """The files that the operations read."""
    at, ca_key, key = datetime.now(UTC), make_key("ec-p256"), make_key("rsa-2048")
    ca = IssuedBy(make_ca(common_name="Bench CA", key=ca_key, at=at, random=os.urandom), ca_key)
    addresses = [Address.parse("alice@example.org")]
    certificate = issue_mail(ca, addresses=addresses, public_key=public_key_of(key), at=at, random=os.urandom)
    (folder / "key").write_bytes(key)
    (folder / "certificate").write_bytes(certificate)
    work = _Work(folder)
    for part in (size // 4, size // 2):
        _write(folder / "plain", _message(part))
        opaque = work.scratch()
        for block in work.protect(ProtectionPlan(sign=True, form="opaque")):
            opaque.append(block)
        entity = opaque.seal()
        body = entity.find(b"\r\n\r\n", entity.find(b"pkcs7-mime")) + 4
        der = work.scratch()
        for block in decode("base64", entity.blocks(body)):
            der.append(block)
        _write(folder / f"ber-{part}", _in_chunks(der.seal()))
    _write(folder / "plain", _message(size))
    for name, plan in PLANS.items():
        _write(folder / name, work.protect(plan))


def _peak() -> float:
    """MiB that this program has had in memory at most; the system's account of resources would count what started it, too."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return math.nan


def measure(operation: str, folder: Path) -> dict[str, float]:
    """The best of three, and the memory of all of them."""
    work = _Work(folder)
    idle = _peak()
    best = math.inf
    for _ in range(3):
        start = time.process_time()
        work.run(operation)
        best = min(best, time.process_time() - start)
    above = _peak() - idle
    size = (folder / (operation if operation.startswith("ber-") else "plain")).stat().st_size
    return {"rate": size / 1e6 / best, "seconds": best, "above": above}


def _apart(operation: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.smime_bulk", operation, str(folder)]
    done = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def figures(rounds: int, scale: float) -> dict[str, float]:
    """Megabytes a second of CPU time, MiB above idle, and how time grows with a BER message."""
    size = 100 << 20 if scale >= 1 else 32 << 20
    name = f"{size >> 20} MiB"
    halves = (f"ber-{size // 4}", f"ber-{size // 2}")
    rates: dict[str, list[float]] = {}
    above: dict[str, float] = {}
    growth: list[float] = []
    with tempfile.TemporaryDirectory(prefix="mailsec-bench-") as directory:
        folder = Path(directory)
        subprocess.run([sys.executable, "-m", "tests.bench.smime_bulk", "prepare", directory, str(size)], cwd=PROJECT, check=True)
        for _ in range(rounds):
            for operation in (*LIMITS, *OPERATIONS):
                one = _apart(operation, folder)
                rates.setdefault(operation, []).append(one["rate"])
                above[operation] = max(above.get(operation, 0.0), one["above"])
            small, large = (_apart(half, folder) for half in halves)
            rates.setdefault("verify BER in pieces of 4 KiB", []).append(large["rate"])
            growth.append(large["seconds"] / small["seconds"])
    found = {f"{name}, {operation}, MB per CPU second": statistics.median(values) for operation, values in rates.items()}
    found |= {f"{name}, {operation}, MiB above idle": above[operation] for operation in OPERATIONS}
    return found | {"BER in pieces of 4 KiB, time of twice the size": statistics.median(growth)}


def goals(found: dict[str, float]) -> list[tuple[str, float, float, float]]:
    """What must be reached, as (what, figure, must, aim)."""
    name = next((key.partition(",")[0] for key in found if key.endswith("MB per CPU second")), "")

    def rate(operation: str) -> float:
        return found.get(f"{name}, {operation}, MB per CPU second", math.nan)

    return [
        (f"{name}, sign, MB per CPU second (or a quarter of SHA-256)", rate("sign"), min(450, rate("sha256") / 4), 450),
        (f"{name}, encrypt GCM, MB per CPU second (or half of base64)", rate("encrypt"), min(350, rate("base64") / 2), 350),
        (f"{name}, verify, MB per CPU second", rate("verify"), 350, 500),
        (f"{name}, decrypt GCM, MB per CPU second", rate("decrypt"), 200, 300),
        *(
            (f"{name}, {one}: MiB above idle (at most)", found.get(f"{name}, {one}, MiB above idle", math.nan), 64, 16)
            for one in OPERATIONS
        ),
        (
            "BER in pieces of 4 KiB: time of twice the size (at most)",
            found.get("BER in pieces of 4 KiB, time of twice the size", math.nan),
            2.5,
            2,
        ),
    ]


def main() -> None:
    """One figure, or the files for all of them."""
    operation, folder = sys.argv[1], Path(sys.argv[2])
    if operation == "prepare":
        prepare(folder, int(sys.argv[3]))
    else:
        print(json.dumps(measure(operation, folder)))


if __name__ == "__main__":
    main()
