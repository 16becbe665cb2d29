"""Seeds of the fuzzers: people, and what they signed and encrypted. The same people for the whole process."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mailsec.cms.compressed import compress
from mailsec.cms.encrypt import encrypt_content
from mailsec.cms.sign import certs_only, detached, opaque, sign_content, signer_for
from mailsec.interfaces import run_now
from mailsec.keys.files import pem, pem_blocks
from mailsec.keys.software import SoftwareBackend, SoftwareKey
from mailsec.mime.index import index_message
from mailsec.model.address import Address
from mailsec.model.octets import BytesOctets, Segments
from mailsec.model.protection import EncryptionRecipient, ProtectionPlan
from mailsec.smime.protect import protect_message
from mailsec.testing.memory import MemoryScratch
from mailsec.x509.issue import IssuedBy, issue_mail, make_ca, make_key, public_key_of

__all__ = ["AT", "CONTENT", "MAIL", "make_world", "vector_files", "vector_members", "work"]

AT = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
CONTENT = b"Content-Type: text/plain\r\n\r\nhello\r\n"
MAIL = b"From: Alice <alice@example.org>\r\nTo: bob@example.org\r\nSubject: =?utf-8?q?h=C3=A9?=\r\nMIME-Version: 1.0\r\n" + CONTENT
BACKEND = SoftwareBackend()
_VECTORS = Path(__file__).resolve().parents[3] / "shared" / "vectors"


async def work(cost: int, function: Callable[..., Any], *args: Any) -> Any:
    return function(*args)


def vector_files(*patterns: str, most: int = 60_000) -> list[bytes]:
    """Third-party test data of at most `most` octets, by patterns below ../shared/vectors; empty where the folder is absent."""
    paths = sorted({path for pattern in patterns for path in _VECTORS.glob(pattern) if path.is_file()})
    return [data for path in paths if len(data := path.read_bytes()) <= most]


def vector_members(archive: str, *, most: int = 4_000, every: int = 1) -> list[bytes]:
    """Each `every`-th member of at most `most` octets of a tar file below ../shared/vectors; empty where it is absent."""
    if not (_VECTORS / archive).exists():
        return []
    with tarfile.open(_VECTORS / archive) as tar:
        members = [member for member in tar if member.isfile() and member.size <= most]
        return [file.read() for member in members[::every] if (file := tar.extractfile(member)) is not None]


PEOPLE = Path(__file__).resolve().with_name("people.pem")
"""Keys and certificates of the people, the same ones on every machine: an input that broke something breaks it again elsewhere."""

_WHO = {
    "alice": ("ec-p256", ("alice@example.org", "älice@example.org"), "sign"),
    "rsa": ("rsa-2048", ("alice@example.org", "älice@example.org"), "sign"),
    "bob": ("ec-p256", ("bob@example.org",), "both"),
    "bob_rsa": ("rsa-2048", ("bob@example.org",), "both"),
}


def write_people() -> None:
    """Make new people: `python -m tests.fuzz.world`. What was found before may then break nothing any more."""
    key = make_key("ec-p256")
    ca = IssuedBy(make_ca(common_name="Fuzz CA", key=key, at=AT, random=os.urandom, domains=("example.org",)), key)
    blocks = [pem(ca.certificate, "CERTIFICATE"), pem(key, "PRIVATE KEY")]
    for kind, addresses, use in _WHO.values():
        key = make_key(kind)
        parsed = [Address.parse(one) for one in addresses]
        certificate = issue_mail(ca, addresses=parsed, public_key=public_key_of(key), at=AT, random=os.urandom, usage=use)
        blocks += [pem(certificate, "CERTIFICATE"), pem(key, "PRIVATE KEY")]
    PEOPLE.write_bytes(b"For tests only: nobody's keys.\n" + b"".join(blocks))


def _people() -> tuple[IssuedBy, dict[str, SoftwareKey]]:
    blocks = [block.data for block in pem_blocks(PEOPLE.read_bytes())]
    pairs = list(zip(blocks[::2], blocks[1::2], strict=True))
    people = {
        name: SoftwareKey(_WHO[name][1][0], key, certificate=certificate, chain=(pairs[0][0],))
        for name, (certificate, key) in zip(_WHO, pairs[1:], strict=True)
    }
    return IssuedBy(*pairs[0]), people


def _protect(data: bytes, plan: ProtectionPlan, signer: SoftwareKey, *recipients: SoftwareKey) -> bytes:
    return run_now(
        protect_message(
            index_message(BytesOctets(data)),
            plan,
            signers=[signer],
            recipients=[EncryptionRecipient(key.certificate) for key in recipients if key.certificate is not None],
            backend=BACKEND,
            random=os.urandom,
            work=work,
            at=AT,
            scratch=MemoryScratch,
        )
    ).join()


@cache
def make_world() -> SimpleNamespace:
    """A CA, Alice with two keys, Bob who receives, her CMS objects and her messages."""
    ca, people = _people()
    alice, rsa, bob, bob_rsa = people.values()

    def info(key: SoftwareKey) -> tuple:
        signer = signer_for(key)
        digest = BACKEND.hash(signer.digest)
        digest.update(CONTENT)
        return signer, run_now(sign_content(signer, digest.digest(), at=AT))

    def sealed(cipher: str, *keys: SoftwareKey) -> bytes:
        certificates = [key.certificate for key in keys if key.certificate is not None]
        return run_now(encrypt_content(Segments((CONTENT,)), certificates, backend=BACKEND, random=os.urandom, cipher=cipher)).join()

    signers, infos = zip(*(info(alice), info(rsa)), strict=True)
    cms = [
        opaque(Segments((CONTENT,)), signers[:1], infos[:1]).join(),
        opaque(Segments((CONTENT,)), signers, infos).join(),
        detached(signers[:1], infos[:1]),
        certs_only([ca.certificate]),
    ]
    encrypted = [sealed("aes-256-cbc", bob), sealed("aes-256-gcm", bob_rsa), sealed("aes-128-gcm", bob, bob_rsa)]
    detached_plan = ProtectionPlan(sign=True, signer="alice")
    opaque_plan = ProtectionPlan(sign=True, signer="alice", form="opaque")
    mails = [
        _protect(MAIL, detached_plan, alice),
        _protect(MAIL, opaque_plan, alice),
        _protect(_protect(MAIL, detached_plan, alice), opaque_plan, alice),
        _protect(MAIL, ProtectionPlan(sign=True, signer="alice", header_protection="sign"), alice),
    ]
    both = ProtectionPlan(sign=True, encrypt=True, signer="alice", profile="bsi-tr-02102", header_protection="baseline")
    sealed_mails = [
        _protect(MAIL, ProtectionPlan(encrypt=True), alice, bob),
        _protect(MAIL, both, alice, bob),
        _protect(MAIL, ProtectionPlan(sign=True, encrypt=True, signer="alice", wrap="triple", compress=True), alice, bob, bob_rsa),
    ]
    return SimpleNamespace(
        ca=ca,
        alice=alice,
        rsa=rsa,
        bob=bob,
        bob_rsa=bob_rsa,
        private=make_key("ec-p256"),
        cms=cms,
        encrypted=encrypted,
        compressed=compress(Segments((CONTENT * 5,)), MemoryScratch).join(),
        mails=mails,
        sealed_mails=sealed_mails,
        content=CONTENT,
        at=AT,
    )


if __name__ == "__main__":
    write_people()
