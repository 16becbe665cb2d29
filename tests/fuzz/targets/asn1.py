"""`asn1`: elements lie in order within their parents, and what is encoded anew as DER stays the same when it is read again."""

from __future__ import annotations

from collections.abc import Sequence

from mailsec.asn1.reader import OCTET_STRING, Element, read_element
from mailsec.asn1.stream import Walker
from mailsec.asn1.values import (
    bit_string_bits,
    read_bit_string,
    read_boolean,
    read_integer,
    read_octet_string,
    read_oid,
    read_string,
    read_time,
)
from mailsec.asn1.writer import to_der
from mailsec.errors import MailsecError
from mailsec.model.octets import BytesOctets

from ..world import make_world, vector_files, vector_members
from . import Target

__all__ = ["TARGET"]

_READERS = (read_boolean, read_integer, read_oid, read_time, read_bit_string, bit_string_bits, read_octet_string, read_string)


def _within(element: Element, depth: int = 0) -> None:
    assert element.start < element.content_start <= element.content_end <= element.end
    assert element.end - element.content_end in (0, 2), "only end-of-contents octets stand behind the contents"
    for reader in _READERS:
        try:
            reader(element)
        except MailsecError:
            continue
    if not element.constructed or depth >= 40:
        return
    at = element.content_start
    for child in element.children():
        assert child.start == at, "elements follow each other without a gap"
        at = child.end
        _within(child, depth + 1)
    assert at == element.content_end


def _same_to_the_walker(octets: bytes, element: Element) -> None:
    """What streams finds the same element, and the same string in it, as what holds all in memory."""
    assert Walker(BytesOctets(octets)).take().encoding == element.encoding
    if element.tag in (OCTET_STRING, OCTET_STRING | 0x20):
        try:
            whole = read_octet_string(element)
        except MailsecError:
            return
        span = Walker(BytesOctets(octets)).string()
        assert b"".join(map(bytes, span.blocks())) == whole and len(span) == len(whole)


def check(data: bytes) -> str:
    """Read one element and all within it, in memory and as a stream; encode it twice."""
    try:
        element = read_element(data)
        _within(element)
    except MailsecError:
        return "refused"
    _same_to_the_walker(data, element)
    try:
        encoded = to_der(element)
    except MailsecError:
        return "read"
    again = read_element(encoded)
    assert again.end == len(encoded) and to_der(again) == encoded, "DER of DER is the same"
    return "encoded"


def seeds() -> Sequence[bytes]:
    """Certificates and CMS objects, in DER; a string in BER."""
    world = make_world()
    return [world.ca.certificate, *world.cms, *world.encrypted, b"$\x80$\x80\x04\x01a\x00\x00$\x06\x04\x01b\x04\x01c\x00\x00"]


def others() -> Sequence[bytes]:
    """CMS objects and certificates of other programs, in DER and BER."""
    objects = vector_files("rfc4134-examples/*.bin", "rustcrypto-cms/*.bin", "nss-smime-interop/malformed/*", most=8_000)
    return [*objects, *vector_files("pkits/certs/*.crt")[::4], *vector_members("openssl-fuzz-corpora/x509.tar.gz", every=10)]


WORDS = (
    *(b"0\x80", b"\x00\x00", b"\x30\x84\x00\x00\x00\x02", b"\x24\x80", b"\xbf\x81\x7f"),
    *(b"\x1f\xff\xff", b"\x05\x00", b"\x84\xff\xff\xff\xff", b"\x06\x01*"),
)
TARGET = Target("asn1", check, seeds, others, WORDS, frozenset({"refused", "encoded"}), 600, 60)
