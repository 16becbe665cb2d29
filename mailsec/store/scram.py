"""SCRAM-SHA-256 verifiers: what is stored of a password (RFC 5802 §3, RFC 7677), and SASLprep (RFC 4013).

PLAIN is checked against the same values. The one invariant: checking costs the same whether the login exists, is disabled, or has
another password.
"""

from __future__ import annotations

import hashlib
import hmac
import stringprep
import unicodedata
from dataclasses import dataclass, field

from mailsec.errors import UsageError

__all__ = ["ITERATIONS", "Verifier", "dummy_verifier", "make_verifier", "prepare"]

# RFC 7677 §4: at least 4096 iterations, and more as machines get faster. These take about 50 ms here.
ITERATIONS = 200_000

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


@dataclass(frozen=True, slots=True)
class Verifier:
    """Salt, iteration count, StoredKey and ServerKey. They let nobody log in, but they let people guess: not in any `repr`."""

    salt: bytes = field(repr=False)
    iterations: int
    stored_key: bytes = field(repr=False)
    server_key: bytes = field(repr=False)

    def fits(self, password: bytes) -> bool:
        """True where `password` (UTF-8, as a client sent it) is the one that this was made from."""
        # RFC 5802 §3: StoredKey := H(ClientKey), ClientKey := HMAC(SaltedPassword, "Client Key")
        fits = hmac.compare_digest(_stored_key(_salted(password, self.salt, self.iterations)), self.stored_key)
        # RFC 4616 §2: a password holds no NUL. HMAC pads its key with them, so "x" and "x" with a NUL would be the same.
        return fits and b"\0" not in password


def make_verifier(password: bytes, salt: bytes, iterations: int = ITERATIONS) -> Verifier:
    """The verifier of a new password; UsageError for one with a NUL, which no client may send."""
    if b"\0" in password:
        raise UsageError("a password cannot hold a NUL", hint="choose another one")
    salted = _salted(password, salt, iterations)
    # RFC 5802 §3: ServerKey := HMAC(SaltedPassword, "Server Key")
    return Verifier(salt, iterations, _stored_key(salted), hmac.digest(salted, b"Server Key", "sha256"))


def dummy_verifier(secret: bytes, login: str, iterations: int = ITERATIONS) -> Verifier:
    """For a login that does not exist: fits nothing, costs the same, and has the same salt whenever it is asked for."""
    # Attack: finding out which logins exist, by the time of an answer or by the salt of a SCRAM exchange.
    salt = hmac.digest(secret, login.encode("utf-8", "surrogatepass"), "sha256")[:16]
    return Verifier(salt, iterations, b"\0" * 32, b"\0" * 32)


def prepare(text: str) -> str:
    """SASLprep (RFC 4013 §2). Text that it does not allow (say, an emoji, unknown to Unicode 3.2) stays as it is in NFC.

    So such a password still works with clients that send it unchanged, and it never equals one that SASLprep made.
    """
    if text.isascii() and text.isprintable():
        return text
    # RFC 4013 §2.1: other spaces become a space, characters commonly mapped to nothing vanish; §2.2: NFKC.
    mapped = "".join(" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    prepared = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    return prepared if prepared and _allowed(prepared) else unicodedata.normalize("NFC", text)


def _allowed(text: str) -> bool:
    # RFC 4013 §2.3: prohibited output; RFC 4013 §2.5: unassigned code points, not in stored strings.
    if any(stringprep.in_table_a1(c) or any(prohibited(c) for prohibited in _PROHIBITED) for c in text):
        return False
    # RFC 3454 §6: text from right to left holds nothing from left to right, and starts and ends so.
    if any(stringprep.in_table_d1(c) for c in text):
        return not any(stringprep.in_table_d2(c) for c in text) and stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return True


def _salted(password: bytes, salt: bytes, iterations: int) -> bytes:
    try:
        password = prepare(password.decode("utf-8")).encode("utf-8")
    except UnicodeDecodeError:
        pass  # octets of another charset: they are compared as they are
    # RFC 5802 §2.2: Hi() is PBKDF2 with HMAC as the pseudorandom function
    return hashlib.pbkdf2_hmac("sha256", password, salt, iterations)


def _stored_key(salted: bytes) -> bytes:
    return hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
