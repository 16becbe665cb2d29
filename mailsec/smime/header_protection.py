"""Header protection as it is written (RFC 9788 §5.2): the author's fields within the layer, and what of them stays outside.

The one invariant: Bcc, and what transports wrote, never passes inside; what the policy hides stands nowhere outside; and HP-Outer says
exactly what stands there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import format_datetime, parsedate_to_datetime
from types import MappingProxyType
from typing import Final, NamedTuple

from mailsec.errors import Refused
from mailsec.mime.addresses import mailboxes
from mailsec.mime.canonical import PROTECTED
from mailsec.mime.fields import content_type, encode_field, read_content_type
from mailsec.mime.index import index_message
from mailsec.mime.multipart import content_header
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import Message
from mailsec.model.octets import BytesOctets
from mailsec.smime.header import line_of
from mailsec.smime.prepared import HeaderInside

__all__ = ["POLICIES", "Protected", "protect_header"]

Policy = Callable[[str, str], str | None]
"""A header confidentiality policy (RFC 9788 §3.1): name in lower case and value to the value outside, None for no field."""

_OBSCURED: Final = "[...]"

# Written by transports, for transports, or for nobody else to see (RFC 5322 §3.6.3: Bcc; §3.6.6: Resent-Bcc among the Resent fields).
_NEVER_INSIDE: Final = frozenset(
    {
        "mime-version",
        "hp-outer",
        "bcc",
        "received",
        "return-path",
        "delivered-to",
        "x-original-to",
        "dkim-signature",
        "domainkey-signature",
        "received-spf",
        "authentication-results",
    }
)
_NEVER_INSIDE_BEGINNINGS: Final = ("content-", "resent-", "arc-", "x-mailsec-")


def _no_confidentiality(name: str, value: str) -> str | None:
    # RFC 9788 §3.2.3: everything stays outside, too.
    return value


def _baseline(name: str, value: str) -> str | None:
    # RFC 9788 §3.2.1: informational fields are hidden, none that a transport or a thread needs.
    if name == "subject":
        return _OBSCURED
    # Thread-Topic is the subject once more, as Outlook and Exchange write it.
    return None if name in ("keywords", "comments", "thread-topic") else value


def _shy(name: str, value: str) -> str | None:
    # RFC 9788 §3.2.2: besides, display names, and where on earth the author is.
    if name in ("from", "to", "cc"):
        found = mailboxes(value)
        addresses = ", ".join(map(str, found.addresses))
        return addresses if addresses and not found.problems and addresses.isascii() else value
    if name == "date":
        try:
            moment = parsedate_to_datetime(value)
        except (ValueError, TypeError, IndexError, OverflowError):
            return value
        return format_datetime(moment.astimezone(UTC) if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    return _baseline(name, value)


POLICIES: Mapping[str, Policy] = MappingProxyType({"sign": _no_confidentiality, "baseline": _baseline, "shy": _shy})
"""The policies by the words of `ProtectionPlan.header_protection`."""


class Protected(NamedTuple):
    """A header, protected."""

    inside: HeaderInside
    hidden: frozenset[str]
    """Names of fields that do not stay outside as they were."""
    instead: bytes
    """The fields that stand there in their place."""


def protect_header(message: Message, policy: str, *, encrypted: bool, limits: Limits = DEFAULT_LIMITS) -> Protected | None:
    """What stands inside and outside under a policy of `POLICIES`; None where the header stays as it is.

    What was signed or encrypted before has the header protection that its author gave it, and its octets are not ours to change. A label
    that cannot carry the mark is left alone where nothing was to be hidden; Refused where something was.
    """
    choose = POLICIES.get(policy)
    if choose is None:
        raise Refused(f"no header protection is called {policy!r}", hint=f'there are "no", {", ".join(POLICIES)}', stage="policy")
    if content_type(message.first("content-type") or "").name in PROTECTED:
        return None
    inside: list[bytes] = []
    outside: list[tuple[str, bytes]] = []
    hidden: set[str] = set()
    for field in message.fields:
        if not field.name or field.name in _NEVER_INSIDE or field.name.startswith(_NEVER_INSIDE_BEGINNINGS):
            continue
        line = line_of(message.octets, field)
        inside.append(line)
        if not encrypted:
            continue
        value = message.value(field)
        shown = choose(field.name, value)
        if shown == value:
            outside.append((field.name, line))
            continue
        hidden.add(field.name)
        if shown is not None:
            outside.append((field.name, encode_field(line[: line.index(b":")].decode("ascii").rstrip(), shown)))
    # RFC 9788 §2.2, §5.2.1: a reader finds out from HP-Outer what was confidential; a signature alone hides nothing.
    inside += [b"HP-Outer: " + line for _, line in outside]
    mark = f'hp="{"cipher" if encrypted else "clear"}"'
    fields = b"".join(inside)

    def header(*, encoding: str | None = None, ascii_body: bool = True) -> bytes:
        return fields + content_header(message, encoding=encoding, ascii_body=ascii_body, parameter=mark)

    if not _carries(header(), "cipher" if encrypted else "clear", limits):
        if not hidden:
            return None
        text = "the header cannot be protected: the message's Content-Type does not take the mark for it"
        raise Refused(text, hint="send it with a Content-Type that is well-formed", stage="canonical")
    instead = b"".join(line for name, line in outside if name in hidden)
    return Protected(header, frozenset(hidden | ({"hp-outer"} if encrypted else set())), instead)


def _carries(header: bytes, kind: str, limits: Limits) -> bool:
    values = index_message(BytesOctets(header), limits).values("content-type")
    if len(values) != 1:
        return False
    found, problems = read_content_type(values[0])
    return found.parameters.get("hp") == kind and not problems
