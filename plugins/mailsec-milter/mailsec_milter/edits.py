"""From the copy that leaves to what the MTA must change of the message that it has: fields of the header, and the body.

The MTA knows fields by name and number. The one invariant: whatever the copy is, the changes give it, field by field within each name, and
nothing of a body that stays is sent. Numbers are those of the header as the MTA showed it: whatever shifts them comes last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from mailsec.errors import LimitExceeded
from mailsec.mime.index import index_message
from mailsec.model.limits import Limits
from mailsec.model.message import Message
from mailsec.model.octets import BytesOctets, Segments
from mailsec_milter.questions import Change

__all__ = ["Field", "changes_between", "fields_of", "header_of", "new_body"]

# RFC 2045 §3: fields that say how the body is read; a message has one of each, and where they stand means nothing.
_OF_THE_BODY = (b"content-", b"mime-version")


class Field(NamedTuple):
    """A header field: its name as it is written, and the octets behind the colon, without the last CRLF, folded with LF."""

    name: bytes
    value: bytes

    @property
    def key(self) -> bytes:
        """What it is known by."""
        return self.name.strip(b" \t").lower()


def header_of(segments: Segments, limits: Limits) -> Message:
    """The header of a copy, indexed. Raise LimitExceeded where it has no end within the limit."""
    found = bytearray()
    for piece in segments:
        searched = max(0, len(found) - 3)
        found += piece
        if (end := found.find(b"\r\n\r\n", searched)) >= 0 or found.startswith(b"\r\n"):
            return index_message(BytesOctets(bytes(found[: max(end, -2) + 4])), limits)
        if len(found) > limits.header_octets + 4:
            raise LimitExceeded("header_octets", "the header of the copy is too long", stage="milter")
    return index_message(BytesOctets(bytes(found)), limits)


def fields_of(message: Message) -> list[Field]:
    """The fields of a message, as the protocol writes them."""
    found = []
    for one in message.fields:
        raw = message.raw(one)
        name, _, value = raw.partition(b":") if one.name else (b"", b"", raw)
        found.append(Field(name, value.removesuffix(b"\r\n").replace(b"\r\n", b"\n")))
    return found


def changes_between(shown: Sequence[Field], wanted: Sequence[Field]) -> list[Change]:
    """What makes a header of the fields `shown` one of the fields `wanted`.

    New fields in front of all that stay are put on top, in their order (RFC 8601 §4, RFC 6376 §3.5: trace is read from the top). Each other
    name is made what it is to be by itself.
    """
    stays = set(shown)
    top = 0
    while top < len(wanted) and wanted[top] not in stays and not wanted[top].key.startswith(_OF_THE_BODY):
        top += 1
    before, after = _by_name(shown), _by_name(wanted[top:])
    changes: list[Change] = []
    for name, fields in {**before, **after}.items():
        changes += _same_name(before.get(name, []), after.get(name, []), fields[0].name)
    changes += [Change("insert", one.name, one.value) for one in reversed(wanted[:top])]
    return changes


def _same_name(before: Sequence[Field], after: Sequence[Field], name: bytes) -> Iterator[Change]:
    """Fields of one name: those that go, from the last to the first, so that no number shifts under the next one."""
    if before == after:
        return
    kept = _kept(before, after)
    if kept is not None:
        for number in range(len(before), 0, -1):
            if number not in kept:
                yield Change("change", name, b"", number)
        return
    for number, (old, new) in reversed(list(enumerate(zip_longest(before, after), 1))):
        if new is None:
            yield Change("change", name, b"", number)
        elif old is not None and old != new:
            yield Change("change", new.name, new.value, number)
    for one in after[len(before) :]:
        yield Change("add", one.name, one.value)


def _kept(before: Sequence[Field], after: Sequence[Field]) -> frozenset[int] | None:
    """The numbers of the fields of `before` that `after` consists of; None where it has others."""
    numbers: list[int] = []
    wanted = iter(after)
    one = next(wanted, None)
    for number, field in enumerate(before, 1):
        if one is not None and field == one:
            numbers.append(number)
            one = next(wanted, None)
    return frozenset(numbers) if one is None else None


def _by_name(fields: Iterable[Field]) -> dict[bytes, list[Field]]:
    found: dict[bytes, list[Field]] = {}
    for one in fields:
        found.setdefault(one.key, []).append(one)
    return found


def new_body(message: Message, segments: Segments, header: Message) -> Iterator[bytes | memoryview] | None:
    """The body of the copy in pieces; None where it is the one that the MTA has."""
    if len(segments) - header.body_start == len(message.octets) - message.body_start and _equal(
        message.octets.blocks(message.body_start), _behind(segments, header.body_start)
    ):
        return None
    return _behind(segments, header.body_start)


def _behind(segments: Segments, start: int) -> Iterator[bytes | memoryview]:
    at = 0
    for piece in segments:
        if at + len(piece) > start:
            yield piece if at >= start else memoryview(piece)[start - at :]
        at += len(piece)


def _equal(one: Iterator[bytes | memoryview], other: Iterator[bytes | memoryview]) -> bool:
    """True where both give the same octets, in whatever pieces."""
    left: memoryview = memoryview(b"")
    right: memoryview = memoryview(b"")
    while True:
        if not left:
            left = memoryview(next(one, b""))
        if not right:
            right = memoryview(next(other, b""))
        size = min(len(left), len(right))
        if not size:
            return not left and not right
        if left[:size] != right[:size]:
            return False
        left, right = left[size:], right[size:]
