"""A token host's module from a process that may block: an `interfaces.TokenHost` over the host's socket, for commands and for databases.

It lists, logs in and does raw operations. What changes a token is refused: the host is for mail. The one invariant: every question ends,
by an answer or by the deadline.
"""

from __future__ import annotations

import base64
import socket
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from mailsec.errors import KeyUnavailable, RemoteProtocolError, TokenError, UsageError
from mailsec.keys.frames import OPERATIONS, Frame, FrameReader, Verb, error_of, frame, read_json
from mailsec.keys.reference import parse_reference
from mailsec.model.tokens import TokenCertificate, TokenInfo, TokenKey, TokenMechanism
from mailsec.model.trust import TrustFlags

__all__ = ["RemoteModule", "certificate_of", "key_of"]

_TIMEVAL = struct.Struct("ll")
_SECONDS = 30.0
_LOGIN_SECONDS = 120.0
"""Somebody may be typing at a pin pad."""


class RemoteModule:
    """The module of a token host that listens at `path`."""

    def __init__(self, name: str, path: str | Path, *, seconds: float = _SECONDS) -> None:
        self.name = name
        self._path = str(path)
        self._seconds = seconds
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self._reader = FrameReader()
        self._number = 0
        self._allowed = 0.0
        """Seconds that the system lets a call on the connection take."""

    def close(self) -> None:
        """Hang up."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # -- interfaces.TokenHost ------------------------------------------------------------------------------------------------------

    def tokens(self) -> Sequence[TokenInfo]:
        return tuple(
            TokenInfo(
                self.name,
                row["label"],
                row.get("serial", ""),
                row.get("manufacturer", ""),
                row.get("model", ""),
                login_required=row.get("login_required", True),
                logged_in=row.get("usable", False) and row.get("login_required", True),
                present=row.get("usable", False) or not row.get("problem", ""),
                pin_pad=row.get("pin_pad", False),
                problem=row.get("problem", ""),
            )
            for row in self.listing()
        )

    def mechanisms(self, token: str) -> Sequence[TokenMechanism]:
        return tuple(TokenMechanism(f"CKM_{name}") for name in self._row(token)["mechanisms"])

    def login(self, token: str, pin: bytes | None) -> None:
        """Try a PIN that somebody has typed, and lift the mark if it is right."""
        self._ask(_LOGIN_SECONDS, token, Verb.LOGIN, token.encode(), pin or b"")

    def certificates(self, token: str) -> Sequence[TokenCertificate]:
        row = self._row(token)
        return tuple(certificate_of(row["name"], one) for one in row["certificates"])

    def keys(self, token: str) -> Sequence[TokenKey]:
        row = self._row(token)
        return tuple(key_of(row["name"], one) for one in row["keys"])

    def sign(self, token: str, key_id: bytes, operation: str, data: bytes, address: str = "") -> bytes:
        """`address`: for whom; the host refuses a key that is not that one's."""
        return self._operate("sign", token, key_id, operation, address, data)

    def decrypt(self, token: str, key_id: bytes, operation: str, data: bytes, address: str = "") -> bytes:
        return self._operate("decrypt", token, key_id, operation, address, data)

    def derive(self, token: str, key_id: bytes, operation: str, point: bytes, address: str = "") -> bytes:
        return self._operate("derive", token, key_id, operation, address, point)

    def decapsulate(self, token: str, key_id: bytes, operation: str, ciphertext: bytes, address: str = "") -> bytes:
        return self._operate("decapsulate", token, key_id, operation, address, ciphertext)

    def encrypt(self, token: str, public_key: bytes, operation: str, data: bytes, *, seconds: float | None = None) -> bytes:
        fields = (token.encode(), public_key, operation.encode(), data)
        return self._ask(seconds or self._seconds, token, Verb.ENCRYPT, *fields).fields[0]

    def verify(self, token: str, public_key: bytes, operation: str, data: bytes, signature: bytes, *, seconds: float | None = None) -> bool:
        fields = (token.encode(), public_key, operation.encode(), data, signature)
        return self._ask(seconds or self._seconds, token, Verb.VERIFY, *fields).fields[0] == b"\1"

    def generate_key(self, token: str, kind: str, label: str) -> TokenKey:
        self._refuse()

    def import_certificate(self, token: str, der: bytes, label: str) -> TokenCertificate:
        self._refuse()

    def import_key(self, token: str, private_key: bytes, label: str) -> TokenKey:
        self._refuse()

    def set_pin(self, token: str, old: bytes | None, new: bytes | None) -> None:
        self._refuse()

    def set_trust(self, token: str, der: bytes, trust: TrustFlags) -> None:
        self._refuse()

    def rename(self, token: str, der: bytes, label: str) -> None:
        self._refuse()

    def delete_certificate(self, token: str, der: bytes) -> None:
        self._refuse()

    def delete_key(self, token: str, key_id: bytes) -> None:
        self._refuse()

    def export_key(self, token: str, key_id: bytes) -> bytes:
        raise TokenError("a token host gives no private key away", hint="do it with a command, as who may read the database's files")

    def revocation_lists(self, token: str) -> Sequence[bytes]:
        return ()

    def import_revocation_list(self, token: str, der: bytes, url: str = "") -> None:
        self._refuse()

    def revocation_list_url(self, token: str, der: bytes) -> str:
        return ""

    def delete_revocation_list(self, token: str, der: bytes) -> None:
        self._refuse()

    # -- over the socket -----------------------------------------------------------------------------------------------------------

    def listing(self) -> Sequence[dict[str, Any]]:
        """Rows of tokens, as the host has them."""
        rows = read_json(self._ask(self._seconds, self.name, Verb.LIST))["tokens"]
        if not isinstance(rows, list):
            raise RemoteProtocolError("a token host lists no tokens")
        return rows

    def _row(self, token: str) -> dict[str, Any]:
        rows = [row for row in self.listing() if _is_meant(token, row)]
        if not rows:
            raise KeyUnavailable(f"module {self.name!r} has no token {token!r}", stage=f"token:{token}")
        if len(rows) > 1:
            names = ", ".join(str(row["name"]) for row in rows)
            raise UsageError(f"module {self.name!r} has {len(rows)} tokens called {token!r}: which one is meant?", hint=f"one of {names}")
        return rows[0]

    def _operate(self, verb: str, token: str, key_id: bytes, operation: str, address: str, data: bytes) -> bytes:
        fields = (token.encode(), key_id, operation.encode(), address.encode(), data)
        return self._ask(self._seconds, token, OPERATIONS[verb], *fields).fields[0]

    def _refuse(self) -> NoReturn:
        raise TokenError("a token host changes nothing on its tokens", hint="do it with a command while mailsec does not hold the token")

    def _ask(self, seconds: float, token: str, verb: Verb, *fields: bytes) -> Frame:
        with self._lock:
            try:
                return self._answer(seconds, verb, fields)
            except BlockingIOError:
                self.close()
                raise KeyUnavailable(
                    f"the token host of {self.name!r} does not answer in time",
                    hint="its library may hang; it is started again then",
                    stage=f"token:{token}",
                ) from None
            except (OSError, RemoteProtocolError) as error:
                self.close()
                raise KeyUnavailable(
                    f"the token host of {self.name!r} does not answer: {error}", hint="is mailsec running?", stage=f"token:{token}"
                ) from error

    def _answer(self, seconds: float, verb: Verb, fields: Sequence[bytes]) -> Frame:
        deadline = time.monotonic() + seconds
        if self._connection is None:
            self._reader = FrameReader()
            self._connection, self._allowed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM), 0.0
            self._allow(self._connection, seconds)
            self._connection.connect(self._path)
        connection = self._connection
        self._number += 1
        if seconds != self._allowed:
            self._allow(connection, seconds)
        connection.sendall(frame(verb, self._number, *fields))
        first = True
        while (left := deadline - time.monotonic()) > 0:
            if not first:
                self._allow(connection, left)
            first = False
            data = connection.recv(262_144)
            if not data:
                break
            for one in list(self._reader.feed(data)):
                if one.number == self._number:
                    if one.verb == Verb.ERROR:
                        raise error_of(one)
                    return one
        raise TimeoutError("it has hung up, or the deadline is over")

    def _allow(self, connection: socket.socket, seconds: float) -> None:
        """By the system, and mostly once: Python's own time-outs ask the system twice for each call."""
        value = _TIMEVAL.pack(*divmod(max(int(seconds * 1_000_000), 1), 1_000_000))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, value)
        self._allowed = seconds


def _is_meant(token: str, row: dict[str, Any]) -> bool:
    if not token.lower().startswith("pkcs11:"):
        return token in ("", row["name"], row["label"])
    names = {name: str(row.get(name, "")) for name in ("label", "manufacturer", "serial", "model")}
    return parse_reference(token).matches_token(**names)


def certificate_of(token: str, row: dict[str, Any]) -> TokenCertificate:
    """A certificate of a host's list."""
    trust = TrustFlags.parse(row.get("trust", ",,"))
    der = base64.b64decode(row["der"])
    return TokenCertificate(token, row["label"], bytes.fromhex(row["id"]), der, row["has_key"], trust, row.get("problem", ""))


def key_of(token: str, row: dict[str, Any]) -> TokenKey:
    """A key of a host's list."""
    public_key = base64.b64decode(row["public_key"])
    return TokenKey(token, row["label"], bytes.fromhex(row["id"]), row["key_type"], row["bits"], public_key)
