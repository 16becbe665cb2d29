"""The server's side of SCRAM-SHA-256 and its -PLUS (RFC 5802, RFC 7677, RFC 9266): messages read and written, and a proof checked against a verifier.

The one invariant: a login succeeds only with the proof for this very exchange, and only where the client saw the mechanisms that we offered.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass

from mailsec.errors import ProtocolError
from mailsec.interfaces import ScramVerifier

__all__ = ["MECHANISM", "PLUS", "ClientFirst", "Exchange", "read_first"]

MECHANISM = "SCRAM-SHA-256"
PLUS = "SCRAM-SHA-256-PLUS"
_BINDING = "p=tls-exporter"

# RFC 5802 §7: gs2-header "n,,", "y,," or "p=NAME,," with an authorisation identity before the last comma; no extension that we must know.
_FIRST = re.compile(r"(n|y|p=[A-Za-z0-9.-]+),(?:a=([^,]*))?,(n=([^,]*),r=([!-+\--~]+)(?:,.*)?)\Z", re.DOTALL)
_FINAL = re.compile(r"(c=([A-Za-z0-9+/=]+),r=([!-+\--~]+)(?:,(?!p=)[A-Za-z]=[^,]*)*),p=([A-Za-z0-9+/=]+)\Z", re.DOTALL)
# RFC 5802 §5.1: "," and "=" in names are written =2C and =3D, and no other "=" stands there
_NAME = re.compile(r"(?:[^=,\0]|=2C|=3D)*\Z")
_LONGEST = 1024


@dataclass(frozen=True, slots=True)
class ClientFirst:
    """The client's first message."""

    header: str
    """The gs2-header, which the last message must repeat."""
    authorisation: str
    login: str
    bare: str
    nonce: str


def read_first(message: bytes, *, plus: bool = False, offered: bool = False) -> ClientFirst:
    """Read the client's first message. `plus`: the mechanism was -PLUS; `offered`: that one was offered, too. Raise ProtocolError."""
    text = _text(message)
    match = _FIRST.match(text)
    if match is None:
        raise ProtocolError("not a first message of SCRAM")
    # RFC 5802 §6: -PLUS binds by a kind that we know, the bare one not at all.
    if match[1] != _BINDING if plus else match[1].startswith("p"):
        raise ProtocolError("this channel binding was not offered")
    if match[1] == "y" and offered:
        # Attack: somebody between us has taken -PLUS out of what we offered. RFC 5802 §6: the login must fail.
        raise ProtocolError("the client was not shown that channel binding is offered")
    login, authorisation = _name(match[4]), _name(match[2] or "")
    if not login:
        raise ProtocolError("a SCRAM login without a name")
    return ClientFirst(text[: match.start(3)], authorisation, login, match[3], match[5])


class Exchange:
    """One login, from the client's first message on."""

    __slots__ = ("_bound", "_first", "_nonce", "_server_first", "_verifier")

    def __init__(self, first: ClientFirst, verifier: ScramVerifier, nonce: str, binding: bytes = b"") -> None:
        """`nonce`: random characters of ours (RFC 5802 §5.1: printable, no comma); `binding`: for -PLUS, what this TLS session exports."""
        # RFC 5802 §7: cbind-input = gs2-header [ cbind-data ]
        self._bound = first.header.encode("utf-8") + binding
        self._first = first
        self._verifier = verifier
        self._nonce = first.nonce + nonce
        salt = binascii.b2a_base64(verifier.salt, newline=False).decode("ascii")
        self._server_first = f"r={self._nonce},s={salt},i={verifier.iterations}"

    @property
    def challenge(self) -> bytes:
        """The server's first message."""
        return self._server_first.encode("ascii")

    def finish(self, message: bytes) -> bytes | None:
        """The server's last message, for a client's last one with the right proof; None for a wrong proof. Raise ProtocolError."""
        match = _FINAL.match(_text(message))
        if match is None:
            raise ProtocolError("not a last message of SCRAM")
        # Attack: a mechanism or a channel binding is taken out of what the client was offered; it says here what it saw then.
        if _octets(match[2]) != self._bound or match[3] != self._nonce:
            return None
        proof = _octets(match[4])
        signed = f"{self._first.bare},{self._server_first},{match[1]}".encode()
        verifier = self._verifier
        # RFC 5802 §3: ClientSignature := HMAC(StoredKey, AuthMessage); ClientProof := ClientKey XOR ClientSignature
        signature = hmac.digest(verifier.stored_key, signed, "sha256")
        key = bytes(a ^ b for a, b in zip(proof, signature, strict=True)) if len(proof) == len(signature) else b""
        fits = hmac.compare_digest(hashlib.sha256(key).digest(), verifier.stored_key)
        if not fits or verifier.identity is None:
            return None
        return b"v=" + binascii.b2a_base64(hmac.digest(verifier.server_key, signed, "sha256"), newline=False)


def _text(message: bytes) -> str:
    if len(message) > _LONGEST:
        raise ProtocolError("a SCRAM message that is too long")
    try:
        return message.decode("utf-8")
    except UnicodeDecodeError:
        raise ProtocolError("a SCRAM message that is not UTF-8") from None


def _name(text: str) -> str:
    if not _NAME.match(text):
        raise ProtocolError("not a name of SCRAM")
    return text.replace("=2C", ",").replace("=3D", "=")


def _octets(text: str) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise ProtocolError("not base64 in a SCRAM message") from None
