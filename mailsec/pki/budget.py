"""How much work one message may cause in paths: signature checks, candidates, comparisons; shared over all layers and signers.

The one invariant: what was spent is never given back, and a signature that was checked once is not checked again.
"""

from __future__ import annotations

from mailsec.model.limits import DEFAULT_LIMITS, Limits

__all__ = ["Budget", "cost_of"]

_RSA_BITS_PER_CHECK = 4096
"""A check with a larger RSA key counts as several: its cost grows with the square of the size."""

# Measured with OpenSSL: a check counts for each 0.4 ms that it takes, so that the limit is one of time as well.
_SLOW_CURVES = {"ec:secp521r1": 2, "ec:brainpoolP256r1": 2, "ec:brainpoolP384r1": 2, "ec:brainpoolP512r1": 3}


def cost_of(key_type: str, bits: int) -> int:
    """How many checks one check with such a key counts as."""
    if key_type.startswith("rsa"):
        return int(max(1, bits // _RSA_BITS_PER_CHECK) ** 2)
    return _SLOW_CURVES.get(key_type, 1)


class Budget:
    """Counts down from the limits; `exhausted` names the first limit that was hit."""

    __slots__ = ("believed", "candidates", "checked", "exhausted", "limits", "signature_checks")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self.signature_checks = limits.signature_checks
        self.candidates = limits.path_candidates
        self.exhausted = ""
        self.checked: dict[tuple[bytes, bytes], bool] = {}
        """(fingerprint of what was signed, key): whether the signature was right."""
        self.believed: set[bytes] = set()
        """SHA-256 of lists and responses that were believed on the way: what is worth keeping."""

    def spend_signature_check(self, key_type: str, bits: int) -> bool:
        """Take one check with a key of this type and size; False where not enough is left."""
        self.signature_checks -= cost_of(key_type, bits)
        if self.signature_checks < 0:
            self.exhausted = self.exhausted or "signature_checks"
            return False
        return True

    def spend_candidate(self) -> bool:
        """Take one certificate that is tried as an issuer; False where none is left."""
        self.candidates -= 1
        if self.candidates < 0:
            self.exhausted = self.exhausted or "path_candidates"
            return False
        return True
