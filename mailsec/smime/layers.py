"""Where the S/MIME layer of an entity is, and whether something readable lies beside it (RFC 8551 §3.2, §3.5, §3.9).

The one invariant: `covers_all` is True only where the layer is all that a reader of the entity can see, and `ambiguous` is empty only
where readers agree on what the entity is: one who finds other parts in the same octets shows what nobody signed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mailsec.mime.fields import without_comments
from mailsec.mime.index import field_value
from mailsec.model.message import Part
from mailsec.model.octets import Octets

__all__ = ["FoundLayer", "disagreements", "find_layer", "is_pkcs7_mime", "is_pkcs7_signature"]

# RFC 8551 §3.2.1, §3.9: file names by which readers know S/MIME under application/octet-stream.
_MIME_SUFFIXES = (".p7m", ".p7c", ".p7z")
_SIGNATURE_SUFFIX = ".p7s"
_GENERIC = frozenset({"application/octet-stream", "application/binary", "application/x-pkcs7"})

# Labels that contradict each other: two readers see two messages, and only one of them is covered.
_AMBIGUOUS = frozenset(
    {
        "duplicate-content-type",
        "duplicate-content-transfer-encoding",
        "duplicate-parameter",
        "bad-parameter",
        "too-many-parameters",
        "no-boundary",
        "bad-boundary",
        "encoded-multipart",
    }
)


class FoundLayer(NamedTuple):
    """One layer: a multipart/signed, or a part that is a CMS object."""

    part: Part
    detached: bool
    covers_all: bool
    ambiguous: tuple[str, ...] = ()
    """Problems of labels on the way to the layer."""
    way: tuple[Part, ...] = ()
    """The entities from the outermost to the layer itself."""
    alone: bool = True
    """False where other parts stand beside it: then it may be an attachment, and what surrounds it is not its."""


def is_pkcs7_mime(part: Part) -> bool:
    """True for application/pkcs7-mime, its old name, and generic types with one of its file names."""
    name = part.content_type.name
    if name in ("application/pkcs7-mime", "application/x-pkcs7-mime"):
        return True
    return name in _GENERIC and part.filename.lower().endswith(_MIME_SUFFIXES)


def is_pkcs7_signature(part: Part) -> bool:
    """True for application/pkcs7-signature, its old name, and generic types with its file name."""
    name = part.content_type.name
    if name in ("application/pkcs7-signature", "application/x-pkcs7-signature"):
        return True
    return name in _GENERIC and part.filename.lower().endswith(_SIGNATURE_SUFFIX)


def _is_signed_multipart(part: Part) -> bool:
    if part.content_type.name != "multipart/signed":
        return False
    protocol = part.content_type.parameters.get("protocol", "").strip().lower()
    if protocol:
        return protocol in ("application/pkcs7-signature", "application/x-pkcs7-signature")
    return len(part.children) > 1 and is_pkcs7_signature(part.children[1])


def find_layer(part: Part) -> FoundLayer | None:
    """The first S/MIME layer within `part`, looked for through multiparts only: what a forwarded message holds is not ours to judge."""
    ambiguous = tuple(problem for problem in part.problems if problem in _AMBIGUOUS)
    if _is_signed_multipart(part):
        # RFC 1847 §2.1: exactly two parts; a third one is shown by readers and not signed.
        # Whatever else the second one is labelled as, readers may show: its octets are covered by nothing.
        shown = len(part.children) > 1 and part.children[1].content_type.type != "application"
        return FoundLayer(part, True, len(part.children) <= 2 and not shown, ambiguous, (part,))
    if is_pkcs7_mime(part):
        return FoundLayer(part, False, True, ambiguous, (part,))
    if part.content_type.type != "multipart":
        return None
    for child in part.children:
        alone = len(part.children) == 1
        if not alone and _is_signed_document(child):
            continue
        found = find_layer(child)
        if found is not None:
            return found._replace(
                covers_all=found.covers_all and alone,
                ambiguous=ambiguous + found.ambiguous,
                way=(part, *found.way),
                alone=found.alone and alone,
            )
    return None


def _is_signed_document(part: Part) -> bool:
    """True for a signed file among other parts, such as "contract.pdf.p7m": it is an attachment, and says nothing of the message."""
    # RFC 8551 §3.2.1: the file name of a message's own layer is "smime".
    return (
        is_pkcs7_mime(part) and part.disposition == "attachment" and not part.filename.lower().startswith("smime.") and bool(part.filename)
    )


_DELIMITER_LIKE = b"\r\n--"


def disagreements(octets: Octets, found: FoundLayer) -> Iterator[str]:
    """Say why another reader may find other parts in the entities on the way to the layer than we do."""
    for part in found.way:
        for index, field in enumerate(part.fields):
            if not field.name:
                # Some readers end the header there, and show the rest as text. The first line of an mbox file is harmless.
                if index or not bytes(octets.view(field.start, min(field.end, field.start + 6))).lstrip(b">").startswith(b"From "):
                    yield "malformed-header"
            elif field.name in ("content-type", "content-transfer-encoding"):
                # RFC 5322 §4.5: a blank before the colon hides the field from some readers.
                if field.value_start - field.start != len(field.name) + 1:
                    yield "blank-before-colon"
                # RFC 2045 §5.1: comments are allowed, and many readers take them for a part of the value: of a boundary, too.
                value = field_value(octets, field)
                if "(" in value and without_comments(value) != value:
                    yield "comment-in-content-type"
        if part.content_type.type == "multipart" and part.children and _has_other_delimiters(octets, part, found):
            yield "other-delimiters"


def _has_other_delimiters(octets: Octets, part: Part, found: FoundLayer) -> bool:
    """True where what is no part holds lines that a reader with another idea of the boundary takes for delimiters."""
    at = max(part.start, part.body_start - 2)
    for child in part.children:
        if _delimiters(octets, at, child.start) != 1:
            return True
        # Of an empty part, the CRLF before the delimiter is the one behind the delimiter before it.
        at = child.end - 2
    # A part of the layer that is no content: the signature. In base64 it has no hyphen.
    if (
        part is found.part
        and found.detached
        and len(part.children) > 1
        and _delimiters(octets, part.children[1].start, part.children[1].end)
    ):
        return True
    return _delimiters(octets, at, part.end) > 1


def _delimiters(octets: Octets, start: int, end: int) -> int:
    """How many lines within [start, end) begin like a delimiter, counted up to two."""
    count = 0
    while count < 2:
        start = octets.find(_DELIMITER_LIKE, start, end)
        if start < 0:
            break
        count += 1
        start += 2
    return count
