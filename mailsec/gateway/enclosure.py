"""A message behind a notice: what could not be opened or believed, attached octet for octet, with the reason in front (RFC 2046 §5.2.1).

The one invariant: the original stands in it as it came; a copy that could not travel as a message (bare CR or LF, NUL) is attached as
octets in base64. The outer header shows whom the original names, and nothing else of it.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

from mailsec.mime.fields import encode_field
from mailsec.mime.transfer import base64_segments
from mailsec.model.message import Message
from mailsec.model.octets import Octets, Segments
from mailsec.model.verdict import Reason

__all__ = ["enclosed"]

_SHOWN = ("from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id")


def enclosed(
    octets: Octets, message: Message | None, reasons: Sequence[Reason], *, hostname: str, random: Callable[[int], bytes], loose: bool
) -> Segments:
    """A message of a notice with `reasons` and of `octets`. `message` is None where its header cannot be read; `loose`: see above."""
    header = _shown(message) if message is not None else b""
    if not header:
        header = encode_field("Subject", "[a message that cannot be shown]")
    boundary = f"mailsec-{random(18).hex()}"
    begin = f"\r\n--{boundary}\r\n"
    head = (
        f'MIME-Version: 1.0\r\nContent-Type: multipart/mixed;\r\n\tboundary="{boundary}"\r\n{begin}'
        "Content-Type: text/plain; charset=us-ascii\r\n\r\n"
    )
    kind = 'application/octet-stream;\r\n\tname="original.eml"' if loose else "message/rfc822"
    # RFC 2046 §5.2.1: message/rfc822 has no encoding but 7bit, 8bit or binary.
    encoding = "base64" if loose else "8bit"
    attached = (
        f"{begin}Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n"
        'Content-Disposition: attachment; filename="original.eml"\r\n\r\n'
    )
    content = base64_segments(Segments.of(octets)) if loose else Segments.of(octets)
    text = _notice(reasons, hostname)
    front = header + head.encode("ascii") + text.encode("ascii", "replace") + attached.encode("ascii")
    return Segments((front, *content.pieces, f"\r\n--{boundary}--\r\n".encode("ascii")))


def _shown(message: Message) -> bytes:
    """The fields that tell which message it is; one that stands twice is left out, since nobody knows which is meant."""
    shown = []
    for name in _SHOWN:
        found = message.all(name)
        if len(found) == 1:
            raw = message.raw(found[0])
            # A field that cannot travel is not repeated: it stands in the attached message.
            if raw.endswith(b"\r\n") and b"\0" not in raw and raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n"):
                shown.append(raw)
    return b"".join(shown)


def _notice(reasons: Sequence[Reason], hostname: str) -> str:
    lines = [f"This is the mail gateway at {hostname}.", "", "The message below is as it came. It could not be opened or believed:", ""]
    for reason in reasons or (Reason("not-accepted", "policy", "its signature is not accepted"),):
        lines += textwrap.wrap(reason.message, 72, initial_indent="  * ", subsequent_indent="    ") or ["  *"]
        if reason.hint:
            lines += textwrap.wrap(reason.hint, 72, initial_indent="    -> ", subsequent_indent="       ")
    lines += ["", "It can be retrieved again when that has changed."]
    return "".join("".join(c if " " <= c <= "~" else "?" for c in line) + "\r\n" for line in lines)
