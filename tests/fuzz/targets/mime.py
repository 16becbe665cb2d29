"""`mime`: no octet of a message is lost or moved by what reads and edits it, and every part lies within the one that holds it."""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.errors import LimitExceeded, MimeError
from mailsec.mime.addresses import mailboxes
from mailsec.mime.canonical import transport_proof
from mailsec.mime.charsets import text_of
from mailsec.mime.edit import with_fields
from mailsec.mime.fields import content_type, decode_words
from mailsec.mime.index import index_message
from mailsec.mime.lines import is_crlf, to_crlf
from mailsec.mime.parts import read_parts, walk
from mailsec.mime.results import forged_results
from mailsec.mime.transfer import decode
from mailsec.model.octets import BytesOctets

from ..mutations import WORDS
from ..world import MAIL, make_world, vector_files
from . import Target

__all__ = ["TARGET"]


def check(data: bytes) -> str:
    """Index, read the parts, edit, and make fit for transport."""
    try:
        return _check(data)
    except LimitExceeded:
        return "limit"


def _check(data: bytes) -> str:
    octets = BytesOctets(data)
    message = index_message(octets)
    assert b"".join(message.raw(field) for field in message.fields) == data[: message.header_end]
    assert with_fields(message).join() == data
    added = with_fields(message, add=[("X-Test", "1")]).join()
    assert added.endswith(data[message.header_end :]) and b"X-Test: 1\r\n" in added
    forged_results(message, "gw.example.org")
    for field in message.fields[:20]:
        value = message.value(field)
        mailboxes(value)
        content_type(value)
        decode_words(value)
    root = read_parts(message)
    for part in walk(root):
        assert part.start <= part.header_end <= part.body_start <= part.end <= len(data)
        at = part.body_start
        for child in part.children:
            assert at <= child.start <= child.end <= part.end, "parts in order, within the one that holds them"
            at = child.end
        text_of(octets, part)
    canonical = to_crlf(octets).join()
    assert is_crlf(BytesOctets(canonical)) and canonical.replace(b"\r", b"").replace(b"\n", b"") == data.replace(b"\r", b"").replace(
        b"\n", b""
    )
    return _proof(octets)


def _leaves(octets: BytesOctets) -> list[bytes | None]:
    """What each leaf decodes to; None where it does not."""
    found: list[bytes | None] = []
    for part in walk(read_parts(index_message(octets))):
        if part.children:
            continue
        try:
            found.append(b"".join(map(bytes, decode(part.encoding, octets.blocks(part.body_start, part.end)))))
        except MimeError:
            found.append(None)
    return found


def _proof(octets: BytesOctets) -> str:
    try:
        written = transport_proof(octets, read_parts(index_message(octets))).join()
    except MimeError:
        return "opaque"
    # Blanks at the end of lines may stand in a header, which cannot be encoded.
    assert written.isascii() and b"\0" not in written and is_crlf(BytesOctets(written)), "made fit for transport"
    assert max(map(len, written.split(b"\r\n"))) <= 998
    assert _leaves(BytesOctets(written)) == _leaves(octets), "what is made fit for transport says the same"
    return "proof"


def seeds() -> Sequence[bytes]:
    """Mail of ours, signed and not."""
    world = make_world()
    return [MAIL, *world.mails, *world.sealed_mails]


def others() -> Sequence[bytes]:
    """Mail of other collections."""
    return vector_files(
        "mime4j-testmsgs/**/*.msg", "stalwart-mime/**/*.eml", "mikel-mail-fixtures/**/*.eml", "jsmime-torture/*", most=6_000
    )


TARGET = Target("mime", check, seeds, others, WORDS, frozenset({"opaque", "proof"}), 5_000, 30)
