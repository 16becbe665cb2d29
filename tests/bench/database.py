"""The certificate database: many certificates imported from a file (speed, memory), and one address found among all of them (SQLite).

Held against: an address among 1,000,000 below 1 ms; an import of 100,000 below 200 MiB.
"""

from __future__ import annotations

import hashlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailsec.store.certdb import CertDb

__all__ = ["figures", "goals"]

PROJECT = Path(__file__).resolve().parents[2]
NUMBER = 1_000_000
IMPORTED = 100_000


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


def fill(database: CertDb, number: int) -> None:
    """So many certificates put into the tables as `CertDb.add` would leave them, without looking at each: that would take an hour."""
    from sqlalchemy import insert

    from mailsec.store.ledger import encode_row
    from mailsec.store.schema import AUTHENTICATED

    at = int(time.time())
    constant = {"trust_tls": "", "trust_email": "", "trust_object": "", "domains": "[]", "distrust_after": None, "state": ""}
    constant |= {"not_before": at - 1000, "not_after": at + 10_000_000, "source": "imported", "learnt_at": at}
    with database.writing() as changes:
        state, key = changes._ledger, changes._key
        batches: dict[str, list[dict[str, Any]]] = {"certificates": [], "certificate_addresses": []}
        for count, der in enumerate(certificates(number), 1):
            address = f"user{count - 1:07d}@example.net"
            digest = hashlib.sha256(der).digest()
            row = {
                "id": count,
                "sha256": digest,
                "der": der,
                "nickname": address,
                "subject": address.encode(),
                "key_id": digest,
                **constant,
            }
            batches["certificates"].append(row)
            batches["certificate_addresses"].append({"id": count, "certificate_id": count, "address": address, "bound": False})
            if count % 5000 == 0 or count == number:
                for table, rows in batches.items():
                    source, columns = AUTHENTICATED[table]
                    for each in rows:
                        each["mac"] = key.mac(encode_row(table, columns, each))
                        state.totals[table] = (state.totals[table] + key.summand(each["mac"])) % 2**256
                    changes.connection.execute(insert(source), rows)
                    state.counts[table] += len(rows)
                    state.next_ids[table] = count + 1
                    rows.clear()
        changes.changed = True


def figures(scale: float = 1.0) -> dict[str, float]:
    """Certificates a second and MiB at the peak of an import by the command; microseconds for `for_address`, from the second question on."""
    from mailsec.keys.files import pem
    from mailsec.model.address import Address
    from mailsec.store.certdb import CertDb

    number, imported = int(NUMBER * scale), int(IMPORTED * scale)
    found: dict[str, float] = {"database: certificates imported": imported}
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        directory.chmod(0o700)
        with (directory / "many.pem").open("wb") as file:
            for der in certificates(imported):
                file.write(pem(der, "CERTIFICATE"))
        mailsec = [sys.executable, "-m", "mailsec"]
        subprocess.run([*mailsec, "db", "init", "--no-password", "-d", directory / "x.db"], cwd=PROJECT, check=True, capture_output=True)
        begin = time.monotonic()
        importer = subprocess.Popen(
            [*mailsec, "cert", "import", directory / "many.pem", "-d", directory / "x.db"], cwd=PROJECT, stdout=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(importer.pid, 0)
        assert status == 0, status
        found["database: imported a second"] = imported / (time.monotonic() - begin)
        found["database: import, peak MiB"] = usage.ru_maxrss / 1024
        found["database: certificates to find one in"] = number
        with CertDb.create(str(directory / "large.db"), b"", at=datetime.now(UTC)) as database:
            fill(database, number)
            begin = time.monotonic()
            database.for_address(Address.parse("user0000000@example.net"))
            found["database: first question, s"] = time.monotonic() - begin
            with CertDb.open(str(directory / "large.db"), password=b"") as other:
                other.add_user("user@example.net", b"a password", at=datetime.now(UTC), iterations=4096)
            begin = time.monotonic()
            database.for_address(Address.parse("user0000000@example.net"))
            found["database: first question after a change by others, s"] = time.monotonic() - begin
            times = []
            for _ in range(2000):
                address = Address.parse(f"user{random.randrange(number):07d}@example.net")
                begin = time.perf_counter()
                entries = database.for_address(address)
                times.append(time.perf_counter() - begin)
                assert len(entries) == 1 and entries[0].verified
            found["database: an address, µs (median)"] = statistics.median(times) * 1e6
            found["database: an address, µs (99 %)"] = sorted(times)[len(times) * 99 // 100] * 1e6
    return found


def goals(found: Mapping[str, float]) -> list[tuple[str, float, float, float]]:
    """(What, figure, must, aim) of those that were measured."""
    if "database: certificates imported" not in found:
        return []
    number, imported = found["database: certificates to find one in"], found["database: certificates imported"]
    return [
        (f"an address among {number:,.0f}, µs (at most)", found["database: an address, µs (median)"], 1000, 500),
        (f"import of {imported:,.0f}: peak MiB (at most)", found["database: import, peak MiB"], 200, 150),
    ]


if __name__ == "__main__":
    for what, figure in figures().items():
        print(f"{what:>38} {figure:,.1f}")
