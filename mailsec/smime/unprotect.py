"""Peeling S/MIME layers off a message, from the outside in, and checking the integrity of each (RFC 8551 §3, RFC 5652 §5.6).

No word here speaks of trust. The one invariant: whatever the octets are, there is a result; what could not be read, was over a limit or
lies beside a layer is a reason in it, and never lends anything to what was not covered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mailsec.algorithms.ciphers import CIPHERS
from mailsec.algorithms.profiles import PROFILES, Profile
from mailsec.cms.decrypt import SecretKey, open_content
from mailsec.cms.signed import ID_DATA
from mailsec.errors import LimitExceeded
from mailsec.interfaces import CryptoBackend, KeyHandle, Scratch, Work
from mailsec.mime.parts import read_parts
from mailsec.mime.spans import HeadedOctets, span_of
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import Message, Part
from mailsec.model.octets import Octets, Segments, Slice
from mailsec.model.verdict import LayerResult, Reason, SmimeResult
from mailsec.smime.clear import clear_message
from mailsec.smime.efail import alteration
from mailsec.smime.header import CoveredHeader, covered_header, covered_text, header_differences
from mailsec.smime.layers import FoundLayer, disagreements, find_layer, is_pkcs7_signature
from mailsec.smime.peel import ENCRYPTED, REMOVED, Peeler, Step, unreadable

__all__ = ["unprotect_message"]


@dataclass(slots=True)
class _Found:
    """What was found on the way in."""

    layers: list[LayerResult]
    within: list[tuple[Octets, Part] | None]
    """For each layer the entity that it holds."""
    reasons: list[Reason]
    plaintext: Octets | None = None


@dataclass(slots=True)
class _Opener:
    """Opens encrypted layers; uses of keys count for the whole message."""

    peeler: Peeler
    keys: Sequence[KeyHandle]
    passwords: Sequence[bytes]
    secret_keys: Sequence[SecretKey]
    work: Work
    operations: int

    async def open(self, step: Step, found: _Found) -> Step:
        sealed, layer, peeler = step.sealed, step.layer, self.peeler
        if sealed is None:
            return step
        if not (self.keys or self.passwords or self.secret_keys):
            reason = Reason("not-opened", "policy", "the message is encrypted, and was not opened", "", "RFC 8551 §3.3")
            return Step(replace(layer, reasons=(*layer.reasons, reason)))
        if self.operations <= 0:
            raise LimitExceeded("private_key_operations", f"keys were used more than {peeler.limits.private_key_operations} times")
        opened = await open_content(
            sealed,
            self.keys,
            scratch=peeler.scratch,
            work=self.work,
            passwords=self.passwords,
            secret_keys=self.secret_keys,
            allow_legacy=peeler.profile.allow_legacy,
            operations=self.operations,
            limits=peeler.limits,
        )
        self.operations -= opened.attempts
        reasons = (*layer.reasons, *opened.reasons)
        layer = LayerResult(layer.type, opened=opened.content is not None, algorithm=layer.algorithm, reasons=reasons, cms=layer.cms)
        if opened.content is None:
            return Step(layer)
        found.plaintext = opened.content
        if sealed.content_type != ID_DATA:
            text = f"what was encrypted is no MIME entity, but of the type {sealed.content_type}"
            return Step(replace(layer, reasons=(*layer.reasons, Reason("content-not-mime", "parse", text, "", "RFC 8551 §3.3"))))
        size = len(opened.content)
        if size <= peeler.limits.bulk_threshold:
            return peeler.within(layer, opened.content)
        return await self.work(size, peeler.within, layer, opened.content)


async def unprotect_message(
    message: Message,
    *,
    keys: Sequence[KeyHandle] = (),
    backend: CryptoBackend,
    scratch: Callable[[], Scratch],
    work: Work,
    extra_certificates: Sequence[bytes] = (),
    passwords: Sequence[bytes] = (),
    secret_keys: Sequence[SecretKey] = (),
    bare: bool = False,
    profile: Profile = PROFILES["default"],
    limits: Limits = DEFAULT_LIMITS,
) -> SmimeResult:
    """Say what the message's S/MIME layers are, whether their signatures are right over these octets, and what was encrypted.

    `keys`, `passwords` and `secret_keys` open encrypted layers; a layer that none of them opens has `opened` False. `extra_certificates`
    help to find a signer's certificate. `bare` says that the message only carries a CMS object, whose content need be no MIME entity and
    is delivered to nobody. The result may hold octets of a `scratch`; they live as long as it. Raises KeyUnavailable
    (temporary) where a token is out, nothing else.
    """
    peeler = Peeler(backend, scratch, extra_certificates, profile, limits)
    opener = _Opener(peeler, keys, passwords, secret_keys, work, limits.private_key_operations)
    found = _Found([], [], [])
    octets: Octets = message.octets
    covers_all = True
    try:
        # Boundaries of a large message take a while to find.
        large = len(octets) > limits.bulk_threshold
        part = await work(len(octets), read_parts, message, limits) if large else read_parts(message, limits)
        while True:
            layer = find_layer(part)
            if layer is not None and not layer.alone and any(one.type == "signed-data" for one in found.layers):
                # Within what somebody signed, one among other parts is an attachment: what is around it is the layer's, and so is the text.
                break
            if layer is None:
                if not found.layers and _has_stray_signature(part):
                    found.reasons.append(_STRAY)
                break
            if len(found.layers) >= limits.cms_layers:
                raise LimitExceeded("cms_layers", f"more than {limits.cms_layers} S/MIME layers within each other", stage="parse")
            if ambiguous := (*layer.ambiguous, *disagreements(octets, layer)):
                layer = layer._replace(ambiguous=tuple(dict.fromkeys(ambiguous)))
            size = layer.part.end - layer.part.start
            step = peeler.peel(octets, layer) if size <= limits.bulk_threshold else await work(size, peeler.peel, octets, layer)
            if step.sealed is not None:
                step = await opener.open(step, found)
            covers_all = covers_all and layer.covers_all and not layer.ambiguous
            beside = _beside(layer)
            if beside or not covers_all:
                step = step._replace(layer=replace(step.layer, covers_all=covers_all, reasons=(*step.layer.reasons, *beside)))
            found.layers.append(step.layer)
            if step.octets is None or step.part is None:
                found.within.append(None)
                break
            octets, part = step.octets, step.part
            found.within.append((octets, part))
    except LimitExceeded as error:
        found.reasons.append(unreadable(error))
    if not found.layers:
        return SmimeResult(False, False, reasons=tuple(found.reasons))
    size = len(octets)
    if size <= limits.bulk_threshold:
        return _result(message, found, peeler, bare)
    return await work(size, _result, message, found, peeler, bare)


_STRAY = Reason(
    "signature-without-content",
    "parse",
    "a detached signature stands in a message that is not multipart/signed",
    "a list or filter may have rewritten the message; ask the sender to send it directly",
    "RFC 8551 §3.5.3",
)


def _result(message: Message, found: _Found, peeler: Peeler, bare: bool) -> SmimeResult:
    limits = peeler.limits
    layers, reasons = found.layers, found.reasons
    entities = [entity for entity in found.within if entity is not None]
    text: str | None = None
    content: Octets | None = None
    clear: Octets | None = None
    header = CoveredHeader()
    if entities:
        octets, part = entities[-1]
        content = span_of(octets, part.start, part.end, copied=limits.scratch_memory)
        header, shown = covered_header(octets, part)
        altered = None
        if not bare:
            reasons += header_differences(message, header, limits)
            altered = _alteration(found)
        if altered is None:
            text = covered_text(octets, shown, header)
            clear = None if bare else _clear(message, found, header, peeler)
        else:
            reasons.append(altered)
    return SmimeResult(
        signed=any(layer.type == "signed-data" for layer in layers),
        encrypted=any(layer.type in ENCRYPTED for layer in layers),
        layers=tuple(layers),
        content=content,
        clear=clear,
        plaintext=found.plaintext,
        protected_fields=header.values,
        text=text,
        reasons=tuple(reasons),
    )


def _alteration(found: _Found) -> Reason | None:
    """EFAIL: the reason not to hand on what came out of CBC, where it looks altered and no intact signature inside says otherwise."""
    for index, layer in enumerate(found.layers):
        entity = found.within[index]
        if entity is None or layer.type not in ENCRYPTED or CIPHERS[layer.algorithm].authenticated:
            continue
        if any(
            inner.covers_all and inner.signers and all(signer.intact for signer in inner.signers) for inner in found.layers[index + 1 :]
        ):
            continue
        sign = alteration(*entity)
        if sign:
            return Reason(
                "altered-cipher-text",
                "integrity",
                f"what was encrypted with {layer.algorithm} may have been altered on its way, and is not handed on: {sign}",
                "ask the sender to encrypt with AES-GCM, or to sign as well",
                "RFC 8551 §6",
            )
    return None


def _clear(message: Message, found: _Found, header: CoveredHeader, peeler: Peeler) -> Octets | None:
    """The reader's copy without the layers that were taken off; None where none was, or where something lies beside it."""
    last = -1
    for index, layer in enumerate(found.layers):
        if layer.type in REMOVED and found.within[index] is not None:
            last = index
    entity = found.within[last] if last >= 0 else None
    if entity is None:
        return None
    if not all(layer.covers_all for layer in found.layers[: last + 1]):
        # What was decrypted is never joined with what surrounded it: HTML around it could send it away (EFAIL, direct exfiltration).
        text = "something lies beside the encrypted part: it is delivered as it came, encrypted"
        found.reasons.append(Reason("not-released", "delivery", text, "open it with a program that shows parts apart"))
        return None
    segments, reasons = clear_message(message, *entity, header, peeler.limits)
    found.reasons.extend(reasons)
    *head, body = segments.pieces
    if isinstance(body, Slice) and len(body) > peeler.limits.scratch_memory:
        # What was decrypted is kept already, and comes through as it is: a second copy would cost as much as the decryption.
        return HeadedOctets(Segments(head).join(), body.octets, body.start, body.end)
    return peeler.kept(segments, len(segments))


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
