"""Every use of a private key, told: which key, for whom, for what, and whether it could be used (`record_event`: "key used", "key not used").

The one invariant: a key from a store is handed on in this wrapping only, so that nothing is signed or opened without a line about it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, TypeVar

from mailsec.errors import MailsecError
from mailsec.interfaces import KeyHandle
from mailsec.model.mechanism import AgreementMechanism, SignatureMechanism, TransportMechanism
from mailsec.model.verdict import Event

__all__ = ["Audit", "AuditedKey"]

T = TypeVar("T")


class Audit:
    """Where uses of keys are told."""

    def __init__(self, record: Callable[[Event], None], now: Callable[[], datetime], monotonic: Callable[[], float]) -> None:
        self.record = record
        self.now = now
        self.monotonic = monotonic

    def key(self, handle: KeyHandle, store: str, address: str) -> KeyHandle:
        """`handle` of the key store `store`, to be used for `address`."""
        return AuditedKey(self, handle, store, address)


class AuditedKey:
    """A `KeyHandle` that tells of its uses."""

    __slots__ = ("_address", "_audit", "_handle", "_store", "assigned", "bits", "certificate", "chain", "key_type", "name")

    def __init__(self, audit: Audit, handle: KeyHandle, store: str, address: str) -> None:
        self._audit = audit
        self._handle = handle
        self._store = store
        self._address = address
        self.name = handle.name
        self.key_type = handle.key_type
        self.bits = handle.bits
        self.certificate = handle.certificate
        self.chain = handle.chain
        self.assigned = handle.assigned

    def __getattr__(self, name: str) -> Any:
        # What a store's handles know besides (a plugin's own): only what KeyHandle names is used by mailsec.
        return getattr(self._handle, name)

    def can(self, mechanism: SignatureMechanism | TransportMechanism | AgreementMechanism) -> bool:
        return self._handle.can(mechanism)

    async def sign(self, mechanism: SignatureMechanism, data: bytes) -> bytes:
        return await self._told("sign", mechanism.kind, self._handle.sign(mechanism, data))

    async def unwrap(self, mechanism: TransportMechanism, wrapped: bytes) -> bytes:
        return await self._told("decrypt", mechanism.kind, self._handle.unwrap(mechanism, wrapped))

    async def agree(self, mechanism: AgreementMechanism, peer_public_key: bytes) -> bytes:
        return await self._told("decrypt", mechanism.kind, self._handle.agree(mechanism, peer_public_key))

    async def decapsulate(self, ciphertext: bytes) -> bytes:
        return await self._told("decrypt", "kem", self._handle.decapsulate(ciphertext))

    async def _told(self, usage: str, operation: str, use: Awaitable[T]) -> T:
        began = self._audit.monotonic()
        fields: dict[str, object] = {
            "key": self.name,
            "usage": usage,
            "address": self._address,
            "operation": operation,
            "store": self._store,
        }
        try:
            result = await use
        except MailsecError as error:
            self._audit.record(Event("key not used", self._audit.now(), fields | {"reason": error.message}))
            raise
        seconds = round(self._audit.monotonic() - began, 6)
        self._audit.record(Event("key used", self._audit.now(), fields | {"seconds": seconds}))
        return result
