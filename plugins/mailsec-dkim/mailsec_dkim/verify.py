"""The signatures of a message, verified (RFC 6376 §6): keys first, then one pass over the body, then each value.

The one invariant: whatever a message, its author or a DNS server does, this ends in results, in linear time and bounded look-ups; that
somebody cannot be asked is a result ("temperror") and stops no mail.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from mailsec.errors import MailsecError
from mailsec.interfaces import Runtime
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.addresses import mailboxes
from mailsec.mime.index import index_message
from mailsec.model.limits import Limits
from mailsec.model.mechanism import SignatureMechanism
from mailsec.model.message import HeaderField, Message
from mailsec.model.octets import Octets
from mailsec_dkim.canonical import BodyDigest, digest_bodies
from mailsec_dkim.record import PublicKey, choose_key
from mailsec_dkim.result import FAIL, NONE, PASS, PERMERROR, POLICY, TEMPERROR, Fault, Result
from mailsec_dkim.signature import Signature, read_signature
from mailsec_dkim.signed_data import header_data

__all__ = ["author_domain", "verify_message"]

_RSA = SignatureMechanism("rsassa-pkcs1-v1_5", "sha256")
_ED25519 = SignatureMechanism("ed25519")
_BACKEND = SoftwareBackend()


_ONCE = (
    "from", "sender", "reply-to", "to", "cc", "message-id", "in-reply-to", "references", "subject", "date", "mime-version", "content-type",
    "content-transfer-encoding",
)  # fmt: skip
"""RFC 5322 §3.6, RFC 2045 §3: fields of which a message has one at most."""


@dataclass(slots=True)
class _Candidate:
    """One field on its way to a result."""

    field: HeaderField
    signature: Signature | None = None
    key: PublicKey | None = None
    fault: Fault | None = None

    def fail(self, fault: Fault) -> None:
        self.fault = self.fault or fault


async def verify_message(octets: Octets, runtime: Runtime, limits: Limits, *, most: int, dns_seconds: float) -> list[Result]:
    """A result for each of the first `most` signatures, one more that says so where there are others, or the one "none".

    `dns_seconds` is for all look-ups together. Raise LimitExceeded for a header over the limits.
    """
    message = index_message(octets, limits)
    found = message.all("dkim-signature")
    if not found:
        return [Result(NONE, "none", "the message has no DKIM signature")]
    now = int(runtime.now().timestamp())
    candidates = [_Candidate(field) for field in found[:most]]
    for one in candidates:
        try:
            one.signature = read_signature(bytes(octets.view(one.field.value_start, one.field.end)))
        except Fault as fault:
            one.fail(fault)
        else:
            if one.signature.expires_at is not None and one.signature.expires_at < now:
                one.fail(Fault(POLICY, "expired", "the signature has expired"))
    await _fetch_keys(candidates, runtime, dns_seconds)
    await _check_bodies(message, candidates, runtime, limits)
    domain = author_domain(message, limits)
    results = [_result(message, one, domain) for one in candidates]
    if len(found) > most:
        text = f"the message has {len(found)} DKIM signatures; the first {most} were looked at"
        results.append(Result(PERMERROR, "too-many", text))
    return results


def author_domain(message: Message, limits: Limits) -> str:
    """The domain of the one From address, in lower case A-labels; "" where there is none, or doubt."""
    fields = message.all("from")
    if len(fields) != 1:
        return ""
    read = mailboxes(message.value(fields[0]), limits)
    return read.addresses[0].domain_key if len(read.addresses) == 1 and not read.problems else ""


async def _fetch_keys(candidates: Sequence[_Candidate], runtime: Runtime, seconds: float) -> None:
    """Ask for each name once, all at the same time."""
    wanted: dict[str, list[_Candidate]] = {}
    for one in candidates:
        if one.signature is not None:
            wanted.setdefault(one.signature.record, []).append(one)

    async def ask(name: str) -> None:
        records: Sequence[object] = ()
        fault: Fault | None = None
        try:
            records = await runtime.within(seconds, runtime.resolve(name, "TXT"))
        except (MailsecError, TimeoutError) as error:
            fault = Fault(TEMPERROR, "temperror", f"the key at {name} cannot be had now: {error}")
        for one in wanted[name]:
            if fault is not None:
                one.fail(fault)
                continue
            assert one.signature is not None
            try:
                one.key = choose_key(records, one.signature)
            except Fault as error:
                one.fail(error)

    await runtime.gather([ask(name) for name in wanted])


async def _check_bodies(message: Message, candidates: Sequence[_Candidate], runtime: Runtime, limits: Limits) -> None:
    """Promise 9: one pass, however many signatures."""
    digests: dict[tuple[bool, int | None], BodyDigest] = {}
    for one in candidates:
        if one.key is not None and one.signature is not None:
            form = (one.signature.relaxed_body, one.signature.length)
            digests.setdefault(form, BodyDigest(relaxed=form[0], limit=form[1]))
    if not digests:
        return
    size = len(message.octets) - message.body_start

    def compute() -> list[bytes]:
        return digest_bodies(message.octets.blocks(message.body_start), digests.values())

    values = await runtime.in_thread(compute, lane="bulk") if size > limits.bulk_threshold else compute()
    computed = dict(zip(digests, values, strict=True))
    for one in candidates:
        if one.key is None or one.signature is None:
            continue
        form = (one.signature.relaxed_body, one.signature.length)
        length = digests[form].length
        if computed[form] != one.signature.body_hash or (form[1] is not None and form[1] > length):
            one.fail(Fault(FAIL, "body-changed", "the body was changed after it was signed"))
        elif form[1] is not None and form[1] < length:
            # Attack (RFC 6376 §8.2): somebody has put more behind what was signed, and readers show that.
            one.fail(Fault(POLICY, "partial", f"only the first {form[1]} of {length} octets of the body are signed"))


def _result(message: Message, one: _Candidate, domain: str) -> Result:
    signature = one.signature
    if signature is None:
        assert one.fault is not None
        return Result(one.fault.word, one.fault.code, one.fault.message)
    fault = one.fault or _added(message, signature)
    if one.key is not None and (fault is None or fault.word == POLICY) and not _is_right(message, one.field, signature, one.key):
        fault = Fault(FAIL, "signature-wrong", "a signed header field was changed, or the key is another one")
    # a key at "_domainkey.org" speaks for nobody's addresses below "org"
    aligned = "." in signature.domain and (domain == signature.domain or domain.endswith("." + signature.domain))
    word, code, text = (PASS, "pass", f"signed by {signature.domain}") if fault is None else (fault.word, fault.code, fault.message)
    return Result(
        word,
        code,
        text,
        signature.domain,
        signature.selector,
        signature.algorithm,
        signature.identity,
        signature.label,
        one.key.bits if one.key is not None else 0,
        one.key is not None and one.key.testing,
        aligned,
    )


def _added(message: Message, signature: Signature) -> Fault | None:
    """Attack (RFC 6376 §8.15): on top of what was signed stands another From or Subject, and readers show that one."""
    for name in _ONCE:
        there = len(message.all(name))
        if there > 1 and there > signature.fields.count(name):
            return Fault(POLICY, "added", f"there are {there} fields {name}, and not all of them are signed")
    return None


def _is_right(message: Message, field: HeaderField, signature: Signature, key: PublicKey) -> bool:
    raw = message.raw(field)
    begins = field.value_start - field.start
    own = raw[: begins + signature.b.start] + raw[begins + signature.b.end :]
    data = header_data(message, signature.fields, own, relaxed=signature.relaxed_header)
    if signature.algorithm == "ed25519-sha256":
        # RFC 8463 §3: Ed25519 signs the SHA-256 digest
        return _BACKEND.verify(key.spki, _ED25519, signature.signature, hashlib.sha256(data).digest())
    return _BACKEND.verify(key.spki, _RSA, signature.signature, data)
