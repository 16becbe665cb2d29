"""The certificate database: many certificates imported from a file (speed, memory), and one address found among all of them (SQLite).

    MAILSEC_BENCH_CERTIFICATES=1000000 make bench      the size that counts; the default is small

Held against: an address among 1,000,000 below 1 ms; an import of 100,000 below 200 MiB.
"""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

__all__ = ["figures"]

PROJECT = Path(__file__).resolve().parents[2]
DEFAULT = 5_000


def certificates(number: int) -> Iterator[bytes]:
    """So many different certificates with one address each: one that was issued, with other digits in it. (Signatures are not looked at here.)"""
    from mailsec.model.address import Address
    from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

    at = datetime.now(UTC)
    key = make_key("ec-p256")
    ca = IssuedBy(make_ca(common_name="Bench CA", key=key, at=at, random=os.urandom), key)
    address = Address.parse("user0000000@example.net")
    public = public_key_of(make_key("ec-p256"))
    template = issue_mail(ca, addresses=[address], public_key=public, at=at, random=os.urandom)
    point = public[-40:]
    for count in range(number):
        digits = f"user{count:07d}".encode()
        # Another key, too: otherwise all of them would share one.
        yield template.replace(b"user0000000", digits).replace(point, digits.ljust(40, b"k"))


def figures() -> dict[str, float]:
    """Certificates a second and MiB at the peak of an import by the command; microseconds for `for_address`, from the second question on."""
    from mailsec.keys.files import pem
    from mailsec.model.address import Address
    from mailsec.store.certdb import CertDb

    number = int(os.environ.get("MAILSEC_BENCH_CERTIFICATES", DEFAULT))
    found: dict[str, float] = {"database: certificates": number}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        directory.chmod(0o700)
        with (directory / "many.pem").open("wb") as file:
            for der in certificates(number):
                file.write(pem(der, "CERTIFICATE"))
        mailsec = [sys.executable, "-m", "mailsec"]
        subprocess.run([*mailsec, "db", "init", "--no-password", "-d", directory / "x.db"], cwd=PROJECT, check=True, capture_output=True)
        begin = time.monotonic()
        importer = subprocess.Popen(
            [*mailsec, "cert", "import", directory / "many.pem", "-d", directory / "x.db"], cwd=PROJECT, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(importer.pid, 0)
        assert status == 0, status
        found["database: imported a second"] = number / (time.monotonic() - begin)
        found["database: import, peak MiB"] = usage.ru_maxrss / 1024
        with CertDb.open(str(directory / "x.db")) as database:
            begin = time.monotonic()
            database.for_address(Address.parse("user0000000@example.net"))
            found["database: first question, s"] = time.monotonic() - begin
            times = []
            for _ in range(2000):
                address = Address.parse(f"user{random.randrange(number):07d}@example.net")
                begin = time.perf_counter()
                entries = database.for_address(address)
                times.append(time.perf_counter() - begin)
                assert len(entries) == 1
            found["database: an address, µs (median)"] = statistics.median(times) * 1e6
            found["database: an address, µs (99 %)"] = sorted(times)[len(times) * 99 // 100] * 1e6
    return found


if __name__ == "__main__":
    for what, figure in figures().items():
        print(f"{what:>38} {figure:,.1f}")
