"""Signing a message: detached (RFC 8551 §3.5.3) or opaque (§3.5.2), over its transport-proof form (§3.1); and encrypting it (§3.3, §3.4).

Awaits first, octets later: the content is read once to be checked and hashed, keys are awaited, and the octets are produced by whoever
writes them. The one invariant: what is produced holds exactly the octets that were hashed; where no form survives transport, the
signature is opaque, never over something else; and nothing of the content stands outside of what is encrypted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from mailsec.algorithms.ciphers import CIPHERS
from mailsec.algorithms.profiles import PROFILES, Profile
from mailsec.cms.compressed import compress
from mailsec.cms.encrypt import encrypt_content
from mailsec.cms.sign import Signer, detached, opaque, sign_content, signer_for
from mailsec.errors import KeyUnavailable, Refused
from mailsec.interfaces import CryptoBackend, KeyHandle, Scratch, Work
from mailsec.mime.multipart import content_header, micalg, multipart_signed, pkcs7_mime, with_content
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.message import Message
from mailsec.model.octets import Segments
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.smime.ciphers_for import Choice, choose
from mailsec.smime.header_protection import Protected, protect_header
from mailsec.smime.prepared import HeaderInside, Prepared, hashed, prepare

__all__ = ["protect_message"]

T = TypeVar("T")


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
    scratch: Callable[[], Scratch] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Segments:
    """Return the message as `plan` wants it: signed by all of `signers`, then encrypted to all of `recipients`, in one copy for them.

    Each recipient can see who the others are: whoever must stay hidden (Bcc) gets a call of its own. What is compressed goes through a
    `scratch`. Raises Refused where the plan is a refusal or asks for what cannot be done, KeyUnavailable (temporary) and CryptoError from
    the keys, LimitExceeded for a message over the limits. It never returns less protection than the plan asks for (promise 2).
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
    if plan.wrap == "triple" and not (plan.sign and plan.encrypt):
        raise Refused("a triple wrap is signed and encrypted", hint='ask for both, or for "sign" as the wrap', stage="policy")
    if plan.encrypt and (line := _no_field(message)):
        # Attack, or a program that forgets the empty line: readers show it as the beginning of the text, and it would stay outside.
        text = f"line {line} of the header is no header field, and would stay readable outside of what is encrypted"
        raise Refused(text, hint="the sending program must end the header with an empty line", stage="canonical")
    # Before a key is used: a recipient that cannot receive fails the copy.
    choice = choose(profile, recipients, limits) if plan.encrypt else None
    protection = _Protection(message, plan, profile, signers, backend, random, work, at, limits)
    header = None
    if plan.header_protection != "no":
        header = protect_header(message, plan.header_protection, encrypted=plan.encrypt, limits=limits)
    inside = _content_header(message) if header is None else header.inside
    entity = await protection.signed(inside) if plan.sign else (await protection.prepared(inside, ())).entity
    if choice is not None:
        if plan.compress:
            entity = await protection.compressed(entity, scratch)
        entity = await protection.encrypted(entity, choice, recipients)
        if plan.wrap == "triple":
            entity = await protection.signed_again(entity)
    return _outside(message, entity, header)


def _no_field(message: Message) -> int:
    """The number of the first header line that is no field (RFC 5322 §2.2); 0 where there is none."""
    if all(field.name for field in message.fields):
        return 0
    number = 1
    for field in message.fields:
        raw = message.raw(field)
        # The first line of an mbox file says nothing of the text.
        if not field.name and not (number == 1 and raw.lstrip(b">").startswith(b"From ")):
            return number
        number += raw.count(b"\n")
    return 0


def _content_header(message: Message) -> HeaderInside:
    """The header inside where the message's own fields are not protected: what the content is, and nothing else."""

    def header(*, encoding: str | None = None, ascii_body: bool = True) -> bytes:
        return content_header(message, encoding=encoding, ascii_body=ascii_body)

    return header


def _outside(message: Message, entity: Segments, header: Protected | None) -> Segments:
    return with_content(message, entity) if header is None else with_content(message, entity, without=header.hidden, instead=header.instead)


@dataclass(slots=True)
class _Protection:
    """One message, one plan: each method puts one layer around an entity."""

    message: Message
    plan: ProtectionPlan
    profile: Profile
    handles: Sequence[KeyHandle]
    backend: CryptoBackend
    random: Callable[[int], bytes]
    work: Work
    at: datetime
    limits: Limits

    async def prepared(self, header: HeaderInside, names: Sequence[str]) -> Prepared:
        """The message's own entity. RFC 8551 §3.1.2: a gateway may open it and send it on, so what is only encrypted is transport-proof, too."""
        return await self.in_bulk(len(self.message), prepare, self.message, header, names, self.backend, self.random, self.limits)

    async def signed(self, header: HeaderInside) -> Segments:
        """multipart/signed, or application/pkcs7-mime, around the message's entity."""
        signers = self.signers()
        return await self._signature(await self.prepared(header, _digests(signers)), signers)

    async def signed_again(self, entity: Segments) -> Segments:
        """RFC 2634 §1.1: the signature around what is encrypted, which survives transport as it is."""
        signers = self.signers()
        prepared = await self.in_bulk(len(entity), hashed, entity, _digests(signers), self.backend, self.random)
        return await self._signature(prepared, signers)

    def signers(self) -> list[Signer]:
        if not self.handles:
            raise KeyUnavailable(f"no key is at hand to sign with as {self.plan.signer!r}", hint="see mailsec key list", stage="policy")
        return [signer_for(handle, self.profile) for handle in self.handles]

    async def _signature(self, prepared: Prepared, signers: Sequence[Signer]) -> Segments:
        infos = [await sign_content(signer, prepared.digests[signer.digest], at=self.at) for signer in signers]
        if self.plan.form == "opaque" or not prepared.detachable:
            return pkcs7_mime(opaque(prepared.entity, signers, infos), smime_type="signed-data")
        names = micalg(_digests(signers))
        return multipart_signed(prepared.entity, detached(signers, infos), micalg=names, boundary=prepared.boundary)

    async def compressed(self, entity: Segments, scratch: Callable[[], Scratch] | None) -> Segments:
        """RFC 8551 §3.6: compressed-data around an entity that it makes smaller; the entity itself where it does not."""
        if scratch is None:
            raise Refused("nothing is compressed without room for it", stage="policy")
        cms = await self.in_bulk(len(entity), compress, entity, scratch)
        # A reader with limits takes what shrinks beyond measure for a bomb.
        is_bomb = len(entity) > len(cms) * self.limits.decompressed_ratio // 2
        smaller = pkcs7_mime(cms, smime_type="compressed-data", name="smime.p7z")
        return entity if is_bomb or len(smaller) >= len(entity) else smaller

    async def encrypted(self, entity: Segments, choice: Choice, recipients: Sequence[EncryptionRecipient]) -> Segments:
        """RFC 8551 §3.3, §3.4: one copy for all of `recipients`."""
        certificates = list(dict.fromkeys(recipient.certificate for recipient in recipients))
        cms = await encrypt_content(
            entity,
            certificates,
            backend=self.backend,
            random=self.random,
            cipher=choice.cipher,
            transport=choice.transport,
            kem_digest=choice.kem_digest,
            limits=self.limits,
        )
        # RFC 8551 §3.2.2, §3.4.
        authenticated = CIPHERS[choice.cipher].authenticated
        return pkcs7_mime(cms, smime_type="authEnveloped-data" if authenticated else "enveloped-data")

    async def in_bulk(self, size: int, function: Callable[..., T], *arguments: Any) -> T:
        """Small work inline, since a thread hop costs more than it spares; large work where the caller has room for it."""
        if size <= self.limits.bulk_threshold:
            return function(*arguments)
        return await self.work(size, function, *arguments)


def _digests(signers: Sequence[Signer]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(signer.digest for signer in signers))
