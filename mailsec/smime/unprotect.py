"""Peeling S/MIME layers off a message, from the outside in, and checking the integrity of each (RFC 8551 §3, RFC 5652 §5.6).

No word here speaks of trust. The one invariant: whatever the octets are, there is a result; what could not be read, was over a limit or
lies beside a layer is a reason in it, and never lends anything to what was not covered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from mailsec.algorithms.profiles import PROFILES, Profile
from mailsec.cms.signed import SignedData, read_content_type, read_signed_data
from mailsec.cms.verify import SignatureChecks, verify_signers
from mailsec.errors import LimitExceeded, MailsecError
from mailsec.interfaces import CryptoBackend, KeyHandle, Scratch, Work
from mailsec.mime.charsets import text_of
from mailsec.mime.index import field_value
from mailsec.mime.lines import to_crlf
from mailsec.mime.parts import read_entity, read_parts
from mailsec.mime.spans import OctetsSpan, span_of
from mailsec.mime.transfer import IDENTITY, decode
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import Message, Part
from mailsec.model.octets import BytesOctets, Octets
from mailsec.model.verdict import LayerResult, Reason, SignerResult, SmimeResult
from mailsec.smime.layers import FoundLayer, disagreements, find_layer, is_pkcs7_signature
from mailsec.smime.repair import explain_damage

__all__ = ["unprotect_message"]

_TYPES = {
    "1.2.840.113549.1.7.2": "signed-data",
    "1.2.840.113549.1.7.3": "enveloped-data",
    "1.2.840.113549.1.7.5": "digested-data",
    "1.2.840.113549.1.7.6": "encrypted-data",
    "1.2.840.113549.1.9.16.1.2": "authenticated-data",
    "1.2.840.113549.1.9.16.1.9": "compressed-data",
    "1.2.840.113549.1.9.16.1.23": "auth-enveloped-data",
}
"""contentType (RFC 5652 §14, RFC 5083 §2, RFC 3274 §1.1) to the words of `LayerResult.type`."""

_ENCRYPTED = frozenset({"enveloped-data", "auth-enveloped-data", "encrypted-data"})


class _Step(NamedTuple):
    """What one layer was, and the entity within it, if it was opened."""

    layer: LayerResult
    octets: Octets | None = None
    part: Part | None = None


async def unprotect_message(
    message: Message,
    *,
    keys: Sequence[KeyHandle] = (),
    backend: CryptoBackend,
    scratch: Callable[[], Scratch],
    work: Work,
    extra_certificates: Sequence[bytes] = (),
    profile: Profile = PROFILES["default"],
    limits: Limits = DEFAULT_LIMITS,
) -> SmimeResult:
    """Say what the message's S/MIME layers are, and whether their signatures are right over these octets.

    `keys` open encrypted layers; a layer that none of them opens has `opened` None. `extra_certificates` help to find a signer's
    certificate. The result may hold octets of a `scratch`; they live as long as it.
    """
    peeler = _Peeler(backend, scratch, extra_certificates, profile, limits)
    octets: Octets = message.octets
    layers: list[LayerResult] = []
    reasons: list[Reason] = []
    inner: tuple[Octets, Part] | None = None
    covers_all = True
    try:
        # Boundaries of a large message take a while to find.
        large = len(octets) > limits.bulk_threshold
        part = await work(len(octets), read_parts, message, limits) if large else read_parts(message, limits)
        while True:
            found = find_layer(part)
            if found is not None and layers and not found.alone:
                # Within a layer, one among other parts is an attachment: what is around it is the layer's, and so is the text.
                break
            if found is None:
                if not layers and _has_stray_signature(part):
                    reasons.append(
                        Reason(
                            "signature-without-content",
                            "parse",
                            "a detached signature stands in a message that is not multipart/signed",
                            "a list or filter may have rewritten the message; ask the sender to send it directly",
                            "RFC 8551 §3.5.3",
                        )
                    )
                break
            if len(layers) >= limits.cms_layers:
                raise LimitExceeded("cms_layers", f"more than {limits.cms_layers} S/MIME layers within each other", stage="parse")
            found = found._replace(ambiguous=tuple(dict.fromkeys((*found.ambiguous, *disagreements(octets, found)))))
            size = found.part.end - found.part.start
            if size <= limits.bulk_threshold:
                step = peeler.peel(octets, found)
            else:
                step = await work(size, peeler.peel, octets, found)
            covers_all = covers_all and found.covers_all and not found.ambiguous
            layers.append(replace(step.layer, covers_all=covers_all, reasons=(*step.layer.reasons, *_beside(found))))
            if step.octets is None or step.part is None:
                break
            octets, part = step.octets, step.part
            inner = (octets, part)
    except LimitExceeded as error:
        reasons.append(Reason(f"limit-{error.limit.replace('_', '-')}", "limits", error.message, error.hint))
    return _result(layers, reasons, inner, limits)


def _result(layers: list[LayerResult], reasons: list[Reason], inner: tuple[Octets, Part] | None, limits: Limits) -> SmimeResult:
    text: str | None = None
    content: Octets | None = None
    protected: dict[str, str] = {}
    if inner is not None:
        octets, part = inner
        content = span_of(octets, part.start, part.end, copied=limits.scratch_memory)
        shown = part
        # RFC 8551 §3.1: a whole message may be wrapped, so that its header is protected too.
        while shown.content_type.name in ("message/rfc822", "message/global") and shown.children:
            shown = shown.children[0]
        protected = _protected_fields(octets, part, shown)
        text = text_of(octets, shown)
    return SmimeResult(
        signed=any(layer.type == "signed-data" for layer in layers),
        encrypted=any(layer.type in _ENCRYPTED for layer in layers),
        layers=tuple(layers),
        content=content,
        protected_fields=protected,
        text=text,
        reasons=tuple(reasons),
    )


def _protected_fields(octets: Octets, part: Part, shown: Part) -> dict[str, str]:
    """Header fields that the layer covers: of a wrapped message, or of a part that says so (RFC 9788 §2.1, hp; its forerunner too)."""
    parameters = part.content_type.parameters
    if shown is part and parameters.get("hp") not in ("clear", "cipher") and parameters.get("protected-headers") != "v1":
        return {}
    fields: dict[str, str] = {}
    for field in shown.fields:
        if field.name and not field.name.startswith("content-"):
            fields.setdefault(field.name, field_value(octets, field))
    return fields


def _has_stray_signature(part: Part) -> bool:
    return is_pkcs7_signature(part) or (part.content_type.type == "multipart" and any(map(_has_stray_signature, part.children)))


def _beside(found: FoundLayer) -> tuple[Reason, ...]:
    reasons: list[Reason] = []
    if not found.covers_all:
        reasons.append(
            Reason(
                "partly-covered",
                "integrity",
                "something that readers show lies beside the protected part",
                "a list's footer, or an addition by somebody else: only the protected part is the signer's",
                "RFC 8551 §3.1",
            )
        )
    reasons += [
        Reason(
            "ambiguous-structure", "parse", f"readers may take this message apart differently: {problem}", "ask the sender to send it again"
        )
        for problem in found.ambiguous
    ]
    return tuple(reasons)


def _unreadable(error: MailsecError) -> Reason:
    if isinstance(error, LimitExceeded):
        return Reason(f"limit-{error.limit.replace('_', '-')}", "limits", error.message, error.hint)
    hint = error.hint or "the message was damaged on the way, or is no S/MIME message"
    return Reason("cms-unreadable", "parse", error.message, hint, "RFC 8551 §3.2")


class _Peeler:
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

    def peel(self, octets: Octets, found: FoundLayer) -> _Step:
        """Check the layer, and return what is within it."""
        return self.multipart_signed(octets, found.part) if found.detached else self.cms_part(octets, found.part)

    # -- RFC 1847 §2.1: multipart/signed ----------------------------------------------------------------------------------------

    def multipart_signed(self, octets: Octets, part: Part) -> _Step:
        if len(part.children) < 2:
            reason = Reason(
                "multipart-signed-incomplete", "parse", "a multipart/signed without content or signature", "it was cut off", "RFC 1847 §2.1"
            )
            return _Step(LayerResult("signed-data", detached=True, reasons=(reason,)))
        content, signature = part.children[:2]
        try:
            signed = read_signed_data(self.decoded(octets, signature), limits=self.limits)
            signers = self.verified(signed, octets, content)
        except MailsecError as error:
            return _Step(LayerResult("signed-data", detached=True, reasons=(_unreadable(error),)), octets, content)
        return _Step(self.signed_layer(signed, signers, detached=True), octets, content)

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

    def cms_part(self, octets: Octets, part: Part) -> _Step:
        claimed = part.content_type.parameters.get("smime-type", "").lower()
        try:
            cms = self.decoded(octets, part)
            kind = _TYPES.get(read_content_type(cms), "unknown")
            if kind == "signed-data":
                return self.opaque(cms, read_signed_data(cms, limits=self.limits))
        except MailsecError as error:
            return _Step(LayerResult("signed-data" if claimed == "signed-data" else "unreadable", reasons=(_unreadable(error),)))
        if kind in _ENCRYPTED:
            return _Step(
                LayerResult(
                    kind,
                    reasons=(Reason("not-opened", "policy", "the message is encrypted, and was not opened", "", "RFC 8551 §3.3"),),
                )
            )
        reason = Reason("type-not-read", "parse", f"S/MIME of the type {kind} is not read", "", "RFC 8551 §3.2")
        return _Step(LayerResult(kind, reasons=(reason,)))

    def opaque(self, cms: Octets, signed: SignedData) -> _Step:
        if signed.content is None and not signed.signer_infos:
            # RFC 8551 §3.8: certificates and CRLs only; nobody signs anything.
            return _Step(LayerResult("certs-only", certificates=signed.certificates, crls=signed.crls))
        signers = self.verify(signed, None)
        layer = self.signed_layer(signed, signers, detached=False)
        if signed.content is None:
            return _Step(layer)
        if signed.content.primitive:
            content: Octets = OctetsSpan(cms, signed.content.content_start, signed.content.end)
        else:
            content = self.kept(signed.content_blocks(), len(signed.content))
        content = self.readable(content)
        try:
            return _Step(layer, content, read_entity(content, 0, len(content), self.limits))
        except LimitExceeded as error:
            return _Step(replace(layer, reasons=(*layer.reasons, _unreadable(error))))

    def readable(self, content: Octets) -> Octets:
        """What was signed with LF line ends is shown with CRLF; the signature was checked over what was signed."""
        head = bytes(content.view(0, 8192))
        if b"\n" not in head or b"\r\n" in head:
            return content
        return self.kept(to_crlf(content), len(content))

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
