"""Whether signatures are right over these octets (RFC 5652 §5.6): each signer alone, each no with its reason; no word about trust.

Reasons of the stage "integrity" make a signer not intact; those of the stages "parse" and "limits" too, where nobody can tell: what cannot
be computed with is neither right nor wrong. Those of the stage "policy" say that an intact signature is by an algorithm
or key that the profile does not accept: whoever judges trust must heed them. Invariant: `intact` is True only where a signature was
checked with the key of `certificate`, over attributes that name this content's digest and type, or over the content itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from mailsec.algorithms import table
from mailsec.algorithms.profiles import PROFILES, Profile
from mailsec.algorithms.public_keys import algorithm_parameters
from mailsec.asn1.reader import Element
from mailsec.asn1.writer import oid, set_of, to_der
from mailsec.cms import attributes as attrs
from mailsec.cms.signed import ID_DATA, SignedData, SignerInfo
from mailsec.errors import Asn1Error, CmsError, CryptoError, LimitExceeded, UnknownAlgorithm
from mailsec.interfaces import CryptoBackend
from mailsec.model.limits import DEFAULT_LIMITS, Limits
from mailsec.model.mechanism import SignatureMechanism
from mailsec.model.verdict import Reason, SignerResult
from mailsec.x509.certificate import Certificate, load_certificate
from mailsec.x509.names import Name

__all__ = ["SignatureChecks", "verify_signers"]

_HEAD_OCTETS: Final = 64 * 1024
_RSA_BITS_PER_CHECK: Final = 4096
_MESSAGE_DIGEST_OID: Final = oid(attrs.MESSAGE_DIGEST)


def verify_signers(
    signed: SignedData,
    content: Iterable[bytes | memoryview] | None,
    *,
    backend: CryptoBackend,
    extra_certificates: Sequence[bytes] = (),
    profile: Profile = PROFILES["default"],
    limits: Limits = DEFAULT_LIMITS,
    checks: SignatureChecks | None = None,
) -> tuple[SignerResult, ...]:
    """Check every signer of `signed`, in order.

    `content` is what was signed, where that is outside (multipart/signed); None takes the content within. Where both are there, they
    must be the same. `extra_certificates` are tried besides those of the message. `checks` is shared by all layers of one message.
    """
    checker = _Checker(signed, backend, extra_certificates, profile, limits, checks or SignatureChecks(limits))
    checker.read_content(content)
    return tuple(checker.result(info) for info in signed.signer_infos)


class SignatureChecks:
    """How many signatures may still be checked for one message. A large RSA key counts as several: cost grows with the square of its size."""

    __slots__ = ("left", "limits")

    def __init__(self, limits: Limits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self.left = limits.signature_checks

    def spend(self, certificate: Certificate) -> None:
        """Take one check with the certificate's key; raise LimitExceeded where none is left."""
        bits = certificate.bits if certificate.key_type.startswith("rsa") else 0
        self.left -= max(1, bits // _RSA_BITS_PER_CHECK) ** 2
        if self.left < 0:
            raise LimitExceeded("signature_checks", f"more than {self.limits.signature_checks} signature checks for one message")


class _Refused(Exception):
    """Why a signer is not intact; carries the reason out of the steps."""

    def __init__(self, code: str, message: str, hint: str = "", rfc: str = "RFC 5652 §5.6") -> None:
        super().__init__(message)
        self.reason = Reason(code, "integrity", message, hint, rfc)


class _Unchecked(Exception):
    """Why nobody here can tell whether a signer is intact."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.message)
        self.reason = reason


class _Facts:
    """What is known of one signer so far: the result's fields, also where a later step refuses."""

    __slots__ = ("capabilities", "certificate", "digest", "kind", "notes", "signing_time")

    def __init__(self) -> None:
        self.certificate: Certificate | None = None
        self.digest = ""
        self.kind = ""
        self.signing_time: datetime | None = None
        self.capabilities: bytes | None = None
        self.notes: list[Reason] = []


class _Checker:
    def __init__(
        self,
        signed: SignedData,
        backend: CryptoBackend,
        extra: Sequence[bytes],
        profile: Profile,
        limits: Limits,
        checks: SignatureChecks,
    ) -> None:
        self.signed = signed
        self.backend = backend
        self.profile = profile
        self.limits = limits
        self.certificates = [load_certificate(der) for der in dict.fromkeys((*signed.certificates, *extra))]
        self.checks = checks
        self.digests: dict[str, bytes] = {}
        self.missing = False
        self.differs = False
        self.head = b""
        self.whole: bytes | None = None

    # -- the content, once ------------------------------------------------------------------------------------------------

    def read_content(self, content: Iterable[bytes | memoryview] | None) -> None:
        """Hash the content with every digest that a signer uses, in one pass."""
        signed = self.signed
        names: dict[str, None] = {}
        whole = False
        for info in signed.signer_infos:
            if info.problem is None:
                try:
                    name = table.digest_of(info.digest_algorithm).name
                    # Signers beyond that are told so, one by one (`_check_content`).
                    if len(names) < self.limits.digests:
                        names[name] = None
                except (CryptoError, Asn1Error):
                    continue
                # RFC 8419 §3.2, RFC 9882 §3: without attributes such a signature is over the content itself.
                whole = whole or (info.signed_attributes is None and table.hashes_inside(info.signature_algorithm))
        if content is None:
            if signed.content is None:
                self.missing = True
                return
            content = signed.content_blocks()
        elif signed.content is not None:
            # A detached signature that brings a content of its own could show one and sign the other.
            self._compare(content, sorted(names))
            return
        running = [(name, self.backend.hash(name)) for name in names]
        kept: list[bytes] = []
        size = 0
        for block in content:
            if size < _HEAD_OCTETS:
                self.head += bytes(block[: _HEAD_OCTETS - size])
            for _, digest in running:
                digest.update(block)
            size += len(block)
            if whole and size <= self.limits.whole_content_octets:
                kept.append(bytes(block))
        self.digests = {name: digest.digest() for name, digest in running}
        if whole and size <= self.limits.whole_content_octets:
            self.whole = b"".join(kept)

    def _compare(self, outside: Iterable[bytes | memoryview], names: list[str]) -> None:
        running = [(name, self.backend.hash(name), self.backend.hash(name)) for name in {*names, "sha256"}]
        for block in outside:
            if len(self.head) < _HEAD_OCTETS:
                self.head += bytes(block[: _HEAD_OCTETS - len(self.head)])
            for _, digest, _ in running:
                digest.update(block)
        for block in self.signed.content_blocks():
            for _, _, digest in running:
                digest.update(block)
        pairs = {name: (one.digest(), other.digest()) for name, one, other in running}
        self.differs = any(one != other for one, other in pairs.values())
        self.digests = {name: one for name, (one, _) in pairs.items()}

    # -- one signer -------------------------------------------------------------------------------------------------------

    def result(self, info: SignerInfo) -> SignerResult:
        """Judge one signer."""
        if info.problem is not None:
            return SignerResult(False, None, "", "", "", None, (info.problem,))
        facts = _Facts()
        intact = False
        try:
            self._check(info, facts)
            intact = True
        except (_Refused, _Unchecked) as refused:
            facts.notes.insert(0, refused.reason)
        except (CryptoError, Asn1Error, CmsError, LimitExceeded) as error:
            code = f"limit-{error.limit.replace('_', '-')}" if isinstance(error, LimitExceeded) else "signature-unreadable"
            # RFC 7281 §3: an algorithm that is not known leaves it open whether the message was changed.
            stage = "limits" if isinstance(error, LimitExceeded) else "parse" if isinstance(error, UnknownAlgorithm) else "integrity"
            facts.notes.insert(0, Reason(code, stage, error.message, error.hint, "RFC 5652 §5.6"))
        return SignerResult(
            intact,
            None if facts.certificate is None else facts.certificate.der,
            info.signer_id,
            facts.digest,
            facts.kind,
            facts.signing_time,
            tuple(facts.notes),
            facts.capabilities,
        )

    def _check(self, info: SignerInfo, facts: _Facts) -> None:
        facts.digest = digest = table.digest_of(info.digest_algorithm).name
        # RFC 5652 §5.1: signatures by a digest algorithm that is not listed may be refused; no honest writer leaves it out.
        if digest not in self.signed.digests:
            raise _Refused("digest-not-listed", f"{digest} is not among the message's digest algorithms", rfc="RFC 5652 §5.1")
        found: attrs.Attributes | None = None
        if info.signed_attributes is not None:
            found = attrs.read_attributes(info.signed_attributes, limits=self.limits)
            facts.signing_time = found.time(attrs.SIGNING_TIME)
            capabilities = found.one(attrs.CAPABILITIES)
            facts.capabilities = None if capabilities is None else capabilities.encoding
        candidates = self._candidates(info)
        facts.certificate = candidates[0] if candidates else None
        if found is None:
            self._check_without_attributes(digest)
        else:
            self._check_attributes(info, found, digest)
            candidates = self._named(found, candidates)
        if not candidates:
            raise _Refused(
                "certificate-missing",
                f"the signer's certificate ({info.signer_id}) is not in the message",
                "import the certificate, or ask the sender to include it",
            )
        mechanism = self._verify(info, candidates, digest, facts)
        facts.notes += self._weaknesses(mechanism, digest, facts.certificate)

    def _candidates(self, info: SignerInfo) -> list[Certificate]:
        """Certificates that the SignerInfo names. Several may: a forged one must not hide the right one."""
        if info.key_id is not None:
            return [certificate for certificate in self.certificates if certificate.subject_key_id == info.key_id]
        same_serial = [one for one in self.certificates if one.readable and one.serial == info.serial]
        issuer = Name(info.issuer)
        return [one for one in same_serial if one.issuer.matches(issuer)]

    def _check_without_attributes(self, digest: str) -> None:
        # RFC 5652 §5.3: signed attributes are there where the content is not id-data.
        if self.signed.content_type != ID_DATA:
            raise _Refused(
                "signed-attributes-missing", f"content of type {self.signed.content_type} without signed attributes", rfc="RFC 5652 §5.3"
            )
        self._check_content(digest)
        # Without attributes the signature is over the content: the attributes of another message, sent as content, would verify
        # (draft-ietf-lamps-cms-euf-cma-signeddata). No mail begins like a SET with a message digest in it.
        if self.head[:1] == b"\x31" and _MESSAGE_DIGEST_OID in self.head:
            raise _Refused("content-is-attributes", "the content is the signed attributes of another message", rfc="RFC 5652 §14")

    def _check_content(self, digest: str) -> None:
        if self.missing:
            raise _Refused("content-missing", "the signature is detached and its content is not here", "give the content")
        if digest not in self.digests:
            raise LimitExceeded("digests", f"the content is hashed with {self.limits.digests} different digests at most")
        if self.differs:
            raise _Refused("content-differs", "the signature carries another content than the one beside it")

    def _check_attributes(self, info: SignerInfo, found: attrs.Attributes, digest: str) -> None:
        # RFC 5652 §11.1 to §11.3: these stand exactly once with exactly one value.
        for kind in found.repeated:
            raise _Refused("attribute-repeated", f"signed attribute {kind} stands more than once", rfc="RFC 5652 §11")
        content_type = found.oid(attrs.CONTENT_TYPE)
        if content_type is None:
            raise _Refused("content-type-missing", "the signed attributes do not name the content type", rfc="RFC 5652 §11.1")
        if content_type != self.signed.content_type:
            raise _Refused(
                "content-type-differs",
                f"signed as content type {content_type}, sent as {self.signed.content_type}",
                rfc="RFC 5652 §11.1",
            )
        expected = found.octets(attrs.MESSAGE_DIGEST)
        if expected is None:
            raise _Refused("message-digest-missing", "the signed attributes hold no message digest", rfc="RFC 5652 §11.2")
        protection = found.one(attrs.ALGORITHM_PROTECTION)
        if protection is not None:
            digest_algorithm, signature_algorithm = attrs.protected_algorithms(protection)
            # RFC 6211 §2.1: both must be the ones in the SignerInfo.
            if not attrs.same_algorithm(info.digest_algorithm, digest_algorithm) or not attrs.same_algorithm(
                info.signature_algorithm, signature_algorithm
            ):
                raise _Refused("algorithms-exchanged", "the algorithms are not those that the signer protected", rfc="RFC 6211 §2.1")
        self._check_content(digest)
        if self.digests[digest] != expected:
            raise _Refused(
                "digest-differs",
                "the content was changed after it was signed",
                "ask the sender to send it again; a mailing list or filter on the way may have changed it",
            )

    def _named(self, found: attrs.Attributes, candidates: list[Certificate]) -> list[Certificate]:
        """Those that the signing-certificate attributes allow (RFC 5035 §3, §5)."""
        for version, kind in ((2, attrs.SIGNING_CERTIFICATE_V2), (1, attrs.SIGNING_CERTIFICATE)):
            value = found.one(kind)
            if value is None or not candidates:
                continue
            name, expected, serial = attrs.certificate_hash(value, version)
            allowed = []
            for certificate in candidates:
                if self._hash_of(certificate, name) == expected and serial in (None, certificate.serial):
                    allowed.append(certificate)
            if not allowed:
                # RFC 5035 §5.4: otherwise somebody exchanged the certificate.
                raise _Refused("certificate-exchanged", "the certificate is not the one that the signer named", rfc="RFC 5035 §5.4")
            candidates = allowed
        return candidates

    def _hash_of(self, certificate: Certificate, digest: str) -> bytes:
        if digest == "sha256":
            return certificate.fingerprint
        running = self.backend.hash(digest)
        running.update(certificate.der)
        return running.digest()

    def _verify(self, info: SignerInfo, candidates: list[Certificate], digest: str, facts: _Facts) -> SignatureMechanism:
        """Check the signature with the candidates' keys; return the mechanism of the one that made it."""
        error: CryptoError | Asn1Error | None = None
        tried: list[tuple[Certificate, SignatureMechanism]] = []
        for certificate in candidates:
            try:
                mechanism = table.signature_mechanism(digest, info.signature_algorithm, certificate.key_type)
            except (CryptoError, Asn1Error) as caught:
                error = caught
                continue
            facts.kind = mechanism.kind
            if mechanism.kind == "dsa":
                _check_dsa_parameters(certificate)
            if self._is_signed_by(info, certificate, mechanism, digest, facts):
                facts.certificate = certificate
                return mechanism
            tried.append((certificate, mechanism))
        if error is not None and not facts.kind:
            raise error
        for certificate, mechanism in tried:
            self._check_key(certificate, mechanism)
        raise _Refused(
            "signature-wrong",
            "the signature is not one of this certificate's key over these octets",
            "the message or its signature was changed",
        )

    def _check_key(self, certificate: Certificate, mechanism: SignatureMechanism) -> None:
        # A signature that nobody here can compute with is not a wrong one: its message may be as it was signed.
        try:
            self.backend.check_key(certificate.spki, mechanism)
        except CryptoError as error:
            message = f"the signature cannot be checked: {error.message}"
            raise _Unchecked(Reason("key-unsupported", "parse", message, error.hint, "RFC 7281 §3")) from None

    def _is_signed_by(self, info: SignerInfo, certificate: Certificate, mechanism: SignatureMechanism, digest: str, facts: _Facts) -> bool:
        if info.signed_attributes is None:
            if mechanism.digest:
                return self._try(certificate, replace(mechanism, prehashed=True), info.signature, self.digests[digest])
            if self.whole is None:
                raise _Refused(
                    "content-too-large",
                    f"{mechanism.kind} without signed attributes over more than {self.limits.whole_content_octets} octets",
                )
            return self._try(certificate, mechanism, info.signature, self.whole)
        # RFC 5652 §5.4: the attributes are signed with the tag of a SET OF in place of [0], DER encoded; first as they were received.
        received = b"\x31" + info.signed_attributes.encoding[1:]
        if self._try(certificate, mechanism, info.signature, received):
            return True
        encoded = _set_der(info.signed_attributes)
        if encoded != received and self._try(certificate, mechanism, info.signature, encoded):
            facts.notes.append(
                Reason(
                    "attributes-not-der",
                    "parse",
                    "the signed attributes were sent in another encoding than they were signed in",
                    rfc="RFC 5652 §5.3",
                )
            )
            return True
        return False

    def _try(self, certificate: Certificate, mechanism: SignatureMechanism, signature: bytes, data: bytes) -> bool:
        self.checks.spend(certificate)
        return self.backend.verify(certificate.spki, mechanism, signature, data)

    def _weaknesses(self, mechanism: SignatureMechanism, digest: str, certificate: Certificate | None) -> list[Reason]:
        key_type, bits = (certificate.key_type, certificate.bits) if certificate is not None else ("", 0)
        reason, other = self.profile.accepts(mechanism, key_type, bits), self.profile.accepts_digest(digest)
        return [one for one in dict.fromkeys((reason, other)) if one is not None] if reason or other else []


def _check_dsa_parameters(certificate: Certificate) -> None:
    # RFC 3279 §2.3.2: a DSA key may inherit its parameters from its issuer. Taken from a certificate that nobody has validated yet, they
    # could be chosen so that anybody can sign: such keys are refused, with their own reason.
    if algorithm_parameters(certificate.spki) is None:
        raise _Refused(
            "key-parameters-missing", "a DSA key that inherits its parameters", "the sender should use another key", "RFC 3279 §2.3.2"
        )


def _set_der(attributes: Element) -> bytes:
    """The attributes as a SET OF in DER, as the signer should have encoded them."""
    return set_of(*(to_der(member) for member in attributes.children()))
