"""What the signature value is over: the fields of h=, and the DKIM-Signature field itself without that value (RFC 6376 §3.7, §5.4.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from mailsec.model.message import Message
from mailsec_dkim.canonical import relaxed_field, simple_field

__all__ = ["header_data", "signed_fields"]


def signed_fields(message: Message, names: Iterable[str]) -> Iterator[bytes]:
    """The fields that `names` mean, as they stand: the last of a name first, each once; one that is not there is nothing."""
    waiting: dict[str, list[bytes]] = {}
    for field in message.fields:
        if field.name:
            waiting.setdefault(field.name, []).append(message.raw(field))
    for name in names:
        if waiting.get(name):
            yield waiting[name].pop()


def header_data(message: Message, names: Iterable[str], own: bytes, *, relaxed: bool) -> bytes:
    """The octets that are signed; `own` is the DKIM-Signature field with the value of b= left out."""
    form: Callable[[bytes], bytes] = relaxed_field if relaxed else simple_field
    # RFC 6376 §3.7: the field itself comes last, without a line end
    return b"".join(map(form, signed_fields(message, names))) + form(own).removesuffix(b"\r\n")
