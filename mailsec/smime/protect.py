"""Signing a message: detached (RFC 8551 §3.5.3) or opaque (§3.5.2), over its transport-proof form (§3.1); and encrypting it (§3.3, §3.4).

Awaits first, octets later: the content is read once to be checked and hashed, keys are awaited, and the octets are produced by whoever
writes them. The one invariant: what is produced holds exactly the octets that were hashed; where no form survives transport, the
signature is opaque, never over something else; and nothing of the content stands outside of what is encrypted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from mailsec.algorithms.ciphers import CIPHERS
from mailsec.algorithms.profiles import PROFILES, Profile
from mailsec.cms.encrypt import encrypt_content
from mailsec.cms.sign import detached, opaque, sign_content, signer_for
from mailsec.errors import CryptoError, KeyUnavailable, MimeError, Refused
from mailsec.interfaces import CryptoBackend, Hash, KeyHandle, Work
from mailsec.mime.canonical import LineCheck, labels_are_proof, span_is_proof, transport_proof_body
from mailsec.mime.multipart import content_header, find_boundary, micalg, multipart_signed, pkcs7_mime, with_content
from mailsec.mime.parts import read_parts
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import Message
from mailsec.model.octets import BytesOctets, Segments, Slice
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.smime.ciphers_for import choose

__all__ = ["protect_message"]


class _Prepared(NamedTuple):
    """What is signed, and its digests by name."""

    entity: Segments
    digests: dict[str, bytes]
    boundary: str
    """One that does not occur in the entity."""
    detachable: bool
    """False where it must be wrapped to survive."""


async def protect_message(
    message: Message,
    plan: ProtectionPlan,
    *,
    signers: Sequence[KeyHandle],
    recipients: Sequence[EncryptionRecipient] = (),
    backend: CryptoBackend,
    random: Callable[[int], bytes],
    work: Work,
    at: datetime,
    limits: Limits = DEFAULT_LIMITS,
) -> Segments:
    """Return the message as `plan` wants it: signed by all of `signers`, then encrypted to all of `recipients`, in one copy for them.

    Each recipient can see who the others are: whoever must stay hidden (Bcc) gets a call of its own. Raises Refused where the plan is a
    refusal or asks for what cannot be done, KeyUnavailable (temporary) and CryptoError from the keys, LimitExceeded for a message over the
    limits. It never returns less protection than the plan asks for (promise 2).
    """
    if plan.refusal is not None:
        raise Refused(plan.refusal.message, hint=plan.refusal.hint, stage=plan.refusal.stage)
    if not plan.sign and not plan.encrypt:
        return Segments.of(message.octets)
    profile = PROFILES.get(plan.profile)
    if profile is None:
        raise Refused(f"no profile is called {plan.profile!r}", hint=f"profiles are {', '.join(PROFILES)}", stage="policy")
    if plan.encrypt and not recipients:
        raise Refused(
            "the plan asks for encryption, and there is no certificate to encrypt to", hint="see mailsec cert list", stage="policy"
        )
    # Before a key is used: a recipient that cannot receive fails the copy.
    choice = choose(profile, recipients, limits) if plan.encrypt else None
    if plan.sign:
        entity = await _signed(message, plan, profile, signers, backend, random, work, at, limits)
    else:
        # RFC 8551 §3.1.2: a gateway may open it and send it on, so what is only encrypted is made transport-proof, too.
        entity = (await _prepared(message, (), backend, random, work, limits)).entity
    if choice is not None:
        certificates = list(dict.fromkeys(recipient.certificate for recipient in recipients))
        cms = await encrypt_content(
            entity, certificates, backend=backend, random=random, cipher=choice.cipher, transport=choice.transport, limits=limits
        )
        # RFC 8551 §3.2.2, §3.4.
        authenticated = CIPHERS[choice.cipher].authenticated
        entity = pkcs7_mime(cms, smime_type="authEnveloped-data" if authenticated else "enveloped-data")
    return with_content(message, entity)


async def _signed(
    message: Message,
    plan: ProtectionPlan,
    profile: Profile,
    signers: Sequence[KeyHandle],
    backend: CryptoBackend,
    random: Callable[[int], bytes],
    work: Work,
    at: datetime,
    limits: Limits,
) -> Segments:
    """The signed entity: multipart/signed, or application/pkcs7-mime."""
    if not signers:
        raise KeyUnavailable(f"no key is at hand to sign with as {plan.signer!r}", hint="see mailsec key list", stage="policy")
    prepared_signers = [signer_for(handle, profile) for handle in signers]
    names = tuple(dict.fromkeys(signer.digest for signer in prepared_signers))
    prepared = await _prepared(message, names, backend, random, work, limits)
    infos = [await sign_content(signer, prepared.digests[signer.digest], at=at) for signer in prepared_signers]
    if plan.form == "opaque" or not prepared.detachable:
        return pkcs7_mime(opaque(prepared.entity, prepared_signers, infos), smime_type="signed-data")
    return multipart_signed(prepared.entity, detached(prepared_signers, infos), micalg=micalg(names), boundary=prepared.boundary)


async def _prepared(
    message: Message, names: tuple[str, ...], backend: CryptoBackend, random: Callable[[int], bytes], work: Work, limits: Limits
) -> _Prepared:
    size = len(message)
    if size <= limits.bulk_threshold:
        return _prepare(message, names, backend, random, limits)
    return await work(size, _prepare, message, names, backend, random, limits)


def _prepare(message: Message, names: tuple[str, ...], backend: CryptoBackend, random: Callable[[int], bytes], limits: Limits) -> _Prepared:
    """Bring the content to its transport-proof form, and hash it: one pass where it is so already."""
    octets = message.octets
    part = read_parts(message, limits)
    header = content_header(message)
    start, end = part.body_start, part.end
    header_octets = BytesOctets(header)
    # RFC 8551 §3.1.3: what is 7-bit with short lines is signed as it stands.
    whole = Segments((header, Slice(octets, start, end)))
    if _header_survives(header) and labels_are_proof(part):
        check = LineCheck()
        found = _hashed(whole, names, backend, random, check, header_octets)
        if check.end():
            return found
    try:
        if not _header_survives(header):
            raise MimeError("the content's header is not transport-proof", stage="canonical")
        body, encoding = transport_proof_body(octets, part)
    except MimeError:
        # RFC 8551 §3.1: what may not be changed and would not survive is wrapped, where nothing can touch it.
        return _hashed(whole, names, backend, random, None, header_octets)._replace(detachable=False)
    header = content_header(message, encoding=encoding, ascii_body=encoding is None or encoding == "7bit")
    return _hashed(Segments((header, *body.pieces)), names, backend, random, None, BytesOctets(header))


def _header_survives(header: bytes) -> bool:
    """Blanks at the ends of folded lines are left alone by relays; everything else must be proof."""
    proof = b"\r\n".join([line.rstrip(b" \t") for line in header.split(b"\r\n")]) if b" \r\n" in header or b"\t\r\n" in header else header
    return span_is_proof(BytesOctets(proof), 0, len(proof))


def _hashed(
    entity: Segments,
    names: tuple[str, ...],
    backend: CryptoBackend,
    random: Callable[[int], bytes],
    check: LineCheck | None,
    header: BytesOctets,
) -> _Prepared:
    """Hash the entity, check its body's lines, and see that the boundary does not occur in it, in one go over its blocks."""
    for name in names:
        if not name:
            raise CryptoError("a signer without a digest")
    running: list[Hash] = [backend.hash(name) for name in names]
    drawn: list[bytes] = []

    def first(mark: bytes) -> bool:
        """Go over the octets with the first boundary that was drawn; only if it occurs, which chance forbids, over them again."""
        if drawn:
            return _occurs(entity, mark)
        drawn.append(mark)
        found = False
        last = b""
        skip = len(header)
        for block in entity:
            data = bytes(block)
            for digest in running:
                digest.update(data)
            if check is not None and check.ok:
                if skip:  # the header comes as one block of its own, and was checked
                    skip -= len(data)
                else:
                    check.update(data)
            found = found or mark in data or mark in last + data[: len(mark)]
            last = data[-len(mark) :]
        return found

    boundary = find_boundary(random, first)
    return _Prepared(entity, {name: digest.digest() for name, digest in zip(names, running, strict=True)}, boundary, True)


def _occurs(entity: Segments, mark: bytes) -> bool:
    last = b""
    for block in entity:
        data = last + bytes(block)
        if mark in data:
            return True
        last = data[-len(mark) :]
    return False
