"""What the machine can do at all: the rates that everything else is a share of."""

from __future__ import annotations

import multiprocessing
import time

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

__all__ = ["figures", "signature_rates"]

SECONDS = 2.0


def _sign_rsa(_: int) -> float:
    key = rsa.generate_private_key(65537, 2048)
    scheme, digest, data = padding.PKCS1v15(), hashes.SHA256(), b"x" * 100
    count, limit = 0, time.perf_counter() + SECONDS
    while time.perf_counter() < limit:
        key.sign(data, scheme, digest)
        count += 1
    return count / SECONDS


def _sign_ec(_: int) -> float:
    key = ec.generate_private_key(ec.SECP256R1())
    scheme, data = ec.ECDSA(hashes.SHA256()), b"x" * 100
    count, limit = 0, time.perf_counter() + SECONDS
    while time.perf_counter() < limit:
        key.sign(data, scheme)
        count += 1
    return count / SECONDS


def signature_rates() -> dict[str, float]:
    """Signatures a second of two processes at once."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        return {
            "RSA-2048 signatures/s, two processes": sum(pool.map(_sign_rsa, range(2))),
            "P-256 signatures/s, two processes": sum(pool.map(_sign_ec, range(2))),
        }


def figures() -> dict[str, float]:
    """DATA in memory beside stock Twisted."""
    from tests.bench import data_in_memory

    ours, stock = data_in_memory.rates()
    return {
        "DATA in memory, ours, 4 KiB messages/s": ours,
        "DATA in memory, twisted.mail.smtp, messages/s": stock,
        "DATA in memory, ratio to twisted.mail": ours / stock,
    }
