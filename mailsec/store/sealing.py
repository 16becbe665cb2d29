"""The data key of a database: 32 random octets, wrapped by the database password; every other key is derived from it.

The password goes through scrypt (RFC 7914) into an AES-256-GCM key that wraps the data key; the parameters stand beside it. The
data key itself encrypts nothing: HKDF-SHA256 (RFC 5869) derives one key per purpose from it, so that no octets made for one
purpose can be used for another. A new password rewrites the wrapping only. The one invariant: neither the data key nor what is
derived from it appears in a `repr` or in an error.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from mailsec.errors import SchemaError, Tampered, WrongPassphrase

__all__ = ["SCRYPT_COST", "DataKey", "opens_without_password", "unwrap_data_key", "wrap_data_key"]

SCRYPT_COST: Final = 2**17
"""N of scrypt: 128 MiB and about 0.4 s for each guess at a password."""

_NO_PASSWORD_COST: Final = 2**10
_BLOCK_SIZE: Final = 8
# A database file is input: parameters that would take hours or all memory are refused before any work is done.
_COSTS: Final = range(2**10, 2**20 + 1)
_WRAPPING_LABEL: Final = b"mailsec data key 1"
_NONCE: Final = 12


class DataKey:
    """Keys for each purpose, derived from the data key. Safe to share between threads."""

    __slots__ = ("_ciphers", "_random", "_rows", "_secret", "_sums")

    def __init__(self, secret: bytes, random: Callable[[int], bytes]) -> None:
        if len(secret) != 32:
            raise WrongPassphrase("the data key must have 32 octets")
        self._secret = secret
        self._random = random
        self._rows = self.derive("row")
        self._sums = self.derive("sum")
        self._ciphers: dict[str, AESGCM] = {}

    def __repr__(self) -> str:
        return "DataKey(...)"

    @property
    def secret(self) -> bytes:
        """The data key itself: for the pipe to a worker, and for nothing else."""
        return self._secret

    def random(self, octets: int) -> bytes:
        """Random octets, from where the caller of `create` or `open` wanted them."""
        return self._random(octets)

    def derive(self, purpose: str) -> bytes:
        """32 octets that are used for `purpose` only."""
        # RFC 5869 §3.3: the secret is uniformly random already, so the extract step is left out.
        return HKDFExpand(SHA256(), 32, b"mailsec database 1: " + purpose.encode()).derive(self._secret)

    def mac(self, octets: bytes) -> bytes:
        """The MAC of one row."""
        return hmac.digest(self._rows, octets, "sha256")

    def summand(self, mac: bytes) -> int:
        """What a row with this MAC adds to the sum of its table; nobody without the data key can know it."""
        return int.from_bytes(hmac.digest(self._sums, mac, "sha256"), "big")

    def _cipher(self, purpose: str) -> AESGCM:
        cipher = self._ciphers.get(purpose)
        if cipher is None:
            cipher = self._ciphers[purpose] = AESGCM(self.derive("seal " + purpose))
        return cipher

    def seal(self, purpose: str, plaintext: bytes, associated: bytes) -> bytes:
        """Encrypt for `purpose`; `associated` says where the result belongs, and it opens nowhere else."""
        nonce = self._random(_NONCE)
        return nonce + self._cipher(purpose).encrypt(nonce, plaintext, associated)

    def unseal(self, purpose: str, sealed: bytes, associated: bytes) -> bytes:
        """The plaintext; raise Tampered where this was not sealed with this key, for this purpose and place."""
        try:
            return self._cipher(purpose).decrypt(sealed[:_NONCE], sealed[_NONCE:], associated)
        except (InvalidTag, ValueError):
            raise Tampered(f"a sealed value ({purpose}) was changed or moved", hint="restore the database from a backup") from None


def wrap_data_key(secret: bytes, password: bytes, random: Callable[[int], bytes], *, cost: int = SCRYPT_COST) -> str:
    """What is stored of the data key, as JSON. An empty password protects nothing, so it costs nothing either."""
    n = cost if password else _NO_PASSWORD_COST
    salt, nonce = random(16), random(_NONCE)
    facts = {"version": 1, "kdf": "scrypt", "n": n, "r": _BLOCK_SIZE, "p": 1, "salt": salt.hex(), "empty": not password}
    wrapping = AESGCM(_stretch(password, salt, n))
    wrapped = wrapping.encrypt(nonce, secret, _WRAPPING_LABEL)
    return json.dumps(facts | {"nonce": nonce.hex(), "wrapped": wrapped.hex()})


def unwrap_data_key(stored: str, password: bytes) -> bytes:
    """The data key; raise WrongPassphrase, or SchemaError where `stored` is nothing of ours."""
    try:
        facts = json.loads(stored)
        n, r, p = facts["n"], facts["r"], facts["p"]
        salt, nonce, wrapped = (bytes.fromhex(facts[name]) for name in ("salt", "nonce", "wrapped"))
        known = facts["version"] == 1 and facts["kdf"] == "scrypt" and r == _BLOCK_SIZE and p == 1
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SchemaError("the wrapped data key cannot be read", hint="restore the database from a backup") from None
    # Attack: a planted file with N = 2^40 would take all memory of whoever opens it.
    if not known or not isinstance(n, int) or n not in _COSTS or n & (n - 1) or len(salt) > 1024 or len(nonce) != _NONCE:
        raise SchemaError("the data key is wrapped in a way that this mailsec does not know", hint="use the mailsec that wrote it")
    try:
        secret = AESGCM(_stretch(password, salt, n)).decrypt(nonce, wrapped, _WRAPPING_LABEL)
    except InvalidTag:
        raise WrongPassphrase(
            "the database password is wrong", hint="the password is the one given to `mailsec db init`, or last to `mailsec db password`"
        ) from None
    if len(secret) != 32:
        raise SchemaError("the wrapped data key has the wrong length", hint="restore the database from a backup")
    return secret


def opens_without_password(stored: str) -> bool:
    """True where the database says that it has an empty password."""
    try:
        return json.loads(stored)["empty"] is True
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _stretch(password: bytes, salt: bytes, n: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=n, r=_BLOCK_SIZE, p=1).derive(password)
