"""A key on a token as a `KeyHandle`: what is hashed and padded in software, and what the token is asked for.

The handle does not know where the token is: `ask` is a call into this process or a question to a token host. Invariants: whatever fails
while a content key is unwrapped gives one CryptoError (RFC 3218 §2.3.2), unless the token is out; and no signature leaves that the key's
public half does not verify.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from mailsec.errors import CryptoError, KeyUnavailable, TokenError
from mailsec.keys.mechanism import (
    Operation,
    agreement_operation,
    decapsulation_operation,
    digest_info,
    ecdsa_sequence,
    signature_operation,
    transport_operation,
    written,
)
from mailsec.keys.public_objects import facts_of, public_point
from mailsec.keys.raw_rsa import pad_signature, unpad_oaep
from mailsec.keys.software import SoftwareBackend, load_public_key
from mailsec.model.mechanism import AgreementMechanism, SignatureMechanism, TransportMechanism
from mailsec.model.tokens import TokenKey

__all__ = ["Ask", "TokenHandle"]

_backend = SoftwareBackend()
_hash = _backend.hash
_CIPHERTEXTS: Final = {"ml-kem-768": 1088, "ml-kem-1024": 1568}
"""FIPS 203 §8: octets of a ciphertext."""
_SECRET_OCTETS: Final = 32


class Ask(Protocol):
    """Has a token do one raw operation: `verb` is "sign", "decrypt", "derive" or "decapsulate".

    Errors: KeyUnavailable, CryptoError, and TokenError where it does not know the operation.
    """

    def __call__(self, verb: str, key: TokenKey, operation: str, data: bytes) -> Awaitable[bytes]: ...


class TokenHandle:
    """A key whose raw operations somebody else does."""

    __slots__ = ("_ask", "_offered", "_random", "_raw_rsa", "assigned", "bits", "certificate", "chain", "key", "key_type", "name")

    def __init__(
        self,
        name: str,
        key: TokenKey,
        ask: Ask,
        *,
        offered: set[str],
        random: Callable[[int], bytes],
        certificate: bytes | None = None,
        chain: tuple[bytes, ...] = (),
        assigned: tuple[str, ...] = (),
        raw_rsa: bool = False,
    ) -> None:
        """`offered` are names of the token's mechanisms, without CKM_: what it is then seen refusing is written there, for all its keys.

        `raw_rsa` allows padding in software.
        """
        self.name = name
        self.key = key
        self.key_type, self.bits = key.key_type, key.bits
        self.certificate = certificate
        self.chain = chain
        self.assigned = assigned
        self._ask = ask
        self._offered = offered
        self._random = random
        self._raw_rsa = raw_rsa

    def __repr__(self) -> str:
        return f"<key {self.name!r} on a token: {self.key_type}, {self.bits} bits>"

    def can(self, mechanism: SignatureMechanism | TransportMechanism | AgreementMechanism) -> bool:
        """Whether key and token fit the mechanism."""
        try:
            self._operation(mechanism)
        except CryptoError:
            return False
        return True

    def _operation(self, mechanism: SignatureMechanism | TransportMechanism | AgreementMechanism) -> Operation:
        key_type = self.key_type
        if isinstance(mechanism, SignatureMechanism):
            kind = mechanism.kind
            fits = (
                (key_type == "rsa" and kind in ("rsassa-pkcs1-v1_5", "rsassa-pss"))
                or (key_type == "rsa-pss" and kind == "rsassa-pss")
                or (key_type.startswith("ec:") and kind == "ecdsa")
                or kind == key_type
            )
            if fits:
                return signature_operation(mechanism, self._offered, raw_rsa=self._raw_rsa)
        elif isinstance(mechanism, TransportMechanism):
            if key_type == "rsa":
                return transport_operation(mechanism, self._offered, raw_rsa=self._raw_rsa)
        elif key_type.startswith("ec:") or key_type in ("x25519", "x448"):
            return agreement_operation(mechanism, self._offered)
        raise CryptoError(f"the key {self.name!r} ({key_type}) cannot do {mechanism.kind}")

    async def sign(self, mechanism: SignatureMechanism, data: bytes) -> bytes:
        operation = self._operation(mechanism)
        octets = data
        if operation.input != "octets":
            digest = data if mechanism.prehashed else _digest(mechanism.digest, data)
            octets = digest
            if operation.input in ("digest-info", "padded") and mechanism.kind == "rsassa-pkcs1-v1_5":
                octets = digest_info(mechanism.digest, digest)
            if operation.input == "padded":
                octets = pad_signature(mechanism, digest, octets, self.bits, _hash, self._random)
        result = await self._asked("sign", written(operation, mechanism), octets)
        signature = ecdsa_sequence(result) if operation.output == "concatenated" else result
        # Attack: a fault in the computation of RSA with CRT gives a wrong signature, and that gives the private key away. And a token that
        # signs with another key than was meant (two with one CKA_ID) would send mail that nobody can verify.
        if not _backend.verify(self.key.public_key, mechanism, signature, data):
            raise KeyUnavailable(
                f"token {self.key.token!r} made a signature that the key {self.name!r} does not verify",
                hint=f'mailsec token selftest "{self.key.token}" tries its keys',
                stage=f"token:{self.key.token}",
            )
        return signature

    async def _asked(self, verb: str, operation: str, data: bytes) -> bytes:
        try:
            return await self._ask(verb, self.key, operation, data)
        except TokenError as error:
            raise CryptoError(error.message, hint=error.hint, stage=error.stage) from error

    async def unwrap(self, mechanism: TransportMechanism, wrapped: bytes) -> bytes:
        operation = self._operation(mechanism)
        # A number longer than the modulus is no ciphertext; tokens answer to it in many ways.
        if len(wrapped) != (self.bits + 7) // 8:
            raise CryptoError("the content key cannot be unwrapped")
        try:
            result = await self._ask("decrypt", self.key, written(operation, mechanism), wrapped)
        except TokenError:
            # A list of mechanisms does not tell with which hashes: SoftHSM2 offers OAEP, and knows SHA-1 only.
            self._offered.add(f"-{operation.name}:{mechanism.digest}")
            operation = self._operation(mechanism)
            result = await self._asked("decrypt", written(operation, mechanism), wrapped)
        return unpad_oaep(mechanism, result, self.bits, _hash) if operation.output == "padded" else result

    async def agree(self, mechanism: AgreementMechanism, peer_public_key: bytes) -> bytes:
        operation = self._operation(mechanism)
        # Invalid-curve attack: not every token checks that the point lies on the curve, and reading the key does.
        load_public_key(peer_public_key)
        facts = facts_of(peer_public_key)
        if facts is None or facts.key_type != self.key_type:
            raise CryptoError(f"the key {self.name!r} ({self.key_type}) agrees on nothing with this key")
        secret = await self._asked("derive", written(operation), public_point(peer_public_key))
        # RFC 7748 §6.1: a peer's key of small order gives zeros.
        if not any(secret):
            raise CryptoError("no agreement with this key")
        return secret

    async def decapsulate(self, ciphertext: bytes) -> bytes:
        size = _CIPHERTEXTS.get(self.key_type)
        if size is None:
            raise CryptoError(f"the key {self.name!r} ({self.key_type}) decapsulates nothing")
        operation = decapsulation_operation(self._offered)
        # FIPS 203 §7.3: the length is checked before anything is computed; tokens answer to another one in many ways.
        if len(ciphertext) != size:
            raise CryptoError("the secret cannot be decapsulated")
        # Of a ciphertext that nobody made with this key ML-KEM gives a secret that nobody knows (implicit rejection): no key wrap opens with it.
        secret = await self._asked("decapsulate", written(operation), ciphertext)
        if len(secret) != _SECRET_OCTETS or not any(secret):
            raise CryptoError("the secret cannot be decapsulated")
        return secret


def _digest(name: str, data: bytes) -> bytes:
    running = _hash(name)
    running.update(data)
    return running.digest()
