"""The MIME frames of S/MIME: multipart/signed and application/pkcs7-mime around a message (RFC 1847 §2.1, RFC 8551 §3.2, §3.5).

The one invariant: outer header fields that say nothing of the content stay where they are, octet for octet; those that do (`Content-*`)
move, octet for octet, to the header of what is protected; MIME-Version stands once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache

from mailsec.mime.canonical import encoding_field
from mailsec.mime.transfer import base64_segments, encode_base64
from mailsec.model.message import Message
from mailsec.model.octets import Segments, Slice

__all__ = ["content_header", "find_boundary", "micalg", "multipart_signed", "outer_header", "pkcs7_mime", "with_content"]

_PREAMBLE = b"This is an S/MIME signed message\r\n\r\n"

# RFC 8551 §3.4.3.2 with RFC 8702 for SHAKE; what has no name there is "unknown", as it says.
_MICALG = {
    "md5": "md5",
    "sha1": "sha-1",
    "sha224": "sha-224",
    "sha256": "sha-256",
    "sha384": "sha-384",
    "sha512": "sha-512",
    "shake128": "shake128",
    "shake256": "shake256",
}


def micalg(digests: Iterable[str]) -> str:
    """The micalg parameter for the digests of the signers, each once (RFC 8551 §3.4.3.2: comma-separated)."""
    return ",".join(dict.fromkeys(_MICALG.get(digest, "unknown") for digest in digests))


def find_boundary(random: Callable[[int], bytes], occurs: Callable[[bytes], bool]) -> str:
    """Draw a boundary that does not occur in the content. A source that repeats itself cannot hold this up."""
    # RFC 2045 §6.7 (1): "=_" occurs in no quoted-printable body, and "_" in no base64 body.
    for attempt in range(1000):
        boundary = f"=_{random(16).hex()}" + (f"_{attempt}" if attempt else "")
        if not occurs(boundary.encode("ascii")):
            return boundary
    raise AssertionError("a thousand boundaries occur in the content")  # cannot be: 122 bits each, drawn after the content was fixed


def outer_header(message: Message, without: Collection[str] = ()) -> list[bytes | Slice]:
    """The fields that stay outside, those called `without` (lower case) left out too, their spans joined; MIME-Version stands once."""
    octets = message.octets
    pieces: list[bytes | Slice] = []
    at = 0
    version = False
    for field in message.fields:
        name = field.name
        if name == "mime-version":
            if not version:
                version = True
                continue
        elif not name.startswith("content-") and name not in without:
            continue
        if field.start > at:
            pieces.append(Slice(octets, at, field.start))
        at = field.end
    if at < message.header_end:
        pieces.append(Slice(octets, at, message.header_end))
    if pieces and message.header_end == message.body_start:
        # Nothing but header: its last line may lack the CRLF that what we add needs.
        last = pieces[-1]
        if isinstance(last, Slice) and bytes(octets.view(last.end - 2, last.end)) != b"\r\n":
            pieces.append(b"\r\n")
    if not version:
        pieces.append(b"MIME-Version: 1.0\r\n")
    return pieces


def content_header(message: Message, *, encoding: str | None = None, ascii_body: bool = True, parameter: str = "") -> bytes:
    """The header of what is protected, with its empty line: the message's own `Content-*` fields, in their order.

    `encoding` replaces Content-Transfer-Encoding. A message without Content-Type is labelled as what it is by default (RFC 2045 §5.2).
    `parameter` ('hp="clear"') is added to Content-Type, whose octets stay as they are before it.
    """
    added = f";\r\n {parameter}\r\n".encode("ascii") if parameter else b"\r\n"
    lines: list[bytes] = []
    labelled = False
    for field in message.fields:
        if not field.name.startswith("content-"):
            continue
        if field.name == "content-transfer-encoding" and encoding is not None:
            continue
        raw = message.raw(field)
        if field.name == "content-type" and not labelled:
            labelled = True
            if parameter:
                raw = raw.rstrip(b" \t\r\n;") + added
        lines.append(raw if raw.endswith(b"\r\n") else raw + b"\r\n")
    if not labelled:
        lines.insert(0, (b"Content-Type: text/plain; charset=us-ascii" if ascii_body else b"Content-Type: text/plain") + added)
    if encoding is not None:
        lines.append(encoding_field(encoding))
    lines.append(b"\r\n")
    return b"".join(lines)


def multipart_signed(entity: Segments, signature: bytes, *, micalg: str, boundary: str) -> Segments:
    """RFC 8551 §3.5.3: the entity with `entity` as its first part and the detached signature (DER) as its second."""
    mark = boundary.encode("ascii")
    head = (
        b'Content-Type: multipart/signed; protocol="application/pkcs7-signature";\r\n micalg='
        + (micalg if "," not in micalg else f'"{micalg}"').encode("ascii")
        + b'; boundary="'
        + mark
        + b'"\r\n\r\n'
        + _PREAMBLE
        + b"--"
        + mark
        + b"\r\n"
    )
    tail = (
        b"\r\n--" + mark + b"\r\nContent-Type: application/pkcs7-signature; name=smime.p7s\r\n"
        b"Content-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=smime.p7s\r\n"
        b"Content-Description: S/MIME Cryptographic Signature\r\n\r\n"
    )
    return Segments((head, *entity.pieces, tail + b"".join(encode_base64((signature,))) + b"--" + mark + b"--\r\n"))


def pkcs7_mime(cms: Segments, *, smime_type: str, name: str = "smime.p7m") -> Segments:
    """RFC 8551 §3.2: the entity with a CMS object (DER) as its whole content."""
    return Segments((_pkcs7_mime_header(smime_type, name), *base64_segments(cms).pieces))


@lru_cache(maxsize=16)
def _pkcs7_mime_header(smime_type: str, name: str) -> bytes:
    return (
        f"Content-Type: application/pkcs7-mime; smime-type={smime_type}; name={name}\r\n"
        "Content-Transfer-Encoding: base64\r\n"
        f"Content-Disposition: attachment; filename={name}\r\n"
        "Content-Description: S/MIME Cryptographic Message\r\n\r\n"
    ).encode("ascii")


def with_content(message: Message, entity: Segments, *, without: Collection[str] = (), instead: bytes = b"") -> Segments:
    """The message with `entity` (its header begins with Content-Type) in place of its content.

    The fields called `without` (lower case) do not stay outside; the lines `instead` stand there in their place.
    """
    return Segments((*outer_header(message, without), *((instead,) if instead else ()), *entity.pieces))
