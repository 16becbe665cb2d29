"""The engine: software, with tokens that are asked first about signatures.

The one invariant: what `verify` says is what software would say, unless a token that was tested is believed about an ECDSA signature; "no" is
never a token's word alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mailsec.interfaces import CryptoBackend, Hash
from mailsec.model.mechanism import SignatureMechanism, TransportMechanism
from mailsec_accel.accelerator import Accelerator
from mailsec_accel.computing import question

__all__ = ["AcceleratedBackend"]


class AcceleratedBackend:
    """A `CryptoBackend`. Digests, and what wraps content keys, stay in software: a token that gave a key back as it came would give it away."""

    name = "accelerated"

    def __init__(
        self,
        software: CryptoBackend,
        accelerators: Sequence[Accelerator],
        *,
        random: Callable[[int], bytes],
        monotonic: Callable[[], float],
        confirm: int,
    ) -> None:
        self._software = software
        self._accelerators = tuple(accelerators)
        self._random = random
        self._monotonic = monotonic
        self._confirm = confirm

    def hash(self, digest: str) -> Hash:
        return self._software.hash(digest)

    def verify(self, public_key: bytes, mechanism: SignatureMechanism, signature: bytes, data: bytes) -> bool:
        """By the first token that is trusted with it and answers; else in software."""
        if any(one.trusted for one in self._accelerators):
            asked = question(public_key, mechanism, signature, data, self._software)
            if asked is not None:
                for one in self._accelerators:
                    if not one.trusts(asked.kind):
                        continue
                    answer = one.ask(asked, self._monotonic())
                    if answer is None:
                        continue
                    if answer and (asked.proven or not self._is_confirmed()):
                        return True
                    right = self._software.verify(public_key, mechanism, signature, data)
                    if right != answer:
                        one.mistaken(asked.kind)
                    return right
        return self._software.verify(public_key, mechanism, signature, data)

    def check_key(self, public_key: bytes, mechanism: SignatureMechanism) -> None:
        # A "no" was software's: so is the reason.
        self._software.check_key(public_key, mechanism)

    def _is_confirmed(self) -> bool:
        # Drawn, not counted: nobody knows which answers are looked at.
        return int.from_bytes(self._random(4), "big") % self._confirm == 0

    async def wrap(self, public_key: bytes, mechanism: TransportMechanism, content_key: bytes) -> bytes:
        return await self._software.wrap(public_key, mechanism, content_key)

    async def encapsulate(self, public_key: bytes) -> tuple[bytes, bytes]:
        return await self._software.encapsulate(public_key)
