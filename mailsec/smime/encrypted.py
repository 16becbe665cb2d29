"""Whether a message is encrypted, in the words of promise 2: the outermost entity, signature layers around it aside, parses as EnvelopedData
or AuthEnvelopedData with an accepted algorithm, and nothing readable lies beside it or in those layers.

Labels prove nothing here. The one invariant: in doubt the answer is no: what comes in is then encrypted once more, and what was produced
does not leave.
"""

from __future__ import annotations

import binascii
from typing import Final

from mailsec.algorithms.ciphers import CIPHERS, cipher_parameters
from mailsec.asn1 import writer
from mailsec.cms.enveloped import ID_AUTH_ENVELOPED_DATA, ID_ENVELOPED_DATA, EnvelopedData, read_enveloped_data
from mailsec.cms.signed import ID_SIGNED_DATA
from mailsec.errors import MailsecError
from mailsec.mime.fields import content_type
from mailsec.mime.index import index_message
from mailsec.mime.parts import read_entity, read_parts
from mailsec.mime.transfer import base64_length
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import Message, Part
from mailsec.model.octets import BytesOctets, Octets, Segments
from mailsec.model.verdict import SmimeResult
from mailsec.smime.layers import is_pkcs7_mime

__all__ = ["encrypted_for", "is_encrypted"]

_ENCRYPTED: Final = {"enveloped-data": ID_ENVELOPED_DATA, "auth-enveloped-data": ID_AUTH_ENVELOPED_DATA}
_NOT_OPENED: Final = "not-opened"

# What programs write in front of the first part, for readers that do not know multipart/signed: ours and OpenSSL's, Mozilla's, others'.
_PREAMBLES: Final = frozenset(
    {
        b"",
        b"This is an S/MIME signed message",
        b"This is a cryptographically signed message in MIME format.",
        b"This is a multi-part message in MIME format.",
    }
)

_HEAD: Final = 64 * 1024
_FOR_ONE: Final = 4 * 1024
"""Octets of a RecipientInfo at most, in base64: ML-KEM-1024 has 1.7 KiB."""


# -- what comes in ----------------------------------------------------------------------------------------------------------------


def is_encrypted(message: Message, result: SmimeResult, limits: Limits = DEFAULT_LIMITS) -> bool:
    """True where `message` came encrypted; `result` is what `unprotect_message` showed of it without any key."""
    layers = result.layers
    if not layers or len(layers) > 2 or result.reasons:
        return False
    sealed = layers[-1]
    if sealed.type not in _ENCRYPTED or sealed.cms is None or not all(layer.covers_all for layer in layers):
        return False
    if any(reason.code != _NOT_OPENED for reason in sealed.reasons):
        return False
    if sealed.algorithm not in CIPHERS or CIPHERS[sealed.algorithm].legacy or _lies_behind(sealed.cms):
        return False
    try:
        if not _is_for_somebody(read_enveloped_data(sealed.cms, limits=limits)):
            return False
        outermost = read_parts(message, limits)
        if len(layers) == 1:
            return is_pkcs7_mime(outermost)
        signature = layers[0]
        if signature.type != "signed-data" or signature.reasons or result.content is None:
            return False
        inside = read_entity(result.content, 0, len(result.content), limits)
        # A multipart around it could hold words before and behind its parts.
        if not is_pkcs7_mime(inside):
            return False
        return _is_bare(message.octets, outermost) if signature.detached else is_pkcs7_mime(outermost)
    except MailsecError:
        return False


def _is_for_somebody(enveloped: EnvelopedData) -> bool:
    """Attack: text under the tag of an encrypted content, which no cipher has seen and nobody has a key for."""
    # RFC 5652 §6.1: RecipientInfos holds one at least. §6.3: CBC is padded to whole blocks, an empty content to one.
    size, cbc = len(enveloped.content), not enveloped.authenticated
    return any(not one.problem for one in enveloped.recipients) and size > 0 and not (cbc and size % 16)


def _lies_behind(cms: Octets) -> bool:
    """True where octets follow the object whose length is told."""
    head = bytes(cms.view(0, 12))
    if len(head) < 2 or head[1] == 0x80:
        return len(head) < 2
    _, start, length = _header(head, 0)
    return start + length != len(cms)


def _is_bare(octets: Octets, part: Part) -> bool:
    """True for a multipart/signed that holds its two parts, and no word before, between or behind them."""
    if part.content_type.name != "multipart/signed" or len(part.children) != 2:
        return False
    delimiter = b"--" + part.content_type.parameters.get("boundary", "").encode("latin-1", "replace")
    first, second = part.children
    between = ((part.body_start, first.start), (first.end, second.start), (second.end, part.end))
    found = [bytes(octets.view(start, min(end, start + 1024))).strip() if end - start <= 1024 else b"-" for start, end in between]
    preamble = found[0].removesuffix(delimiter).strip()
    if preamble not in _PREAMBLES or found != [found[0], delimiter, delimiter + b"--"] or not found[0].endswith(delimiter):
        return False
    return all(field.name.startswith("content-") for child in part.children for field in child.fields)


# -- what was produced --------------------------------------------------------------------------------------------------------------


def encrypted_for(segments: Segments, limits: Limits = DEFAULT_LIMITS, *, most: int = 1) -> int:
    """For how many certificates a message of ours is encrypted; 0 where it is not.

    Its beginning is read, up to the encrypted content: what we write has definite lengths, so that they tell what follows. `most`: for how
    many certificates it may be.
    """
    wanted = _HEAD + _FOR_ONE * most
    head, size = [], 0
    for block in segments:
        head.append(bytes(block[: wanted - size]))
        size += len(head[-1])
        if size >= wanted:
            break
    try:
        return _entity(b"".join(head), len(segments), limits, depth=2)
    except (MailsecError, IndexError, ValueError, binascii.Error):
        return 0


def _entity(head: bytes, total: int | None, limits: Limits, *, depth: int) -> int:
    """The same of one entity, whose octets begin with `head`; `total` is its size, where it is known."""
    message = index_message(BytesOctets(head), limits)
    kinds = message.values("content-type")
    if len(kinds) != 1:
        return 0
    kind = content_type(kinds[0])
    body = head[message.body_start :]
    if kind.name == "multipart/signed" and depth:
        delimiter = b"--" + kind.parameters.get("boundary", "").encode("latin-1") + b"\r\n"
        preamble, _, parts = body.partition(delimiter)
        if preamble.strip() not in _PREAMBLES:
            return 0
        return _entity(parts.partition(b"\r\n" + delimiter)[0], None, limits, depth=depth - 1)
    encodings = message.values("content-transfer-encoding")
    if kind.name != "application/pkcs7-mime" or encodings != ["base64"]:
        return 0
    whole = body.replace(b"\r\n", b"")
    der = binascii.a2b_base64(whole[: len(whole) // 4 * 4], strict_mode=True)
    tag, start, length = _header(der, 0)
    if tag != 0x30 or (total is not None and base64_length(start + length) != total - message.body_start):
        return 0
    return _content_info(der, start, limits, depth)


def _content_info(der: bytes, at: int, limits: Limits, depth: int) -> int:
    kind, at = _take(der, at)
    for oid, read in ((ID_ENVELOPED_DATA, _enveloped), (ID_AUTH_ENVELOPED_DATA, _enveloped), (ID_SIGNED_DATA, None)):
        if kind == writer.oid(oid):
            at = _enter(der, _enter(der, at, 0xA0), 0x30)
            _, at = _take(der, at)  # version
            return _signed(der, at, limits, depth) if read is None else read(der, at)
    return 0


def _enveloped(der: bytes, at: int) -> int:
    # RFC 5652 §6.1, RFC 5083 §2.1: originatorInfo, recipientInfos, encryptedContentInfo.
    if der[at] == 0xA0:
        _, at = _take(der, at)
    infos, after = _take(der, at)
    _, start, _ = _header(infos, 0)
    count = 0
    while start < len(infos):
        _, start = _take(infos, start)
        count += 1
    at = _enter(der, after, 0x30)
    _, at = _take(der, at)
    algorithm, at = _take(der, at)
    tag, _, length = _header(der, at)
    if infos[0] != 0x31 or tag != 0x80 or not length or cipher_parameters(algorithm).cipher.legacy:
        return 0
    return count


def _signed(der: bytes, at: int, limits: Limits, depth: int) -> int:
    _, at = _take(der, at)  # digestAlgorithms
    at = _enter(der, at, 0x30)
    _, at = _take(der, at)  # eContentType
    tag, at, length = _header(der, _enter(der, at, 0xA0))
    return _entity(der[at : at + length], None, limits, depth=depth - 1) if depth and tag == 0x04 else 0


def _header(der: bytes, at: int) -> tuple[int, int, int]:
    """Tag, where the content starts, its length: of DER with tags of one octet."""
    tag, first = der[at], der[at + 1]
    if first < 0x80:
        return tag, at + 2, first
    count = first & 0x7F
    if not 1 <= count <= 8:
        raise ValueError("not a definite length")
    return tag, at + 2 + count, int.from_bytes(der[at + 2 : at + 2 + count], "big")


def _enter(der: bytes, at: int, tag: int) -> int:
    found, start, _ = _header(der, at)
    if found != tag:
        raise ValueError(f"tag 0x{found:02x} where 0x{tag:02x} is expected")
    return start


def _take(der: bytes, at: int) -> tuple[bytes, int]:
    _, start, length = _header(der, at)
    if start + length > len(der):
        raise ValueError("the beginning that was read ends within an element")
    return der[at : start + length], start + length
