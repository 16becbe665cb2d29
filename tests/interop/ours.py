"""What mailsec does for a row: writes it, and reads what a peer wrote. By the public faces of the cores; no configuration, no files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mailsec.algorithms.profiles import PKCS1_V1_5, PROFILES, Profile
from mailsec.cms.compressed import compress, decompress, read_compressed_data
from mailsec.cms.decrypt import Opened, SecretKey, open_content
from mailsec.cms.encrypt import encrypt_content
from mailsec.cms.enveloped import read_enveloped_data
from mailsec.cms.sign import certs_only, detached, opaque, sign_content, signer_for
from mailsec.cms.signed import read_signed_data
from mailsec.cms.structure import describe
from mailsec.cms.verify import verify_signers
from mailsec.interfaces import run_now
from mailsec.keys.software import SoftwareBackend
from mailsec.mime.index import index_message
from mailsec.model.mechanism import TransportMechanism
from mailsec.model.octets import BytesOctets, Octets, Segments
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.model.trust import Anchor
from mailsec.model.verdict import SignerResult
from mailsec.smime.assess import assess
from mailsec.smime.protect import protect_message
from mailsec.smime.unprotect import unprotect_message
from mailsec.testing.memory import MemoryScratch
from tests.cms.people import AT, authority_der, person
from tests.interop.rows import CONTENT, ENTITY, PASSWORD, SECRET_KEY, SECRET_KEY_ID, SECTIONS, Row

__all__ = ["head", "read", "write"]

BACKEND = SoftwareBackend()


def write(row: Row) -> bytes:
    """The CMS object, or the message, that mailsec writes for this row."""
    if row.layers:
        return _protect(row)
    if row.form == "compressed":
        return compress(Segments((CONTENT,)), MemoryScratch).join()
    if row.form == "certs-only":
        return certs_only([authority_der(), *(_certificates(row))])
    return _sign(row) if row.signed else _encrypt(row)


def read(row: Row, cms: bytes) -> None:
    """Read what a peer wrote; AssertionError where that is not the content, or weak algorithms are not refused by default."""
    if row.layers:
        _unprotect(row, cms)
    elif row.form in ("digested", "authenticated", "certs-only"):
        told = describe(cms)
        assert told["type"] == {"digested": "DigestedData", "authenticated": "AuthenticatedData", "certs-only": "SignedData"}[row.form], (
            told
        )
        if row.form == "authenticated":
            assert [one["kind"] for one in told["recipients"]] == ["key-transport"] and told["content"]["octets"] == len(CONTENT), told
        assert row.form != "certs-only" or (told["signers"] == [] and told["certificates"]), told
    elif row.form == "compressed":
        assert _octets(decompress(read_compressed_data(cms), MemoryScratch)) == CONTENT
    elif row.signed:
        _verify(row, cms)
    else:
        _decrypt(row, cms)


def _certificates(row: Row) -> list[bytes]:
    return [certificate for kind in row.people if (certificate := person(kind).certificate) is not None]


def _octets(octets: Octets) -> bytes:
    return bytes(octets.view(0, len(octets)))


def _profile(row: Row) -> Profile:
    kind = "rsassa-pss" if row.padding == "pss" else "rsassa-pkcs1-v1_5"
    return replace(PROFILES["default"], rsa_kind=kind, rsa_digest=row.digest if row.people[0].startswith("rsa") else "sha256")


def _sign(row: Row) -> bytes:
    signers = [signer_for(person(kind), _profile(row)) for kind in row.people]
    infos = []
    for signer in signers:
        running = BACKEND.hash(signer.digest)
        running.update(CONTENT)
        infos.append(run_now(sign_content(signer, running.digest(), at=AT)))
    return detached(signers, infos) if row.form == "detached" else opaque(Segments((CONTENT,)), signers, infos).join()


def _verify(row: Row, cms: bytes) -> None:
    def results(content: bytes, profile: str) -> tuple[SignerResult, ...]:
        # NSS and others leave out certificates that the reader is expected to have.
        return verify_signers(
            read_signed_data(cms), (content,), backend=BACKEND, profile=PROFILES[profile], extra_certificates=_certificates(row)
        )

    signed = read_signed_data(cms)
    assert signed.detached == (row.form == "detached") and bool(signed.certificates) == (row.form != "no-certificates")
    found = results(CONTENT, "legacy" if row.legacy else "default")
    assert len(found) == len(row.people)
    assert all(result.intact for result in found), found
    assert not any(result.reasons for result in found), found
    assert not any(result.intact for result in results(CONTENT + b"!", "legacy"))
    if row.legacy:
        assert all(reason.code.startswith("weak-") for result in results(CONTENT, "default") for reason in result.reasons or [None])
    if row.form == "counter-signed":
        (signer,) = describe(cms)["signers"]
        assert [one["signature"] for one in signer["counter_signatures"]] == ["rsassa-pkcs1-v1_5"], signer


def _encrypt(row: Row) -> bytes:
    transport = PKCS1_V1_5
    if row.padding == "oaep":
        transport = TransportMechanism("rsaes-oaep", row.digest, row.mask_digest or row.digest, row.label)
    return run_now(
        encrypt_content(
            Segments((CONTENT,)), _certificates(row), backend=BACKEND, random=os.urandom, cipher=row.cipher, transport=transport
        )
    ).join()


def _decrypt(row: Row, cms: bytes) -> None:
    enveloped = read_enveloped_data(cms)

    def opened(kind: str, *, legacy: bool) -> Opened:
        given: dict[str, object] = {"allow_legacy": legacy}
        if row.how == "password":
            given["passwords"] = [b"wrong", PASSWORD.encode()]
        elif row.how == "shared-key":
            given["secret_keys"] = [SecretKey(SECRET_KEY, SECRET_KEY_ID)]
        elif row.form == "encrypted-data":
            given["secret_keys"] = [SecretKey(SECRET_KEY)]
        else:
            given["keys"] = [person(kind)]
        return run_now(open_content(enveloped, scratch=MemoryScratch, **given))

    for kind in row.people:
        found = opened(kind, legacy=row.legacy)
        assert found.content is not None, found.reasons
        assert _octets(found.content) == CONTENT
        assert found.algorithm == row.cipher or row.section == SECTIONS[3]
        if row.legacy:
            refused = opened(kind, legacy=False)
            assert refused.content is None
            assert [reason.code for reason in refused.reasons] == ["weak-cipher"]
    assert run_now(open_content(enveloped, [person("p384", 1)], scratch=MemoryScratch)).content is None


async def _work(cost: int, function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def head(row: Row) -> bytes:
    """The header of a message: its author is the signer."""
    address = f"{row.people[0]}-0@example.org".encode()
    return b"From: " + address + b"\r\nTo: " + address + b"\r\nSubject: x\r\nMIME-Version: 1.0\r\n"


def _protect(row: Row) -> bytes:
    key = person(row.people[0])
    assert key.certificate is not None
    plan = ProtectionPlan(
        sign=bool({"signed", "opaque"} & set(row.layers)),
        encrypt=bool({"enveloped", "auth-enveloped"} & set(row.layers)),
        signer=key.name,
        form="opaque" if "opaque" in row.layers else "detached",
        wrap="triple" if row.layers.count("signed") == 2 else "sign",
        compress="compressed" in row.layers,
        profile="fips-algorithms" if "auth-enveloped" in row.layers else "default",
    )
    return run_now(
        protect_message(
            index_message(BytesOctets(head(row) + ENTITY)),
            plan,
            signers=[key],
            recipients=[EncryptionRecipient(key.certificate)],
            backend=BACKEND,
            random=os.urandom,
            work=_work,
            at=AT,
            scratch=MemoryScratch,
        )
    ).join()


def _unprotect(row: Row, data: bytes) -> None:
    message = index_message(BytesOctets(data))
    result = run_now(unprotect_message(message, keys=[person(row.people[0])], backend=BACKEND, scratch=MemoryScratch, work=_work))
    types = {"signed": "signed-data", "opaque": "signed-data", "enveloped": "enveloped-data", "compressed": "compressed-data"}
    types["auth-enveloped"] = "auth-enveloped-data"
    assert [layer.type for layer in result.layers] == [types[layer] for layer in reversed(row.layers)], result
    assert [layer.detached for layer in result.layers] == [layer == "signed" for layer in reversed(row.layers)]
    assert result.text is not None, result.reasons
    assert result.text.split() == ENTITY.partition(b"\r\n\r\n")[2].decode().split()
    verdict = assess(result, message, anchors=[Anchor(authority_der())], intermediates=(), at=AT, backend=BACKEND)
    assert verdict.trusted == bool({"signed", "opaque"} & set(row.layers)), verdict.reasons
