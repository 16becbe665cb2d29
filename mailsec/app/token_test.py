"""Using a key on a token for everything that mail needs of it, each result checked in software: `mailsec token selftest`.

Invariant: nothing stays on the token, and one operation that fails keeps no other from being tried.
"""

from __future__ import annotations

import os
import time
from collections.abc import Coroutine, Iterator
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from mailsec.errors import MailsecError
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend, load_public_key
from mailsec.keys.token_handle import Ask, TokenHandle
from mailsec.model.mechanism import AgreementMechanism, SignatureMechanism, TransportMechanism
from mailsec.model.tokens import TokenKey
from mailsec.tokens.module import Module

__all__ = ["try_key"]

_backend = SoftwareBackend()
_SIGNATURES = (
    SignatureMechanism("rsassa-pkcs1-v1_5", "sha256"),
    SignatureMechanism("rsassa-pss", "sha256", "sha256", 32),
    SignatureMechanism("ecdsa", "sha256"),
    SignatureMechanism("ed25519"),
    SignatureMechanism("ml-dsa-44"),
    SignatureMechanism("ml-dsa-65"),
    SignatureMechanism("ml-dsa-87"),
)
_TRANSPORTS = (
    TransportMechanism("rsaes-pkcs1-v1_5"),
    TransportMechanism("rsaes-oaep", "sha1", "sha1"),
    TransportMechanism("rsaes-oaep", "sha256", "sha256"),
)


def try_key(module: Module, key: TokenKey) -> Iterator[dict[str, Any]]:
    """A row for each operation that the key should do: `good` is None for what its token does not know."""

    name = key.label or key.id.hex()
    handle = TokenHandle(name, key, _asking(module), offered=set(module.token(key.token).offered()), random=os.urandom)
    for signature in _SIGNATURES:
        if handle.can(signature):
            yield _row(name, f"{signature.kind} {signature.digest}".strip(), _sign(handle, signature))
    for transport in _TRANSPORTS:
        if handle.can(transport):
            row = _row(name, f"{transport.kind} {transport.digest}".strip(), _unwrap(handle, transport))
            # A list of mechanisms does not tell the hashes of OAEP: that it does not know one is no failure.
            yield row if handle.can(transport) else row | {"good": None, "reason": "the token does not know it"}
    if handle.can(AgreementMechanism()):
        yield _row(name, "ecdh", _agree(handle))
    if key.key_type.startswith("ml-kem-"):
        yield _row(name, key.key_type, _decapsulate(handle))


def _asking(module: Module) -> Ask:
    async def ask(verb: str, key: TokenKey, operation: str, data: bytes) -> bytes:
        answer: bytes = getattr(module, verb)(key.token, key.id, operation, data)
        return answer

    return ask


def _row(key: str, operation: str, trial: Coroutine[Any, Any, bool]) -> dict[str, Any]:
    reason, good, began = "", False, time.perf_counter()
    try:
        good = run_now(trial)
        reason = "" if good else "the result is wrong"
    except MailsecError as error:
        reason = error.message
    return {"key": key, "operation": operation, "good": good, "milliseconds": (time.perf_counter() - began) * 1000, "reason": reason}


async def _sign(handle: TokenHandle, mechanism: SignatureMechanism) -> bool:
    data = os.urandom(64)
    return _backend.verify(handle.key.public_key, mechanism, await handle.sign(mechanism, data), data)


async def _unwrap(handle: TokenHandle, mechanism: TransportMechanism) -> bool:
    content_key = os.urandom(32)
    return await handle.unwrap(mechanism, await _backend.wrap(handle.key.public_key, mechanism, content_key)) == content_key


async def _agree(handle: TokenHandle) -> bool:
    own = load_public_key(handle.key.public_key)
    if not isinstance(own, ec.EllipticCurvePublicKey):
        return False
    peer = ec.generate_private_key(own.curve)
    spki = peer.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return await handle.agree(AgreementMechanism(), spki) == peer.exchange(ec.ECDH(), own)


async def _decapsulate(handle: TokenHandle) -> bool:
    ciphertext, secret = await _backend.encapsulate(handle.key.public_key)
    return await handle.decapsulate(ciphertext) == secret
