"""What a token must answer before it is asked about anything that matters: right and wrong signatures by keys that are made for the test.

The one invariant: signatures and faults are new each time, and the keys each process's own, so that no token knows the answers; software has
to agree with every one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Final

from mailsec.errors import CryptoError
from mailsec.interfaces import CryptoBackend, TokenHost, run_now
from mailsec.keys.mechanism import ecdsa_concatenated, ecdsa_sequence
from mailsec.keys.software import SoftwareKey
from mailsec.model.mechanism import SignatureMechanism
from mailsec.x509.issue import make_key
from mailsec_accel.computing import CURVES, question

__all__ = ["why_not"]

_SECONDS: Final = 5.0
"""For one answer: a test may wait, as it runs in a thread of its own."""
_ROUNDS: Final = 4
_KEYS: Final = {"ec:secp256r1": "ec-p256", "ec:secp384r1": "ec-p384", "ec:secp521r1": "ec-p521"}


def why_not(kind: str, host: TokenHost, token: str, software: CryptoBackend, random: Callable[[int], bytes]) -> str:
    """Why a token is not trusted with `kind`; "" where every answer was right. Blocking. Raise MailsecError where there was none."""
    if kind == "rsa":
        mechanism, key_kind = SignatureMechanism("rsassa-pkcs1-v1_5", "sha256"), "rsa-2048"
    else:
        mechanism, key_kind = SignatureMechanism("ecdsa", CURVES[kind.removeprefix("ec:")]), _KEYS[kind]
    key, other = _keys(key_kind)
    for _ in range(_ROUNDS):
        data = random(64)
        signature = run_now(key.sign(mechanism, data))
        digest = software.hash(mechanism.digest)
        digest.update(data)
        cases = [
            (key.public_key, mechanism, signature, data),
            (key.public_key, replace(mechanism, prehashed=True), signature, digest.digest()),
        ]
        cases += [(key.public_key, mechanism, wrong, data) for wrong in _wrong(kind, signature, random)]
        cases += [(key.public_key, mechanism, signature, random(64)), (other.public_key, mechanism, signature, data)]
        for case in cases:
            asked = question(*case, software)
            # A signature that is no number of this key is never asked about.
            if asked is None:
                continue
            if asked.ask(host, token, _SECONDS) != software.verify(*case):
                return "it calls a right signature wrong" if case[2:] == (signature, data) else "it calls a wrong signature right"
    return ""


@cache
def _keys(kind: str) -> tuple[SoftwareKey, SoftwareKey]:
    return SoftwareKey("test", make_key(kind)), SoftwareKey("test", make_key(kind))


def _wrong(kind: str, signature: bytes, random: Callable[[int], bytes]) -> list[bytes]:
    """Signatures like this one that are wrong."""
    if kind == "rsa":
        at = int.from_bytes(random(2), "big") % len(signature)
        return [signature[:at] + bytes((signature[at] ^ 1 << random(1)[0] % 8,)) + signature[at + 1 :], b"\0" * len(signature)]
    size = {"ec:secp256r1": 32, "ec:secp384r1": 48, "ec:secp521r1": 66}[kind]
    both = ecdsa_concatenated(signature, size)
    at = 1 + int.from_bytes(random(2), "big") % (size - 1)
    changed = both[:at] + bytes((both[at] ^ 1 << random(1)[0] % 8,)) + both[at + 1 :]
    try:
        # r changed, both exchanged, s nothing, both nothing (CVE-2022-21449).
        return [ecdsa_sequence(one) for one in (changed, both[size:] + both[:size], both[:size] + bytes(size), bytes(2 * size))]
    except CryptoError:  # pragma: no cover - all of them have two halves
        return []
