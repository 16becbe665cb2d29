"""Where the S/MIME layer of an entity is, and whether something readable lies beside it (RFC 8551 §3.2, §3.5, §3.9).

The one invariant: `covers_all` is True only where the layer is all that a reader of the entity can see.
"""

from __future__ import annotations

from typing import NamedTuple

from mailsec.model.message import Part

__all__ = ["FoundLayer", "find_layer", "is_pkcs7_mime", "is_pkcs7_signature"]

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
        return FoundLayer(part, True, len(part.children) <= 2, ambiguous)
    if is_pkcs7_mime(part):
        return FoundLayer(part, False, True, ambiguous)
    if part.content_type.type != "multipart":
        return None
    for child in part.children:
        found = find_layer(child)
        if found is not None:
            alone = len(part.children) == 1
            return found._replace(covers_all=found.covers_all and alone, ambiguous=ambiguous + found.ambiguous)
    return None
