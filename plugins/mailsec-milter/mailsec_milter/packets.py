"""Packets of the milter protocol: four octets of length, one of command, data; and the strings in them, each ended by a NUL.

The one invariant: a length that nobody may send is known when its fourth octet has come, and nothing is kept for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mailsec.errors import RemoteProtocolError

__all__ = ["LARGEST_PACKET", "PacketReader", "frames", "number", "packet", "strings"]

LARGEST_PACKET = 512 * 1024
"""Octets of one packet: Postfix sends header fields of up to 100 KiB whole, and chunks of a body of 64 KiB."""
_LENGTH = 4


class PacketReader:
    """Octets in, as they come; packets out."""

    __slots__ = ("_buffer", "_largest")

    def __init__(self, largest: int = LARGEST_PACKET) -> None:
        self._buffer = bytearray()
        self._largest = largest

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        self._buffer += data

    def next(self) -> tuple[bytes, bytes] | None:
        """(command, data) of the next packet; None where it has not come wholly. Raise RemoteProtocolError for a length that nobody may send."""
        buffer = self._buffer
        if len(buffer) < _LENGTH:
            return None
        length = int.from_bytes(buffer[:_LENGTH], "big")
        if not 1 <= length <= self._largest:
            # Attack: 4 GiB are announced, so that a buffer is made for them.
            raise RemoteProtocolError(f"a packet of {length} octets", hint=f"a milter packet has 1 to {self._largest}")
        if len(buffer) < _LENGTH + length:
            return None
        command, data = bytes(buffer[_LENGTH : _LENGTH + 1]), bytes(buffer[_LENGTH + 1 : _LENGTH + length])
        del buffer[: _LENGTH + length]
        return command, data


def packet(command: bytes, data: bytes = b"") -> bytes:
    """One packet."""
    return (1 + len(data)).to_bytes(_LENGTH, "big") + command + data


def number(value: int) -> bytes:
    """Four octets, the highest first."""
    return value.to_bytes(4, "big")


def strings(data: bytes) -> list[bytes]:
    """The strings of a packet. Raise RemoteProtocolError where the last is not ended: it may have been cut off."""
    if not data:
        return []
    if not data.endswith(b"\0"):
        raise RemoteProtocolError("a string without its NUL")
    return data[:-1].split(b"\0")


def frames(command: bytes, pieces: Iterable[bytes | memoryview], most: int) -> Iterator[bytes]:
    """`pieces` in packets of `most` octets of data, the last one shorter."""
    held = bytearray()
    for piece in pieces:
        held += piece
        at = 0
        while len(held) - at >= most:
            yield packet(command, bytes(held[at : at + most]))
            at += most
        del held[:at]
    if held:
        yield packet(command, bytes(held))
