"""Postfix's policy delegation (SMTPD_POLICY_README): lines "name=value" and an empty one are answered by "action=…" and an empty line.

The one invariant: a client that does not speak so, or says more than the limit, is cut off; an answer is one line, whatever was asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from mailsec.errors import Reply
from mailsec.model.requests import Ask, Close, Deadline, Request, Send

__all__ = ["PolicyRequest", "PolicyServer"]

MOST: Final = 16_384
"""Octets of a request; Postfix sends one to two thousand. Attack: lines without end, for which memory would be kept."""
_LATER: Final = "DEFER_IF_PERMIT 4.3.0 try again later"


@dataclass(frozen=True, slots=True)
class PolicyRequest:
    """The question: what is to happen at this point of the SMTP session? The answer is an action of access(5), a `str`."""

    attributes: Mapping[str, str] = field(default_factory=dict)

    def get(self, name: str) -> str:
        """The value of an attribute; "" where it was not sent."""
        return self.attributes.get(name, "")


class PolicyServer:
    """A `ProtocolCore`. `idle` are the seconds after which a client that says nothing is sent away."""

    def __init__(self, idle: float = 600.0) -> None:
        self._idle = idle
        self._input = bytearray()

    def connection_made(self) -> Iterable[Request]:
        return (Deadline(self._idle),)

    def receive_data(self, data: bytes) -> Iterable[Request]:
        # An end of lines may be cut in two: the last octet that was looked at is looked at again.
        seen = max(0, len(self._input) - 1)
        self._input += data
        return self._next(seen)

    def answer(self, value: object) -> Iterable[Request]:
        """The action; a `Reply` is what an error became."""
        action = value if isinstance(value, str) else f"REJECT {value.text}" if isinstance(value, Reply) and not value.temporary else _LATER
        # Attack: an answer of more than one line would be a second attribute.
        line = "".join(sign if sign.isprintable() else " " for sign in action)
        return (Send(f"action={line}\n\n".encode()), Deadline(self._idle), *self._next(0))

    def _next(self, seen: int) -> tuple[Request, ...]:
        end = self._input.find(b"\n\n", seen)
        if end < 0:
            return () if len(self._input) <= MOST else (Close(),)
        text = bytes(self._input[:end])
        del self._input[: end + 2]
        attributes: dict[str, str] = {}
        for line in text.split(b"\n"):
            name, equals, value = line.partition(b"=")
            if not equals or not name or b"\0" in line or (key := name.decode("ascii", "replace")) in attributes:
                return (Close(),)
            attributes[key] = value.decode("utf-8", "surrogateescape")
        # smtpd_access_policy is the only request that there is; a client that asks something else is not Postfix.
        if len(text) > MOST or attributes.get("request") != "smtpd_access_policy":
            return (Close(),)
        return (Ask(PolicyRequest(attributes)),)

    def streamed(self) -> Iterable[Request]:
        return ()

    def tls_started(self, info: object) -> Iterable[Request]:
        return ()

    def deadline_passed(self) -> Iterable[Request]:
        return (Close(),)

    def connection_lost(self, reason: str) -> Iterable[Request]:
        return ()
