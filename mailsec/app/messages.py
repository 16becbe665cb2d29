"""Messages in files, as commands read them: line ends made CRLF, CMS objects put into a message that carries them.

The forms of `--form`: "smime" (a message), "cms-der" and "cms-pem" (a bare ContentInfo, RFC 5652 §3), "auto" (whichever it is).
"""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from mailsec.app.files import read_file
from mailsec.asn1.reader import read_element
from mailsec.errors import Asn1Error, InputError
from mailsec.keys.files import pem_blocks
from mailsec.mime.index import index_message
from mailsec.mime.lines import to_crlf
from mailsec.model.message import Message
from mailsec.model.octets import BytesOctets, Octets
from mailsec.store.scratch import FileScratch

__all__ = ["FORMS", "Given", "at_once", "new_scratch", "random_octets", "read_cms", "read_message"]

T = TypeVar("T")

FORMS = ("auto", "smime", "cms-der", "cms-pem")


class Given(NamedTuple):
    """What a command was given."""

    message: Message
    bare: bool
    """True where it was a bare CMS object: there is no From then."""
    content: bytes | None = None
    """The detached content that was given with it."""


def read_message(path: str, form: str = "auto", content: str = "") -> Given:
    """The message in the file `path`; a bare CMS object becomes the body of one. Raise InputError for what is not of that form."""
    data = read_file(path)
    form = _form(data, form)
    if form == "smime":
        message = index_message(BytesOctets(_with_crlf(data)))
        if not message.fields:
            raise InputError(
                f"{path} is no message: it does not begin with header fields", hint="a CMS object? try --form cms-der", stage="parse"
            )
        return Given(message, bare=False)
    data = _bare(data, form, path)
    detached = read_file(content) if content else None
    return Given(index_message(BytesOctets(_carrier(data, detached))), bare=True, content=detached)


def read_cms(path: str, form: str = "auto") -> Octets:
    """The CMS object in the file `path`, or the outermost one of a message. Raise InputError where there is none."""
    from mailsec.mime.parts import read_parts
    from mailsec.mime.transfer import decode
    from mailsec.smime.layers import find_layer

    data = read_file(path)
    form = _form(data, form)
    if form != "smime":
        return BytesOctets(_bare(data, form, path))
    message = index_message(BytesOctets(_with_crlf(data)))
    found = find_layer(read_parts(message))
    if found is None or (found.detached and len(found.part.children) < 2):
        raise InputError(f"{path} holds no S/MIME layer", stage="parse")
    part = found.part.children[1] if found.detached else found.part
    return BytesOctets(b"".join(decode(part.encoding, message.octets.blocks(part.body_start, part.end))))


def _form(data: bytes, form: str) -> str:
    if form != "auto":
        return form
    if data[:1] == b"\x30" and data[1:2] >= b"\x80":
        return "cms-der"
    return "cms-pem" if data.lstrip().startswith(b"-----BEGIN ") else "smime"


def _bare(data: bytes, form: str, path: str) -> bytes:
    """The DER or BER of a bare CMS object."""
    if form == "cms-pem":
        blocks = [block.data for block in pem_blocks(data) if block.label in ("CMS", "PKCS7")]
        if not blocks:
            raise InputError(f"{path} holds no PEM block called CMS or PKCS7", stage="parse")
        data = blocks[0]
    try:
        read_element(data, 0, len(data))
    except Asn1Error as error:
        raise InputError(f"{path} is no CMS object: {error.message}", hint="is it a message? try --form smime", stage="parse") from error
    return data


def _with_crlf(data: bytes) -> bytes:
    """Files of Unix systems have LF; one whose first line has CRLF is left alone, since it may hold binary parts."""
    first = data.find(b"\n")
    if first > 0 and data[first - 1] == 0x0D:
        return data
    return to_crlf(BytesOctets(data)).join()


def _carrier(cms: bytes, content: bytes | None) -> bytes:
    """A message whose only layer is this CMS object."""
    encoded = base64.encodebytes(cms).replace(b"\n", b"\r\n")
    fields = b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded
    if content is None:
        return b"MIME-Version: 1.0\r\nContent-Type: application/pkcs7-mime; name=smime.p7m\r\n" + fields
    boundary = b"=_" + os.urandom(18).hex().encode()
    opening = (
        b'MIME-Version: 1.0\r\nContent-Type: multipart/signed; protocol="application/pkcs7-signature"; boundary="' + boundary + b'"\r\n\r\n'
    )
    signature = b"Content-Type: application/pkcs7-signature; name=smime.p7s\r\n" + fields
    return opening + b"--" + boundary + b"\r\n" + content + b"\r\n--" + boundary + b"\r\n" + signature + b"\r\n--" + boundary + b"--\r\n"


async def _done(value: T) -> T:
    return value


def at_once(cost: int, function: Callable[..., T], *args: Any) -> Awaitable[T]:
    """`interfaces.Work` for a command: here and now."""
    return _done(function(*args))


def new_scratch() -> FileScratch:
    """Scratch space of a command."""
    return FileScratch(tempfile.gettempdir())


def random_octets(number: int) -> bytes:
    """Fresh random octets."""
    return os.urandom(number)
