"""One S/MIME layer at a time: a signature checked, compressed content inflated, encrypted content read so that it can be opened
(RFC 1847 §2.1, RFC 8551 §3.2).

The one invariant: whatever the octets are, there is a step; what could not be read is a reason in it, and what is within a layer is never
more than what the layer covers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from mailsec.algorithms.profiles import Profile
from mailsec.cms.compressed import ID_COMPRESSED_DATA, decompress, read_compressed_data
from mailsec.cms.enveloped import ID_AUTH_ENVELOPED_DATA, ID_ENCRYPTED_DATA, ID_ENVELOPED_DATA, EnvelopedData, read_enveloped_data
from mailsec.cms.signed import ID_SIGNED_DATA, SignedData, read_content_type, read_signed_data
from mailsec.cms.verify import SignatureChecks, verify_signers
from mailsec.errors import LimitExceeded, MailsecError
from mailsec.interfaces import CryptoBackend, Scratch
from mailsec.mime.lines import to_crlf
from mailsec.mime.parts import read_entity
from mailsec.mime.spans import OctetsSpan
from mailsec.mime.transfer import IDENTITY, decode
from mailsec.model.limits import Limits
from mailsec.model.message import Part
from mailsec.model.octets import BytesOctets, Octets, Segments, Slice
from mailsec.model.verdict import LayerResult, Reason, SignerResult
from mailsec.smime.layers import FoundLayer
from mailsec.smime.repair import explain_damage

__all__ = ["ENCRYPTED", "REMOVED", "Peeler", "Step", "unreadable"]

_TYPES: Final = {
    ID_SIGNED_DATA: "signed-data",
    ID_ENVELOPED_DATA: "enveloped-data",
    "1.2.840.113549.1.7.5": "digested-data",
    ID_ENCRYPTED_DATA: "encrypted-data",
    "1.2.840.113549.1.9.16.1.2": "authenticated-data",
    ID_COMPRESSED_DATA: "compressed-data",
    ID_AUTH_ENVELOPED_DATA: "auth-enveloped-data",
}
"""contentType (RFC 5652 §14, RFC 5083 §2, RFC 3274 §1.1) to the words of `LayerResult.type`."""

ENCRYPTED: Final = frozenset({"enveloped-data", "auth-enveloped-data", "encrypted-data"})

REMOVED: Final = ENCRYPTED | {"compressed-data"}
"""Layers that the reader's copy does not have any more."""

# RFC 5322 §2.2.
_FIELD: Final = re.compile(rb"[!-9;-~]+[ \t]*:")


class Step(NamedTuple):
    """What one layer was, and the entity within it, if it was opened."""

    layer: LayerResult
    octets: Octets | None = None
    part: Part | None = None
    sealed: EnvelopedData | None = None
    """An encrypted layer that was read, and waits for a key."""


def unreadable(error: MailsecError) -> Reason:
    """The reason for a layer that cannot be read."""
    if isinstance(error, LimitExceeded):
        return Reason(f"limit-{error.limit.replace('_', '-')}", "limits", error.message, error.hint)
    hint = error.hint or "the message was damaged on the way, or is no S/MIME message"
    return Reason("cms-unreadable", "parse", error.message, hint, "RFC 8551 §3.2")


class Peeler:
    """Checks one layer at a time."""

    def __init__(
        self, backend: CryptoBackend, scratch: Callable[[], Scratch], extra: Sequence[bytes], profile: Profile, limits: Limits
    ) -> None:
        self.backend = backend
        self.scratch = scratch
        self.extra = extra
        self.profile = profile
        self.limits = limits
        self.checks = SignatureChecks(limits)

    def peel(self, octets: Octets, found: FoundLayer) -> Step:
        """Check the layer, and return what is within it."""
        return self.multipart_signed(octets, found.part) if found.detached else self.cms_part(octets, found.part)

    # -- RFC 1847 §2.1: multipart/signed ----------------------------------------------------------------------------------------

    def multipart_signed(self, octets: Octets, part: Part) -> Step:
        if len(part.children) < 2:
            reason = Reason(
                "multipart-signed-incomplete", "parse", "a multipart/signed without content or signature", "it was cut off", "RFC 1847 §2.1"
            )
            return Step(LayerResult("signed-data", detached=True, reasons=(reason,)))
        content, signature = part.children[:2]
        try:
            signed = read_signed_data(self.decoded(octets, signature), limits=self.limits)
            signers = self.verified(signed, octets, content)
        except MailsecError as error:
            return Step(LayerResult("signed-data", detached=True, reasons=(unreadable(error),)), octets, content)
        return Step(self.signed_layer(signed, signers, detached=True), octets, content)

    def verified(self, signed: SignedData, octets: Octets, content: Part) -> tuple[SignerResult, ...]:
        # RFC 1847 §2.1: what was signed is the first part, header and all, without the CRLF that belongs to the delimiter.
        signers = self.verify(signed, OctetsSpan(octets, content.start, content.end))
        broken = [index for index, signer in enumerate(signers) if not signer.intact and signer.certificate is not None]
        if not broken or not any(reason.code in ("digest-differs", "signature-wrong") for reason in signers[broken[0]].reasons):
            return signers
        first = broken[0]

        # One signer with its own certificate: the explanation may not cost as much again as a hostile bag of both.
        alone = replace(signed, signer_infos=(signed.signer_infos[first],), certificates=(signers[first].certificate or b"",))

        def is_intact(data: bytes) -> bool:
            return self.verify(alone, BytesOctets(data))[0].intact

        damage = explain_damage(octets, content, is_intact)
        if damage is None:
            return signers
        return (*signers[:first], replace(signers[first], reasons=(*signers[first].reasons, damage)), *signers[first + 1 :])

    def verify(self, signed: SignedData, content: Octets | None) -> tuple[SignerResult, ...]:
        return verify_signers(
            signed,
            None if content is None else content.blocks(),
            backend=self.backend,
            extra_certificates=self.extra,
            profile=self.profile,
            limits=self.limits,
            checks=self.checks,
        )

    @staticmethod
    def signed_layer(signed: SignedData, signers: tuple[SignerResult, ...], *, detached: bool) -> LayerResult:
        reasons: tuple[Reason, ...] = ()
        if not signers:
            reasons = (Reason("no-signers", "integrity", "a signed message without a signature", "", "RFC 5652 §5.1"),)
        return LayerResult(
            type="signed-data",
            detached=detached,
            signers=signers,
            certificates=signed.certificates,
            crls=signed.crls,
            reasons=reasons,
        )

    # -- RFC 8551 §3.2: application/pkcs7-mime ----------------------------------------------------------------------------------

    def cms_part(self, octets: Octets, part: Part) -> Step:
        kind = "signed-data" if part.content_type.parameters.get("smime-type", "").lower() == "signed-data" else "unreadable"
        try:
            cms = self.decoded(octets, part)
            kind = _TYPES.get(read_content_type(cms), "unknown")
            if kind == "signed-data":
                return self.opaque(cms, read_signed_data(cms, limits=self.limits))
            if kind in ENCRYPTED:
                sealed = read_enveloped_data(cms, limits=self.limits)
                return Step(LayerResult(kind, opened=False, algorithm=sealed.algorithm, cms=cms), sealed=sealed)
            if kind == "compressed-data":
                return self.compressed(cms)
        except MailsecError as error:
            return Step(LayerResult(kind, opened=False if kind in ENCRYPTED else None, reasons=(unreadable(error),)))
        reason = Reason("type-not-read", "parse", f"S/MIME of the type {kind} is not read", "", "RFC 8551 §3.2")
        return Step(LayerResult(kind, reasons=(reason,), cms=cms))

    def opaque(self, cms: Octets, signed: SignedData) -> Step:
        if signed.content is None and not signed.signer_infos:
            # RFC 8551 §3.8: certificates and CRLs only; nobody signs anything.
            return Step(LayerResult("certs-only", certificates=signed.certificates, crls=signed.crls))
        signers = self.verify(signed, None)
        layer = self.signed_layer(signed, signers, detached=False)
        if signed.content is None:
            return Step(layer)
        if signed.content.primitive:
            content: Octets = OctetsSpan(cms, signed.content.content_start, signed.content.end)
        else:
            content = self.kept(signed.content_blocks(), len(signed.content))
        return self.within(layer, content)

    def compressed(self, cms: Octets) -> Step:
        """RFC 8551 §3.6. A bomb costs no more than its limit."""
        layer = LayerResult("compressed-data", cms=cms)
        try:
            content = decompress(read_compressed_data(cms, limits=self.limits), self.scratch, limits=self.limits)
        except MailsecError as error:
            return Step(replace(layer, reasons=(unreadable(error),)))
        return self.within(layer, content)

    def within(self, layer: LayerResult, content: Octets) -> Step:
        """The entity that a layer holds; what has LF line ends is read with CRLF (a signature is checked over what was signed)."""
        head = bytes(content.view(0, 8192))
        if b"\n" in head and b"\r\n" not in head:
            content = self.kept(to_crlf(content), len(content))
        if layer.type in REMOVED and head and head[:1] not in b"\r\n" and not _FIELD.match(head):
            # RFC 8551 §3.1 asks for an entity; some encrypt bare text. It is shown as one, with nothing taken for a header.
            content = self.kept(Segments((b"\r\n", Slice(content, 0, len(content)))), len(content) + 2)
            reason = Reason("no-mime-header", "delivery", "what was encrypted has no header, and is shown as text", "", "RFC 8551 §3.1")
            layer = replace(layer, reasons=(*layer.reasons, reason))
        try:
            return Step(layer, content, read_entity(content, 0, len(content), self.limits))
        except LimitExceeded as error:
            return Step(replace(layer, reasons=(*layer.reasons, unreadable(error))))

    # -- octets -----------------------------------------------------------------------------------------------------------------

    def kept(self, blocks: Iterable[bytes | memoryview], size: int) -> Octets:
        """Write blocks to a scratch; small ones stay in memory."""
        if size <= self.limits.scratch_memory:
            return BytesOctets(b"".join(blocks))
        scratch = self.scratch()
        try:
            for block in blocks:
                scratch.append(block)
            return scratch.seal()
        except BaseException:
            scratch.discard()
            raise

    def decoded(self, octets: Octets, part: Part) -> Octets:
        """The CMS object of a part, its transfer encoding undone."""
        start, end = part.body_start, part.end
        encoding = part.encoding
        if encoding in IDENTITY:
            # Some senders forget the label. A DER or BER object begins with the tag of a SEQUENCE, its base64 with "M" (RFC 4648 §4).
            if bytes(octets.view(start, start + 1)) != b"M":
                return OctetsSpan(octets, start, end)
            encoding = "base64"
        return self.kept(decode(encoding, octets.blocks(start, end)), end - start)
