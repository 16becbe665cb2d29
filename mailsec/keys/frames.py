"""What is said over the socket of a token host: frames of a length, a verb, a number and fields. Sans-IO, for both ends.

    length   4 octets, big-endian: of all that follows
    verb     1 octet
    number   4 octets: a reply has that of its question; 0 for what nobody asked
    fields   each with its length in 4 octets before it

Invariant: a frame over the limit, or fields that do not end where it does, is an error at once: nothing is guessed, nothing is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from enum import IntEnum
from struct import Struct
from typing import Any, Final, NamedTuple

from mailsec.errors import CryptoError, KeyUnavailable, MailsecError, RemoteProtocolError, TokenError, UsageError

__all__ = ["OPERATIONS", "Frame", "FrameReader", "Verb", "error_frame", "error_of", "frame", "json_field", "json_frame", "read_json"]

FRAME_OCTETS: Final = 8 * 1024 * 1024
"""Octets of one frame: what a token lists (thousands of certificates) is the largest."""

_HEAD = Struct(">IBI")
_LENGTH = Struct(">I")


class Verb(IntEnum):
    """What a frame is."""

    # to the host
    PING = 1
    SIGN = 2
    """token, key, operation, address, data"""
    DECRYPT = 3
    DERIVE = 4
    LIST = 5
    CONFIGURE = 6
    """JSON of PINs and assignments; from the supervisor only."""
    LOGIN = 7
    """token, PIN (empty: at the pin pad): somebody has typed it."""
    ENCRYPT = 8
    """token, public key, operation, data"""
    VERIFY = 9
    """token, public key, operation, data, signature; an empty field says no"""
    DECAPSULATE = 10
    # from the host
    RESULT = 128
    ERROR = 129
    CHANGED = 130
    """JSON: {"back": [labels]}: what tokens list, or their state, is no longer what it was."""
    LOGGED_IN = 131
    """token, PIN: to the supervisor, which keeps it for the next start."""


OPERATIONS: Final = {"sign": Verb.SIGN, "decrypt": Verb.DECRYPT, "derive": Verb.DERIVE, "decapsulate": Verb.DECAPSULATE}

_ERRORS: Final[Mapping[str, type[MailsecError]]] = {
    error.__name__: error for error in (KeyUnavailable, TokenError, CryptoError, UsageError)
}


class Frame(NamedTuple):
    """One frame, read."""

    verb: int
    number: int
    fields: tuple[bytes, ...]


def frame(verb: int, number: int, *fields: bytes) -> bytes:
    """One frame, written."""
    length = 5 + 4 * len(fields)
    pieces = [b""]
    pack = _LENGTH.pack
    for field in fields:
        length += len(field)
        pieces.append(pack(len(field)))
        pieces.append(field)
    pieces[0] = _HEAD.pack(length, verb, number)
    return b"".join(pieces)


def json_field(value: Any) -> bytes:
    """JSON as a field."""
    return json.dumps(value, separators=(",", ":")).encode()


def json_frame(verb: int, number: int, value: Any) -> bytes:
    """A frame with one field, which is JSON."""
    return frame(verb, number, json_field(value))


def read_json(one: Frame) -> dict[str, Any]:
    """The value of a frame whose only field is a JSON object; raise RemoteProtocolError for anything else."""
    try:
        value = json.loads(one.fields[0])
    except (ValueError, IndexError, RecursionError) as error:
        raise RemoteProtocolError("a frame without the JSON that belongs there") from error
    if not isinstance(value, dict):
        raise RemoteProtocolError("a frame whose JSON is no object")
    return value


def error_frame(number: int, error: MailsecError) -> bytes:
    """What a failed question is answered with. Errors that the other end does not know are told as CryptoError."""
    name = type(error).__name__
    if name not in _ERRORS:
        name = "CryptoError"
    return frame(Verb.ERROR, number, *(text.encode() for text in (name, error.message, error.hint, error.stage)))


def error_of(one: Frame) -> MailsecError:
    """The error in an ERROR frame."""
    texts = [field.decode("utf-8", "replace") for field in one.fields]
    if len(texts) != 4:
        return CryptoError("a token host failed, and does not say how")
    name, message, hint, stage = texts
    return _ERRORS.get(name, CryptoError)(message, hint=hint, stage=stage)


class FrameReader:
    """Collects octets into frames."""

    def __init__(self, most: int = FRAME_OCTETS) -> None:
        self._most = most
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are whole now. Raise RemoteProtocolError."""
        octets = self._rest + data if self._rest else data
        offset, end = 0, len(octets)
        try:
            while end - offset >= 9:
                length, verb, number = _HEAD.unpack_from(octets, offset)
                if length > self._most:
                    raise RemoteProtocolError(f"a frame of {length} octets")
                stop = offset + 4 + length
                if length < 5:
                    raise RemoteProtocolError("a frame that is shorter than its head")
                if stop > end:
                    break
                offset += 9
                fields = []
                while offset < stop:
                    if stop - offset < 4:
                        raise RemoteProtocolError("a frame whose fields do not end where it does")
                    (size,) = _LENGTH.unpack_from(octets, offset)
                    offset += 4
                    if size > stop - offset:
                        raise RemoteProtocolError("a field that is longer than its frame")
                    fields.append(octets[offset : offset + size])
                    offset += size
                yield Frame(verb, number, tuple(fields))
        finally:
            self._rest = octets[offset:]
