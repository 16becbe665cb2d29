"""Addresses in the log as pseudonyms: `[log] privacy`. Whoever can open the database finds a person's lines again (`mailsec log find`).

A pseudonym is "~" and sixteen characters: a keyed hash (HMAC-SHA-256) of the address as people are compared, under a key that is derived from
the database's data key. Without that key nobody can try addresses until one fits. The one invariant: what looks like an address is replaced
wherever it stands in a line, in texts of other hosts too; which fields may hold one is not a question of their names.

    pseudonym   the local part is replaced, the domain stays: ~k7f3q2mzt4wdaxyz@example.org; logins are replaced, too
    strict      the whole address is replaced; so are Message-IDs, addresses of hosts, and what a certificate calls its holder
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, MutableMapping
from typing import Any, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from mailsec.errors import AddressError
from mailsec.model.address import NULL_PATH, Address

__all__ = ["Pseudonyms", "log_key"]

_ADDRESS: Final = re.compile(r"""(?:"(?:[^"\\\s]|\\.|[ ])*"|[^\s<>()\[\]:;,"@]+)@(?:\[[^\]\s]*\]|[^\s<>()\[\]:;,"'@/\\]+)""")
_PERSONS: Final = frozenset({"user", "login", "name", "person", "identity"})
"""Fields whose whole value is a person, though it may look like no address."""
_TRACES: Final = frozenset({"message_id", "peer", "client_subject", "subject", "fingerprint", "client_fingerprint"})
"""Fields that lead to a person with some effort: replaced in "strict" only."""
_LENGTH: Final = 16
_KNOWN: Final = 4096


def log_key(data_key: bytes) -> bytes:
    """The key of pseudonyms: of no use for anything else that the data key protects."""
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=b"mailsec log pseudonyms").derive(data_key)


class Pseudonyms:
    """Replaces addresses; always the same one by the same pseudonym."""

    def __init__(self, key: bytes, *, strict: bool) -> None:
        """With an empty key (nobody has told it yet) all are replaced by "~"."""
        self._key = key
        self._strict = strict
        self._known: dict[str, str] = {}

    def of(self, text: str) -> str:
        """The pseudonym of an address, or of anything else that stands for a person."""
        known = self._known.get(text)
        if known is None:
            known = self._made(text)
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[text] = known
        return known

    def hide(self, event: MutableMapping[str, Any]) -> None:
        """Replace addresses in the fields of a line."""
        for name, value in event.items():
            if value and name != "event":
                event[name] = self._hidden(name, value)

    def _hidden(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            if value == NULL_PATH:
                return value
            if name in _PERSONS or (self._strict and name in _TRACES):
                return self.of(value)
            if name == "message_id":
                return value
            return self.in_text(value) if "@" in value else value
        if isinstance(value, list | tuple):
            return [self._hidden(name, item) for item in value]
        if isinstance(value, Mapping):
            return {key: self._hidden(str(key), item) for key, item in value.items()}
        return value if isinstance(value, int | float | bool | None) else self.in_text(str(value))

    def in_text(self, text: str) -> str:
        """The same for what stands in the middle of other words."""
        return _ADDRESS.sub(lambda match: self.of(match[0]), text)

    def _made(self, text: str) -> str:
        local, at, domain = text.rpartition("@")
        try:
            key, domain = Address.parse(text).key, "" if self._strict else "@" + Address.parse(text).domain_key
        except AddressError:
            # Beside a dot or an apostrophe of the sentence, or no address at all: as it stands, without case.
            key, domain = text.strip(".'").lower(), "" if self._strict or not (at and local) else "@" + domain
        if not self._key:
            return "~" + domain
        digest = hmac.new(self._key, key.encode("utf-8", "backslashreplace"), hashlib.sha256).digest()
        return "~" + base64.b32encode(digest)[:_LENGTH].decode("ascii").lower() + domain
